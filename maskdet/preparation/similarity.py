"""Near duplicates among millions of images, without comparing all pairs, or between two sets, comparing all pairs.

Among many images (:func:`find_near`), it uses multi-index hashing (M. Norouzi, A. Punjani, D. Fleet, "Fast exact search
in Hamming space with multi-index hashing", 2014): a hash of 64 bits is cut into 4 bands of 16. With d = 4 r + a, two
hashes that differ in at most d bits differ in at most r bits in one of any a + 1 bands, or in at most r − 1 in one of
the others: if not, they would differ in at least (a + 1)(r + 1) + (3 − a) r = d + 1 bits. So it is enough to look up,
in each band's table, the values within that radius. The search is exact for any hashes.

Between sets of thousands (:func:`near_duplicates`) thumbnails alone are compared, since hashes miss crops: of 398
held-out images with a thumbnail of correlation .9 or more among 5,000 others, 180 had a hash within 12 bits of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.preparation import hashing
from maskdet.preparation.settings import DuplicateSettings

_BANDS = 4
_BAND_BITS = 16
_BAND_VALUES = 1 << _BAND_BITS
# Candidates held at once: 64 MB of indices.
_CHUNK_PAIRS = 4_000_000
_THUMBNAILS_AT_ONCE = 20_000

# Web photographs against 11,674 training images: from .95 on, all pairs were the same picture; down to .92, half were
# one shot, cropped differently or with another mask; below .9, hardly any. A lower limit costs only a few look-alikes.
MIN_CORRELATION = 0.9
_ROWS_AT_ONCE = 1024

Indices = NDArray[np.int64]


class NearPairs(NamedTuple):
    """Pairs of near duplicates, ``first < second``, sorted; every field ``(pairs,)``."""

    first: Indices
    second: Indices
    distance_bits: NDArray[np.int64]
    correlation: NDArray[np.float64]
    mirrored: NDArray[np.bool_]
    """Whether one is the other flipped left to right."""

    def taken(self, rows: Indices) -> NearPairs:
        """Some of the pairs."""
        return NearPairs(
            self.first[rows],
            self.second[rows],
            self.distance_bits[rows],
            self.correlation[rows],
            self.mirrored[rows],
        )


def find_near(hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], settings: DuplicateSettings) -> NearPairs:
    """Find the pairs whose hashes are close and whose thumbnails agree, mirrored or not.

    Args:
        hashes: ``(images,)``.
        thumbnails: grey uint8 ``(images, 16, 16)``; flat ones (see :data:`hashing.MIN_CONTRAST`) match nothing.
        settings: the limits.
    """
    clear = np.flatnonzero(~hashing.is_flat(thumbnails)) if len(hashes) else np.zeros(0, np.int64)
    plain = _confirmed(hashes, thumbnails, clear, settings, flip=False)
    flipped = _confirmed(hashes, thumbnails, clear, settings, flip=True)
    return _best_of(plain, flipped)


def near_duplicates(
    thumbnails: NDArray[np.uint8], others: NDArray[np.uint8], min_correlation: float = MIN_CORRELATION
) -> NDArray[np.bool_]:
    """Find the images of one set with a near duplicate in another: copies, mirrored, resized or slightly cropped.

    Args:
        thumbnails: RGB uint8 ``(images, height, width, 3)``.
        others: RGB uint8 ``(others, height, width, 3)``.
        min_correlation: Pearson correlation of two grey thumbnails from which they count as the same picture.

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


def close_pairs(left: NDArray[np.uint64], right: NDArray[np.uint64], max_bits: int) -> tuple[Indices, Indices]:
    """Every pair of hashes, one from each side, that differ in at most some number of bits.

    Args:
        left: ``(n,)``.
        right: ``(m,)``.
        max_bits: at most 12, beyond which the search would visit most values of a band.

    Returns:
        Indices into ``left`` and into ``right``, sorted by both.
    """
    radius, extra = divmod(max_bits, _BANDS)
    found = [np.zeros(0, np.int64)]
    for band in range(_BANDS):
        # The wider search covers the higher frequencies, in which pictures of one kind differ most.
        flips = _flips(radius if band >= _BANDS - 1 - extra else radius - 1)
        found += _band_pairs(left, right, band, flips, max_bits)
    pairs = np.unique(np.concatenate(found))
    return pairs // max(len(right), 1), pairs % max(len(right), 1)


def _band_pairs(
    left: NDArray[np.uint64], right: NDArray[np.uint64], band: int, flips: list[int], max_bits: int
) -> Iterator[Indices]:
    """Close pairs that agree in a band up to one of the flips, as ``left index · len(right) + right index``."""
    left_values, right_values = _band_values(left, band), _band_values(right, band)
    # In the order of the band, so that consecutive look-ups are close in memory.
    left_order, right_order = np.argsort(left_values, kind="stable"), np.argsort(right_values, kind="stable")
    left_sorted, right_sorted = left[left_order], right[right_order]
    ends = np.cumsum(np.bincount(right_values, minlength=_BAND_VALUES))
    starts = np.concatenate([[0], ends[:-1]])
    for flip in flips:
        probes = left_values[left_order] ^ flip
        counts = ends[probes] - starts[probes]
        for rows in _chunks(counts):
            repeats = counts[rows]
            offsets = starts[probes[rows]] - (np.cumsum(repeats) - repeats)
            second = np.arange(repeats.sum()) + np.repeat(offsets, repeats)
            distance = np.bitwise_count(np.repeat(left_sorted[rows], repeats) ^ right_sorted[second])
            close = np.flatnonzero(distance <= max_bits)
            first = np.searchsorted(np.cumsum(repeats), close, side="right")
            yield left_order[rows[first]] * len(right) + right_order[second[close]]


def _band_values(hashes: NDArray[np.uint64], band: int) -> Indices:
    values: Indices = ((hashes >> np.uint64(band * _BAND_BITS)) & np.uint64(_BAND_VALUES - 1)).astype(np.int64)
    return values


def _chunks(counts: Indices) -> Iterator[Indices]:
    """Rows with candidates, in chunks of about :data:`_CHUNK_PAIRS`."""
    rows = np.flatnonzero(counts)
    chunk = np.cumsum(counts[rows]) // _CHUNK_PAIRS
    yield from np.split(rows, np.flatnonzero(np.diff(chunk)) + 1) if len(rows) else ()


def _flips(radius: int) -> list[int]:
    """Every 16-bit number with at most some number of bits set; none for a radius below 0."""
    return [
        sum(1 << bit for bit in bits)
        for size in range(radius + 1)
        for bits in itertools.combinations(range(_BAND_BITS), size)
    ]


def _confirmed(
    hashes: NDArray[np.uint64],
    thumbnails: NDArray[np.uint8],
    clear: Indices,
    settings: DuplicateSettings,
    *,
    flip: bool,
) -> NearPairs:
    own = hashes[clear]
    left, right = close_pairs(own, hashing.mirrored(own) if flip else own, settings.max_bits)
    once = left < right
    first, second = clear[left[once]], clear[right[once]]
    others = hashing.mirrored(hashes) if flip else hashes
    correlation = np.zeros(len(first))
    for start in range(0, len(first), _THUMBNAILS_AT_ONCE):
        rows = slice(start, start + _THUMBNAILS_AT_ONCE)
        seen = thumbnails[second[rows]]
        correlation[rows] = hashing.correlations(thumbnails[first[rows]], seen[:, :, ::-1] if flip else seen)
    keep = correlation >= settings.min_correlation
    first, second, correlation = first[keep], second[keep], correlation[keep]
    distance = np.bitwise_count(hashes[first] ^ others[second]).astype(np.int64)
    return NearPairs(first, second, distance, correlation, np.full(len(first), flip))


def _best_of(plain: NearPairs, flipped: NearPairs) -> NearPairs:
    """Merge both, with each pair once, in the way in which it agrees better; plain if both agree equally."""
    both = NearPairs(
        np.concatenate([plain.first, flipped.first]),
        np.concatenate([plain.second, flipped.second]),
        np.concatenate([plain.distance_bits, flipped.distance_bits]),
        np.concatenate([plain.correlation, flipped.correlation]),
        np.concatenate([plain.mirrored, flipped.mirrored]),
    )
    order = np.lexsort((both.mirrored, -both.correlation, both.second, both.first))
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(both.first[order]) != 0) | (np.diff(both.second[order]) != 0)
    return both.taken(order[new])


def _standardized(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey values as rows of mean 0 and length 1, so that a dot product is a correlation."""
    rows: NDArray[np.float32] = thumbnails.astype(np.float32).mean(axis=-1).reshape(len(thumbnails), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.maximum(length, 1e-6)  # a flat image correlates with nothing
    return rows
