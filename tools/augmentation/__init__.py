"""Synthetic augmentation: new training images from others."""
