"""An image to its faces: detector, tiling, crops."""
