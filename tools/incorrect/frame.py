"""Coordinates on a face that do not depend on the photograph: eyes level at v = 0, mouth at v = 1.

In this frame, u runs across and v down, both in units of the distance from the point between the eyes to the point
between the corners of the mouth. The tip of a nose lies near v = 0.57, a chin near 1.75.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Floats = NDArray[np.floating[Any]]

SIDE = 160
"""Height and width of the frame in pixels."""
UNIT = 40.0
"""Pixels of the frame in one unit."""
EYES = (79.5, 48.0)
"""Where the point between the eyes is, x and y in pixels of the frame."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

U, V = np.meshgrid((np.arange(SIDE) - EYES[0]) / UNIT, (np.arange(SIDE) - EYES[1]) / UNIT)
"""Coordinates of each pixel of the frame, float64 ``(SIDE, SIDE)`` each."""

SKIN = (np.abs(U) < 0.62) & (V > -0.3) & (V < 0.22)
"""The area around the eyes, which a mask leaves free and by which faces are compared."""

_LEAST_LENGTH_PX = 6.0


def axes(landmarks: Floats) -> tuple[Floats, Floats, Floats]:
    """The frame's origin and its unit vectors along u and v, in the image's pixels.

    Args:
        landmarks: ``(5, 2)``: eyes, tip of the nose, corners of the mouth; the left of each pair first.
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    down = mouth - eyes
    return eyes, np.array([down[1], -down[0]]), down


def length(landmarks: Floats) -> float:
    """One unit of the frame, in the image's pixels."""
    return float(np.hypot(*axes(landmarks)[2]))


def turn(landmarks: Floats) -> float:
    """How far a head is turned to one side: u of the tip of its nose."""
    return float(coordinates(landmarks, landmarks[2])[0])


def coordinates(landmarks: Floats, points: Floats) -> tuple[Floats, Floats]:
    """Coordinates u and v of points in the image, ``(…, 2)``."""
    origin, across, down = axes(landmarks)
    offset, square = points - origin, down @ down
    return offset @ across / square, offset @ down / square


def to_image(landmarks: Floats, u: Floats, v: Floats) -> Floats:
    """The points in the image at u and v, ``(…, 2)``."""
    origin, across, down = axes(landmarks)
    return np.asarray(origin + u[..., np.newaxis] * across + v[..., np.newaxis] * down)


def pixel_coordinates(landmarks: Floats, height: int, width: int) -> tuple[Floats, Floats]:
    """Coordinates u and v of every pixel of an image, ``(height, width)`` each."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    return coordinates(landmarks, np.stack([x, y], axis=-1))


def in_frame(u: Floats, v: Floats) -> list[Floats]:
    """Rows and columns, in the frame, of places on a face, as ``ndimage.map_coordinates`` takes them."""
    return [v * UNIT + EYES[1], u * UNIT + EYES[0]]


def sampled(image: Floats, places: list[Floats]) -> Floats:
    """Pixels of an image at rows and columns, float ``(height, width, channels)``; edges are repeated."""
    channels = [
        ndimage.map_coordinates(image[..., channel], places, order=1, mode="nearest")
        for channel in range(image.shape[2])
    ]
    return np.stack(channels, axis=-1)


def canonical(image: Image.Image | Floats, landmarks: Floats) -> Floats:
    """A photograph's face in the frame, float RGB ``(SIDE, SIDE, 3)``; larger faces are blurred before shrinking."""
    pixels = np.asarray(image, np.float32).clip(0, 255)
    shrinkage = length(landmarks) / UNIT
    if shrinkage > 1.3:
        pixels = ndimage.gaussian_filter(pixels, (0.42 * shrinkage, 0.42 * shrinkage, 0))
    place = to_image(landmarks, U, V)
    return sampled(pixels, [place[..., 1], place[..., 0]])


def usable(landmarks: Floats) -> bool:
    """Whether landmarks are those of a face that is neither tiny nor in profile, with eyes across its axis."""
    _, _, down = axes(landmarks)
    between = landmarks[1] - landmarks[0]
    apart, unit = float(np.hypot(*between)), float(np.hypot(*down))
    if unit <= _LEAST_LENGTH_PX:
        return False
    return bool(0.45 < apart / unit < 1.9 and abs(float(between @ down)) < 0.35 * apart * unit)


def sharpness(face: Floats) -> float:
    """How much fine detail a face in the frame has around the eyes, relative to the contrast there."""
    grey = face @ LUMA
    detail = np.abs(ndimage.laplace(ndimage.gaussian_filter(grey, 0.6)))
    return float(detail[SKIN].mean()) / (float(grey[SKIN].std()) + 8.0)
