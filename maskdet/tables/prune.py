"""Retention: rows of images taken before a day go, and every count with them.

Photographs are deleted by rules of their own; their rows stay until this is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from maskdet import storage
from maskdet.compliance.groups import Grouping, count_groups
from maskdet.compliance.rates import RateRule
from maskdet.compliance.state import GroupKey, Merger, State, merge_counts
from maskdet.compliance.table import compliance_table, key_union
from maskdet.config import ComplianceSettings, FailureBudget, OutputSettings
from maskdet.errors import OutputError
from maskdet.inputs.earlier import OUTSIDE, REMOVED
from maskdet.inputs.references import ImageRef, Shard
from maskdet.inputs.sharding import KeyRule, shard_of
from maskdet.tables import lease
from maskdet.tables.images import endings_of, refs_of
from maskdet.tables.layout import COMPLIANCE, IMAGES, SHARD_TABLES, Layout, read_version, write_version
from maskdet.tables.lease import Holder
from maskdet.tables.receipts import Outcomes, Receipt, ShardJob
from maskdet.tables.reconciliation import LevelTotal
from maskdet.tables.runs import (
    ImageCounts,
    RunManifest,
    RunPlan,
    begin_run,
    faces_of,
    hold_output,
    new_run_id,
    read_run,
    replace_tables,
    write_manifest,
)
from maskdet.tables.snapshot import Snapshot, current_snapshot


@dataclass(frozen=True)
class Pruned:
    """What is left of a set of tables.

    Attributes:
        shards: receipts of the shards that have images left.
        groups: what is known of every group of every level.
        removed: images whose rows went.
        undated: images that stay because nobody knows when they were taken.
        rewritten: shards that changed or went.
    """

    shards: tuple[Receipt, ...]
    groups: Mapping[GroupKey, State]
    removed: int
    undated: int
    rewritten: int


def count_older(layout: Layout, snapshot: Snapshot, before: date) -> tuple[int, int]:
    """How many images were taken before a day, and of how many nobody knows; changes nothing.

    Raises:
        OutputError: a file of the set is missing or damaged.
        StorageError: the output cannot be read.
    """
    limit = _limit_ms(before, snapshot.dataset.timezone)
    refs = [ref for receipt in snapshot.shards for ref in refs_of(_read(layout, receipt, IMAGES), receipt.slot)]
    return sum(_is_older(ref, limit) for ref in refs), sum(ref.captured_at_ms is None for ref in refs)


def prune(layout: Layout, before: date, now: datetime, *, wait_s: float = 0.0) -> RunManifest:
    """Remove rows of images taken before a day, as a run of its own that scores nothing.

    Args:
        layout: the output.
        before: a day in the time zone of the data set; images of that day stay.
        now: the start and, in the record, the end of the run.
        wait_s: how long to wait for another run that writes the output, in seconds.

    Returns:
        The run's record as written.

    Raises:
        HeldError: another run writes the output.
        OutputError: it holds no tables, or a file of them is missing or damaged.
        StorageError: it cannot be read or written.
    """
    run_id = new_run_id(now)
    hold_output(layout, Holder.here(run_id, now, ends_with_process=True), wait_s=wait_s)
    try:
        with lease.heartbeats(layout, run_id):
            return _prune_held(layout, before, run_id, now)
    finally:
        lease.release(layout, run_id)


def _prune_held(layout: Layout, before: date, run_id: str, now: datetime) -> RunManifest:
    snapshot = current_snapshot(layout)
    latest = read_run(layout, snapshot.run_id)
    keep = {"settings", "model", "fingerprint", "versions"}
    manifest = RunManifest(
        run_id=run_id, started_at=now, pruned_before=before, **latest.model_dump(include=keep, mode="python")
    )
    plan = RunPlan(layout, manifest, FailureBudget(), snapshot.dataset, base_run=snapshot.run_id)
    complete = storage.exists(layout.success)
    begin_run(plan)
    settings = _Settings.model_validate({name: latest.settings[name] for name in _Settings.model_fields})
    pruned = prune_shards(layout, snapshot, before, settings)
    rates = RateRule(
        settings.compliance.confidence, manifest.classes, manifest.errors, clustered=bool(settings.compliance.cluster)
    )
    totals = write_levels(layout, pruned.groups, settings, rates, snapshot.dataset.timezone)
    status, reason, removed = replace_tables(plan, pruned.shards, totals, "succeeded", "")
    whole = Outcomes.sum(Outcomes(shard.scored, shard.no_face, shard.failed) for shard in pruned.shards)
    counts = ImageCounts(
        listed=whole.images, scored=whole.scored, no_face=whole.no_face, failed=sum(whole.failed.values())
    )
    changes = {name: count for name, count in {REMOVED: pruned.removed, OUTSIDE: counts.listed}.items() if count}
    manifest = manifest.model_copy(
        update={
            "status": status,
            "reason": reason,
            "finished_at": now,
            "dataset": counts,
            "changes": changes,
            "faces": faces_of(totals["all"].counts, manifest.classes),
            "shards": {"total": len(pruned.shards), "scored": 0, "kept": len(pruned.shards)},
            "files_removed": removed,
        }
    )
    write_manifest(layout, manifest)
    if status == "succeeded" and complete:
        storage.write_bytes(layout.success, f"{run_id}\n".encode())
    return manifest


class _Settings(BaseModel):
    """What of a run's settings the tables were written by."""

    model_config = ConfigDict(frozen=True)

    compliance: ComplianceSettings
    tables: OutputSettings


def prune_shards(layout: Layout, snapshot: Snapshot, before: date, settings: _Settings) -> Pruned:
    """Write the shards of a set of tables anew, without images taken before a day.

    Args:
        layout: the output.
        snapshot: the current set.
        before: a day in the time zone of the data set; images of that day stay.
        settings: of the latest run, for levels and sizes.

    Raises:
        OutputError: a file of the set is missing or damaged.
        StorageError: the output cannot be read or written.
    """
    dataset = snapshot.dataset
    rule = KeyRule(dataset.key_names, dataset.partition_by, dataset.timezone)
    compliance = settings.compliance
    grouping = Grouping(compliance.all_levels, compliance.cluster or (), compliance.time_zone)
    job = ShardJob(layout, "", rule, grouping, settings.tables.row_group_rows)
    limit, removed, undated = _limit_ms(before, dataset.timezone), 0, 0
    shards: list[Receipt] = []
    groups: dict[GroupKey, Merger] = {}
    for receipt in snapshot.shards:
        images = _read(layout, receipt, IMAGES)
        refs = refs_of(images, receipt.slot)
        left = [ref for ref in refs if not _is_older(ref, limit)]
        removed += len(refs) - len(left)
        undated += sum(ref.captured_at_ms is None for ref in left)
        if not left:
            continue
        tables = {name: _rows_of(layout, receipt, name, left, job.schemas[name]) for name in SHARD_TABLES}
        shard, changed = shard_of(left, rule, receipt.slot), len(left) < len(refs)
        shards.append(_rewrite(job, receipt, shard, tables, images) if changed else receipt)
        predictions, failures, no_face = (tables[name] for name in SHARD_TABLES)
        for key, state in count_groups(predictions, failures, no_face, shard.partition, rule, grouping).items():
            groups.setdefault(key, Merger()).add(state)
    kept = {receipt.shard_id for receipt in snapshot.shards} & {receipt.shard_id for receipt in shards}
    states = {key: merger.state() for key, merger in groups.items()}
    return Pruned(tuple(shards), states, removed, undated, len(snapshot.shards) - len(kept))


def write_levels(
    layout: Layout, groups: Mapping[GroupKey, State], settings: _Settings, rates: RateRule, time_zone: str
) -> dict[str, LevelTotal]:
    """Write the compliance table of every level, also of one without groups.

    Args:
        layout: the output.
        groups: what is known of every group.
        settings: for levels and sizes.
        rates: how rates are computed.
        time_zone: that of dates and hours, unless the settings name one.

    Raises:
        StorageError: the output cannot be written.
    """
    levels, zone = settings.compliance.all_levels, settings.compliance.time_zone or time_zone
    totals = {}
    for level, names in levels.items():
        states = {key.values: state for key, state in groups.items() if key.level == level}
        table = compliance_table(states, names, key_union(levels), rates, zone)
        sha256 = write_version(layout, COMPLIANCE, level, table, settings.tables.row_group_rows)
        totals[level] = LevelTotal(merge_counts(state.counts for state in states.values()), sha256)
    return totals


def _rewrite(
    job: ShardJob, receipt: Receipt, shard: Shard, tables: Mapping[str, pa.Table], images: pa.Table
) -> Receipt:
    """Write what is left of a shard; it stays one that the run's model and settings made."""
    endings = endings_of(images)
    share = len(shard.refs) / receipt.images
    [latest] = {ending.scored_by for ending in endings.values()} if not receipt.older else {""}
    same = dataclasses.replace(job, fingerprint=receipt.fingerprint, scored_by=latest)
    return same.write(shard, tables, endings, round(receipt.size_bytes * share))


def _rows_of(layout: Layout, receipt: Receipt, table: str, refs: Sequence[ImageRef], schema: pa.Schema) -> pa.Table:
    if not receipt.rows.get(table):
        return schema.empty_table()
    left = pa.array([ref.uri for ref in refs], pa.string())
    rows = _read(layout, receipt, table)
    found = rows.filter(pc.is_in(rows["image_uri"], value_set=left)).combine_chunks()
    return found.replace_schema_metadata(schema.metadata)


def _read(layout: Layout, receipt: Receipt, table: str) -> pa.Table:
    found = read_version(layout, table, receipt.slot, receipt.sha256.get(table, ""))
    if found is None:
        uri = layout.version(table, receipt.slot, receipt.sha256.get(table, ""))
        raise OutputError(uri, "what the last run left", "a missing or damaged file", "Run maskdet score again first.")
    return found


def _limit_ms(before: date, timezone: str) -> int:
    midnight = datetime(before.year, before.month, before.day, tzinfo=ZoneInfo(timezone))
    return round(midnight.timestamp() * 1000)


def _is_older(ref: ImageRef, limit_ms: int) -> bool:
    return ref.captured_at_ms is not None and ref.captured_at_ms < limit_ms
