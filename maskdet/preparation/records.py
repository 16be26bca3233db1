"""What passes through a preparation and what it writes: batches of labelled references, and the tables' schemas."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from maskdet.inputs.references import ImageRef
from maskdet.schemas import column, table_schema

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
        root: the folder that was listed, if it was one; folders above it say nothing about its images.
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
    """Schema of the images as measured; passes through the pipeline and is not written."""
    names = ("given_group", "name_group")
    return pa.schema([*_image_columns(), *(pa.field(name, pa.string()) for name in names), ("thumbnail", pa.binary())])


def images_schema() -> pa.Schema:
    """Schema of the training manifest: one row per image."""
    added = [
        column("split", pa.string(), "train, validation or test: of the group-disjoint splits"),
        column("group_id", pa.string(), "images that must stay in one split; named after the smallest content_sha256"),
        column("duplicate_of", pa.string(), "first image of the same bytes; null if it is the first", nullable=True),
        column("near_duplicates", pa.int32(), "other contents that show the same picture"),
        column("suspicious", pa.bool_(), "an image of the same bytes or picture has the other label"),
        column("flat", pa.bool_(), "shows nothing: next to no contrast; joins no group by its content"),
        column("official_leak", pa.bool_(), "official validation or test image whose group is in official train too"),
    ]
    return table_schema("training_images", [*_image_columns(), *added], SCHEMA_VERSION)


def failures_schema() -> pa.Schema:
    """Schema of the failures: one row per image left out."""
    columns = [
        column("source", pa.string(), "name of the source"),
        column("image_uri", pa.string(), "where the image should have been read from"),
        column("stage", pa.string(), "where it failed: list, fetch or decode"),
        column("code", pa.string(), "why it failed: a stable name"),
        column("message", pa.string(), "why it failed, for people"),
        column("attempts", pa.int32(), "how often it was tried"),
    ]
    return table_schema("training_failures", columns, SCHEMA_VERSION)


def duplicates_schema() -> pa.Schema:
    """Schema of the duplicates: one row per pair. Exact copies are paired only with the first of their content."""
    sides = [
        field
        for prefix, what in (("", "the first image, by source and URI"), ("other_", "the second image"))
        for field in (
            column(f"{prefix}source", pa.string(), f"source of {what}"),
            column(f"{prefix}image_uri", pa.string(), f"URI of {what}"),
            column(f"{prefix}label", pa.string(), f"label of {what}"),
            column(f"{prefix}official_split", pa.string(), f"official split of {what}", nullable=True),
        )
    ]
    found = [
        column("kind", pa.string(), "exact: equal bytes; near: one picture; mirrored: one picture, flipped"),
        column("distance_bits", pa.int32(), "bits in which the perceptual hashes differ (of the mirrored one)"),
        column("correlation", pa.float64(), "correlation of the grey thumbnails; 1 for exact"),
    ]
    return table_schema("training_duplicates", [*sides, *found], SCHEMA_VERSION)


def _image_columns() -> list[pa.Field]:
    return [
        column("source", pa.string(), "name of the source"),
        column("image_uri", pa.string(), "where the image was read from"),
        column("label", pa.string(), "mask, incorrect or no_mask, as the source says"),
        column("official_split", pa.string(), "train, validation or test, if the source says", nullable=True),
        column("content_sha256", pa.string(), "SHA-256 of the file, in hexadecimal"),
        column("phash", pa.uint64(), "perceptual hash of the upright picture: signs of 64 DCT coefficients"),
        column("width_px", pa.int32(), "width of the upright image in pixels"),
        column("height_px", pa.int32(), "height of the upright image in pixels"),
        column("size_bytes", pa.int64(), "size of the file in bytes"),
        column("format", pa.string(), "JPEG, PNG, …: by content, not by name"),
        column("jpeg_quality", pa.int32(), "1 to 100, estimated from the quantisation table", nullable=True),
    ]
