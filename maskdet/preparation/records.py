"""What crosses a preparation and what it writes: batches of labelled references, and the schema of every table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from maskdet.inputs.references import ImageRef

SCHEMA_VERSION = 1

IMAGES = "images.parquet"
FAILURES = "failures.parquet"
DUPLICATES = "duplicates.parquet"
REPORT = "report.json"
SUMMARY = "summary.txt"
SUCCESS = "_SUCCESS"


@dataclass(frozen=True)
class SourceBatch:
    """Some of the images that a source lists.

    Attributes:
        source: the source's name.
        root: the folder that was listed, if it was one; folders above it tell nothing about its images.
        refs: the images.
    """

    source: str
    root: str
    refs: tuple[ImageRef, ...]


@dataclass(frozen=True)
class MeasuredBatch:
    """What the images of a batch are.

    Attributes:
        images: of :func:`measured_schema`.
        failures: of :func:`failures_schema`.
    """

    images: pa.Table
    failures: pa.Table


def measured_schema() -> pa.Schema:
    """Schema of the images as measured; crosses the pipeline, is not written."""
    names = ("given_group", "name_group")
    return pa.schema([*_image_columns(), *(pa.field(name, pa.string()) for name in names), ("thumbnail", pa.binary())])


def images_schema() -> pa.Schema:
    """Schema of the training manifest: one row an image."""
    added = [
        _column("split", pa.string(), "train, validation or test: of the group-disjoint splits"),
        _column("group_id", pa.string(), "images that must stay in one split; named after the smallest content_sha256"),
        _column("duplicate_of", pa.string(), "first image of the same bytes; null if it is the first", nullable=True),
        _column("near_duplicates", pa.int32(), "other contents that show the same picture"),
        _column("suspicious", pa.bool_(), "an image of the same bytes or picture has the other label"),
        _column("flat", pa.bool_(), "shows nothing: next to no contrast; joins no group by its content"),
        _column("official_leak", pa.bool_(), "official validation or test image whose group is in official train too"),
    ]
    return _schema("training_images", [*_image_columns(), *added])


def failures_schema() -> pa.Schema:
    """Schema of the failures: one row an image left out."""
    columns = [
        _column("source", pa.string(), "name of the source"),
        _column("image_uri", pa.string(), "where the image should have been read from"),
        _column("stage", pa.string(), "where it failed: list, fetch or decode"),
        _column("code", pa.string(), "why it failed: a stable name"),
        _column("message", pa.string(), "why it failed, for people"),
        _column("attempts", pa.int32(), "how often it was tried"),
    ]
    return _schema("training_failures", columns)


def duplicates_schema() -> pa.Schema:
    """Schema of the duplicates: one row a pair. Exact copies are paired with the first image of their bytes only."""
    sides = [
        column
        for prefix, what in (("", "the first image, by source and URI"), ("other_", "the second image"))
        for column in (
            _column(f"{prefix}source", pa.string(), f"source of {what}"),
            _column(f"{prefix}image_uri", pa.string(), f"URI of {what}"),
            _column(f"{prefix}label", pa.string(), f"label of {what}"),
            _column(f"{prefix}official_split", pa.string(), f"official split of {what}", nullable=True),
        )
    ]
    found = [
        _column("kind", pa.string(), "exact: equal bytes; near: one picture; mirrored: one picture, flipped"),
        _column("distance_bits", pa.int32(), "bits in which the perceptual hashes differ (of the mirrored one)"),
        _column("correlation", pa.float64(), "correlation of the grey thumbnails; 1 for exact"),
    ]
    return _schema("training_duplicates", [*sides, *found])


def _image_columns() -> list[pa.Field]:
    return [
        _column("source", pa.string(), "name of the source"),
        _column("image_uri", pa.string(), "where the image was read from"),
        _column("label", pa.string(), "mask, incorrect or no_mask, as the source says"),
        _column("official_split", pa.string(), "train, validation or test, if the source says", nullable=True),
        _column("content_sha256", pa.string(), "SHA-256 of the file, in hexadecimal"),
        _column("phash", pa.uint64(), "perceptual hash of the upright picture: signs of 64 DCT coefficients"),
        _column("width_px", pa.int32(), "width of the upright image in pixels"),
        _column("height_px", pa.int32(), "height of the upright image in pixels"),
        _column("size_bytes", pa.int64(), "size of the file in bytes"),
        _column("format", pa.string(), "JPEG, PNG, …: by content, not by name"),
        _column("jpeg_quality", pa.int32(), "1 to 100, estimated from the quantisation table", nullable=True),
    ]


def _column(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def _schema(table: str, columns: Iterable[pa.Field]) -> pa.Schema:
    return pa.schema(columns, metadata={"maskdet.table": table, "maskdet.schema_version": str(SCHEMA_VERSION)})
