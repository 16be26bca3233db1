"""Compliance tables of an output that is counted anew outside of a pipeline: after a prune, or a correction."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from maskdet.compliance.corrections import Corrections
from maskdet.compliance.groups import Grouping
from maskdet.compliance.rates import RateRule
from maskdet.compliance.state import GroupKey, State, merge_counts
from maskdet.compliance.table import compliance_table, key_union
from maskdet.config import ComplianceSettings, OutputSettings
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import Decision
from maskdet.sections import TrackSettings
from maskdet.tables.layout import COMPLIANCE, Layout, write_version
from maskdet.tables.manifest import RunManifest
from maskdet.tables.reconciliation import LevelTotal
from maskdet.tables.snapshot import Snapshot
from maskdet.tables.tracks import TrackJob


class TableSettings(BaseModel):
    """What of a run's settings its tables were written by."""

    model_config = ConfigDict(frozen=True)

    compliance: ComplianceSettings
    tables: OutputSettings
    tracks: TrackSettings = TrackSettings()

    @classmethod
    def of(cls, run: RunManifest) -> TableSettings:
        """Those of a run, from its record."""
        return cls.model_validate({name: run.settings[name] for name in cls.model_fields if name in run.settings})

    def grouping(self, corrections: Corrections) -> Grouping:
        """What is counted."""
        compliance = self.compliance
        return Grouping(compliance.all_levels, compliance.cluster or (), compliance.time_zone, corrections)


def write_levels(
    layout: Layout, groups: Mapping[GroupKey, State], settings: TableSettings, run: RunManifest, time_zone: str
) -> dict[str, LevelTotal]:
    """Write the compliance table of every level, also of one without groups.

    Args:
        layout: the output.
        groups: what is known of every group.
        settings: for levels and sizes.
        run: for the model's classes and errors.
        time_zone: that of dates and hours, unless the settings name one.

    Raises:
        StorageError: the output cannot be written.
    """
    compliance = settings.compliance
    rates = RateRule(compliance.confidence, run.classes, run.errors, clustered=bool(compliance.cluster))
    totals = {}
    for level, names in compliance.all_levels.items():
        states = {key.values: state for key, state in groups.items() if key.level == level}
        zone = compliance.time_zone or time_zone
        table = compliance_table(states, names, key_union(compliance.all_levels), rates, zone)
        sha256 = write_version(layout, COMPLIANCE, level, table, settings.tables.row_group_rows)
        totals[level] = LevelTotal(merge_counts(state.counts for state in states.values()), sha256)
    return totals


def track_job(layout: Layout, snapshot: Snapshot, latest: RunManifest, settings: TableSettings) -> TrackJob:
    """What making tracks of a set of tables needs.

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
        # Records of an older version, which knew no videos, do not hold thresholds.
        latest.decision if any(shard.segments is not None for shard in snapshot.shards) else Decision(),
        compliance.confidence,
        latest.classes,
        settings.tables.row_group_rows,
    )
