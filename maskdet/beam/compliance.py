"""The PTransform that adds up groups and writes the compliance tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from maskdet.compliance.rates import RateRule
from maskdet.compliance.state import GroupKey, Merger, State, merge_counts
from maskdet.compliance.table import compliance_table, key_union
from maskdet.tables.layout import COMPLIANCE, Layout, write_version
from maskdet.tables.receipts import ShardReport
from maskdet.tables.runs import LevelTotal


@dataclass
class WriteCompliance(beam.PTransform):  # type: ignore[misc]
    """:class:`ShardReport` → ``(level, LevelTotal)``: one table per level written."""

    layout: Layout
    levels: Mapping[str, Sequence[str]]
    rates: RateRule
    row_group_rows: int
    time_zone: str = "UTC"

    def expand(self, reports: PCollection[Any]) -> PCollection[Any]:
        """Apply the transform."""
        return (
            reports
            | "ReadGroups" >> beam.FlatMap(_groups_of).with_output_types(tuple[str, Any])
            | "MergeGroups" >> beam.CombinePerKey(_MergeStates())
            | "KeyByLevel" >> beam.Map(_key_by_level).with_output_types(tuple[str, Any])
            | "GroupByLevel" >> beam.GroupByKey()
            | "WriteLevel" >> beam.Map(_write_level, self).with_output_types(tuple[str, Any])
        )


class _MergeStates(beam.CombineFn):  # type: ignore[misc]
    """Adds up states of a group; see :class:`maskdet.compliance.state.Merger`."""

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


def _key_by_level(group: tuple[str, State]) -> tuple[str, tuple[tuple[str | None, ...], State]]:
    key = GroupKey.decode(group[0])
    return key.level, (key.values, group[1])


def _write_level(
    group: tuple[str, Iterable[tuple[tuple[str | None, ...], State]]], step: WriteCompliance
) -> tuple[str, LevelTotal]:
    level, rows = group
    groups = dict(rows)
    table = compliance_table(groups, step.levels[level], key_union(step.levels), step.rates, step.time_zone)
    sha256 = write_version(step.layout, COMPLIANCE, level, table, step.row_group_rows)
    return level, LevelTotal(merge_counts(state.counts for state in groups.values()), sha256)
