"""From the networks' maps to boxes, with a decoder for each architecture.

CenterFace (Xu, Yan, Sun, Yang and Luo, "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019)
treats a face as a point: one cell of 4 x 4 pixels says whether a face is centred there, how large it is, where in the
cell its centre is, and where its landmarks are in its box.

YuNet (Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023) gives boxes at three strides, without
anchors: each cell tells its box's centre and size in units of the stride, and its score is the geometric mean of that
of its class and that of there being an object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.faces.boxes import Floats

Maps = Mapping[str, Floats]
"""A network's outputs for one canvas, by name."""

STRIDE_PX = 4
LANDMARKS = ("right eye", "left eye", "nose", "right corner of the mouth", "left corner of the mouth")
"""What the landmarks are, seen from the person: the right eye is on the left of the image."""

# exp(8) cells are 12,000 pixels: larger than any canvas, small enough for float32 sums.
_MAX_LOG_SIZE = 8.0


class Heads(NamedTuple):
    """The network's outputs for one canvas, float32, one cell every :data:`STRIDE_PX` pixels."""

    score: Floats
    """``(rows, columns)``: score for a face centred in the cell, 0 to 1."""
    size: Floats
    """``(rows, columns, 2)``: logarithms of height and width, in cells."""
    offset: Floats
    """``(rows, columns, 2)``: from the cell's middle to the face's centre, down and right, in cells."""
    landmarks: Floats
    """``(rows, columns, 10)``: five points, each down and right from the box's corner, as shares of its sides."""


class Detections(NamedTuple):
    """Faces of one image or canvas."""

    boxes: Floats
    """float32 ``(faces, 4)``: left, top, right, bottom in pixels."""
    scores: Floats
    """float32 ``(faces,)``, 0 to 1."""
    landmarks: Floats
    """float32 ``(faces, 5, 2)``: x and y in pixels, in the order of :data:`LANDMARKS`."""
    canvas_px: Floats
    """float32 ``(faces,)``: longer side in pixels of the canvas on which the face was seen."""

    def take(self, indices: NDArray[np.intp] | NDArray[np.bool_]) -> Detections:
        """Some of the faces."""
        return Detections(*(part[indices] for part in self))


def no_detections() -> Detections:
    """No faces."""
    shapes = ((0, 4), (0,), (0, 5, 2), (0,))
    return Detections(*(np.empty(shape, np.float32) for shape in shapes))


def join(parts: list[Detections]) -> Detections:
    """The faces of several canvases, in order."""
    if not parts:
        return no_detections()
    return Detections(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def decode(heads: Heads, min_score: float) -> Detections:
    """Boxes and landmarks of every cell whose score reaches a threshold, in pixels of the canvas, before suppression.

    Args:
        heads: the network's maps.
        min_score: cells with a lower score are left out.
    """
    rows, columns = np.nonzero(heads.score >= min_score)
    cells = np.stack([rows, columns], axis=-1).astype(np.float32)
    sizes = np.exp(np.minimum(heads.size[rows, columns], _MAX_LOG_SIZE)) * STRIDE_PX
    centres = (cells + heads.offset[rows, columns] + np.float32(0.5)) * STRIDE_PX
    corners = centres - sizes / 2
    points = heads.landmarks[rows, columns].reshape(-1, 5, 2) * sizes[:, np.newaxis] + corners[:, np.newaxis]
    # The maps have down before right; boxes and points have x before y.
    boxes = np.concatenate([corners[:, ::-1], (corners + sizes)[:, ::-1]], axis=-1)
    return Detections(
        boxes, heads.score[rows, columns], np.ascontiguousarray(points[..., ::-1]), sizes.max(axis=1, initial=0)
    )


def decode_centerface(maps: Maps, size: tuple[int, int], min_score: float) -> Detections:
    """CenterFace's boxes from its maps as ``(rows, columns, channels)``, or ``(channels, rows, columns)``.

    Args:
        maps: by the names of :class:`Heads`, or, as published, ``537`` to ``540`` in their order, channels first.
        size: height and width of the canvas.
        min_score: boxes with a lower score are left out.
    """
    if "score" in maps:
        return decode(Heads(maps["score"][..., 0], maps["size"], maps["offset"], maps["landmarks"]), min_score)
    score, sizes, offset, landmarks = (maps[name].transpose(1, 2, 0) for name in CENTERFACE_OUTPUTS)
    return decode(Heads(score[..., 0], sizes, offset, landmarks), min_score)


def decode_yunet(maps: Maps, size: tuple[int, int], min_score: float) -> Detections:
    """YuNet's boxes from its maps, one row for each cell, from the top left.

    Args:
        maps: ``cls_8`` ``(cells, 1)``, ``obj_8`` ``(cells, 1)``, ``bbox_8`` ``(cells, 4)`` and ``kps_8``
            ``(cells, 10)``, and the same at strides 16 and 32.
        size: height and width of the canvas, multiples of 32.
        min_score: boxes with a lower score are left out.
    """
    parts = []
    for stride in YUNET_STRIDES_PX:
        shares = np.clip(maps[f"cls_{stride}"][:, 0], 0, 1) * np.clip(maps[f"obj_{stride}"][:, 0], 0, 1)
        scores = np.sqrt(shares).astype(np.float32)
        cells = np.nonzero(scores >= min_score)[0]
        rows, columns = np.divmod(cells, size[1] // stride)
        corner = np.stack([columns, rows], axis=-1).astype(np.float32)
        boxes = maps[f"bbox_{stride}"][cells]
        centres = (corner + boxes[:, :2]) * stride
        sides = np.exp(np.minimum(boxes[:, 2:], _MAX_LOG_SIZE)) * stride
        points = (maps[f"kps_{stride}"][cells].reshape(-1, 5, 2) + corner[:, np.newaxis]) * stride
        edges = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)
        parts.append(Detections(edges, scores[cells], points, sides.max(axis=1, initial=0)))
    return join(parts)


CENTERFACE_OUTPUTS = ("537", "538", "539", "540")
"""Score, size, offset and landmarks in the file in which CenterFace was published."""
YUNET_STRIDES_PX = (8, 16, 32)

DECODERS: Mapping[str, Callable[[Maps, tuple[int, int], float], Detections]] = {
    "centerface": decode_centerface,
    "yunet": decode_yunet,
}
