"""Images that were trained on in another file: copies, mirrored, resized, cropped a little or compressed anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THUMBNAIL_SIDE_PX = 16

# Seen on web photographs against 11,674 training images: from .95 on all pairs were one picture; down to .92 half were
# one shot, cropped anew or wearing another mask; below .9 hardly any. Lower costs only a few look-alikes.
MIN_CORRELATION = 0.9

_ROWS_AT_ONCE = 1024


def near_duplicates(
    thumbnails: NDArray[np.uint8], others: NDArray[np.uint8], min_correlation: float = MIN_CORRELATION
) -> NDArray[np.bool_]:
    """Find the images that have a near duplicate among others, mirrored or not.

    Args:
        thumbnails: RGB uint8 ``(images, height, width, 3)``.
        others: RGB uint8 ``(others, height, width, 3)``.
        min_correlation: Pearson correlation of two grey thumbnails from which they count as one picture.

    Returns:
        ``(images,)``: whether there is one.
    """
    reference = _standardized(others)
    found = np.zeros(len(thumbnails), np.bool_)
    for candidates in (thumbnails, thumbnails[:, :, ::-1]):
        for start in range(0, len(candidates), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            correlation = _standardized(candidates[rows]) @ reference.T
            found[rows] |= correlation.max(axis=1, initial=-1.0) >= min_correlation
    return found


def _standardized(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey values as rows of mean 0 and length 1, so that a dot product is a correlation."""
    rows: NDArray[np.float32] = thumbnails.astype(np.float32).mean(axis=-1).reshape(len(thumbnails), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.maximum(length, 1e-6)  # a flat image correlates with nothing
    return rows
