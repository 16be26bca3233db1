"""Packs image references into shards: deterministic, bounded in size, and stable as the input grows.

A partition's images are the leaves of a binary trie over the SHA-256 of their URIs. A node that fits the limits is a
shard; one that does not is split by the next bit. So the cut depends only on the set of images, never on their order,
and an image that is added, replaced or removed disturbs only the node it lies in: it changes that shard, splits it, or
merges two. (Cutting a sorted list by position would move every later boundary; content-defined chunking bounds only the
mean size.)
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskdet.config import ScoreSettings
from maskdet.inputs import columns
from maskdet.inputs.columns import Integers
from maskdet.inputs.references import ImageRef, Shard, partition_folders

# Bits of the hash that the plan looks at. They make 4,096 cells of a partition, so one of 4 million images is planned
# exactly; a larger one is split further where its images meet.
PLAN_BITS = 12
_HASH_BITS, _WORD_BITS, _GROUP_BITS = 256, 64, 8
_HOUR_MS = 3_600_000
URI_GROUPS = 256
"""Number of groups that images are divided into, to drop duplicates of several inputs and to look up those of lists."""

_DERIVED: Mapping[str, Callable[[datetime], str]] = {
    "date": lambda local: local.date().isoformat(),
    "hour": lambda local: f"{local.hour:02d}",
    "week": lambda local: f"{local.isocalendar().year:04d}-W{local.isocalendar().week:02d}",
    "month": lambda local: f"{local.year:04d}-{local.month:02d}",
    "weekday": lambda local: str(local.isoweekday()),
}

# Values of the partition keys.
Partition = tuple[str | None, ...]
# Images and bytes by cell of a plan. Plain tuples, which Beam has a coder for; it would pickle each named tuple.
Cells = Mapping[int, tuple[int, int]]


class Size(NamedTuple):
    """What limits a shard."""

    images: int
    size_bytes: int

    def plus(self, other: Size) -> Size:
        """The sum of both."""
        return Size(self.images + other.images, self.size_bytes + other.size_bytes)


@dataclass(frozen=True)
class KeyRule:
    """How an image's keys and capture time become its partition and its groups.

    Attributes:
        key_names: names of :attr:`ImageRef.keys`.
        partition_by: names of the partition keys; ``date`` and ``hour`` may be derived from the capture time.
        timezone: IANA name of the zone of derived dates and hours.
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
        """Every key, given or derived for partitions; each is a column of the tables."""
        return tuple(dict.fromkeys((*self.key_names, *self.partition_by)))

    def value(self, ref: ImageRef, name: str) -> str | None:
        """The value of one key: given, or derived from the capture time."""
        if name in self.key_names:
            return ref.keys[self.key_names.index(name)]
        return self.derive(ref.captured_at_ms, name)

    def derive(self, captured_at_ms: int | None, name: str) -> str | None:
        """A key derived from a capture time, in the rule's time zone.

        Args:
            captured_at_ms: milliseconds since 1970, in UTC.
            name: ``date`` (``2026-01-05``), ``hour`` (``08``), ``week`` of ISO 8601 (``2026-W02``), ``month``
                (``2026-01``) or ``weekday`` (``1``, Monday, to ``7``).
        """
        if captured_at_ms is None:
            return None
        return _DERIVED[name](datetime.fromtimestamp(captured_at_ms / 1000, ZoneInfo(self.timezone)))

    def derive_all(
        self, times_ms: Integers, is_known: NDArray[np.bool_], name: str
    ) -> tuple[Integers, list[str | None]]:
        """A key derived from many capture times: the index of each one's value, ``(times,)``, and the distinct values.

        Args:
            times_ms: milliseconds since 1970, in UTC, ``(times,)``.
            is_known: which of them are capture times, ``(times,)``; for all others the key is ``None``.
            name: as for :meth:`derive`.
        """
        known = times_ms[is_known]
        # Every derived key follows from the local hour, and there are few distinct hours.
        hours = _local_hours(known, ZoneInfo(self.timezone))
        _, first, place = np.unique(hours, return_index=True, return_inverse=True)
        derived = [self.derive(time_ms, name) for time_ms in known[first].tolist()]
        numbers = {value: number for number, value in enumerate(dict.fromkeys([*derived, None]))}
        codes = np.full(len(times_ms), numbers[None])
        codes[is_known] = np.array([numbers[value] for value in derived], np.int64)[place]
        return codes, list(numbers)

    def partition(self, ref: ImageRef) -> Partition:
        """The values of the partition keys."""
        return tuple(self.value(ref, name) for name in self.partition_by)

    def folder(self, partition: Partition) -> str:
        """The folders of a partition, ``site-a/date-2026-01-05``."""
        return _folder(self.partition_by, partition)


@functools.lru_cache(maxsize=10_000)
def _folder(names: tuple[str, ...], partition: Partition) -> str:
    # Every batch asks for the same few folders.
    return partition_folders(names, partition) if names else ""


def drop_duplicates(refs: Iterable[ImageRef]) -> tuple[list[ImageRef], int]:
    """Keep one reference for each URI (for a video, each segment): the first in sorted order.

    Returns:
        The references kept, sorted, and how many were dropped.
    """
    ordered = sorted(refs, key=_sort_key)
    kept = [ref for i, ref in enumerate(ordered) if i == 0 or ref.name != ordered[i - 1].name]
    return kept, len(ordered) - len(kept)


def drop_repeated(found: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
    """As :func:`drop_duplicates`, for columns; not sorted where nothing is dropped."""
    if not _may_repeat(found):
        return found, 0
    kept, dropped = drop_duplicates(map(ImageRef._make, columns.rows_of(found)))
    return columns.columns_of(kept), dropped


def cut_shards(found: pa.RecordBatch, rule: KeyRule, limit: Size, prefix: str = "") -> list[Shard]:
    """Cut the images of one partition into shards.

    Args:
        found: columns of images of one partition, all under ``prefix``, without duplicates, in any order.
        rule: the run's keys.
        limit: no shard is larger, except one of a single image.
        prefix: bits that all the URIs' hashes begin with, as a text of ``0`` and ``1``.

    Returns:
        The shards, in the order of their slots.
    """
    if not found.num_rows:
        return []
    _, [partition] = partitions_of(found.slice(0, 1), rule)
    folder = rule.folder(partition)
    sizes, numbers = packed_bytes(found), columns.digests(columns.names_of(found))

    def cut(rows: Integers, prefix: str) -> Iterator[Shard]:
        if not len(rows):
            return
        if _fits(Size(len(rows), int(sizes[rows].sum())), limit) or len(prefix) == _HASH_BITS:
            slot = f"{folder}/shard-{prefix or 'all'}".lstrip("/")
            yield _shard(found.take(pa.array(rows)) if len(rows) < len(sizes) else found, rule, slot, partition)
            return
        word, bit = divmod(len(prefix), _WORD_BITS)
        bits = (numbers[rows, word] >> np.uint64(_WORD_BITS - 1 - bit)) & np.uint64(1)
        yield from cut(rows[bits == 0], f"{prefix}0")
        yield from cut(rows[bits == 1], f"{prefix}1")

    return list(cut(np.arange(found.num_rows), prefix))


def by_partition(found: pa.RecordBatch, rule: KeyRule) -> list[tuple[Partition, pa.RecordBatch]]:
    """Images grouped by the values of their partition keys."""
    numbers, partitions = partitions_of(found, rule)
    return [(partitions[number], rows) for number, rows in columns.by_number(found, numbers)]


def partitions_of(found: pa.RecordBatch, rule: KeyRule) -> tuple[Integers, list[Partition]]:
    """The number of each image's partition, ``(images,)``; and, for each number, the values of the partition keys."""
    numbers = np.zeros(found.num_rows, np.int64)
    encoded = [_encoded(found, rule, name) for name in rule.partition_by]
    for codes, values in encoded:
        _, numbers = np.unique(numbers * len(values) + codes, return_inverse=True)
    _, first = np.unique(numbers, return_index=True)
    return numbers, [tuple(values[codes[row]] for codes, values in encoded) for row in first.tolist()]


def _encoded(found: pa.RecordBatch, rule: KeyRule, name: str) -> tuple[Integers, list[str | None]]:
    """A key of each image as an index, ``(images,)``, into its distinct values; and those values."""
    if name in rule.key_names:
        column = columns.key_column(found, rule.key_names.index(name))
        values = column.dictionary_encode(null_encoding="encode")
        return np.asarray(values.indices).astype(np.int64), values.dictionary.to_pylist()
    times = found["captured_at_ms"]
    return rule.derive_all(np.asarray(times.fill_null(0)), np.asarray(times.is_valid()), name)


def _local_hours(times_ms: Integers, zone: ZoneInfo) -> Integers:
    """The local hour that each time lies in, counted from 1970, ``(times,)``."""
    hours, place = np.unique(times_ms // _HOUR_MS, return_inverse=True)
    first, last = np.full(len(hours), times_ms.max(initial=0)), np.full(len(hours), times_ms.min(initial=0))
    np.minimum.at(first, place, times_ms)
    np.maximum.at(last, place, times_ms)
    offsets = np.array([_offset_ms(time, zone) for time in first.tolist()], np.int64)
    changes = offsets != np.array([_offset_ms(time, zone) for time in last.tolist()], np.int64)
    local = times_ms + offsets[place]
    for row in np.flatnonzero(changes[place]).tolist():  # clocks were changed within that hour
        local[row] = times_ms[row] + _offset_ms(int(times_ms[row]), zone)
    return local // _HOUR_MS


def _offset_ms(time_ms: int, zone: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(time_ms / 1000, zone).utcoffset()
    assert offset is not None, "a time with a zone has an offset"
    return offset // timedelta(milliseconds=1)


def group_numbers(found: pa.RecordBatch, groups: int = URI_GROUPS) -> Integers:
    """The group of each image, ``(images,)``, by the first bits of its URI's hash; at most :data:`URI_GROUPS` groups.

    The URIs of a shard share their first bits, so a group's images lie in few shards and move on in few, large batches.
    """
    first_bits = (columns.digests(found["uri"].to_pylist())[:, 0] >> np.uint64(_WORD_BITS - _GROUP_BITS)).astype(
        np.int64
    )
    return first_bits * groups // URI_GROUPS


def packed_bytes(found: pa.RecordBatch) -> Integers:
    """Bytes that each image counts for in packing, ``(images,)``; see :attr:`ImageRef.packed_bytes`."""
    if columns.has_segments(found):
        return np.array([ImageRef._make(row).packed_bytes for row in columns.rows_of(found)], np.int64)
    sizes: Integers = np.maximum(np.asarray(found["size_bytes"]), 0)
    return sizes


def size_of(found: pa.RecordBatch) -> Size:
    """How many images there are, and the bytes that they count for in packing."""
    return Size(found.num_rows, int(packed_bytes(found).sum()))


def cells_of(found: pa.RecordBatch) -> Integers:
    """The plan's cell that each image lies in, ``(images,)``: the first :data:`PLAN_BITS` bits of its name's hash."""
    heads = columns.digests(columns.names_of(found))[:, 0]
    return (heads >> np.uint64(_WORD_BITS - PLAN_BITS)).astype(np.int64)


def count_cells(found: pa.RecordBatch, rule: KeyRule) -> list[tuple[Partition, dict[int, tuple[int, int]]]]:
    """The histogram of cells of each partition's images."""
    numbers, partitions = partitions_of(found, rule)
    places, place, images = np.unique((numbers << PLAN_BITS) + cells_of(found), return_inverse=True, return_counts=True)
    size_bytes = np.zeros(len(places), np.int64)
    np.add.at(size_bytes, place, packed_bytes(found))
    counted: list[dict[int, tuple[int, int]]] = [{} for _ in partitions]
    for one, count, total in zip(places.tolist(), images.tolist(), size_bytes.tolist(), strict=True):
        counted[one >> PLAN_BITS][one & (2**PLAN_BITS - 1)] = count, total
    return list(zip(partitions, counted, strict=True))


def merge_cells(histograms: Iterable[Cells]) -> dict[int, tuple[int, int]]:
    """Add up histograms of cells."""
    merged: dict[int, tuple[int, int]] = {}
    for histogram in histograms:
        for cell, (images, size_bytes) in histogram.items():
            more_images, more_bytes = merged.get(cell, (0, 0))
            merged[cell] = images + more_images, size_bytes + more_bytes
    return merged


def plan(cells: Cells, limit: Size, prefix: str = "") -> tuple[str, ...]:
    """Where :func:`cut_shards` would cut a partition, from its histogram alone, down to :data:`PLAN_BITS` bits.

    Returns:
        Prefixes that cover the hash space; :func:`cut_shards` of the images under each gives the partition's shards.
    """
    total = Size(sum(images for images, _ in cells.values()), sum(size_bytes for _, size_bytes in cells.values()))
    if _fits(total, limit) or len(prefix) == PLAN_BITS:
        return (prefix,)
    shift = PLAN_BITS - len(prefix) - 1
    halves: tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]] = ({}, {})
    for cell, size in cells.items():
        halves[(cell >> shift) & 1][cell] = size
    return (*plan(halves[0], limit, prefix + "0"), *plan(halves[1], limit, prefix + "1"))


def prefix_numbers(cells: Integers, prefixes: Sequence[str]) -> Integers:
    """The index of the plan's prefix that each cell lies under, ``(cells,)``.

    Args:
        cells: see :func:`cells_of`.
        prefixes: as :func:`plan` returns them, in the order of their first cells.
    """
    firsts = [int(prefix.ljust(PLAN_BITS, "0"), 2) for prefix in prefixes]
    return np.searchsorted(np.array(firsts), cells, side="right") - 1


def shard_of(found: pa.RecordBatch, rule: KeyRule, slot: str) -> Shard:
    """The shard that some images of one partition make in a slot."""
    _, [partition] = partitions_of(found.slice(0, 1), rule)
    return _shard(found, rule, slot, partition)


def _shard(found: pa.RecordBatch, rule: KeyRule, slot: str, partition: Partition) -> Shard:
    ordered = _ordered(found)
    images = columns.identities(ordered)
    content = json.dumps([rule.key_names, rule.partition_by, images], separators=(",", ":"), ensure_ascii=True)
    return Shard.of_columns(slot, hashlib.sha256(content.encode()).hexdigest(), partition, ordered)


def _ordered(found: pa.RecordBatch) -> pa.RecordBatch:
    """Images in the order of their references: that of their URIs, unless some share one."""
    if found.num_rows == 1:
        return found
    if not _may_repeat(found):
        return found.take(pc.sort_indices(found["uri"]))
    refs = [ImageRef(*row) for row in columns.rows_of(found)]
    refs.sort(key=_sort_key)
    return columns.columns_of(refs)


def _may_repeat(found: pa.RecordBatch) -> bool:
    """Whether images may share a URI, as segments of a video do."""
    return columns.has_segments(found) or pc.count_distinct(found["uri"]).as_py() < found.num_rows


def _fits(size: Size, limit: Size) -> bool:
    return size.images <= 1 or (size.images <= limit.images and size.size_bytes <= limit.size_bytes)


def _sort_key(ref: ImageRef) -> tuple[object, ...]:
    # None cannot be compared with str. Every field takes part, or the order of listing would decide which is kept.
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
        (ref.location is not None, ref.location or ""),
        ref.absent,
        ref.replaces,
    )
