"""What crosses the pipeline and what it writes: image references, shards, and the Arrow schema of every table.

The schema functions are the only place where a column is named; each column carries its description and unit in the
Parquet file itself (field metadata, key ``description``).
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote

import pyarrow as pa

SCHEMA_VERSION = 1
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


class ImageRef(NamedTuple):
    """One image to score, before it is read. A named tuple: millions of them are pickled and sorted."""

    uri: str
    size_bytes: int
    """As listed; −1 if the store was not asked."""
    version: str
    """Changes whenever the content may have; empty if the store has nothing at the URI."""
    keys: tuple[str | None, ...] = ()
    """Values of the run's key names, in their order; ``None`` where the source has none."""
    captured_at_ms: int | None = None
    """Capture time in milliseconds since the epoch."""
    problem: tuple[str, str] | None = None
    """Failure code and message of a path or manifest row that cannot be understood; such an image is not read."""


class _PackedOnce:
    """What carries references, and is pickled many times over on its way.

    The first pickling packs its references; who reads them unpacks them. Steps that only pass it on do neither.
    """

    refs: tuple[ImageRef, ...]

    @property
    def _packed_refs(self) -> bytes:
        known = self.__dict__
        if "_packed" not in known:
            known["_packed"] = _packed(self.refs)
        return bytes(known["_packed"])

    def __getattr__(self, name: str) -> tuple[ImageRef, ...]:
        if name != "refs" or "_packed" not in self.__dict__:
            raise AttributeError(name)
        refs: tuple[ImageRef, ...] = self.__dict__.setdefault("refs", _unpacked(self.__dict__["_packed"]))
        return refs


@dataclass(frozen=True)
class RefBatch(_PackedOnce):
    """Some of the images that a source lists.

    Attributes:
        refs: images to score.
        skipped: files listed that are not to be scored, by reason.
    """

    refs: tuple[ImageRef, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __reduce__(self) -> tuple[object, ...]:
        return _passed_on, (RefBatch, {"_packed": self._packed_refs, "skipped": self.skipped})

    @property
    def listed(self) -> int:
        """Files listed: to be scored, and skipped."""
        return len(self.refs) + sum(self.skipped.values())


@dataclass(frozen=True)
class Shard(_PackedOnce):
    """A bounded set of images of one partition: the unit of work, of retry and of output.

    Attributes:
        slot: where its output goes, ``site=a/date=2026-01-05/shard-01``: the partition, and the bits that the hashes of
            its URIs share. The slot stays when an image in it is added, replaced or removed.
        shard_id: SHA-256 over its images' references and versions; changes with any of them.
        partition: values of the partition keys.
        refs: its images, sorted.
    """

    slot: str
    shard_id: str
    partition: tuple[str | None, ...]
    refs: tuple[ImageRef, ...]

    def __reduce__(self) -> tuple[object, ...]:
        others = {"slot": self.slot, "shard_id": self.shard_id, "partition": self.partition}
        return _passed_on, (Shard, {"_packed": self._packed_refs, **others})

    @property
    def size_bytes(self) -> int:
        """Bytes of all its images, as listed."""
        return sum(max(ref.size_bytes, 0) for ref in self.refs)


def _packed(refs: Sequence[ImageRef]) -> bytes:
    """References as they travel: runners hold all of a run's at once, several times over, and they are much alike."""
    return zlib.compress(pickle.dumps([tuple(ref) for ref in refs], pickle.HIGHEST_PROTOCOL), 1)


def _unpacked(packed: bytes) -> tuple[ImageRef, ...]:
    return tuple(ImageRef(*ref) for ref in pickle.loads(zlib.decompress(packed)))


def _passed_on(kind: type[RefBatch | Shard], attributes: Mapping[str, object]) -> RefBatch | Shard:
    """An element as it arrives: all attributes but its references, which are packed yet."""
    element = kind.__new__(kind)
    element.__dict__.update(attributes)
    return element


@dataclass(frozen=True)
class StageSeconds:
    """Thread-seconds that a shard spent in each stage."""

    fetch: float = 0.0
    decode: float = 0.0
    detect: float = 0.0
    infer: float = 0.0
    write: float = 0.0

    def __add__(self, other: StageSeconds) -> StageSeconds:
        return StageSeconds(**{stage: spent + getattr(other, stage) for stage, spent in vars(self).items()})


@dataclass(frozen=True)
class ShardResult:
    """The rows of one shard, and what they cost.

    Attributes:
        predictions: one row a face, of :func:`predictions_schema`.
        failures: one row a failed image, of :func:`failures_schema`.
        no_face: one row an image in which no face was found, of :func:`no_face_schema`.
        size_bytes: bytes read.
        seconds: thread-seconds by stage.
    """

    predictions: pa.Table
    failures: pa.Table
    no_face: pa.Table
    size_bytes: int = 0
    seconds: StageSeconds = field(default_factory=StageSeconds)


def partition_path(names: Sequence[str], values: Sequence[str | None]) -> str:
    """The folders of a partition, ``site=a/date=2026-01-05``, in Hive's layout; empty without partition keys.

    Values are percent-encoded where a path or a reader could misread them.
    """
    return "/".join(
        f"{name}={HIVE_NULL if value is None else quote(value, safe=' ')}"
        for name, value in zip(names, values, strict=True)
    )


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
            _column("probability_mask", pa.float32(), "probability that the face wears a mask, 0 to 1"),
            _column("label", pa.string(), "mask, no_mask or uncertain, by the run's decision thresholds"),
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
