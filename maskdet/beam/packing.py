"""The PTransform that packs references into shards, by way of few and large batches.

Elements are annotated as ``Any`` for the reason given in :mod:`maskdet.beam.transforms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import AsDict, PCollection
from apache_beam.transforms.window import GlobalWindows

from maskdet.inputs import columns, sharding
from maskdet.inputs.references import RefBatch, Shard
from maskdet.inputs.sharding import URI_GROUPS, KeyRule, Size

# Some 10 MB of references.
_COLLECTED_IMAGES = 50_000


@dataclass
class PackShards(beam.PTransform):  # type: ignore[misc]
    """:class:`RefBatch` without duplicates → :class:`Shard`.

    Partitions small enough for one shard need no plan. For the others a histogram of hashes, which is small whatever
    their size, tells where :func:`maskdet.inputs.sharding.cut_shards` will cut, so that the references of each shard,
    and no others, meet on one worker.
    """

    rule: KeyRule
    limit: Size

    def expand(self, batches: PCollection[Any]) -> PCollection[Any]:
        """Apply the transform."""
        plans = (
            batches
            | "CountCells" >> beam.ParDo(_CountCells(self.rule)).with_output_types(tuple[str, Any])
            | "MergeCells" >> beam.CombinePerKey(sharding.merge_cells)
            | "PlanPartitions" >> beam.FlatMap(_plan_partition, self.limit).with_output_types(tuple[str, Any])
        )
        return (
            batches
            | "AssignPrefixes"
            >> beam.ParDo(_AssignPrefixes(self.rule), AsDict(plans)).with_output_types(tuple[tuple[str, str], Any])
            | "GroupImages" >> beam.GroupByKey()
            | "CutShards" >> beam.FlatMap(_cut_shards, self.rule, self.limit).with_output_types(Any)
        )


def _plan_partition(partition: tuple[str, sharding.Cells], limit: Size) -> Iterator[tuple[str, tuple[str, ...]]]:
    folder, cells = partition
    prefixes = sharding.plan(cells, limit)
    if prefixes != ("",):
        yield folder, prefixes


class _Collect(beam.DoFn):  # type: ignore[misc]
    """:class:`RefBatch` → elements made from the references of several batches.

    A batch holds few images of each partition or group, and many small elements take several times the space of a few
    large ones. So batches are collected over a bundle, up to :data:`_COLLECTED_IMAGES` images.
    """

    def start_bundle(self) -> None:
        """Begin with no batches."""
        self._parts: list[pa.RecordBatch] = []
        self._count = 0

    def _take(self, batch: RefBatch) -> Iterator[Any]:
        """A batch → elements, which may come with a later batch."""
        self._parts.append(batch.columns)
        self._count += batch.images
        if self._count >= _COLLECTED_IMAGES:
            yield from self._collected()

    def finish_bundle(self) -> Iterator[Any]:
        """Elements from the batches that are left."""
        yield from map(GlobalWindows.windowed_value, self._collected())

    def _collected(self) -> list[Any]:
        found = columns.joined(self._parts)
        self.start_bundle()
        return list(self._made(found)) if found.num_rows else []

    def _made(self, found: pa.RecordBatch) -> Iterable[Any]:
        """The elements made from some references."""
        raise NotImplementedError


class KeyByUri(_Collect):
    """:class:`RefBatch` → (group, :class:`RefBatch`), by the first bits of URIs' hashes, so that equal URIs meet.

    Args:
        groups: how many there are, at most :data:`~maskdet.inputs.sharding.URI_GROUPS`.
    """

    def __init__(self, groups: int = URI_GROUPS) -> None:
        self._groups = groups

    def process(self, batch: RefBatch) -> Iterator[tuple[int, RefBatch]]:
        """A batch → batches of each group, which may come with a later batch."""
        yield from self._take(batch)

    def _made(self, found: pa.RecordBatch) -> Iterator[tuple[int, RefBatch]]:
        for group, rows in columns.by_number(found, sharding.group_numbers(found, self._groups)):
            yield group, RefBatch.of_columns(rows)


class _CountCells(_Collect):
    """:class:`RefBatch` → (folder of a partition, histogram of its cells)."""

    def __init__(self, rule: KeyRule) -> None:
        self._rule = rule

    def process(self, batch: RefBatch) -> Iterator[tuple[str, sharding.Cells]]:
        """A batch → histograms, which may come with a later batch."""
        yield from self._take(batch)

    def _made(self, found: pa.RecordBatch) -> Iterator[tuple[str, sharding.Cells]]:
        for partition, cells in sharding.count_cells(found, self._rule):
            yield self._rule.folder(partition), cells


class _AssignPrefixes(_Collect):
    """:class:`RefBatch` → ((folder, prefix), :class:`RefBatch`), by the planned shard that the images lie in."""

    def __init__(self, rule: KeyRule) -> None:
        self._rule = rule

    def process(
        self, batch: RefBatch, plans: Mapping[str, Sequence[str]]
    ) -> Iterator[tuple[tuple[str, str], RefBatch]]:
        """A batch → batches of each planned shard, which may come with a later batch."""
        self._plans = plans
        yield from self._take(batch)

    def _made(self, found: pa.RecordBatch) -> Iterator[tuple[tuple[str, str], RefBatch]]:
        plans = self._plans
        for partition, rows in sharding.by_partition(found, self._rule):
            folder = self._rule.folder(partition)
            if folder not in plans:  # small enough for one shard
                yield (folder, ""), RefBatch.of_columns(rows)
                continue
            places = sharding.prefix_numbers(sharding.cells_of(rows), plans[folder])
            for place, some in columns.by_number(rows, places):
                yield (folder, plans[folder][place]), RefBatch.of_columns(some)


def _cut_shards(group: tuple[tuple[str, str], Iterable[RefBatch]], rule: KeyRule, limit: Size) -> list[Shard]:
    (_, prefix), parts = group
    return sharding.cut_shards(columns.joined(part.columns for part in parts), rule, limit, prefix)
