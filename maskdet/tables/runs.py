"""A run from start to finish: claims its output, ends the run, and marks success."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from maskdet import storage
from maskdet.compliance.state import Counts
from maskdet.errors import MaskdetError, OutputError, StorageError, Terminated
from maskdet.inputs.videos import SEGMENTS
from maskdet.labels import LABELS, UNCERTAIN
from maskdet.schemas import failures_schema, no_face_schema, predictions_schema, tracks_schema
from maskdet.sections import FailureBudget
from maskdet.tables import lease
from maskdet.tables.commit import TABLE_FOLDERS, commit, missing_table, missing_version, publish
from maskdet.tables.layout import (
    FAILURES,
    NO_FACE,
    NO_ROWS,
    PREDICTIONS,
    SHARD_TABLES,
    TRACKS,
    Layout,
    is_ours,
    write_version,
)
from maskdet.tables.lease import Holder
from maskdet.tables.receipts import Receipt, ShardReport, faces_by_model
from maskdet.tables.reconciliation import LISTED, Allowance, LevelTotal, judge, with_counts
from maskdet.tables.run_records import ImageCounts, RunRecord, Status, read_run, write_run
from maskdet.tables.snapshot import Dataset, Snapshot, read_snapshot, receipts_of
from maskdet.tables.tracks import TrackFiles

_LOGGER = logging.getLogger(__name__)

__all__ = [
    "LISTED",
    "ImageCounts",
    "LevelTotal",
    "RunPlan",
    "RunRecord",
    "Status",
    "begin_run",
    "claim_output",
    "end_early",
    "face_counts",
    "finish_run",
    "hold_output",
    "holding_output",
    "new_run_id",
    "noting_early_end",
    "read_run",
    "replace_tables",
    "write_run",
]

INTERRUPTED = 130
_NO_TRACKS = TrackFiles()
_MAX_REASON_LENGTH = 2000  # runners put whole tracebacks into their errors


@dataclass(frozen=True)
class RunPlan:
    """What the end of a run needs to know from its start.

    Attributes:
        layout: where everything lies.
        record: the run's record as it began.
        budget: how many images may fail.
        dataset: settings that the tables share with those of other runs.
        inputs: the run's inputs.
        base_run: the run that left the tables that this one starts from; ``None``: there are none.
        carries: whether rows of earlier runs are part of the tables.
        max_gone_ratio: share of the covered images that may be removed.
    """

    layout: Layout
    record: RunRecord
    budget: FailureBudget
    dataset: Dataset = Dataset(key_names=(), partition_by=())
    inputs: tuple[str, ...] = ()
    base_run: str | None = None
    carries: bool = True
    max_gone_ratio: float = 1.0


def new_run_id(now: datetime) -> str:
    """A unique name; names sort by time."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(3)}"


def hold_output(layout: Layout, holder: Holder, *, wait_s: float = 0.0) -> None:
    """Become the output's only writer.

    Args:
        layout: the output.
        holder: the new writer.
        wait_s: how long to wait for another writer, in seconds.

    Raises:
        OutputError: the output is a file.
        HeldError: another run writes there.
        StorageError: the output cannot be read or written.
    """
    if storage.is_local(layout.root) and storage.local_path(layout.root).is_file():
        raise OutputError("--output", "a folder", layout.root, "It is a file; choose another location.")
    storage.within_deadline(functools.partial(lease.read_holder, layout), layout.root)
    lease.acquire(layout, holder, wait_s=wait_s)


@contextlib.contextmanager
def holding_output(layout: Layout, now: datetime, *, wait_s: float = 0.0) -> Iterator[str]:
    """Be the output's only writer while the body runs, with a heartbeat; yields the id of a run that begins now.

    Raises:
        OutputError: the output is a file.
        HeldError: another run writes there.
        StorageError: the output cannot be read or written.
    """
    run_id = new_run_id(now)
    hold_output(layout, Holder.here(run_id, now, ends_with_process=True), wait_s=wait_s)
    try:
        with lease.heartbeats(layout, run_id):
            yield run_id
    finally:
        lease.release(layout, run_id)


def claim_output(plan: RunPlan, *, overwrite: bool, one_input: bool = False) -> tuple[RunPlan, Snapshot | None]:
    """Refuse an output that holds files which the run must not touch or tables which it cannot add to.

    Args:
        plan: the run's plan.
        overwrite: begin the data set anew; rows of all earlier runs are removed.
        one_input: refuse tables of images from other inputs.

    Returns:
        The plan with the run that it starts from, and the tables that it adds to, if there are any.

    Raises:
        OutputError: the output holds tables of another layout or, with ``one_input``, of other inputs, or files that no
            run wrote.
        StorageError: the output cannot be read.
    """
    layout = plan.layout
    found = read_snapshot(layout)
    refuse_strangers(layout, any_table=found is None)
    if found is not None and not overwrite:
        _refuse_other_dataset(layout, found, plan)
        others = sorted(set(found.inputs) - set(plan.inputs))
        if one_input and others:
            remedy = "Choose another output, or replace its tables with --overwrite."
            raise OutputError(f"--output {layout.root}", f"tables of {list(plan.inputs)}", others, remedy)
    carries = found is not None and not overwrite
    plan = dataclasses.replace(plan, base_run=None if found is None else found.run_id, carries=carries)
    return plan, found if carries else None


def begin_run(plan: RunPlan) -> None:
    """Write the run's record and remove the last run's mark of success.

    Raises:
        StorageError: the output cannot be written.
    """
    write_run(plan.layout, plan.record)
    storage.delete([plan.layout.success])


def finish_run(
    plan: RunPlan,
    listing: Mapping[str, int],
    changes: Mapping[str, int],
    reports: Sequence[ShardReport],
    levels: Mapping[str, LevelTotal],
    now: datetime,
    tracks: TrackFiles = _NO_TRACKS,
) -> RunRecord:
    """Reconcile a run, make its tables the current ones, and mark success if it succeeded.

    Args:
        plan: from the run's start.
        listing: counts of images listed, and of files skipped, by reason.
        changes: images by how they changed since the run before; empty if there was none.
        reports: one per shard.
        levels: each compliance table written.
        now: the end of the run.
        tracks: files of its tracks.

    Returns:
        The run's record as written.

    Raises:
        StorageError: the output cannot be read or written.
    """
    layout, run_id = plan.layout, plan.record.run_id
    # An absent video keeps all of its segments, but the listing counted it once.
    listing = {**listing, SEGMENTS: listing.get(SEGMENTS, 0) + changes.get(SEGMENTS, 0)}
    record = with_counts(plan.record, listing, changes, reports).model_copy(update={"finished_at": now})
    status, reason = judge(Allowance(plan.budget, plan.max_gone_ratio), record, listing, reports, levels)
    if status in ("succeeded", "over_budget"):
        receipts = [report.receipt for report in reports]
        status, reason, removed = replace_tables(plan, receipts, levels, status, reason, tracks)
        faces = face_counts(levels["all"].counts, record.classes, receipts)
        record = record.model_copy(update={"files_removed": removed, **faces, "tracks": tracks.by_label})
    record = record.model_copy(update={"status": status, "reason": reason})
    write_run(layout, record)
    if status == "succeeded":
        storage.write_bytes(layout.success, f"{run_id}\n".encode())
    lease.release(layout, run_id)
    return record


def replace_tables(
    plan: RunPlan,
    receipts: Sequence[Receipt],
    levels: Mapping[str, LevelTotal],
    status: Status,
    reason: str,
    tracks: TrackFiles = _NO_TRACKS,
) -> tuple[Status, str, int]:
    """Make a set of tables the current one, if it is complete and no other run has intervened.

    Args:
        plan: of the run that made it.
        receipts: of its shards.
        levels: its compliance tables.
        status: status of the run if all goes well.
        reason: reason for that status.
        tracks: files of its tracks.

    Returns:
        The resulting status and its reason, and how many files of earlier sets were removed.

    Raises:
        StorageError: the output cannot be read or written.
    """
    layout, run_id = plan.layout, plan.record.run_id
    base = read_snapshot(layout)
    already = base is not None and base.run_id == run_id  # a runner repeats a step whose end it did not hear of
    if not already and not lease.holds(layout, run_id):
        return "superseded", _superseded(layout, run_id), 0
    snapshot = new_snapshot(plan, receipts, levels, tracks, base if plan.carries else None)
    if (lost := missing_version(layout, snapshot)) is not None:
        return "unreconciled", f"{lost}: expected what this run wrote or kept, received nothing: someone removed it", 0
    if not commit(layout, snapshot, plan.base_run):
        return "superseded", _superseded(layout, run_id), 0
    removed = publish(layout, None if already else base)
    if (lost := missing_table(layout, snapshot)) is not None:
        return "unreconciled", f"{lost}: expected a table of this run, received nothing: someone removed it", removed
    return status, reason, removed


def new_snapshot(
    plan: RunPlan,
    receipts: Sequence[Receipt],
    levels: Mapping[str, LevelTotal],
    tracks: TrackFiles,
    base: Snapshot | None,
) -> Snapshot:
    """The set of tables that a run leaves; writes an empty file for each table that no shard has rows of.

    Args:
        plan: the run's plan.
        receipts: of every shard.
        levels: the compliance tables.
        tracks: files of its tracks.
        base: the set that the run added to, if any.

    Raises:
        StorageError: the output cannot be written.
    """
    names = tuple(dict.fromkeys((*plan.dataset.key_names, *plan.dataset.partition_by)))
    schemas = {
        PREDICTIONS: predictions_schema(names),
        FAILURES: failures_schema(names),
        NO_FACE: no_face_schema(names),
        TRACKS: tracks_schema(names),
    }
    bare = [table for table in SHARD_TABLES if not any(receipt.rows.get(table) for receipt in receipts)]
    has_videos = any(receipt.segments is not None for receipt in receipts)
    bare += [TRACKS] if has_videos and not tracks.tracks else []
    return Snapshot(
        run_id=plan.record.run_id,
        dataset=plan.dataset,
        inputs=tuple(sorted({*plan.inputs, *(base.inputs if base is not None else ())})),
        shards=receipts_of(receipts),
        compliance={level: total.sha256 for level, total in sorted(levels.items())},
        tracks=dict(sorted(tracks.tracks.items())) or None,
        track_rates={level: total.sha256 for level, total in sorted(tracks.rates.items())} or None,
        no_rows={table: write_version(plan.layout, table, NO_ROWS, schemas[table].empty_table(), 1) for table in bare},
    )


def end_early(plan: RunPlan, error: BaseException, now: datetime, *, releases: bool = False) -> None:
    """Note in a run's record what ended it early; finished shards stay, and the next run keeps them.

    It never fails, since ``error`` is what there is to report. On a full disk, the files of the lease make room for the
    record when they go, so it is tried again after them.

    Args:
        plan: the run's plan.
        error: what ended it.
        now: its end.
        releases: whether to give the output back: nothing of the run is at work any more.
    """
    layout, record = plan.layout, _ended_early(plan.record, error, now)
    failure = _failure_of(lambda: write_run(layout, record))
    if releases:
        unreleased = _failure_of(lambda: lease.release(layout, record.run_id))
        if unreleased:
            _LOGGER.warning("the lease of %s is left; the next run takes it over: %s", layout.root, unreleased)
        failure = failure and _failure_of(lambda: write_run(layout, record))
    if failure:
        code = record.interrupted_by if record.failed_with is None else record.failed_with
        _LOGGER.warning(
            "the record of run %s could not be written, so maskdet status cannot tell that it ended with exit code %s: "
            "%s",
            *(record.run_id, code, failure),
        )


@contextlib.contextmanager
def noting_early_end(plan: RunPlan, now: datetime) -> Iterator[None]:
    """Note in a run's record what ends it early, if an error leaves the body; gives the output back and raises it."""
    try:
        yield
    except BaseException as error:
        end_early(plan, error, now, releases=True)
        raise


def _failure_of(action: Callable[[], None]) -> StorageError | None:
    """Do something; why the output could not be written, if it could not."""
    try:
        action()
    except StorageError as error:
        return error
    return None


def _ended_early(record: RunRecord, error: BaseException, now: datetime) -> RunRecord:
    interrupted = isinstance(error, KeyboardInterrupt)
    reason = str(error) if isinstance(error, MaskdetError) else f"{type(error).__name__} {error}".strip()
    update = {
        "status": "interrupted" if interrupted else "failed",
        "interrupted_by": exit_code_of_interrupt(error) if interrupted else None,
        "failed_with": None
        if interrupted
        else error.exit_code
        if isinstance(error, MaskdetError)
        else MaskdetError.exit_code,
        "reason": reason[:_MAX_REASON_LENGTH],
        "finished_at": now,
    }
    return record.model_copy(update=update)


def exit_code_of_interrupt(error: BaseException) -> int:
    """130 for Ctrl-C, 143 for SIGTERM: 128 and the signal's number."""
    return Terminated.exit_code if isinstance(error, Terminated) else INTERRUPTED


def _superseded(layout: Layout, run_id: str) -> str:
    other = lease.read_holder(layout)
    return (
        f"--output {layout.root}: expected no other writer, received {other.describe() if other else 'no lease'}, "
        f"which took over because run {run_id} seemed dead. The tables are left to it"
    )


def face_counts(total: Counts, class_names: Iterable[str], receipts: Sequence[Receipt]) -> dict[str, dict[str, int]]:
    """A data set's faces, as fields of a run's record.

    Args:
        total: counts of all groups together.
        class_names: classes of the run's model.
        receipts: of all shards.

    Returns:
        ``faces``, by label: every label that a model with these classes gives, and others that earlier models gave;
        and ``faces_by_model``.
    """
    named = {name: getattr(total, f"faces_{name}") for name in LABELS}
    faces = {name: count for name, count in named.items() if count or name in (*class_names, UNCERTAIN)}
    return {"faces": faces, "faces_by_model": faces_by_model(receipts)}


def refuse_strangers(layout: Layout, *, any_table: bool) -> None:
    """Refuse an output whose table folders hold files that no run wrote: readers would take them for part of a table.

    Args:
        layout: the output.
        any_table: whether to refuse even files whose names are like those of runs, since no run has finished there.

    Raises:
        OutputError: there is such a file; the error names one.
        StorageError: the output cannot be listed.
    """
    for folder in TABLE_FOLDERS:
        for file in storage.list_folder(layout.folder(folder)):
            if any_table or not is_ours(folder, file.uri):
                raise OutputError(
                    f"--output {layout.root}",
                    "an empty location or tables of this version",
                    file.uri,
                    "Choose another output, or move that file away: no run deletes what a run did not write.",
                )


def _refuse_other_dataset(layout: Layout, found: Snapshot, plan: RunPlan) -> None:
    changed = [name for name in Dataset.model_fields if getattr(found.dataset, name) != getattr(plan.dataset, name)]
    if changed:
        raise OutputError(
            f"--output {layout.root}",
            f"settings like those of its tables: {_describe(found.dataset, changed)}",
            _describe(plan.dataset, changed),
            "Set them as the runs before did, choose another output, or replace the tables with --overwrite.",
        )


_SETTINGS = {
    "schema_version": "layout version",
    "key_names": "keys",
    "partition_by": "partition_by",
    "timezone": "source.timezone",
    "carried": "source.carry",
    "uri_key": "privacy.uri",
}
"""Field of :class:`Dataset` → what people call it."""


def _describe(dataset: Dataset, fields: Iterable[str]) -> str:
    return ", ".join(f"{_SETTINGS[name]} {_in_words(name, getattr(dataset, name))}" for name in fields)


def _in_words(name: str, value: object) -> str:
    if name == "uri_key":
        return "plain" if value is None else f"hmac with the key of fingerprint {value}"
    return str(list(value) if isinstance(value, tuple) else value)
