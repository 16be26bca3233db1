"""Make a masked face bare: put the lower half of another face, similar in pose and colour, in place of the mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from tools.incorrect.frame import (
    SKIN,
    UNIT,
    Floats,
    U,
    V,
    canonical,
    in_frame,
    length,
    pixel_coordinates,
    sampled,
    sharpness,
    turn,
)

_ALIKE = 6


class BareFaces:
    """Faces without a mask, to take lower halves from.

    Args:
        faces: for each, its landmarks ``(5, 2)``, and the face in the frame.
    """

    def __init__(self, faces: Sequence[tuple[Floats, Floats]]) -> None:
        self._faces = [face for _, face in faces]
        self._keys = np.array([_key(landmarks, face) for landmarks, face in faces])

    def like(self, landmarks: Floats, face: Floats, rng: np.random.Generator) -> Floats:
        """One of the faces most like another in pose, skin and sharpness, in the frame."""
        nearest = np.argsort(np.abs(self._keys - _key(landmarks, face)).sum(axis=1))[:_ALIKE]
        return self._faces[int(nearest[rng.integers(len(nearest))])]


def _key(landmarks: Floats, face: Floats) -> Floats:
    return np.array([turn(landmarks) * 160, *(face[SKIN].mean(axis=0) * 0.6), sharpness(face) * 40])


def restored(face: Floats, landmarks: Floats, worn: Floats, source: Floats) -> Floats:
    """Replace the mask on a face, and the pixels close to it, by the same area of another face.

    The other face's colours are adjusted to the mean and spread of this face's colours around the eyes, and corrected
    by the difference along the mask's upper edge; the correction fades with the distance from that edge.

    Args:
        face: float32 RGB ``(height, width, 3)``.
        landmarks: landmarks of the face, ``(5, 2)``.
        worn: the mask's matte in the frame.
        source: the other face in the frame.

    Returns:
        float RGB ``(height, width, 3)``.
    """
    there, unit_px = canonical(face, landmarks), length(landmarks)
    here, other = there[SKIN], source[SKIN]
    spread = np.clip(here.std(axis=0) / (other.std(axis=0) + 4), 0.6, 1.4)
    pixels = (source - other.mean(axis=0)) * spread + here.mean(axis=0)
    grown = np.maximum(
        ndimage.grey_dilation(worn, size=(9, 15)),
        ndimage.shift(ndimage.grey_dilation(worn, size=(9, 11)), (-5, 0), order=0),
    )
    pixels = pixels + _correction(there - pixels, worn, grown)
    blur = np.clip(0.5 * (sharpness(source) / max(1e-3, sharpness(there)) - 1), 0, 1.6)
    for amount in (blur if blur > 0.2 else 0.0, 0.4 * UNIT / unit_px if unit_px < 0.8 * UNIT else 0.0):
        if amount:
            pixels = ndimage.gaussian_filter(pixels, (amount, amount, 0))
    below_eyes = np.clip((V - 0.04) * 7, 0, 1)
    alpha = ndimage.gaussian_filter(grown, 2.0) * below_eyes
    alpha = ndimage.gaussian_filter(np.maximum(alpha, np.where(worn > 0.15, below_eyes, 0)), 1.2)
    places = in_frame(*pixel_coordinates(landmarks, *face.shape[:2]))
    shown = ndimage.map_coordinates(alpha, places, order=1, mode="constant")[..., np.newaxis]
    return np.asarray(face * (1 - shown) + sampled(pixels, places) * shown)


def _correction(difference: Floats, worn: Floats, grown: Floats) -> Floats:
    """The colour difference along the mask's upper edge, spread over its surroundings."""
    near = ndimage.grey_dilation(worn, size=(31, 23)) > 0.1
    ring = near & (grown < 0.1) & (V < 0.6) & (V > -0.05) & (np.abs(U) < 0.9)
    weight = ndimage.gaussian_filter(ring.astype(np.float32), 9) + 1e-3
    spread = [ndimage.gaussian_filter(difference[..., channel] * ring, 9) / weight for channel in range(3)]
    return np.asarray(np.stack(spread, axis=-1).clip(-45, 45) * (weight / (weight + 0.01))[..., np.newaxis])
