"""What crosses the pipeline before it is scored: references to images, in batches and shards."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from maskdet.inputs import columns, spool
from maskdet.inputs.spool import Spooled
from maskdet.video.sampling import MICROSECONDS, OPEN_END, Segment

# Prefix of versions that come from an image list; no store's own versions have it.
CLAIMED = "manifest:"  # "manifest", because outputs of version 0.2 hold it
HIDDEN = "hmac:"
"""Prefix of an image's name that ``privacy.uri`` hides; it is not the scheme of any store."""
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
# Bytes that a frame of a video counts for in packing: those of an image at which both limits of a shard are reached.
_FRAME_BYTES = 256 * 1024
_SEGMENT_BYTES = 240  # of the 255 that file systems allow
# Fewer references than this are pickled as tuples: columns and their compression have a fixed cost of some 40 µs.
_FEW_REFS = 8

Element = TypeVar("Element", bound="_Carrier")
# Serialised references, or the place (offset, size) of the same in this process's temporary file.
Packed = bytes | tuple[int, int]


class ImageRef(NamedTuple):
    """One image to score, before it is read, or a part of a video.

    A named tuple: millions of them are pickled and sorted.
    """

    uri: str
    size_bytes: int
    """As listed; −1 if the store was not asked."""
    version: str
    """Changes whenever the content may have changed; empty if the store has nothing at the URI."""
    keys: tuple[str | None, ...] = ()
    """Values of the run's key names, in their order; ``None`` where the source has none."""
    captured_at_ms: int | None = None
    """Capture time in milliseconds since the epoch."""
    problem: tuple[str, str] | None = None
    """Failure code and message of a path or image list row that cannot be understood; such an image is not read."""
    earlier: str = ""
    """Slot of the earlier run's shard that has the rows of this image in its present state; empty if there is none."""
    gone: bool = False
    """Whether the run did not list the image, so that only its earlier rows are left."""
    segment: Segment | None = None
    """For a video: which part of it, and which frames. The capture time is then that of the segment's start."""
    location: str | None = None
    """Where the image is, if its URI is only a pseudonym; ``None``: at the URI."""
    absent: bool = False
    """Whether the run listed the image, but its store says that nothing is there."""
    replaces: str = ""
    """Slot of the earlier run's shard that has the rows of this image in its former state, if it has changed; empty if
    there is none."""

    @property
    def place(self) -> str:
        """Where to read the image."""
        return self.location or self.uri

    @property
    def name(self) -> str:
        """A name that no other image or segment has: the URI; for a segment, the URI and the segment's time."""
        if self.segment is None:
            return self.uri
        return f"{self.uri}#t={self.segment.start_us},{self.segment.end_us}"

    @property
    def identity(self) -> tuple[object, ...]:
        """All that identifies a state of the image: every field but those that say what this run does with it."""
        plain = tuple(self)[:6]
        return plain if self.segment is None else (*plain, tuple(self.segment))

    @property
    def is_lost(self) -> bool:
        """Whether earlier rows are all that is left of the image, so that they cannot be made again."""
        return self.gone or (self.absent and bool(self.earlier))

    @property
    def packed_bytes(self) -> int:
        """Bytes that the image counts for in packing."""
        listed, segment = max(self.size_bytes, 0), self.segment
        if segment is None:
            return listed
        end_us = segment.duration_us if segment.end_us == OPEN_END else segment.end_us
        numerator, denominator = segment.rate
        frames = max(0, end_us - segment.start_us) * numerator // (MICROSECONDS * denominator)
        return max(listed, frames * _FRAME_BYTES)

    @property
    def is_claimed(self) -> bool:
        """Whether size and version come from an image list rather than from the store."""
        return self.version.startswith(CLAIMED)


class _Carrier:
    """Base of the elements that carry references and are pickled many times on their way.

    The references are held as named tuples, as columns or packed, and are converted when another form is asked for. So
    steps that only pass them on do not unpack them, and steps that treat many at once make no tuples.
    """

    refs: tuple[ImageRef, ...]

    @property
    def columns(self) -> pa.RecordBatch:
        """The references as columns; see :mod:`maskdet.inputs.columns`."""
        known = self.__dict__
        if "_columns" not in known:
            packed = self._whole() if "_packed" in known else b""
            is_encoded = packed and not packed.startswith(pickle.PROTO)
            known["_columns"] = columns.decode(packed) if is_encoded else columns.columns_of(self.refs)
        return known["_columns"]

    @property
    def images(self) -> int:
        """How many references there are."""
        known = self.__dict__
        return len(known["refs"]) if "refs" in known else int(self.columns.num_rows)

    def _whole(self) -> bytes:
        packed: Packed = self.__dict__["_packed"]
        return packed if isinstance(packed, bytes) else Spooled(*packed).read()

    @property
    def _packed_refs(self) -> Packed:
        known = self.__dict__
        if "_packed" not in known:
            known["_packed"] = spool.put(self._encoded())
        packed: Packed = known["_packed"]
        # A plain tuple: a named one would be pickled with its class's name, the largest part of an element's bytes.
        return packed if isinstance(packed, bytes) else (packed[0], packed[1])

    def _encoded(self) -> bytes:
        """The references as bytes: columns, or pickled tuples where there are too few for columns to be worth it."""
        if self.images >= _FEW_REFS:
            with contextlib.suppress(UnicodeEncodeError, OverflowError):  # values that no table can hold
                return columns.encode(self.columns)
        return pickle.dumps([tuple(ref) for ref in self.refs], pickle.HIGHEST_PROTOCOL)

    def __getattr__(self, name: str) -> tuple[ImageRef, ...]:
        known = self.__dict__
        if name != "refs" or not ("_packed" in known or "_columns" in known):
            raise AttributeError(name)
        packed = b"" if "_columns" in known else self._whole()
        plain = pickle.loads(packed) if packed.startswith(pickle.PROTO) else columns.rows_of(self.columns)
        refs: tuple[ImageRef, ...] = known.setdefault("refs", tuple(map(ImageRef._make, plain)))
        return refs


@dataclass(frozen=True)
class RefBatch(_Carrier):
    """Some of the images that a source lists.

    Attributes:
        refs: images to score.
        skipped: counts of files listed that are not to be scored, by reason.
    """

    refs: tuple[ImageRef, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_columns(cls, found: pa.RecordBatch, skipped: Mapping[str, int] | None = None) -> RefBatch:
        """A batch of the references in columns."""
        return _element(cls, _columns=found, skipped=skipped or {})

    def __reduce__(self) -> tuple[object, ...]:
        return _batch, (self._packed_refs, self.skipped) if self.skipped else (self._packed_refs,)

    @property
    def listed(self) -> int:
        """How many files were listed, whether they are to be scored or skipped."""
        return self.images + sum(self.skipped.values())


@dataclass(frozen=True)
class Shard(_Carrier):
    """A bounded set of images of one partition: the unit of work, of retry and of output.

    Attributes:
        slot: where its output goes, such as ``site-a/date-2026-01-05/shard-01``: the partition, and the first bits,
            which the hashes of its URIs share. The slot stays the same when an image is added, replaced or removed.
        shard_id: SHA-256 over its images' references and versions; it changes with any of them.
        partition: values of the partition keys.
        refs: its images, sorted.
    """

    slot: str
    shard_id: str
    partition: tuple[str | None, ...]
    refs: tuple[ImageRef, ...]

    @classmethod
    def of_columns(cls, slot: str, shard_id: str, partition: tuple[str | None, ...], found: pa.RecordBatch) -> Shard:
        """A shard of the references in columns, which are sorted."""
        return _element(cls, _columns=found, slot=slot, shard_id=shard_id, partition=partition)

    def __reduce__(self) -> tuple[object, ...]:
        return _shard, (self._packed_refs, self.slot, self.shard_id, self.partition)

    @property
    def size_bytes(self) -> int:
        """Bytes of all its images, as listed."""
        return sum(max(size_bytes, 0) for size_bytes in self.columns["size_bytes"].to_pylist())

    @property
    def listed(self) -> int:
        """How many of its images the run listed; only rows of earlier runs are left of the others."""
        return self.images - int(pc.sum(self.columns["gone"]).as_py() or 0)


def _batch(packed: Packed, skipped: Mapping[str, int] | None = None) -> RefBatch:
    """A batch as it arrives, with its references still packed."""
    return _element(RefBatch, _packed=packed, skipped=skipped or {})


def _shard(packed: Packed, slot: str, shard_id: str, partition: tuple[str | None, ...]) -> Shard:
    """A shard as it arrives, with its references still packed."""
    return _element(Shard, _packed=packed, slot=slot, shard_id=shard_id, partition=partition)


def _element(kind: type[Element], **attributes: object) -> Element:
    element = kind.__new__(kind)
    element.__dict__.update(attributes)
    return element


def partition_folders(names: Sequence[str], values: Sequence[str | None]) -> str:
    """The folders of a partition, ``site-007/date-2026-03-02``; empty without partition keys.

    Not Hive's ``site=007``: readers would take the folder for a column and guess its type, here the number 7. The keys
    are columns of the tables; folders only keep files apart.

    Characters of a value that have a meaning in a path are percent-encoded. File systems allow names of 255 bytes; a
    longer one is cut, and ends in ``~`` and the first 16 digits of its value's SHA-256.
    """
    return "/".join(
        f"{name}-{HIVE_NULL if value is None else _no_null(_segment(value, _SEGMENT_BYTES - len(name) - 1))}"
        for name, value in zip(names, values, strict=True)
    )


def _no_null(segment: str) -> str:
    """The folder of a value, distinct from a missing value's even where the value itself has that name."""
    return segment.replace("_", "%5F") if segment == HIVE_NULL else segment


def partition_path(names: Sequence[str], values: Sequence[str | None]) -> str:
    """The folders of a partition, ``site=a/date=2026-01-05``, in Hive's layout; empty without partition keys.

    Characters of a value that have a meaning in a path or to a reader are percent-encoded. File systems allow names of
    255 bytes; a longer one is cut, and ends in ``~`` and the first 16 digits of its value's SHA-256. The whole value is
    in the metadata of the files below the folder.
    """
    return "/".join(
        f"{name}={HIVE_NULL if value is None else _segment(value, _SEGMENT_BYTES - len(name) - 1)}"
        for name, value in zip(names, values, strict=True)
    )


def _segment(value: str, limit: int) -> str:
    encoded = [_encoded(character) for character in value]
    whole = "".join(encoded)
    if len(whole.encode()) <= limit:
        return whole
    mark = f"~{hashlib.sha256(value.encode()).hexdigest()[:16]}"
    room, kept = limit - len(mark), 0
    for count, character in enumerate(encoded):
        kept += len(character.encode())
        if kept > room:
            return "".join(encoded[:count]) + mark
    raise AssertionError("what is too long is cut")


def _encoded(character: str) -> str:
    """A character as Spark writes it in a folder's name: letters of every alphabet are kept."""
    return character if not character.isascii() and character.isprintable() else quote(character, safe=" ")
