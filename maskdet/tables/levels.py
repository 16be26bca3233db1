"""Compliance tables from states of groups, at the end of a pipeline and where an output is counted anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from maskdet.compliance.corrections import Corrections
from maskdet.compliance.groups import Grouping
from maskdet.compliance.rates import RateRule
from maskdet.compliance.small_cells import hide_groups
from maskdet.compliance.state import GroupKey, State, merge_counts
from maskdet.compliance.table import Disclosure, compliance_table, key_union
from maskdet.config import ComplianceSettings, OutputSettings
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import Decision
from maskdet.sections import PrivacySettings, TrackSettings
from maskdet.tables.layout import COMPLIANCE, Layout, write_version
from maskdet.tables.reconciliation import LevelTotal
from maskdet.tables.run_records import RunRecord
from maskdet.tables.snapshot import Snapshot
from maskdet.tables.tracks import TrackJob


@dataclass(frozen=True)
class LevelWriter:
    """Writes compliance tables.

    Attributes:
        layout: the output.
        levels: level → its keys.
        rates: how rates are computed.
        row_group_rows: rows per Parquet row group.
        time_zone: of dates and hours.
        privacy: what is hidden.
    """

    layout: Layout
    levels: Mapping[str, Sequence[str]]
    rates: RateRule
    row_group_rows: int
    time_zone: str = "UTC"
    privacy: PrivacySettings = PrivacySettings()

    @property
    def needs_all(self) -> bool:
        """Whether a table can only be written with the groups of all levels at hand."""
        return self.privacy.hides

    def write(self, groups: Mapping[GroupKey, State], levels: Sequence[str]) -> dict[str, LevelTotal]:
        """Write the tables of some levels, including levels without groups.

        Args:
            groups: what is known of every group of these levels.
            levels: their names; all levels where :attr:`needs_all`.

        Raises:
            StorageError: the output cannot be written.
        """
        hidden: frozenset[GroupKey] = frozenset()
        if self.needs_all:
            counts = {key: state.counts for key, state in groups.items()}
            hidden = hide_groups(counts, self.levels, self.privacy.min_cell)
        totals = {}
        for level in levels:
            states = {key.values: state for key, state in groups.items() if key.level == level}
            shown = Disclosure.of(level, hidden, self.privacy)
            names, all_names = self.levels[level], key_union(self.levels)
            table = compliance_table(states, names, all_names, self.rates, self.time_zone, shown)
            sha256 = write_version(self.layout, COMPLIANCE, level, table, self.row_group_rows)
            totals[level] = LevelTotal(merge_counts(state.counts for state in states.values()), sha256)
        return totals


class TableSettings(BaseModel):
    """The settings of a run by which its tables were written."""

    model_config = ConfigDict(frozen=True)

    compliance: ComplianceSettings
    tables: OutputSettings
    privacy: PrivacySettings = PrivacySettings()
    tracks: TrackSettings = TrackSettings()

    @classmethod
    def of(cls, run: RunRecord) -> TableSettings:
        """The settings in a run's record; those of an older version had fewer."""
        return cls.model_validate({name: run.settings[name] for name in cls.model_fields if name in run.settings})

    def grouping(self, corrections: Corrections, model: str) -> Grouping:
        """What is counted.

        Args:
            corrections: labels that people gave.
            model: id of the model of the run that scored last.
        """
        compliance = self.compliance
        return Grouping(compliance.all_levels, compliance.cluster or (), compliance.time_zone, corrections, model)

    def writer(self, layout: Layout, run: RunRecord, time_zone: str) -> LevelWriter:
        """The writer of the tables.

        Args:
            layout: the output.
            run: for the model's classes and errors.
            time_zone: of dates and hours, unless the settings name one.
        """
        compliance = self.compliance
        rates = RateRule(compliance.confidence, run.classes, run.errors, clustered=bool(compliance.cluster))
        zone = compliance.time_zone or time_zone
        return LevelWriter(layout, compliance.all_levels, rates, self.tables.row_group_rows, zone, self.privacy)


def write_levels(writer: LevelWriter, groups: Mapping[GroupKey, State]) -> dict[str, LevelTotal]:
    """Write the compliance table of every level.

    Raises:
        StorageError: the output cannot be written.
    """
    return writer.write(groups, list(writer.levels))


def track_job(layout: Layout, snapshot: Snapshot, latest: RunRecord, settings: TableSettings) -> TrackJob:
    """What is needed to make tracks from a set of tables.

    Args:
        layout: the output.
        snapshot: the set.
        latest: the run that left it.
        settings: of that run.
    """
    dataset, compliance = snapshot.dataset, settings.compliance
    return TrackJob(
        layout,
        KeyRule(dataset.key_names, dataset.partition_by, dataset.timezone),
        compliance.all_levels,
        compliance.time_zone or dataset.timezone,
        settings.tracks,
        # Records of an older version, which did not support videos, have no thresholds.
        latest.decision if any(shard.segments is not None for shard in snapshot.shards) else Decision(),
        compliance.confidence,
        latest.classes,
        settings.tables.row_group_rows,
        settings.privacy,
    )
