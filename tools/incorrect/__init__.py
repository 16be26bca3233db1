"""Masks worn incorrectly: makes training images from photographs, and fits the model that recognises them."""
