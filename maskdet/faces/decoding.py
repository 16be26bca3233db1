"""The network's maps to boxes.

CenterFace (Xu, Yan, Sun, Yang and Luo, "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019)
takes a face for a point: one cell in 4 x 4 pixels tells whether a face is centred there, how large it is, where in
the cell its centre lies, and where its landmarks are in its box.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.faces.boxes import Floats

STRIDE_PX = 4
LANDMARKS = ("right eye", "left eye", "nose", "right corner of the mouth", "left corner of the mouth")
"""What the landmarks are, of the person; the right eye is left in the image."""

# exp(8) cells are 12,000 pixels: larger than any canvas, small enough for float32 sums.
_MAX_LOG_SIZE = 8.0


class Heads(NamedTuple):
    """What the network gives for one canvas, float32, one cell every :data:`STRIDE_PX` pixels."""

    score: Floats
    """``(rows, columns)``: that a face is centred in the cell, 0 to 1."""
    size: Floats
    """``(rows, columns, 2)``: logarithms of height and width, in cells."""
    offset: Floats
    """``(rows, columns, 2)``: from the cell's middle to the face's centre, down and right, in cells."""
    landmarks: Floats
    """``(rows, columns, 10)``: five points, each down and right from the box's corner, in parts of its sides."""


class Detections(NamedTuple):
    """Faces of one image or canvas."""

    boxes: Floats
    """float32 ``(faces, 4)``: left, top, right, bottom in pixels."""
    scores: Floats
    """float32 ``(faces,)``, 0 to 1."""
    landmarks: Floats
    """float32 ``(faces, 5, 2)``: x and y in pixels, in the order of :data:`LANDMARKS`."""

    def take(self, indices: NDArray[np.intp] | NDArray[np.bool_]) -> Detections:
        """Some of the faces."""
        return Detections(*(part[indices] for part in self))


def no_detections() -> Detections:
    """No face at all."""
    return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32))


def join(parts: list[Detections]) -> Detections:
    """The faces of several canvases, in order."""
    if not parts:
        return no_detections()
    return Detections(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def decode(heads: Heads, min_score: float) -> Detections:
    """Boxes and landmarks of every cell whose score reaches a threshold, in pixels of the canvas, unsuppressed.

    Args:
        heads: the network's maps.
        min_score: cells below are left out.
    """
    rows, columns = np.nonzero(heads.score >= min_score)
    cells = np.stack([rows, columns], axis=-1).astype(np.float32)
    sizes = np.exp(np.minimum(heads.size[rows, columns], _MAX_LOG_SIZE)) * STRIDE_PX
    centres = (cells + heads.offset[rows, columns] + np.float32(0.5)) * STRIDE_PX
    corners = centres - sizes / 2
    points = heads.landmarks[rows, columns].reshape(-1, 5, 2) * sizes[:, np.newaxis] + corners[:, np.newaxis]
    # The maps say down before right; boxes and points say x before y.
    boxes = np.concatenate([corners[:, ::-1], (corners + sizes)[:, ::-1]], axis=-1)
    return Detections(boxes, heads.score[rows, columns], np.ascontiguousarray(points[..., ::-1]))
