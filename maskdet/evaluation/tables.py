"""The schemas of an evaluation's tables."""

from __future__ import annotations

import pyarrow as pa

from maskdet.evaluation import classes, faces, intervals
from maskdet.schemas import column, table_schema

SCHEMA_VERSION = 2
_METRICS = {
    **intervals.DESCRIPTIONS,
    **classes.DESCRIPTIONS,
    **{f"{name} (detection)": text for name, text in faces.DESCRIPTIONS.items()},
}


METRICS_SCHEMA = table_schema(
    "metrics",
    [
        column("slice", pa.string(), "all, a part of the data such as site=north, or detection: how faces were found"),
        column("metric", pa.string(), "; ".join(f"{name}: {text}" for name, text in _METRICS.items())),
        column("value", pa.float64(), "the metric; null where the slice does not define it", nullable=True),
        column("low", pa.float64(), "lower end of its confidence interval", nullable=True),
        column("high", pa.float64(), "upper end of its confidence interval", nullable=True),
        column("method", pa.string(), "how the interval was made"),
        column("count", pa.int64(), "faces that the metric is about"),
        column("confidence", pa.float64(), "nominal coverage of the interval, 0 to 1"),
    ],
    SCHEMA_VERSION,
)
MISTAKES_SCHEMA = table_schema(
    "mistakes",
    [
        column("image_uri", pa.string(), "where the image was read from"),
        column(
            "kind",
            pa.string(),
            "wrong_label (or uncertain), missed (an annotated face) or false_positive",
        ),
        column(
            "truth",
            pa.string(),
            "mask, incorrect or no_mask; null where the annotation does not say, or there is no face",
            nullable=True,
        ),
        column(
            "label",
            pa.string(),
            "what the model said: mask, incorrect, no_mask or uncertain; null if missed",
            nullable=True,
        ),
        column(
            "probability_mask",
            pa.float32(),
            "probability that the face wears a mask, 0 to 1; null if missed",
            nullable=True,
        ),
        column(
            "probability_incorrect",
            pa.float32(),
            "probability that it wears one incorrectly; null if missed, or of a model of two classes",
            nullable=True,
        ),
        column(
            "error",
            pa.float64(),
            "distance of the probability from the truth, 0 to 1; of a wrong label only",
            nullable=True,
        ),
        column(
            "face_left_px",
            pa.float32(),
            "left edge of the face, annotated if missed, else as found, in pixels",
            nullable=True,
        ),
        column("face_top_px", pa.float32(), "top edge of the face, in pixels", nullable=True),
        column("face_width_px", pa.float32(), "width of the face, in pixels", nullable=True),
        column("face_height_px", pa.float32(), "height of the face, in pixels", nullable=True),
        column("face_score", pa.float32(), "detector's score; null if missed or not asked", nullable=True),
        column("width_px", pa.int32(), "width of the upright image, in pixels"),
        column("height_px", pa.int32(), "height of the upright image, in pixels"),
        column("content_sha256", pa.string(), "SHA-256 of the image file's bytes, in hexadecimal"),
        column("model_id", pa.string(), "name and fingerprint of the model bundle"),
    ],
    SCHEMA_VERSION,
)
