"""Perceptual hashes and thumbnails: numbers that hardly change when a picture is resized, recompressed or brightened.

The hash is the DCT hash of C. Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), with
two changes: a bit is the sign of a coefficient rather than its side of the median, and the coefficients are the 64 of
lowest frequency u + v without the mean, rather than a square block. Mirroring a picture negates the coefficients of odd
horizontal frequency and no others, so the hash of the mirrored picture is the hash XOR a constant.

A difference hash (which compares neighbouring pixels) would not do: among aligned portraits of different people, pairs
with a thumbnail correlation of .95 or more differ in a median of 6 bits, where this hash has 15 (133 pairs of 5,909
portraits).

Everything is integer arithmetic, so that equal pixels give equal hashes on every machine and in every batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE_PX = 32
"""Pictures are resized to this side before they are hashed, without keeping their aspect ratio."""
THUMBNAIL_SIDE_PX = 16
HASH_BITS = 64

MIN_CONTRAST = 2.0
"""Standard deviation, in grey levels, below which a picture is flat: its hash is noise, and nothing duplicates it."""

# Grey of ITU-R BT.601 in 1/256.
_GREY_WEIGHTS = np.array([77, 150, 29], np.int64)
_COSINE_ONE = 4096


def _frequencies() -> NDArray[np.int64]:
    """The 64 lowest (horizontal u, vertical v) with u + v > 0: int64 ``(64, 2)``."""
    every = ((u + v, u, v) for u in range(SIDE_PX) for v in range(SIDE_PX) if u + v > 0)
    lowest: NDArray[np.int64] = np.array([(u, v) for _, u, v in sorted(every)[:HASH_BITS]], np.int64)
    return lowest


def _cosines(count: int) -> NDArray[np.int64]:
    """DCT-II: ``cos(π (2 x + 1) u / 2 N)`` in 1/4096, int64 ``(count, N)``."""
    x, u = np.arange(SIDE_PX), np.arange(count)[:, np.newaxis]
    cosines: NDArray[np.int64] = np.rint(_COSINE_ONE * np.cos(np.pi * (2 * x + 1) * u / (2 * SIDE_PX))).astype(np.int64)
    return cosines


FREQUENCIES = _frequencies()
_COSINES = _cosines(int(FREQUENCIES.max()) + 1)
_BIT_VALUES = np.uint64(1) << np.arange(HASH_BITS, dtype=np.uint64)
_MIRROR = np.bitwise_xor.reduce(_BIT_VALUES[FREQUENCIES[:, 0] % 2 == 1])


def perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    """The hash of a picture: bit i is set where the coefficient of ``FREQUENCIES[i]`` is positive.

    Args:
        pixels: RGB uint8 ``(32, 32, 3)``, upright.

    Returns:
        A number of 64 bits.
    """
    grey = _grey(pixels)
    centred = grey * grey.size - grey.sum()
    # At most 2^16 · 2^10 · (2^5 · 2^12)^2 = 2^60: no overflow.
    coefficients = _COSINES @ centred @ _COSINES.T
    positive = coefficients[FREQUENCIES[:, 1], FREQUENCIES[:, 0]] > 0
    return int(np.bitwise_xor.reduce(_BIT_VALUES[positive], initial=np.uint64(0)))


def mirrored(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The hashes of the pictures flipped left to right."""
    flipped: NDArray[np.uint64] = hashes ^ _MIRROR
    return flipped


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A grey thumbnail, uint8 ``(16, 16)``, of RGB uint8 ``(32, 32, 3)``."""
    blocks = _grey(pixels).reshape(THUMBNAIL_SIDE_PX, 2, THUMBNAIL_SIDE_PX, 2).sum(axis=(1, 3))
    small: NDArray[np.uint8] = (blocks >> 10).astype(np.uint8)
    return small


def is_flat(thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each of ``(images, 16, 16)``, at least one, has too little contrast to be told from others."""
    values, size = thumbnails.reshape(len(thumbnails), -1), thumbnails[0].size
    # einsum widens as it adds: eight times the thumbnails would not fit beside millions of them.
    squares = np.einsum("ij,ij->i", values, values, dtype=np.int64)
    squared = size * squares - values.sum(axis=1, dtype=np.int64) ** 2
    flat: NDArray[np.bool_] = squared < (MIN_CONTRAST * size) ** 2
    return flat


def correlations(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pearson correlation of each pair of thumbnails; 0 where one has a single value.

    Args:
        first: uint8 ``(pairs, height, width)``.
        second: as ``first``.

    Returns:
        float64 ``(pairs,)``.
    """
    x = first.reshape(len(first), -1).astype(np.int64)
    y = second.reshape(len(second), -1).astype(np.int64)
    size = x.shape[1]
    sum_x, sum_y = x.sum(axis=1), y.sum(axis=1)
    # Sums of integers are exact in any order; only the last two steps round.
    covariance = size * (x * y).sum(axis=1) - sum_x * sum_y
    variance_x = size * (x * x).sum(axis=1) - sum_x**2
    variance_y = size * (y * y).sum(axis=1) - sum_y**2
    scale = np.sqrt(variance_x.astype(np.float64)) * np.sqrt(variance_y.astype(np.float64))
    found: NDArray[np.float64] = np.divide(covariance, scale, out=np.zeros(len(x)), where=scale > 0)
    return found


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    grey: NDArray[np.int64] = pixels.astype(np.int64) @ _GREY_WEIGHTS
    return grey
