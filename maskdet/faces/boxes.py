"""Boxes: overlap and non-maximum suppression.

A box is left, top, right, bottom in pixels, edges rather than pixel indices: its width is right minus left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_AT_ONCE = 256  # boxes that are all compared with each other: few enough for their overlaps to fit into a cache


def pairwise_iou(ones: Floats, others: Floats) -> NDArray[np.float64]:
    """Intersection over union of every box with every other.

    Args:
        ones: ``(n, 4)``.
        others: ``(m, 4)``.

    Returns:
        float64 ``(n, m)``; 0 where both boxes are empty.
    """
    return _iou(ones, others, _common(ones, others))


def suppress(boxes: Floats, scores: Floats, max_iou: float, max_inside: float = np.inf) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    The box with the highest score stays and removes every box that overlaps it by ``max_iou`` or more, or of which
    ``max_inside`` or more is inside it (an eye of a large face); then the highest of the rest does the same. Among
    equal scores the earlier box counts as higher, so that the result depends on the values alone.

    Args:
        boxes: ``(n, 4)``.
        scores: ``(n,)``.
        max_iou: overlap from which two boxes count as one face.
        max_inside: share of a box's area inside a surer one from which it counts as a detail of that; default: no
            limit.

    Returns:
        Indices of the boxes that stay, by falling score.
    """
    rest = np.argsort(-scores, kind="stable")
    kept = [rest[:0]]
    while len(rest):
        surest, rest = rest[:_AT_ONCE], rest[_AT_ONCE:]
        covered = _covered(boxes[surest], boxes[surest], max_iou, max_inside)
        stays = np.ones(len(surest), bool)
        for index in range(len(surest)):
            if stays[index]:
                stays[index + 1 :] &= ~covered[index, index + 1 :]
        kept.append(surest[stays])
        rest = rest[~_covered(boxes[kept[-1]], boxes[rest], max_iou, max_inside).any(axis=0)]
    return np.concatenate(kept)


def _covered(ones: Floats, others: Floats, max_iou: float, max_inside: float) -> NDArray[np.bool_]:
    """Whether each box ``(n, 4)``, if it stays, removes each of the others ``(m, 4)``: bool ``(n, m)``."""
    common = _common(ones, others)
    covered: NDArray[np.bool_] = (_iou(ones, others, common) >= max_iou) | (_parts_inside(others, common) >= max_inside)
    return covered


def _common(ones: Floats, others: Floats) -> NDArray[np.float64]:
    """Area that every box shares with every other, ``(n, m)``."""
    a, b = ones.astype(np.float64)[:, np.newaxis], others.astype(np.float64)[np.newaxis]
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    common: NDArray[np.float64] = np.maximum(width, 0) * np.maximum(height, 0)
    return common


def _iou(ones: Floats, others: Floats, common: NDArray[np.float64]) -> NDArray[np.float64]:
    union = _areas(ones.astype(np.float64))[:, np.newaxis] + _areas(others.astype(np.float64))[np.newaxis] - common
    iou: NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


def part_inside(boxes: Floats, outer: Floats) -> NDArray[np.float64]:
    """Share of each box's area, float64 ``(n,)``, that is inside another ``(1, 4)``; 0 for empty boxes."""
    (parts,) = _parts_inside(boxes, _common(outer, boxes))
    return np.asarray(parts, np.float64)


def _parts_inside(boxes: Floats, common: NDArray[np.float64]) -> NDArray[np.float64]:
    areas = np.broadcast_to(_areas(boxes.astype(np.float64)), common.shape)
    parts: NDArray[np.float64] = np.divide(common, areas, out=np.zeros_like(common), where=areas > 0)
    return parts


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return np.maximum(areas, 0)
