"""The PTransform that adds up groups and writes the compliance tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from maskdet.compliance.state import GroupKey, Merger, State
from maskdet.tables.levels import LevelWriter
from maskdet.tables.receipts import ShardReport
from maskdet.tables.runs import LevelTotal


@dataclass
class WriteCompliance(beam.PTransform):  # type: ignore[misc]
    """:class:`ShardReport` → ``(level, LevelTotal)``: one table per level written."""

    writer: LevelWriter

    def expand(self, reports: PCollection[Any]) -> PCollection[Any]:
        """Apply the transform."""
        return (
            reports
            | "ReadGroups" >> beam.FlatMap(_groups_of).with_output_types(tuple[str, Any])
            | "MergeGroups" >> beam.CombinePerKey(_MergeStates())
            | "KeyByLevel" >> beam.Map(key_by_level, self.writer.needs_all).with_output_types(tuple[str, Any])
            | "GroupByLevel" >> beam.GroupByKey()
            | "WriteLevel" >> beam.FlatMap(_write_level, self.writer).with_output_types(tuple[str, Any])
        )


class _MergeStates(beam.CombineFn):  # type: ignore[misc]
    """Adds up the states of a group; see :class:`maskdet.compliance.state.Merger`."""

    def create_accumulator(self) -> Merger:
        """Nothing yet."""
        return Merger()

    def add_input(self, merger: Merger, state: State) -> Merger:
        """One more."""
        return merger.add(state)

    def merge_accumulators(self, mergers: Iterable[Merger]) -> Merger:
        """Those of several workers."""
        whole = Merger()
        for merger in mergers:
            whole.add(merger.state())
        return whole

    def extract_output(self, merger: Merger) -> State:
        """The sum."""
        return merger.state()


def _groups_of(report: ShardReport) -> list[tuple[str, State]]:
    return [(key.encode(), state) for key, state in report.groups.items()]


def key_by_level(group: tuple[str, Any], together: bool) -> tuple[str, tuple[GroupKey, Any]]:
    """Keys a group by its level, or with those of all levels, which are then written together."""
    key = GroupKey.decode(group[0])
    return "" if together else key.level, (key, group[1])


def _write_level(
    group: tuple[str, Iterable[tuple[GroupKey, State]]], writer: LevelWriter
) -> Iterable[tuple[str, LevelTotal]]:
    level, groups = group
    return writer.write(dict(groups), [level] if level else list(writer.levels)).items()
