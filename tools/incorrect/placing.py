"""Put a mask that was cut out of a photograph on a face: correctly, below the nose, on the chin, or on one ear."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from tools.incorrect.frame import (
    LUMA,
    SKIN,
    UNIT,
    Floats,
    canonical,
    in_frame,
    length,
    pixel_coordinates,
    sampled,
    sharpness,
    to_image,
)
from tools.incorrect.mattes import Matte

Kind = Literal["right", "nose", "chin", "ear"]
"""Over nose and mouth; below the nose; on or under the chin; hanging from one ear."""

_STRAP_SCALE = 3
_EAR_SIZE = 0.8


class Place(NamedTuple):
    """Where a mask goes."""

    kind: Kind
    top: float
    """v of its upper edge along the middle of the face."""
    bottom: float
    wide: float
    """Its width relative to its width in its own photograph."""
    sag: float
    """How much lower its middle hangs than its sides."""
    turn: float
    """Rotation in radians."""
    shift: float
    """u of its middle."""


def draw_place(kind: Kind, rng: np.random.Generator) -> Place:
    """A random place of a kind."""
    if kind == "right":
        top, bottom = rng.uniform(0.05, 0.42), rng.uniform(1.65, 2.0)
        return Place(
            kind, top, bottom, rng.uniform(0.93, 1.07), rng.uniform(-0.03, 0.1), rng.normal(0, 0.04),
            rng.normal(0, 0.03),
        )  # fmt: skip
    if kind == "nose":
        top = rng.uniform(0.58, 0.78) if rng.random() < 0.5 else rng.uniform(0.7, 1.02)
        bottom = max(top + 0.7, rng.uniform(1.7, 2.15))
        return Place(
            kind, top, bottom, rng.uniform(0.9, 1.08), rng.uniform(0, 0.28), rng.normal(0, 0.08), rng.normal(0, 0.05)
        )
    if kind == "chin":
        top = rng.uniform(1.02, 1.6)
        bottom = top + rng.uniform(0.35, 0.85)
        return Place(
            kind, top, bottom, rng.uniform(0.78, 1.0), rng.uniform(0.05, 0.4), rng.normal(0, 0.09), rng.normal(0, 0.06)
        )
    wide, turn = rng.uniform(0.45, 0.85), rng.choice([-1, 1]) * rng.uniform(1.0, 1.9)
    return Place(kind, 0.0, 0.0, wide, 0.0, turn, rng.choice([-1, 1]) * rng.uniform(0.8, 1.15))


def put_mask(
    face: Floats, landmarks: Floats, mask: Matte, place: Place, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Put a mask on a face, with the face's light and sharpness, with a shadow and, usually, straps.

    Args:
        face: float32 RGB ``(height, width, 3)``.
        landmarks: landmarks of the face, ``(5, 2)``.
        mask: the mask to put on.
        place: where to put it.
        rng: decides light, shadow and straps.

    Returns:
        The face, and the mask's share of each pixel, ``(height, width)``.
    """
    unit_px, there = length(landmarks), canonical(face, landmarks)
    blur = float(np.clip(0.5 * (sharpness(mask.face) / max(1e-3, sharpness(there)) - 1), 0, 1.6))
    blur = max(blur, 0.42 * UNIT / unit_px if unit_px < 0.8 * UNIT else 0.0)
    pixels, alpha = mask.face, mask.alpha
    if blur > 0.2:
        pixels, alpha = ndimage.gaussian_filter(pixels, (blur, blur, 0)), ndimage.gaussian_filter(alpha, 0.8 * blur)
    light = _light(there, mask.face, rng)
    places = in_frame(*_in_mask(*pixel_coordinates(landmarks, *face.shape[:2]), mask, place))
    alpha = ndimage.map_coordinates(alpha, places, order=1, mode="constant").clip(0, 1)
    colour = sampled(pixels, places) * light
    if light.mean() > 1:
        colour = np.minimum(colour, 250)
    soft = ndimage.gaussian_filter(alpha, 0.07 * unit_px)
    lower = np.roll(soft, max(1, round(0.03 * unit_px)), axis=0)
    shade = 1 - rng.uniform(0.1, 0.45) * np.clip(lower - 0.2, 0, 1) * (1 - alpha)
    under = _with_straps(face * shade[..., np.newaxis], landmarks, mask, place, (colour, alpha), rng)
    return under * (1 - alpha[..., np.newaxis]) + colour * alpha[..., np.newaxis], alpha


def _light(there: Floats, here: Floats, rng: np.random.Generator) -> Floats:
    """Factors for the mask's red, green and blue, from the skin in both photographs."""
    gain = (there[SKIN] @ LUMA).mean() / max(10.0, (here[SKIN] @ LUMA).mean())
    gain = np.clip(gain, 0.5, 1.7) ** rng.uniform(0.5, 0.9)
    tints = [face[SKIN].mean(axis=0) / max(1.0, face[SKIN].mean()) for face in (there, here)]
    return np.asarray(gain * np.clip(tints[0] / tints[1], 0.8, 1.25) ** rng.uniform(0.1, 0.5))


def _in_mask(u: Floats, v: Floats, mask: Matte, place: Place) -> tuple[Floats, Floats]:
    """Coordinates, in the mask's own frame, of places on the face."""
    top, bottom = mask.extent.top, mask.extent.bottom
    middle = 1.0 if place.kind == "ear" else (place.top + place.bottom) / 2
    x, y = u - place.shift, v - middle
    cosine, sine = np.cos(place.turn), np.sin(place.turn)
    x, y = cosine * x + sine * y, cosine * y - sine * x
    if place.kind == "ear":
        return x / _EAR_SIZE, y / (_EAR_SIZE * place.wide) + (top + bottom) / 2
    down = y + middle + place.sag * x**2 - place.top
    return x / place.wide, top + down * (bottom - top) / (place.bottom - place.top)


def _with_straps(
    face: Floats,
    landmarks: Floats,
    mask: Matte,
    place: Place,
    worn: tuple[Floats, Floats],
    rng: np.random.Generator,
) -> Floats:
    """The face with straps drawn from the mask to the ears, or without straps."""
    colour, alpha = worn
    if rng.random() < 0.35 or (alpha > 0.5).sum() < 20:
        return face
    tone = (
        np.median(colour[alpha > 0.5], axis=0) * rng.uniform(0.75, 1.05)
        if rng.random() < 0.6
        else np.full(3, rng.choice([235.0, 225.0, 40.0])) * face.mean() / 128
    )
    height, width = alpha.shape
    drawn = Image.new("L", (width * _STRAP_SCALE, height * _STRAP_SCALE), 0)
    pen = ImageDraw.Draw(drawn)
    thick = max(1, round(rng.uniform(0.025, 0.05) * length(landmarks) * _STRAP_SCALE))
    for ends in _straps(mask, place, rng):
        points = [
            to_image(landmarks, np.asarray(u, np.float64), np.asarray(v, np.float64)) * _STRAP_SCALE for u, v in ends
        ]
        pen.line([(float(x), float(y)) for x, y in points], 255, thick)
    shown = np.asarray(drawn.resize((width, height), Image.Resampling.BOX), np.float32) / 255 * rng.uniform(0.5, 0.95)
    return np.asarray(face * (1 - shown[..., np.newaxis]) + tone * shown[..., np.newaxis])


def _straps(mask: Matte, place: Place, rng: np.random.Generator) -> list[list[tuple[float, float]]]:
    """Both ends of each strap, in coordinates of the face."""
    if place.kind == "ear":
        ear = (float(np.sign(place.shift)) * 1.12, rng.uniform(0.1, 0.4))
        return [[ear, (place.shift + rng.normal(0, 0.1), 0.8)], [ear, (place.shift + rng.normal(0, 0.1), 0.75)]]
    straps = []
    for side, edge in ((-1, mask.extent.left), (1, mask.extent.right)):
        x = edge * place.wide * 0.93 + place.shift
        y = place.top - place.sag * x * x + rng.uniform(0.12, 0.3) + np.sin(place.turn) * x
        ear = (side * rng.uniform(1.08, 1.25), rng.uniform(0.05, 0.4))
        straps.append([(x, y), ear])
        if rng.random() < 0.5:
            straps.append([(x * 0.96, y + rng.uniform(0.2, 0.5)), (ear[0], ear[1] + 0.15)])
    return straps


def face_area(landmarks: Floats) -> float:
    """Approximate area of a face in pixels: a circle with a radius of 1.2 units."""
    return float(np.pi * (1.2 * length(landmarks)) ** 2)
