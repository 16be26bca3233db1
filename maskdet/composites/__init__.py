"""Training images made of training images: what photographs show too rarely."""
