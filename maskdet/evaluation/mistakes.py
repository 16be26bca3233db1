"""A row for each mistake: wrong labels, missed faces, detections that are not faces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskdet.evaluation.detection_matching import AnnotatedRun, SeenImage
from maskdet.evaluation.detection_metrics import FALSE
from maskdet.evaluation.tables import MISTAKES_SCHEMA
from maskdet.evaluation.truth import Labelled
from maskdet.labels import CODES, INCORRECT, MASK, label_names, worn_probability

WRONG_LABEL = "wrong_label"
MISSED = "missed"
FALSE_POSITIVE = "false_positive"
_FOUND_COLUMNS = (
    *("label", "probability_mask", "probability_incorrect", "face_score"),
    *("face_left_px", "face_top_px", "face_width_px", "face_height_px"),
    *("image_uri", "width_px", "height_px", "content_sha256", "model_id"),
)


def label_mistakes(labelled: Labelled) -> pa.Table:
    """Images or found faces with a wrong or uncertain label, those with the largest error of the probability first.

    A model of two classes is not expected to say ``incorrect``.
    """
    faces = labelled.faces()
    worn = worn_probability(labelled.rows["probability_mask"].to_numpy(), faces.probabilities.get(INCORRECT))
    error, wrong = worn.copy(), faces.labels != faces.truth  # for a bare face: that there is a mask
    for name in (MASK, INCORRECT):
        members = faces.truth == CODES[name]
        if name in faces.probabilities:
            error[members] = 1 - faces.probabilities[name][members]
        else:
            wrong &= ~members
    rows = np.flatnonzero(wrong)
    order = rows[np.argsort(-error[rows], kind="stable")]
    truth = label_names(faces.truth[order])
    return _of_predictions(labelled.rows, order, {"kind": WRONG_LABEL, "truth": truth, "error": error[order].tolist()})


def face_mistakes(annotated: AnnotatedRun) -> list[pa.Table]:
    """Annotated faces that were missed, largest first, and detections that are not faces, surest first."""
    missed = [
        _missed_row(image, face, annotated.model_id)
        for image in annotated.images
        for face in np.flatnonzero(image.wanted & ~image.was_found).tolist()
    ]
    missed.sort(key=lambda row: -max(row["face_width_px"], row["face_height_px"]))
    rows = np.concatenate([np.empty(0, np.int64), *(image.rows[image.match == FALSE] for image in annotated.images)])
    scores = annotated.predictions["face_score"].to_numpy()[rows]
    surest = rows[np.argsort(-scores, kind="stable")]
    return [
        pa.Table.from_pylist(missed, schema=MISTAKES_SCHEMA),
        _of_predictions(annotated.predictions, surest, {"kind": FALSE_POSITIVE}),
    ]


def _missed_row(image: SeenImage, face: int, model_id: str) -> dict[str, Any]:
    left, top, right, bottom = image.truth.boxes[face].tolist()
    return {
        "image_uri": image.uri,
        "kind": MISSED,
        "truth": image.truth.labels[face],
        "face_left_px": left,
        "face_top_px": top,
        "face_width_px": right - left,
        "face_height_px": bottom - top,
        "width_px": image.width_px,
        "height_px": image.height_px,
        "content_sha256": image.content_sha256,
        "model_id": model_id,
    }


def _of_predictions(predictions: pa.Table, rows: NDArray[Any], more: dict[str, str | Sequence[Any]]) -> pa.Table:
    """Rows of the predictions with more columns; a text applies to all rows, and missing columns are null."""
    taken = predictions.select(list(_FOUND_COLUMNS)).take(pa.array(rows, pa.int64()))
    columns = []
    for field in MISTAKES_SCHEMA:
        if field.name in _FOUND_COLUMNS:
            columns.append(taken[field.name].combine_chunks())
        else:
            values = more.get(field.name, [None] * len(rows))
            columns.append(pa.array([values] * len(rows) if isinstance(values, str) else values, field.type))
    return pa.table(columns, schema=MISTAKES_SCHEMA)
