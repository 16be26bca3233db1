"""Backends: libraries that run a bundle's model on blocks of images."""

from maskdet.model.backends.base import Backend, BackendType, Images, Probabilities, RuntimeSpec
from maskdet.model.backends.loading import Model, load_model

__all__ = ["Backend", "BackendType", "Images", "Model", "Probabilities", "RuntimeSpec", "load_model"]
