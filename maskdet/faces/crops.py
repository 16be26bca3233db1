"""From a face's box to the classifier's input: one function, the same in training and scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdet.errors import ConfigError
from maskdet.faces.boxes import Floats

Pixels = NDArray[np.uint8]

_GREY = 127
# Rotating resamples once more; at twice the final size this costs no visible sharpness.
_TURNING_SCALE = 2
_DIAGONAL = 2**0.5


@dataclass(frozen=True)
class CropOptions:
    """Which part of an image the classifier sees of a face.

    Attributes:
        margin: added on every side, as a share of the box's longer side.
        align: rotate the face until its eyes are level.
        outside: what fills pixels beyond the image: its ``edge`` repeated, or ``grey``.
    """

    margin: float = 0.05
    align: bool = False
    outside: Literal["edge", "grey"] = "edge"

    def __post_init__(self) -> None:
        if not -0.4 <= self.margin <= 4.0:
            raise ConfigError("margin", "-0.4 to 4", self.margin, "0.1 adds a tenth of the face on every side.")


def crop_face(
    image: Image.Image, box: Floats, landmarks: Floats, height: int, width: int, options: CropOptions = CropOptions()
) -> Pixels:
    """Cut a face out of an image.

    The part is a square around the box's centre, so that faces keep their proportions; it is antialiased when reduced.

    Args:
        image: upright RGB.
        box: float32 ``(4,)``: left, top, right, bottom in the image's pixels; may reach beyond the image.
        landmarks: float32 ``(5, 2)``: x and y in the image's pixels, the eyes first; read only if ``options.align``.
        height: rows to return.
        width: columns to return.
        options: margin, alignment and what lies beyond the image.

    Returns:
        uint8 RGB ``(height, width, 3)``.
    """
    left, top, right, bottom = (float(edge) for edge in box)
    side = max(right - left, bottom - top, 1.0) * (1 + 2 * options.margin)
    centre = ((left + right) / 2, (top + bottom) / 2)
    if not options.align:
        return _square(image, centre, side, (width, height), options.outside)
    turning = (_TURNING_SCALE * round(width * _DIAGONAL), _TURNING_SCALE * round(height * _DIAGONAL))
    larger = Image.fromarray(_square(image, centre, side * _DIAGONAL, turning, options.outside))
    turned = larger.rotate(eye_line_deg(landmarks), Image.Resampling.BICUBIC)
    inset_x, inset_y = (turning[0] - _TURNING_SCALE * width) / 2, (turning[1] - _TURNING_SCALE * height) / 2
    inner = (inset_x, inset_y, turning[0] - inset_x, turning[1] - inset_y)
    return np.asarray(turned.resize((width, height), Image.Resampling.BOX, box=inner))


def eye_line_deg(landmarks: Floats) -> float:
    """Slope of the line through the eyes in degrees: how far to rotate a face counter-clockwise until it is level.

    Args:
        landmarks: float32 ``(5, 2)``; the eye on the left of the image comes first.
    """
    x, y = (landmarks[1] - landmarks[0]).astype(np.float64)
    return float(np.degrees(np.arctan2(y, x)))


def _square(
    image: Image.Image,
    centre: tuple[float, float],
    side: float,
    size: tuple[int, int],
    outside: Literal["edge", "grey"],
) -> Pixels:
    """A square of an image, resized: its inner part by Pillow; what is beyond the image is filled in afterwards."""
    spans = [_span(middle - side / 2, side, length, wanted)
             for middle, length, wanted in zip(centre, image.size, size, strict=True)]  # fmt: skip
    (left, right, before_x, inner_x), (top, bottom, before_y, inner_y) = spans
    inner = image.resize((inner_x, inner_y), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    pixels = np.asarray(inner)
    if (inner_x, inner_y) == size:
        return pixels
    padding = ((before_y, size[1] - before_y - inner_y), (before_x, size[0] - before_x - inner_x), (0, 0))
    if outside == "edge":
        return np.pad(pixels, padding, mode="edge")
    return np.pad(pixels, padding, constant_values=_GREY)


def _span(start: float, side: float, length: int, wanted: int) -> tuple[float, float, int, int]:
    """Along one axis: which part of the image is inside, and how many pixels of the result are before it and in it."""
    first = min(max(start, 0.0), length - 1.0)
    last = max(min(start + side, float(length)), first + 1.0)
    before = min(max(round((first - start) / side * wanted), 0), wanted - 1)
    after = min(max(round((last - start) / side * wanted), before + 1), wanted)
    return first, last, before, after - before
