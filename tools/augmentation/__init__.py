"""Synthetic augmentation: training images of training images."""
