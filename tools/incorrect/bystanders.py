"""Things other than masks in front of a face, taken from photographs: a head, clothing, a collar, somebody at its side.

Bare faces whose chins are hidden by such things are the most likely to be taken for masks worn incorrectly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from tools.incorrect.frame import LUMA, Floats, in_frame, length, pixel_coordinates, sampled

_SHARES = {"head": 0.35, "cloth": 0.3, "collar": 0.2, "side": 0.15}


def hide_part(
    face: Floats, landmarks: Floats, heads: Sequence[Floats], cloths: Sequence[Floats], rng: np.random.Generator
) -> Floats:
    """Put something in front of the lower edge or a side of a face.

    Args:
        face: float32 RGB ``(height, width, 3)``.
        landmarks: landmarks of the face, ``(5, 2)``.
        heads: other faces, in the frame of :mod:`tools.incorrect.frame`.
        cloths: patches of clothing, float RGB.
        rng: decides what, where and how sharp.

    Returns:
        float RGB ``(height, width, 3)``.
    """
    u, v = pixel_coordinates(landmarks, *face.shape[:2])
    unit_px = length(landmarks)
    kind = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    soft = max(1.0 / unit_px, rng.uniform(0.02, 0.07))
    if kind in ("head", "side"):
        alpha, colour = _head(u, v, kind, heads, soft, rng)
    else:
        alpha, colour = _cloth(u, v, kind, cloths, soft, rng)
        colour = colour * np.clip((face @ LUMA).mean() / max(20.0, (colour @ LUMA).mean()), 0.5, 1.5) ** 0.4
        shadow = ndimage.gaussian_filter(alpha, 0.12 * unit_px) * (1 - alpha)
        face = face * (1 - rng.uniform(0, 0.4) * shadow)[..., np.newaxis]
    if rng.random() < 0.4:
        blur_px = 0.06 * unit_px * rng.random()
        colour = ndimage.gaussian_filter(colour, (blur_px, blur_px, 0))
    return np.asarray(face * (1 - alpha[..., np.newaxis]) + colour.clip(0, 255) * alpha[..., np.newaxis])


def _head(
    u: Floats, v: Floats, kind: str, heads: Sequence[Floats], soft: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """The oval of another head, below the face or beside it."""
    head = heads[int(rng.integers(len(heads)))]
    if kind == "head":
        size = rng.uniform(0.8, 1.5)
        across, top = rng.normal(0, 0.6), rng.uniform(0.75, 1.5)
        down = top + 1.15 * size
    else:
        size = rng.uniform(0.8, 1.2)
        across, down = rng.choice([-1, 1]) * rng.uniform(1.55, 2.1), rng.uniform(-0.3, 1.2)
    x, y = (u - across) / size, (v - down) / size
    radius = np.sqrt((x / 1.25) ** 2 + (y / 1.5) ** 2)
    return _inside(1 - radius, soft), sampled(head, in_frame(x, y + 0.35))


def _cloth(
    u: Floats, v: Floats, kind: str, cloths: Sequence[Floats], soft: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Cloth below an edge that crosses the chin, rises to one side, or opens at the neck."""
    cloth = cloths[int(rng.integers(len(cloths)))]
    level = rng.random() < 0.7 or kind == "collar"
    angle = rng.normal(0, 0.25) if level else rng.choice([-1, 1]) * rng.uniform(0.6, 1.4)
    x, y = u, v - 0.9
    x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    if kind == "collar":
        edge = rng.uniform(0.85, 1.1) - rng.uniform(-0.2, 0.6) * np.abs(x - rng.normal(0, 0.1))
    else:
        folds = rng.uniform(0, 0.08) * np.sin(x * rng.uniform(2, 6) + rng.uniform(0, 6))
        edge = rng.uniform(-0.05, 0.65) + rng.normal(0, 0.15) * x**2 + folds
    colour = sampled(cloth, _mirrored(x, y, cloth, rng))
    if rng.random() < 0.35:
        colour = colour * 0.35 + rng.choice([235.0, 215.0, 40.0, 90.0]) * 0.65
    return _inside(y - edge, soft), colour


def _mirrored(x: Floats, y: Floats, cloth: Floats, rng: np.random.Generator) -> list[Floats]:
    """Rows and columns of a cloth that is mirrored and repeats."""
    scale, places = rng.uniform(20, 60), []
    for along, size in ((y, cloth.shape[0]), (x, cloth.shape[1])):
        place = (along * scale + rng.uniform(0, size)) % size
        places.append(np.abs(place % (2 * size) - size).clip(0, size - 1))
    return places


def _inside(distance: Floats, soft: float) -> Floats:
    return np.asarray(1 / (1 + np.exp(np.clip(-distance / soft * 1.2, -50, 50))))
