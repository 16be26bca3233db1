"""Runs that score nothing: they make an output's tables anew from what earlier runs have found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from maskdet import storage
from maskdet.compliance.state import GroupKey, State
from maskdet.sections import FailureBudget
from maskdet.tables.layout import Layout
from maskdet.tables.levels import TableSettings, track_job, write_levels
from maskdet.tables.receipts import Receipt
from maskdet.tables.run_records import RunRecord, is_marked_complete, read_run, standing, write_run
from maskdet.tables.runs import RunPlan, begin_run, face_counts, noting_early_end, replace_tables
from maskdet.tables.snapshot import Snapshot

_KEPT = {"settings", "model", "fingerprint", "versions"}
"""Fields that such a run's record takes over from the run that left the tables."""


@dataclass(frozen=True)
class Rewriting:
    """A run that has begun, holding the output.

    Attributes:
        snapshot: the tables that it starts from.
        latest: the run that left them.
        settings: by which they were written.
        plan: its own plan.
        complete: whether the tables have the mark of success, or should have it.
    """

    snapshot: Snapshot
    latest: RunRecord
    settings: TableSettings
    plan: RunPlan
    complete: bool

    @classmethod
    @contextlib.contextmanager
    def begun(cls, layout: Layout, snapshot: Snapshot, run_id: str, now: datetime, **about: Any) -> Iterator[Rewriting]:
        """Begin such a run; its record notes what ends the body early.

        Args:
            layout: the output, which is held.
            snapshot: its current tables.
            run_id: the run's.
            now: when it begins.
            **about: fields of its record that say what it does.

        Raises:
            OutputError: a run's record cannot be understood.
            StorageError: the output cannot be read or written.
        """
        latest = read_run(layout, snapshot.run_id)
        record = RunRecord(run_id=run_id, started_at=now, **about, **latest.model_dump(include=_KEPT, mode="python"))
        plan = RunPlan(layout, record, FailureBudget(), snapshot.dataset, base_run=snapshot.run_id)
        complete = is_marked_complete(layout)
        with noting_early_end(plan, now):
            begin_run(plan)
            yield cls(snapshot, latest, TableSettings.of(latest), plan, complete)

    def replace(self, shards: Sequence[Receipt], groups: Mapping[GroupKey, State]) -> RunRecord:
        """Write compliance tables and tracks, and make them and the shards the current tables.

        Args:
            shards: receipts of those that are left.
            groups: what is known of every group of every level.

        Returns:
            The record as far as it is known; :meth:`finish` writes it.

        Raises:
            OutputError: a file of the tables is missing or damaged.
            StorageError: the output cannot be read or written.
        """
        layout, record = self.plan.layout, self.plan.record
        totals = write_levels(self.settings.writer(layout, record, self.snapshot.dataset.timezone), groups)
        tracks = track_job(layout, self.snapshot, self.latest, self.settings).write_all(shards)
        status, reason, removed = replace_tables(self.plan, shards, totals, *standing(layout, self.latest), tracks)
        return record.model_copy(
            update={
                "status": status,
                "reason": reason,
                **face_counts(totals["all"].counts, record.classes, shards),
                "tracks": tracks.by_label,
                "shards": {"total": len(shards), "scored": 0, "kept": len(shards)},
                "files_removed": removed,
            }
        )

    def finish(self, record: RunRecord) -> None:
        """Write the record, and give the mark of success back to tables that had it.

        Raises:
            StorageError: the output cannot be written.
        """
        layout = self.plan.layout
        write_run(layout, record)
        if record.status == "succeeded" and self.complete:
            storage.write_bytes(layout.success, f"{record.run_id}\n".encode())
