"""The Arrow schema of every table.

The schema functions are the only place where a column is named; each column carries its description and unit in the
Parquet file itself (field metadata, key ``description``).
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

SCHEMA_VERSION = 2


def _column(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


_INSTANT = pa.timestamp("ms", tz="UTC")


def _identity_columns(key_names: Iterable[str]) -> list[pa.Field]:
    return [
        _column("image_uri", pa.string(), "where the image was read from"),
        _column("captured_at", _INSTANT, "when the image was taken, from its path or manifest", nullable=True),
        *(
            _column(name, pa.string(), f"key {name!r} of the image, from its path or manifest", nullable=True)
            for name in key_names
        ),
    ]


def _content_columns() -> list[pa.Field]:
    return [
        _column("content_sha256", pa.string(), "SHA-256 of the image file's bytes, in hexadecimal"),
        _column("width_px", pa.int32(), "width of the upright image, in pixels"),
        _column("height_px", pa.int32(), "height of the upright image, in pixels"),
    ]


def _schema(table: str, columns: Iterable[pa.Field]) -> pa.Schema:
    return pa.schema(columns, metadata={"maskdet.table": table, "maskdet.schema_version": str(SCHEMA_VERSION)})


def predictions_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of the predictions: one row a face.

    Args: key_names: keys that are columns; partition keys are folders instead, since readers refuse a column that is
    both.
    """
    return _schema(
        "predictions",
        [
            *_identity_columns(key_names),
            *_content_columns(),
            _column("face_index", pa.int32(), "number of the face within its image, from 0"),
            _column(
                "face_left_px", pa.float32(), "left edge of the face in the upright image, in pixels", nullable=True
            ),
            _column("face_top_px", pa.float32(), "top edge of the face in the upright image, in pixels", nullable=True),
            _column("face_width_px", pa.float32(), "width of the face, in pixels", nullable=True),
            _column("face_height_px", pa.float32(), "height of the face, in pixels", nullable=True),
            _column(
                "face_score", pa.float32(), "detector's score; null where the whole image is the face", nullable=True
            ),
            _column(
                "probability_mask",
                pa.float32(),
                "probability that the face wears a mask over nose and mouth, 0 to 1; of a model of two classes: a mask",
            ),
            _column(
                "probability_incorrect",
                pa.float32(),
                "probability that it wears a mask with nose or mouth bare; null of a model of two classes",
                nullable=True,
            ),
            _column("probability_no_mask", pa.float32(), "probability that it wears none; the three add to 1"),
            _column("label", pa.string(), "mask, incorrect, no_mask or uncertain, by the run's decision thresholds"),
            _column("model_id", pa.string(), "name and fingerprint of the model bundle"),
        ],
    )


def failures_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of the failures: one row an image that could not be scored.

    Args:
        key_names: all keys, partition keys too: a path that cannot be understood has none, and pandas cannot read
            folders of which some have a null key.
    """
    return _schema(
        "failures",
        [
            *_identity_columns(key_names),
            _column("stage", pa.string(), "where it failed: list, fetch, decode or infer"),
            _column("code", pa.string(), "why it failed: a stable name"),
            _column("message", pa.string(), "why it failed, for people"),
            _column("attempts", pa.int32(), "how often it was tried"),
        ],
    )


def no_face_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of the images in which no face was found: one row an image.

    Args:
        key_names: all keys; the table is not partitioned, since such images are few.
    """
    return _schema("no_face", [*_identity_columns(key_names), *_content_columns()])


def compliance_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of the compliance tables: one row a group; the level is a folder."""
    kinds = {"date": pa.date32(), "hour": pa.int32()}
    keys = [
        _column(
            name,
            kinds.get(name, pa.string()),
            f"group key {name!r}; null where the level has no such key",
            nullable=True,
        )
        for name in key_names
    ]
    counts = [
        _column("images_listed", pa.int64(), "images of the group: scored, without a face, or failed"),
        _column("images_scored", pa.int64(), "images with at least one scored face"),
        _column("images_no_face", pa.int64(), "images in which no face was found"),
        _column("images_failed", pa.int64(), "images that could not be scored"),
        _column("faces", pa.int64(), "faces scored"),
        _column("faces_mask", pa.int64(), "faces labelled mask"),
        _column("faces_no_mask", pa.int64(), "faces labelled no_mask"),
        _column("faces_uncertain", pa.int64(), "faces labelled uncertain; not part of the rate"),
    ]
    rates = [
        _column(
            "mask_rate",
            pa.float64(),
            "faces_mask / (faces_mask + faces_no_mask); null without such faces",
            nullable=True,
        ),
        _column("mask_rate_low", pa.float64(), "lower end of the rate's interval", nullable=True),
        _column("mask_rate_high", pa.float64(), "upper end of the rate's interval", nullable=True),
        _column("rate_method", pa.string(), "how mask_rate was estimated: raw, the labels as they are"),
        _column("interval_method", pa.string(), "how the interval was computed: wilson"),
        _column("interval_confidence", pa.float64(), "nominal coverage of the interval, 0 to 1"),
    ]
    return _schema("compliance", [*keys, *counts, *rates])
