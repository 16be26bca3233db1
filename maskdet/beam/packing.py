"""The PTransform that packs references into shards, with few and large batches on the way.

Whatever is annotated ``Any`` here is as in :mod:`maskdet.beam.transforms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsDict, PCollection
from apache_beam.transforms.window import GlobalWindows

from maskdet.inputs import sharding
from maskdet.inputs.references import ImageRef, RefBatch, Shard
from maskdet.inputs.sharding import URI_GROUPS, KeyRule, Size

# Some 30 MB of references.
_COLLECTED_IMAGES = 50_000


@dataclass
class PackShards(beam.PTransform):  # type: ignore[misc]
    """:class:`RefBatch` without duplicates → :class:`Shard`.

    Partitions small enough for one shard need no plan; for the others a histogram of hashes, small whatever their size,
    tells where :func:`maskdet.inputs.sharding.pack` cuts, so that the references of a shard meet on one worker and no
    more do.
    """

    rule: KeyRule
    limit: Size

    def expand(self, batches: PCollection[Any]) -> PCollection[Any]:
        """Apply the transform."""
        plans = (
            batches
            | "CountCells" >> beam.FlatMap(_count_cells, self.rule).with_output_types(tuple[str, Any])
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


def _count_cells(batch: RefBatch, rule: KeyRule) -> Iterator[tuple[str, sharding.Cells]]:
    for folder, refs in sharding.by_folder(batch.refs, rule).items():
        yield folder, sharding.count_cells(refs)


def _plan_partition(partition: tuple[str, sharding.Cells], limit: Size) -> Iterator[tuple[str, frozenset[str]]]:
    folder, cells = partition
    prefixes = sharding.plan(cells, limit)
    if prefixes != ("",):
        yield folder, frozenset(prefixes)


class _Collect(beam.DoFn):  # type: ignore[misc]
    """:class:`RefBatch` → (key, :class:`RefBatch`): references by a key that they are to meet under.

    A batch holds few images of each, and small batches take several times the room of large ones on their way: so they
    are collected over a bundle, as far as :data:`_COLLECTED_IMAGES` allows.
    """

    def start_bundle(self) -> None:
        """Begin with none."""
        self._groups: dict[Any, list[ImageRef]] = {}
        self._count = 0

    def finish_bundle(self) -> Iterator[Any]:
        """What is left."""
        yield from map(GlobalWindows.windowed_value, self._collected())

    def _add(self, keyed: Iterable[tuple[Any, ImageRef]]) -> Iterator[tuple[Any, RefBatch]]:
        """Take references in; hand out all where there are many."""
        for key, ref in keyed:
            self._groups.setdefault(key, []).append(ref)
            self._count += 1
        if self._count >= _COLLECTED_IMAGES:
            yield from self._collected()

    def _collected(self) -> list[tuple[Any, RefBatch]]:
        found = [(key, RefBatch(tuple(refs))) for key, refs in self._groups.items()]
        self.start_bundle()
        return found


class KeyByUri(_Collect):
    """References by the first bits of their URI's hash, so that those of one URI meet.

    Args:
        groups: how many there are, at most :data:`~maskdet.inputs.sharding.URI_GROUPS`.
    """

    def __init__(self, groups: int = URI_GROUPS) -> None:
        self._groups_in_all = groups

    def process(self, batch: RefBatch) -> Iterator[tuple[int, RefBatch]]:
        """A batch → batches of each group, perhaps with a later one."""
        yield from self._add((sharding.group_of(ref.uri, self._groups_in_all), ref) for ref in batch.refs)


class _AssignPrefixes(_Collect):
    """References by the shard-to-be that they lie in."""

    def __init__(self, rule: KeyRule) -> None:
        self._rule = rule

    def process(
        self, batch: RefBatch, plans: Mapping[str, frozenset[str]]
    ) -> Iterator[tuple[tuple[str, str], RefBatch]]:
        """A batch → batches of each shard-to-be, perhaps with a later one."""
        for folder, refs in sharding.by_folder(batch.refs, self._rule).items():
            prefixes = plans.get(folder)  # none: small enough for one shard
            keyed = (((folder, sharding.prefix_of(ref, prefixes) if prefixes else ""), ref) for ref in refs)
            yield from self._add(keyed)


def _cut_shards(group: tuple[tuple[str, str], Iterable[RefBatch]], rule: KeyRule, limit: Size) -> list[Shard]:
    (_, prefix), parts = group
    return sharding.pack([ref for part in parts for ref in part.refs], rule, limit, prefix)
