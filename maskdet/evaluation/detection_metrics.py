"""Metrics of how well faces are found, and how well they are labelled once found.

Matching by overlap is that of the PASCAL VOC challenge (Everingham et al., "The PASCAL Visual Object Classes
Challenge", 2010): by falling score, each detection is matched with the face that it overlaps most; it finds the face if
the overlap reaches the threshold and no detection found it before, and counts as false otherwise.

Half of a small face's box is a pixel or two, and annotators and detectors differ on whether hair and chin belong to a
face. So there is also matching by centre, for those who ask whether a face was found rather than how its box was drawn:
an overlap of .3 or more, or the centre of each box inside the other.

Faces marked as ignored are neither expected nor, if found, held against the detector; nor is a detection with half of
its area or more in such a box, which may be a crowd (as in COCO, whose threshold this is at IoU .5).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.faces.boxes import Floats, pairwise_iou, part_inside

MIN_IOU = 0.5
CENTRE_MIN_IOU = 0.3
"""Overlap from which a box is a face, whatever the centres."""
SIZE_BINS_PX = ((16.0, 32.0), (32.0, 64.0), (64.0, float("inf")))
"""Range of a face's longer side: from, and below."""

FALSE = -1
IGNORED = -2


class FoundFaces(NamedTuple):
    """What was found in one image."""

    boxes: Floats
    """float32 ``(n, 4)``: left, top, right, bottom in pixels."""
    scores: Floats
    """float32 ``(n,)``."""
    labels: tuple[str, ...] | None = None
    """The classifier's label for each face; ``None`` if it was not run."""


def match_by_overlap(
    found: FoundFaces, truth: Floats, ignored: NDArray[np.bool_] | None = None, min_iou: float = MIN_IOU
) -> NDArray[np.int64]:
    """Which annotated face each detection is.

    Args:
        found: detections of one image; among equal scores the earlier one goes first.
        truth: float32 ``(faces, 4)``.
        ignored: bool ``(faces,)``; default: none.
        min_iou: overlap from which a detection is the face; also the share of a detection inside an ignored box.

    Returns:
        int64 ``(n,)``: index into ``truth``, or :data:`FALSE`, or :data:`IGNORED` for detections of ignored faces.
    """
    result = np.full(len(found.scores), FALSE, np.int64)
    if len(truth) == 0:
        return result
    skipped = np.zeros(len(truth), bool) if ignored is None else ignored
    overlaps = pairwise_iou(found.boxes, truth)
    taken = np.zeros(len(truth), bool)
    for detection in np.argsort(-found.scores, kind="stable"):
        face = int(np.argmax(overlaps[detection]))
        if overlaps[detection, face] < min_iou:
            continue
        if skipped[face]:
            result[detection] = IGNORED
        elif not taken[face]:
            taken[face] = True
            result[detection] = face
    return _without_crowds(result, found.boxes, truth[skipped], min_iou)


def match_by_centre(
    found: FoundFaces, truth: Floats, ignored: NDArray[np.bool_] | None = None, min_iou: float = CENTRE_MIN_IOU
) -> NDArray[np.int64]:
    """Which annotated face each detection is, by overlap or by centre.

    In the order of the annotations, ignored ones last, each face takes, from the remaining detections, the one that
    overlaps it most, if by ``min_iou`` or more; else the surest one whose centre is inside the face's box and whose box
    contains the face's centre.

    Args:
        found: detections of one image.
        truth: float32 ``(faces, 4)``.
        ignored: bool ``(faces,)``; default: none.
        min_iou: overlap from which a detection is the face.

    Returns:
        int64 ``(n,)``: index into ``truth``, or :data:`FALSE`, or :data:`IGNORED` for detections of ignored faces.
    """
    result = np.full(len(found.scores), FALSE, np.int64)
    if len(truth) == 0 or len(result) == 0:
        return result
    skipped = np.zeros(len(truth), bool) if ignored is None else ignored
    overlaps = pairwise_iou(found.boxes, truth)
    centred = _holds(truth, found.boxes).T & _holds(found.boxes, truth)
    surest_first = np.argsort(-found.scores, kind="stable")
    for face in np.argsort(skipped, kind="stable"):
        left = surest_first[result[surest_first] == FALSE]
        if not len(left):
            break
        best = left[np.argmax(overlaps[left, face])]
        if overlaps[best, face] < min_iou:
            around = left[centred[left, face]]
            if not len(around):
                continue
            best = around[0]
        result[best] = IGNORED if skipped[face] else face
    return _without_crowds(result, found.boxes, truth[skipped], MIN_IOU)


def _holds(outer: Floats, inner: Floats) -> NDArray[np.bool_]:
    """Whether each box contains the centre of each other box, bool ``(outer, inner)``."""
    centres = (inner[:, :2].astype(np.float64) + inner[:, 2:]) / 2
    inside = (centres > outer[:, np.newaxis, :2]) & (centres < outer[:, np.newaxis, 2:])
    return np.asarray(inside.all(axis=2), np.bool_)


def _without_crowds(matches: NDArray[np.int64], boxes: Floats, crowds: Floats, min_inside: float) -> NDArray[np.int64]:
    """The matches, where unmatched detections inside an ignored box are marked as ignored."""
    result = matches.copy()
    for box in crowds:
        inside = part_inside(boxes, box[np.newaxis]) >= min_inside
        result[inside & (result == FALSE)] = IGNORED
    return result


class PrecisionRecall(NamedTuple):
    """The curve of precision against recall, from the surest detection down, ``(points,)`` each."""

    scores: Floats
    """Distinct scores, falling: each point counts all detections from that score up."""
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    """As measured, not made monotone."""


def precision_recall(
    scores: Floats, right: NDArray[np.bool_], faces: float, weights: NDArray[np.int64] | None = None
) -> PrecisionRecall:
    """The curve of precision against recall.

    Detections of equal score enter together, so that their order does not matter.

    Args:
        scores: float32 ``(n,)``, over all images.
        right: bool ``(n,)``: whether the detection is a face.
        faces: annotated faces, more than 0.
        weights: int64 ``(n,)``: how often each detection counts, for a resample; default: once.
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last_of_score = np.append(np.diff(falling) != 0, True) if len(order) else np.empty(0, np.bool_)
    often = np.ones(len(order), np.int64) if weights is None else weights[order]
    hits = np.cumsum(right[order] * often)[last_of_score]
    shown = np.cumsum(often)[last_of_score]
    return PrecisionRecall(falling[last_of_score], hits / faces, hits / np.maximum(shown, 1))


def precision_at(curve: PrecisionRecall, recall: float) -> float:
    """The best precision at a recall or beyond; NaN where no score reaches it."""
    reached = curve.precision[curve.recall >= recall]
    return float(reached.max()) if len(reached) else float("nan")


def average_precision(
    scores: Floats, right: NDArray[np.bool_], faces: float, weights: NDArray[np.int64] | None = None
) -> float:
    """Area under the curve of precision against recall, precision made monotone from the right (VOC since 2010).

    Args:
        scores: float32 ``(n,)``, over all images.
        right: bool ``(n,)``: whether the detection is a face.
        faces: annotated faces.
        weights: int64 ``(n,)``: how often each detection counts, for a resample; default: once.

    Returns:
        0 to 1; NaN without faces.
    """
    if faces == 0:
        return float("nan")
    return area_under(precision_recall(scores, right, faces, weights))


def area_under(curve: PrecisionRecall) -> float:
    """Area under a curve of precision against recall, precision made monotone from the right."""
    recall = np.concatenate([[0.0], curve.recall])
    precision = np.maximum.accumulate(curve.precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * precision))
