"""From a user's model file to a bundle: inspected without running it, its meaning declared, its graph completed."""
