"""A model file of one's own to a bundle: inspected without running it, its meaning declared, its graph completed."""
