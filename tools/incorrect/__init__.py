"""Masks worn incorrectly: training images made of photographs, and the fit of the model that knows of them."""
