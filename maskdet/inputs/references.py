"""What crosses the pipeline on its way to be scored: references to images, batches and shards of them."""

from __future__ import annotations

import hashlib
import pickle
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote

from maskdet.video.sampling import MICROSECONDS, OPEN_END, Segment

# Begins versions that an image list tells; no store's own begins so.
CLAIMED = "manifest:"  # as outputs of version 0.2 hold them
HIDDEN = "hmac:"
"""Begins the name of an image that is hidden by ``privacy.uri``; no scheme of a store."""
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
# What a frame of a video weighs in packing: as much as an image where a shard's two limits meet.
_FRAME_BYTES = 256 * 1024
_SEGMENT_BYTES = 240  # of the 255 that file systems take
# From how many references on a batch is compressed: zlib takes 15 µs to begin, and all else of a batch of three 4 µs.
_COMPRESSED_REFS = 8


class ImageRef(NamedTuple):
    """One image to score, before it is read, or a part of a video.

    A named tuple: millions of them are pickled and sorted.
    """

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
    """Failure code and message of a path or image list row that cannot be understood; such an image is not read."""
    earlier: str = ""
    """Slot of the earlier run's shard that has the rows of this image as it is; empty if none has."""
    gone: bool = False
    """Whether the run did not list the image: only its earlier rows are left of it."""
    segment: Segment | None = None
    """Of a video: which part of it, and which frames. The capture time is then that of the segment's start."""
    location: str | None = None
    """Where the image is, if its URI is only a name for it; ``None``: at the URI."""
    absent: bool = False
    """Whether the run listed the image, and its store says that nothing is there."""

    @property
    def place(self) -> str:
        """Where to read the image."""
        return self.location or self.uri

    @property
    def name(self) -> str:
        """What tells one image or segment from all others: the URI, and of a segment its time."""
        if self.segment is None:
            return self.uri
        return f"{self.uri}#t={self.segment.start_us},{self.segment.end_us}"

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells one state of an image from another: everything but what this run made of it."""
        plain = tuple(self)[:6]
        return plain if self.segment is None else (*plain, tuple(self.segment))

    @property
    def is_lost(self) -> bool:
        """Whether earlier rows are all that is left of the image: they cannot be made again."""
        return self.gone or (self.absent and bool(self.earlier))

    @property
    def packed_bytes(self) -> int:
        """What the image weighs in packing."""
        listed, segment = max(self.size_bytes, 0), self.segment
        if segment is None:
            return listed
        end_us = segment.duration_us if segment.end_us == OPEN_END else segment.end_us
        numerator, denominator = segment.rate
        frames = max(0, end_us - segment.start_us) * numerator // (MICROSECONDS * denominator)
        return max(listed, frames * _FRAME_BYTES)

    @property
    def is_claimed(self) -> bool:
        """Whether size and version are what an image list says, rather than the store."""
        return self.version.startswith(CLAIMED)


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
        slot: where its output goes, ``site-a/date-2026-01-05/shard-01``: the partition, and the bits that the hashes of
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
    """References as they travel: runners hold all of a run's at once, several times over, and they are much alike.

    A few are not compressed: to begin costs more than what there is to gain.
    """
    plain = pickle.dumps([tuple(ref) for ref in refs], pickle.HIGHEST_PROTOCOL)
    return zlib.compress(plain, 1) if len(refs) >= _COMPRESSED_REFS else plain


def _unpacked(packed: bytes) -> tuple[ImageRef, ...]:
    plain = packed if packed[:1] == pickle.PROTO else zlib.decompress(packed)
    return tuple(ImageRef(*ref) for ref in pickle.loads(plain))


def _passed_on(kind: type[RefBatch | Shard], attributes: Mapping[str, object]) -> RefBatch | Shard:
    """An element as it arrives: all attributes but its references, which are packed yet."""
    element = kind.__new__(kind)
    element.__dict__.update(attributes)
    return element


def partition_folders(names: Sequence[str], values: Sequence[str | None]) -> str:
    """The folders of a partition, ``site-007/date-2026-03-02``; empty without partition keys.

    Not Hive's ``site=007``: readers would take the folder for a column and guess its type (7). The keys are columns of
    the tables, and folders only keep files apart.

    Characters of a value that a path could misread are percent-encoded. File systems take names of 255 bytes; a longer
    one is cut and ends in ``~`` and the first 16 digits of its value's SHA-256.
    """
    return "/".join(
        f"{name}-{HIVE_NULL if value is None else _no_null(_segment(value, _SEGMENT_BYTES - len(name) - 1))}"
        for name, value in zip(names, values, strict=True)
    )


def _no_null(segment: str) -> str:
    """A value's folder, also of one that is called as a missing value's."""
    return segment.replace("_", "%5F") if segment == HIVE_NULL else segment


def partition_path(names: Sequence[str], values: Sequence[str | None]) -> str:
    """The folders of a partition, ``site=a/date=2026-01-05``, in Hive's layout; empty without partition keys.

    Characters of a value that a path or a reader could misread are percent-encoded. File systems take names of 255
    bytes; a longer one is cut and ends in ``~`` and the first 16 digits of its value's SHA-256, and the whole value is
    in the metadata of the files below it.
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
    """A character as Spark writes it in a folder's name: letters of every alphabet stand for themselves."""
    return character if not character.isascii() and character.isprintable() else quote(character, safe=" ")
