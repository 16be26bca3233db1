"""The schemas of an evaluation's tables."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from maskdet.evaluation import faces, intervals

SCHEMA_VERSION = 1
_METRICS = intervals.DESCRIPTIONS | {f"{name} (detection)": text for name, text in faces.DESCRIPTIONS.items()}


def table_schema(table: str, columns: Sequence[tuple[str, pa.DataType, str, bool]]) -> pa.Schema:
    """The schema of a table, with name, type, description and nullability of each column."""
    fields = [pa.field(name, kind, nullable, {"description": text}) for name, kind, text, nullable in columns]
    return pa.schema(fields, {"maskdet.table": table, "maskdet.schema_version": str(SCHEMA_VERSION)})


METRICS_SCHEMA = table_schema(
    "metrics",
    [
        ("slice", pa.string(), "all, a part of the data such as site=north, or detection: how faces were found", False),
        ("metric", pa.string(), "; ".join(f"{name}: {text}" for name, text in _METRICS.items()), False),
        ("value", pa.float64(), "the metric; null where the slice does not define it", True),
        ("low", pa.float64(), "lower end of its confidence interval", True),
        ("high", pa.float64(), "upper end of its confidence interval", True),
        ("method", pa.string(), "how the interval was made", False),
        ("count", pa.int64(), "faces that the metric is about", False),
        ("confidence", pa.float64(), "nominal coverage of the interval, 0 to 1", False),
    ],
)
MISTAKES_SCHEMA = table_schema(
    "mistakes",
    [
        ("image_uri", pa.string(), "where the image was read from", False),
        (
            "kind",
            pa.string(),
            "wrong_label (or uncertain), missed (an annotated face) or false_positive",
            False,
        ),
        ("truth", pa.string(), "mask or no_mask; null where the annotation does not say, or there is no face", True),
        ("label", pa.string(), "what the model said: mask, no_mask or uncertain; null if missed", True),
        ("probability_mask", pa.float32(), "probability that the face wears a mask, 0 to 1; null if missed", True),
        ("error", pa.float64(), "distance of the probability from the truth, 0 to 1; of a wrong label only", True),
        ("face_left_px", pa.float32(), "left edge of the face, annotated if missed, else as found, in pixels", True),
        ("face_top_px", pa.float32(), "top edge of the face, in pixels", True),
        ("face_width_px", pa.float32(), "width of the face, in pixels", True),
        ("face_height_px", pa.float32(), "height of the face, in pixels", True),
        ("face_score", pa.float32(), "detector's score; null if missed or not asked", True),
        ("width_px", pa.int32(), "width of the upright image, in pixels", False),
        ("height_px", pa.int32(), "height of the upright image, in pixels", False),
        ("content_sha256", pa.string(), "SHA-256 of the image file's bytes, in hexadecimal", False),
        ("model_id", pa.string(), "name and fingerprint of the model bundle", False),
    ],
)
