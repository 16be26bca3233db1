"""Boxes: overlap and non-maximum suppression.

A box is left, top, right, bottom in pixels, edges rather than pixel indices: its width is right minus left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def pairwise_iou(ones: Floats, others: Floats) -> NDArray[np.float64]:
    """Intersection over union of every box with every other.

    Args:
        ones: ``(n, 4)``.
        others: ``(m, 4)``.

    Returns:
        float64 ``(n, m)``; 0 where both boxes are empty.
    """
    a, b = ones.astype(np.float64)[:, np.newaxis], others.astype(np.float64)[np.newaxis]
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    common = np.maximum(width, 0) * np.maximum(height, 0)
    union = _areas(a) + _areas(b) - common
    iou: NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


def suppress(boxes: Floats, scores: Floats, max_iou: float, max_inside: float = np.inf) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    The highest score stays and removes every box that overlaps it by ``max_iou`` or more, or of which ``max_inside`` or
    more lies inside it (an eye of a large face); then the highest of the rest does the same. Of equal scores the
    earlier box counts as higher, so that the result depends on the values alone.

    Args:
        boxes: ``(n, 4)``.
        scores: ``(n,)``.
        max_iou: overlap from which two boxes count as one face.
        max_inside: part of a box's area within a surer one, from which it counts as a detail of that; default: any is
            allowed.

    Returns:
        Indices of the boxes that stay, by falling score.
    """
    rest = np.argsort(-scores, kind="stable")
    kept: list[np.intp] = []
    while len(rest):
        kept.append(rest[0])
        first, others = boxes[rest[:1]], boxes[rest[1:]]
        rest = rest[1:][(pairwise_iou(first, others)[0] < max_iou) & (part_inside(others, first) < max_inside)]
    return np.array(kept, np.intp)


def part_inside(boxes: Floats, outer: Floats) -> NDArray[np.float64]:
    """Part of each box's area, float64 ``(n,)``, that lies within another ``(1, 4)``; 0 for empty boxes."""
    inner = boxes.astype(np.float64)
    clipped = np.concatenate([np.maximum(inner[:, :2], outer[:, :2]), np.minimum(inner[:, 2:], outer[:, 2:])], axis=1)
    common = np.where((clipped[:, 2:] > clipped[:, :2]).all(axis=1), _areas(clipped), 0.0)
    areas = _areas(inner)
    part: NDArray[np.float64] = np.divide(common, areas, out=np.zeros_like(common), where=areas > 0)
    return part


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return np.maximum(areas, 0)
