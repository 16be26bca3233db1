"""An image to its faces: looks, detectors, crops."""
