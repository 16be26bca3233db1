"""From an image to its faces: looks, detectors, crops."""
