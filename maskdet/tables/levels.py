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
from maskdet.tables.layout import COMPLIANCE, Layout, write_version
from maskdet.tables.manifest import RunManifest
from maskdet.tables.reconciliation import LevelTotal


class TableSettings(BaseModel):
    """What of a run's settings its tables were written by."""

    model_config = ConfigDict(frozen=True)

    compliance: ComplianceSettings
    tables: OutputSettings

    @classmethod
    def of(cls, run: RunManifest) -> TableSettings:
        """Those of a run, from its record."""
        return cls.model_validate({name: run.settings[name] for name in cls.model_fields})

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
