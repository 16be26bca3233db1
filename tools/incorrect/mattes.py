"""Cut the mask out of a photograph of somebody who wears one.

The area over mouth and chin is surely mask; the areas around the eyes and beside the head surely are not. Two colour
histograms learn the difference from these areas, and four rounds of classifying pixels and relearning the histograms
find the edge (Rother, Kolmogorov and Blake, "GrabCut", 2004, with a prior over places instead of a graph).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tools.incorrect.frame import SIDE, Floats, U, V, canonical, to_image

_ROUNDS = 4
_LEAST_CLEAN = 0.84
_BINS = 16
_CHROMA_GAIN = 2.2


class Extent(NamedTuple):
    """Where a matte lies in the frame."""

    top: float
    """v at which it starts along the middle of the face."""
    bottom: float
    left: float
    """u of its leftmost column."""
    right: float
    share: float
    """Share of the frame's pixels that it covers."""


class Matte(NamedTuple):
    """A mask that was cut out."""

    face: Floats
    """The photograph in the frame, float32 RGB ``(SIDE, SIDE, 3)``."""
    alpha: Floats
    """float32 ``(SIDE, SIDE)``: 1 where the mask is."""
    extent: Extent


def _prior() -> Floats:
    """Log odds, by place alone, that a pixel is mask, for a mask worn correctly."""
    top = np.interp(np.abs(U), [0, 0.35, 0.9, 1.3], [0.30, 0.42, 0.45, 0.4])
    bottom = np.interp(np.abs(U), [0, 0.5, 0.8, 1.0, 1.2], [1.85, 1.7, 1.45, 1.1, 0.7])
    inside = np.minimum(np.minimum(V - top, bottom - V), 1.12 - np.abs(U))
    return np.asarray(np.clip(inside * 4.5, -5, 4))


_PRIOR = _prior()
_SURELY = (np.abs(U) < 0.62) & (V > 0.72) & (V < 1.4)
_SURELY_NOT = ((V < 0.05) & (V > -1.1) & (np.abs(U) < 1.5)) | (np.abs(U) > 1.55) | (V > 2.4)
_NEAR = (np.abs(U) < 1.5) & (V > -1.1) & (V < 2.4)
# Crops end in a straight line below the chin, so the matte is rounded there.
_ROUNDED_BOTTOM = np.interp(np.abs(U), [0, 0.3, 0.6, 0.8, 1.0, 1.25], [2.05, 1.98, 1.75, 1.5, 1.2, 0.7])


def cut_mask(image: Image.Image, landmarks: Floats) -> Matte | None:
    """Cut out the mask that a face wears.

    Args:
        image: RGB.
        landmarks: landmarks of the face, ``(5, 2)``.

    Returns:
        The mask, or ``None`` if its edge is not clear, or it does not lie where a mask worn correctly lies.
    """
    face = canonical(image, landmarks).astype(np.float32)
    alpha, clean = _alpha(face)
    if alpha is None or clean < _LEAST_CLEAN:
        return None
    place = to_image(landmarks, U, V)
    within = np.all((place >= -0.5) & (place < image.size), axis=-1)
    alpha = alpha * np.clip((_ROUNDED_BOTTOM - V) * 8 + 0.5, 0, 1) * ndimage.binary_erosion(within)
    alpha = alpha * np.clip((1.35 - np.abs(U)) * 8, 0, 1)
    extent = _extent(alpha)
    return Matte(face, alpha, extent) if extent is not None and _worn_right(extent) else None


def _worn_right(extent: Extent) -> bool:
    return (
        -0.05 < extent.top < 0.62
        and 1.35 < extent.bottom < 2.15
        and extent.right - extent.left > 1.3
        and extent.left < -0.5
        and extent.right > 0.5
        and 0.09 < extent.share < 0.27
    )


def _alpha(face: Floats) -> tuple[Floats | None, float]:
    """The matte, and the share of pixels that are clearly mask or clearly not."""
    pixels = Image.fromarray(face.clip(0, 255).astype(np.uint8)).convert("YCbCr")
    colours = np.asarray(pixels, np.float32).copy()
    colours[..., 1:] = (colours[..., 1:] - 128) * _CHROMA_GAIN + 128
    bins = np.clip(colours // _BINS, 0, 15).astype(int)
    cells = tuple(bins.transpose(2, 0, 1))
    mask, other = _SURELY.astype(np.float32), _SURELY_NOT.astype(np.float32)
    odds = np.zeros((SIDE, SIDE))
    for turn in range(_ROUNDS):
        if turn:
            likely = 1 / (1 + np.exp(-odds))
            mask, other = np.where(likely > 0.8, likely, 0) * _NEAR, np.where(likely < 0.2, 1 - likely, 0) * _NEAR
            if mask.sum() < 200 or other.sum() < 200:
                return None, 0.0
        ratio = np.log(_histogram(bins, mask)) - np.log(_histogram(bins, other))
        odds = ndimage.gaussian_filter(np.clip(ratio[cells], -4, 4), 1.5) * 1.1 + _PRIOR
    likely = 1 / (1 + np.exp(-2.2 * odds))
    clean = float(np.mean(np.abs(likely - 0.5)[_PRIOR > -3] > 0.4))
    return _one_piece(likely), clean


def _histogram(bins: NDArray[np.intp], weights: Floats) -> Floats:
    counts = np.zeros((16, 16, 16), np.float32)
    np.add.at(counts, tuple(bins.reshape(-1, 3).T), weights.ravel())
    counts = ndimage.gaussian_filter(counts, 1.0)
    return np.asarray(counts / counts.sum() + 1e-4)


def _one_piece(likely: Floats) -> Floats | None:
    """The largest connected piece, without holes and with a soft edge."""
    pieces, count = ndimage.label(likely > 0.5)
    if count == 0:
        return None
    largest = int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    kept = ndimage.binary_fill_holes(ndimage.binary_opening(pieces == largest, iterations=2))
    soft = np.minimum(likely, ndimage.gaussian_filter(kept.astype(np.float32), 1.0))
    return np.where(ndimage.binary_erosion(kept, iterations=2), 1.0, soft).astype(np.float32)


def _extent(alpha: Floats) -> Extent | None:
    rows = np.flatnonzero(alpha[:, np.abs(U[0]) < 0.2].mean(axis=1) > 0.5)
    if len(rows) < 10:
        return None
    columns = np.flatnonzero((alpha > 0.5).sum(axis=0) > 4)
    return Extent(
        float(V[rows[0], 0]),
        float(V[rows[-1], 0]),
        float(U[0, columns[0]]),
        float(U[0, columns[-1]]),
        float((alpha > 0.5).mean()),
    )
