"""maskdet: distributed batch scoring of face images for masks, and compliance tables from the result."""

__version__ = "0.1.0"
