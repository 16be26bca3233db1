"""Drawn faces for tests, with skin, eyes and a mask of another colour in known places."""

import numpy as np
from PIL import Image

from tools.incorrect.frame import pixel_coordinates

SKIN, MASK, GROUND = (205.0, 160.0, 130.0), (70.0, 130.0, 215.0), (60.0, 90.0, 60.0)
LANDMARKS = np.array([[76.0, 80.0], [124.0, 80.0], [100.0, 107.0], [82.0, 128.0], [118.0, 128.0]])
SIZE = 200


def bare(seed=0):
    """float32 ``(200, 200, 3)``."""
    u, v = pixel_coordinates(LANDMARKS, SIZE, SIZE)
    pixels = np.empty((SIZE, SIZE, 3), np.float32)
    pixels[:] = GROUND
    pixels[(u / 1.1) ** 2 + ((v - 0.5) / 1.4) ** 2 < 1] = SKIN
    for eye in (-0.5, 0.5):
        pixels[(u - eye) ** 2 + v**2 < 0.01] = 30
    pixels[(u**2 / 0.1 + (v - 1) ** 2 / 0.005) < 1] = (150, 60, 60)
    return (pixels + np.random.default_rng(seed).normal(0, 4, pixels.shape)).clip(0, 255).astype(np.float32)


def worn():
    """Where the mask of :func:`masked` is."""
    u, v = pixel_coordinates(LANDMARKS, SIZE, SIZE)
    return (v > 0.35) & (v < 1.75) & (np.abs(u) < 0.95 - 0.35 * np.clip(v - 1, 0, 1))


def masked(seed=0):
    pixels = bare(seed)
    pixels[worn()] = MASK + np.random.default_rng(seed + 1).normal(0, 4, (worn().sum(), 3))
    return pixels.clip(0, 255).astype(np.float32)


def picture(pixels):
    return Image.fromarray(pixels.astype(np.uint8))
