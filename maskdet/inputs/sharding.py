"""Image references to shards: deterministic, bounded, and stable as the input grows.

A partition's images are the leaves of a binary trie over the SHA-256 of their URIs. A node that fits the limits is a
shard; one that does not is split by the next bit. The cut therefore depends on the set of images alone, never on their
order, and one image added, replaced or removed disturbs the one node it lies in: it changes that shard, or splits it,
or merges two. (Cutting a sorted list by position would move every later boundary; content-defined chunking bounds only
the mean.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from maskdet.config import ScoreSettings
from maskdet.inputs.references import ImageRef, Shard, partition_folders

# Bits that the plan looks at: cells of 1/4096 of a partition, so a partition of 4 million images is planned exactly and
# a larger one is split further where its images meet.
PLAN_BITS = 12
_HASH_BITS = 256
URI_GROUPS = 256
"""Groups in which images of several inputs meet, to drop duplicates, and those of image lists to be looked up."""

_DERIVED: Mapping[str, Callable[[datetime], str]] = {
    "date": lambda local: local.date().isoformat(),
    "hour": lambda local: f"{local.hour:02d}",
    "week": lambda local: f"{local.isocalendar().year:04d}-W{local.isocalendar().week:02d}",
    "month": lambda local: f"{local.year:04d}-{local.month:02d}",
    "weekday": lambda local: str(local.isoweekday()),
}

# Images and bytes by cell of a plan. Plain tuples, which Beam writes as they are; it would pickle each named one.
Cells = Mapping[int, tuple[int, int]]


class Size(NamedTuple):
    """What limits a shard."""

    images: int
    size_bytes: int

    def plus(self, other: Size) -> Size:
        """The size of both together."""
        return Size(self.images + other.images, self.size_bytes + other.size_bytes)


@dataclass(frozen=True)
class KeyRule:
    """How an image's keys and capture time become its partition and its groups.

    Attributes:
        key_names: names of :attr:`ImageRef.keys`.
        partition_by: names of the partition keys; ``date`` and ``hour`` may be derived from the capture time.
        timezone: IANA name; that of derived dates and hours.
    """

    key_names: tuple[str, ...]
    partition_by: tuple[str, ...]
    timezone: str = "UTC"

    @classmethod
    def of(cls, settings: ScoreSettings) -> KeyRule:
        """The rule of a run."""
        return cls(settings.source.key_names, settings.partition_by, settings.source.timezone)

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every key, all of which are columns of the tables: given, and derived for partitions."""
        return tuple(dict.fromkeys((*self.key_names, *self.partition_by)))

    def value(self, ref: ImageRef, name: str) -> str | None:
        """The value of one key: given, or derived from the capture time."""
        if name in self.key_names:
            return ref.keys[self.key_names.index(name)]
        return self.derive(ref.captured_at_ms, name)

    def derive(self, captured_at_ms: int | None, name: str) -> str | None:
        """A key of a capture time, in the rule's time zone.

        Args:
            captured_at_ms: milliseconds since 1970, in UTC.
            name: ``date`` (``2026-01-05``), ``hour`` (``08``), ``week`` of ISO 8601 (``2026-W02``), ``month``
                (``2026-01``) or ``weekday`` (``1``, Monday, to ``7``).
        """
        if captured_at_ms is None:
            return None
        return _DERIVED[name](datetime.fromtimestamp(captured_at_ms / 1000, ZoneInfo(self.timezone)))

    def partition(self, ref: ImageRef) -> tuple[str | None, ...]:
        """The values of the partition keys."""
        return tuple(self.value(ref, name) for name in self.partition_by)

    def folder(self, ref: ImageRef) -> str:
        """The folders of the image's partition, ``site-a/date-2026-01-05``."""
        return partition_folders(self.partition_by, self.partition(ref)) if self.partition_by else ""


def uri_bits(uri: str) -> int:
    """The URI's place in the trie: its SHA-256 as an integer, the highest bit first."""
    return int.from_bytes(hashlib.sha256(uri.encode()).digest(), "big")


def drop_duplicates(refs: Iterable[ImageRef]) -> tuple[list[ImageRef], int]:
    """Keep one reference a URI (of a video: a segment), the first in sorted order.

    Returns:
        The references kept, sorted, and how many were dropped.
    """
    ordered = sorted(refs, key=_sort_key)
    kept = [ref for i, ref in enumerate(ordered) if i == 0 or ref.name != ordered[i - 1].name]
    return kept, len(ordered) - len(kept)


def pack(refs: Sequence[ImageRef], rule: KeyRule, limit: Size, prefix: str = "") -> list[Shard]:
    """Cut the images of one partition into shards.

    Args:
        refs: images of one partition, all under ``prefix``, without duplicates, in any order.
        rule: the run's keys.
        limit: no shard is larger, save one of a single image.
        prefix: bits that all the URIs' hashes begin with, as ``0`` and ``1``.

    Returns:
        The shards, in the order of their slots.
    """
    if not refs:
        return []
    if _fits(size_of(refs), limit) or len(prefix) == _HASH_BITS:
        return [shard_of(refs, rule, f"{rule.folder(refs[0])}/shard-{prefix or 'all'}".lstrip("/"))]
    halves: tuple[list[ImageRef], list[ImageRef]] = ([], [])
    for ref in refs:
        halves[_bit(ref, len(prefix))].append(ref)
    return [shard for bit in (0, 1) for shard in pack(halves[bit], rule, limit, f"{prefix}{bit}")]


def by_folder(refs: Iterable[ImageRef], rule: KeyRule) -> dict[str, list[ImageRef]]:
    """References by the folder of their partition."""
    # A partition's folder is named once, which takes five times as long as to find an image's partition.
    partitions: dict[tuple[str | None, ...], list[ImageRef]] = {}
    for ref in refs:
        partitions.setdefault(rule.partition(ref), []).append(ref)
    return {rule.folder(some[0]): some for some in partitions.values()}


def group_of(uri: str, groups: int = URI_GROUPS) -> int:
    """One of some groups of URIs, :data:`URI_GROUPS` at most, by the first bits of their hashes.

    A shard's URIs share theirs: so a group's images lie in few shards, and travel on in few and large batches.
    """
    first_bits = uri_bits(uri) * URI_GROUPS >> _HASH_BITS
    return first_bits * groups // URI_GROUPS


def size_of(refs: Iterable[ImageRef]) -> Size:
    """Images and listed bytes of a set of references."""
    sizes = [ref.packed_bytes for ref in refs]
    return Size(len(sizes), sum(sizes))


def cell_of(ref: ImageRef) -> int:
    """The plan's cell that an image lies in: the first :data:`PLAN_BITS` bits of its hash."""
    return uri_bits(ref.name) >> (_HASH_BITS - PLAN_BITS)


def count_cells(refs: Iterable[ImageRef]) -> dict[int, tuple[int, int]]:
    """The histogram of cells of some images."""
    counted: dict[int, tuple[int, int]] = {}
    for ref in refs:
        cell = cell_of(ref)
        images, size_bytes = counted.get(cell, (0, 0))
        counted[cell] = images + 1, size_bytes + ref.packed_bytes
    return counted


def merge_cells(histograms: Iterable[Cells]) -> dict[int, tuple[int, int]]:
    """Add up histograms of cells."""
    merged: dict[int, tuple[int, int]] = {}
    for histogram in histograms:
        for cell, (images, size_bytes) in histogram.items():
            more_images, more_bytes = merged.get(cell, (0, 0))
            merged[cell] = images + more_images, size_bytes + more_bytes
    return merged


def plan(cells: Cells, limit: Size, prefix: str = "") -> tuple[str, ...]:
    """Where :func:`pack` would cut a partition, from its histogram alone, down to :data:`PLAN_BITS` bits.

    Returns:
        Prefixes that cover the hash space; :func:`pack` of the images under each gives the partition's shards.
    """
    total = Size(sum(images for images, _ in cells.values()), sum(size_bytes for _, size_bytes in cells.values()))
    if _fits(total, limit) or len(prefix) == PLAN_BITS:
        return (prefix,)
    shift = PLAN_BITS - len(prefix) - 1
    halves: tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]] = ({}, {})
    for cell, size in cells.items():
        halves[(cell >> shift) & 1][cell] = size
    return (*plan(halves[0], limit, prefix + "0"), *plan(halves[1], limit, prefix + "1"))


def prefix_of(ref: ImageRef, prefixes: frozenset[str]) -> str:
    """The prefix of a plan that an image lies under."""
    bits = f"{cell_of(ref):0{PLAN_BITS}b}"
    return next(bits[:depth] for depth in range(PLAN_BITS + 1) if bits[:depth] in prefixes)


def shard_of(refs: Sequence[ImageRef], rule: KeyRule, slot: str) -> Shard:
    """The shard of some images of one partition in a slot."""
    ordered = tuple(sorted(refs, key=_sort_key))
    images = [ref.identity for ref in ordered]
    content = json.dumps([rule.key_names, rule.partition_by, images], separators=(",", ":"), ensure_ascii=True)
    return Shard(
        slot=slot,
        shard_id=hashlib.sha256(content.encode()).hexdigest(),
        partition=rule.partition(ordered[0]),
        refs=ordered,
    )


def _bit(ref: ImageRef, depth: int) -> int:
    return (uri_bits(ref.name) >> (_HASH_BITS - 1 - depth)) & 1


def _fits(size: Size, limit: Size) -> bool:
    return size.images <= 1 or (size.images <= limit.images and size.size_bytes <= limit.size_bytes)


def _sort_key(ref: ImageRef) -> tuple[object, ...]:
    # None does not order with str. Every field takes part, or what is kept would hang on the order of listing.
    return (
        ref.uri,
        ref.segment or (),
        tuple((value is not None, value or "") for value in ref.keys),
        (ref.captured_at_ms is not None, ref.captured_at_ms or 0),
        ref.size_bytes,
        ref.version,
        ref.problem or (),
        ref.earlier,
        ref.gone,
        ref.absent,
    )
