"""Crops as scoring makes them: the detector finds the face, and scoring's own function cuts it out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdet.faces.crops import CropOptions, crop_face
from maskdet.faces.decoding import Detections

Detect = Callable[[NDArray[np.uint8]], Detections]
"""From an upright RGB uint8 image ``(height, width, 3)`` to its faces, the surest first."""

_MIN_SIDE_PX, _MAX_SIDE_PX = 16, 224
_MOST_SHRUNK = 0.2


def shrink(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, float]:
    """Shrink an image to between a fifth and its full size, since boxes of small faces are less exact.

    Returns:
        The image, and the factor.
    """
    factor = float(np.exp(rng.uniform(np.log(_MOST_SHRUNK), 0.0)))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BOX), factor


def crop_found(
    image: Image.Image, place: NDArray[np.float64] | None, detect: Detect, min_score: float
) -> Image.Image | None:
    """Cut out the surest face in the way that the classifier sees it in scoring.

    Args:
        image: RGB.
        place: x and y of a point that must lie in the face's box, so that no other face is taken; ``None``: any face.
        detect: finds faces.
        min_score: the face's least score.

    Returns:
        RGB, square, at the face's own resolution up to 224 pixels; ``None`` if there is no such face of at least 16
        pixels.
    """
    found = detect(np.asarray(image))
    for box, score, points in zip(found.boxes, found.scores, found.landmarks, strict=True):
        holds = place is None or (np.all(box[:2] <= place) and np.all(place <= box[2:]))
        length_px = float(np.max(box[2:] - box[:2]))
        if score >= min_score and holds and length_px >= _MIN_SIDE_PX:
            options = CropOptions()
            side_px = min(_MAX_SIDE_PX, round(length_px * (1 + 2 * options.margin)))
            return Image.fromarray(crop_face(image, box, points, side_px, side_px, options))
    return None
