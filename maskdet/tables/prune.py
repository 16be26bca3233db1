"""Retention: remove the rows of images taken before a day, and their part in every count.

Photographs are deleted by other rules; their rows stay until this is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

import pyarrow as pa

from maskdet.compliance.groups import Grouping, count_groups
from maskdet.compliance.state import GroupKey, Merger, State
from maskdet.inputs.columns import columns_of
from maskdet.inputs.earlier import OUTSIDE, REMOVED
from maskdet.inputs.references import ImageRef, Shard
from maskdet.inputs.sharding import KeyRule, shard_of
from maskdet.schemas import conform
from maskdet.tables.corrections import read_corrections, write_corrections
from maskdet.tables.endings import Endings
from maskdet.tables.images import endings_of, refs_of
from maskdet.tables.layout import IMAGES, SHARD_TABLES, Layout
from maskdet.tables.levels import TableSettings
from maskdet.tables.receipts import Receipt, ShardJob, read_kept
from maskdet.tables.reuse import rows_of
from maskdet.tables.rewriting import Rewriting
from maskdet.tables.run_records import RunRecord
from maskdet.tables.runs import holding_output
from maskdet.tables.snapshot import Snapshot, current_snapshot
from maskdet.tables.videos import SeenVideo, VideoCounts, merge_videos, videos_of


@dataclass(frozen=True)
class Pruned:
    """What is left of a set of tables.

    Attributes:
        shards: receipts of the shards that have images left.
        groups: what is known of every group of every level.
        removed: images whose rows were removed.
        left: URIs of those remaining images that have corrections.
        undated: images that stay because nobody knows when they were taken.
        rewritten: shards that changed or were removed.
    """

    shards: tuple[Receipt, ...]
    groups: Mapping[GroupKey, State]
    removed: int
    left: frozenset[str]
    undated: int
    rewritten: int
    videos: Mapping[str, bool]
    """Videos that have segments left → whether a frame of theirs could be scored."""


def count_older(layout: Layout, snapshot: Snapshot, before: date) -> tuple[int, int]:
    """How many images were taken before a day, and for how many that is unknown; changes nothing.

    Raises:
        OutputError: a file of the set is missing or damaged.
        StorageError: the output cannot be read.
    """
    limit = _limit_ms(before, snapshot.dataset.timezone)
    refs = [ref for receipt in snapshot.shards for ref in refs_of(read_kept(layout, receipt, IMAGES), receipt.slot)]
    return sum(_is_older(ref, limit) for ref in refs), sum(ref.captured_at_ms is None for ref in refs)


def prune(layout: Layout, before: date, now: datetime, *, wait_s: float = 0.0) -> RunRecord:
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
        SourceError: it holds no tables.
        OutputError: a file of them is missing or damaged.
        StorageError: it cannot be read or written.
    """
    with holding_output(layout, now, wait_s=wait_s) as run_id:
        return _prune_held(layout, before, run_id, now)


def _prune_held(layout: Layout, before: date, run_id: str, now: datetime) -> RunRecord:
    snapshot = current_snapshot(layout)
    with Rewriting.begun(layout, snapshot, run_id, now, pruned_before=before) as run:
        return _prune_begun(run, before, now)


def _prune_begun(run: Rewriting, before: date, now: datetime) -> RunRecord:
    layout, snapshot = run.plan.layout, run.snapshot
    corrections = read_corrections(layout)
    grouping = run.settings.grouping(corrections, str(run.latest.model["id"]))
    pruned = prune_shards(layout, snapshot, before, run.settings, grouping)
    record = run.replace(pruned.shards, pruned.groups)
    if corrections and record.status in ("succeeded", "over_budget"):  # they name images, which must leave no trace
        corrections = corrections.within(pruned.left)
        write_corrections(layout, corrections)
    whole = Endings.of_receipts(pruned.shards)
    left = VideoCounts.of(len(pruned.videos), pruned.videos, whole.segments) if pruned.videos else None
    outside = whole.counts.listed + len(pruned.videos)
    record = record.model_copy(
        update={
            "finished_at": now,
            "dataset": whole.counts,
            "dataset_videos": left,
            "changes": {name: count for name, count in {REMOVED: pruned.removed, OUTSIDE: outside}.items() if count},
            "corrections": len(corrections),
            "undated": pruned.undated,
        }
    )
    run.finish(record)
    return record


def prune_shards(
    layout: Layout, snapshot: Snapshot, before: date, settings: TableSettings, grouping: Grouping
) -> Pruned:
    """Rewrite the shards of a set of tables without images taken before a day.

    Args:
        layout: the output.
        snapshot: the current set.
        before: a day in the time zone of the data set; images of that day stay.
        settings: of the latest run, for sizes.
        grouping: what is counted of the rows that are left.

    Raises:
        OutputError: a file of the set is missing or damaged.
        StorageError: the output cannot be read or written.
    """
    dataset = snapshot.dataset
    rule = KeyRule(dataset.key_names, dataset.partition_by, dataset.timezone)
    job = ShardJob(layout, "", rule, grouping, settings.tables.row_group_rows)
    limit, removed, undated = _limit_ms(before, dataset.timezone), 0, 0
    shards: list[Receipt] = []
    groups: dict[GroupKey, Merger] = {}
    known: set[str] = set()
    videos: list[tuple[SeenVideo, ...]] = []
    for receipt in snapshot.shards:
        images = read_kept(layout, receipt, IMAGES)
        refs = refs_of(images, receipt.slot)
        left = [ref for ref in refs if not _is_older(ref, limit)]
        removed += len(refs) - len(left)
        known.update(ref.uri for ref in left if ref.uri in grouping.corrections.labels)
        undated += sum(ref.captured_at_ms is None for ref in left)
        if not left:
            continue
        videos.append(videos_of(left, endings_of(images)))
        tables = {name: _rows_of(layout, receipt, name, left, job.schemas[name]) for name in SHARD_TABLES}
        shard, changed = shard_of(columns_of(left), rule, receipt.slot), len(left) < len(refs)
        shards.append(_rewrite(job, receipt, shard, tables, images) if changed else receipt)
        predictions, failures, no_face = (tables[name] for name in SHARD_TABLES)
        for key, state in count_groups(predictions, failures, no_face, shard.partition, rule, grouping).items():
            groups.setdefault(key, Merger()).add(state)
    kept = {receipt.shard_id for receipt in snapshot.shards} & {receipt.shard_id for receipt in shards}
    states = {key: merger.state() for key, merger in groups.items()}
    seen, gone = merge_videos(videos, listed_only=False), len(snapshot.shards) - len(kept)
    return Pruned(tuple(shards), states, removed, frozenset(known), undated, gone, seen)


def _rewrite(
    job: ShardJob, receipt: Receipt, shard: Shard, tables: Mapping[str, pa.Table], images: pa.Table
) -> Receipt:
    """Write what is left of a shard, which still counts as made by the run's model and settings."""
    endings = endings_of(images)
    share = shard.images / receipt.images
    [latest] = {ending.scored_by for ending in endings.values()} if not receipt.older else {""}
    same = dataclasses.replace(job, fingerprint=receipt.fingerprint, scored_by=latest)
    return same.write(shard, tables, endings, round(receipt.size_bytes * share))


def _rows_of(layout: Layout, receipt: Receipt, table: str, refs: Sequence[ImageRef], schema: pa.Schema) -> pa.Table:
    if not receipt.rows.get(table):
        return schema.empty_table()
    rows = conform(read_kept(layout, receipt, table), schema)
    return rows_of(rows, refs).combine_chunks().replace_schema_metadata(schema.metadata)


def _limit_ms(before: date, timezone: str) -> int:
    midnight = datetime(before.year, before.month, before.day, tzinfo=ZoneInfo(timezone))
    return round(midnight.timestamp() * 1000)


def _is_older(ref: ImageRef, limit_ms: int) -> bool:
    return ref.captured_at_ms is not None and ref.captured_at_ms < limit_ms
