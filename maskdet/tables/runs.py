"""A run from start to finish: its manifest, its reconciliation, its failure budget, and the mark of success."""

from __future__ import annotations

import functools
import math
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from maskdet import storage
from maskdet.compliance.groups import Counts
from maskdet.config import FailureBudget, ScoreSettings
from maskdet.errors import (
    BudgetError,
    HeldError,
    MaskdetError,
    NotFoundError,
    OutputError,
    ReconciliationError,
    SourceError,
    Terminated,
)
from maskdet.labels import LABELS, TWO_CLASSES, UNCERTAIN, Decision
from maskdet.schemas import SCHEMA_VERSION
from maskdet.tables import lease
from maskdet.tables.layout import COMPLIANCE, RECEIPTS, SHARD_TABLES, Layout, is_ours
from maskdet.tables.lease import Holder
from maskdet.tables.receipts import ShardReport, output_files
from maskdet.tables.results import StageSeconds

LISTED = "listed"
INTERRUPTED = 130
_MAX_REASON_LENGTH = 2000  # runners put whole tracebacks into their errors

Status = Literal["running", "succeeded", "over_budget", "unreconciled", "empty", "superseded", "failed", "interrupted"]


class ImageCounts(BaseModel):
    """Every image of a run, by how it ended: listed = scored + no_face + failed + skipped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listed: int = 0
    scored: int = 0
    no_face: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def accounted(self) -> int:
        """Images that ended somehow."""
        return self.scored + self.no_face + self.failed + self.skipped


class RunManifest(BaseModel):
    """The content of ``_runs/<run_id>.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: Status = "running"
    reason: str = ""
    """Why the run did not succeed."""
    interrupted_by: int | None = None
    """Exit code of what interrupted the run: 130 for Ctrl-C, 143 for SIGTERM."""
    started_at: datetime
    finished_at: datetime | None = None
    settings: dict[str, Any]
    model: dict[str, Any]
    """In words, but for ``decision``: its thresholds, as :class:`maskdet.labels.Decision` has them."""
    fingerprint: str
    versions: dict[str, str]
    runner: dict[str, str] = {}
    """Name of the runner and of the job on it; of a job on Flink, where Flink can be asked for it."""
    images: ImageCounts = ImageCounts()
    failed_by_code: dict[str, int] = {}
    skipped_by_reason: dict[str, int] = {}
    faces: dict[str, int] = {}
    """Faces by label."""
    shards: dict[str, int] = {}
    """Shards in all, scored by this run, and kept from earlier ones."""
    images_scored_now: int = 0
    """Images that this run read, rather than kept."""
    size_bytes: int = 0
    """Bytes of all scored images."""
    files_removed: int = 0
    """Files of earlier runs that no longer belong to the tables."""
    thread_seconds: dict[str, float] = {}
    shard_seconds: dict[str, dict[str, float]] = {}
    """Thread-seconds a shard spent in each stage, as a distribution over the shards that this run scored."""

    @property
    def decision(self) -> Decision:
        """The thresholds of the run's labels.

        Raises:
            OutputError: the record does not hold them as numbers: an older version wrote it.
        """
        try:
            return Decision.model_validate(self.model.get("decision"))
        except ValidationError as error:
            expected = "thresholds as numbers (model.decision)"
            remedy = "Run maskdet score again; this version writes them."
            raise OutputError(f"run {self.run_id}", expected, self.model.get("decision"), remedy) from error

    def outcome(self) -> MaskdetError | None:
        """The error that the run ended in, if any."""
        kinds: dict[str, type[MaskdetError]] = {
            "over_budget": BudgetError,
            "unreconciled": ReconciliationError,
            "empty": SourceError,
            "superseded": HeldError,
            "failed": MaskdetError,
            "running": MaskdetError,
        }
        kind = kinds.get(self.status)
        return kind(self.reason or f"run {self.run_id} ended without finishing") if kind else None


class Dataset(BaseModel):
    """What an output's tables are made of; a run that differs would mix or drop rows of another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    input: tuple[str, ...]
    key_names: tuple[str, ...]
    partition_by: tuple[str, ...]


@dataclass(frozen=True)
class RunPlan:
    """What the end of a run needs to know from its start.

    Attributes:
        layout: where everything lies.
        manifest: the run's manifest as it began.
        budget: how many images may fail.
    """

    layout: Layout
    manifest: RunManifest
    budget: FailureBudget


def new_run_id(now: datetime) -> str:
    """A name that sorts by time and is unique."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(3)}"


def hold_output(layout: Layout, holder: Holder, *, wait_s: float = 0.0) -> None:
    """Become the output's only writer.

    Args:
        layout: the output.
        holder: who becomes it.
        wait_s: how long to wait for another, in seconds.

    Raises:
        OutputError: the output is a file.
        HeldError: another run writes there.
        StorageError: the output cannot be read or written.
    """
    if storage.is_local(layout.root) and storage.local_path(layout.root).is_file():
        raise OutputError("--output", "a folder", layout.root, "It is a file; choose another location.")
    storage.within_deadline(functools.partial(lease.read_holder, layout), layout.root)
    lease.acquire(layout, holder, wait_s=wait_s)


def claim_output(layout: Layout, settings: ScoreSettings, *, overwrite: bool) -> None:
    """Refuse an output that holds tables of another input or layout; else record what it holds.

    Raises:
        OutputError: the output holds something that the run must not overwrite.
        StorageError: the output cannot be read or written.
    """
    inputs = tuple(storage.normalize(uri) for uri in settings.input)
    wanted = Dataset(input=inputs, key_names=settings.source.key_names, partition_by=settings.partition_by)
    found = _read_dataset(layout)
    if found is not None and found != wanted and not overwrite:
        changed = [name for name in Dataset.model_fields if getattr(found, name) != getattr(wanted, name)]
        raise OutputError(
            f"--output {layout.root}",
            f"tables with {_describe(wanted, changed)}",
            _describe(found, changed),
            "Choose another output, or replace its tables with --overwrite.",
        )
    refuse_strangers(layout)
    storage.write_bytes(layout.dataset, (wanted.model_dump_json(indent=2) + "\n").encode())


def begin_run(plan: RunPlan) -> None:
    """Write the run's manifest and take away the mark of the last success.

    Raises:
        StorageError: the output cannot be written.
    """
    write_manifest(plan.layout, plan.manifest)
    storage.delete([plan.layout.success])


def finish_run(
    plan: RunPlan,
    listing: Mapping[str, int],
    reports: Sequence[ShardReport],
    levels: Mapping[str, Counts],
    now: datetime,
) -> RunManifest:
    """Reconcile a run, clear what no longer belongs to its tables, and mark success if it is one.

    Args:
        plan: from the run's start.
        listing: images listed, and skipped by reason.
        reports: one a shard.
        levels: totals of each compliance table written.
        now: the end of the run.

    Returns:
        The run's manifest as written.

    Raises:
        StorageError: the output cannot be read or written.
    """
    manifest = _with_counts(plan.manifest, listing, reports).model_copy(update={"finished_at": now})
    status, reason = _judge(manifest, reports, levels, plan.budget)
    if not lease.holds(plan.layout, manifest.run_id):
        status, reason = "superseded", _superseded(plan.layout, manifest.run_id)
    if status in ("succeeded", "over_budget"):
        owned = output_files(plan.layout, (report.receipt for report in reports))
        owned.update(plan.layout.compliance(level) for level in levels)
        removed = _remove_others(plan.layout, owned)
        manifest = manifest.model_copy(
            update={
                "files_removed": removed,
                "faces": _faces(levels["all"], manifest.model.get("classes", TWO_CLASSES)),
            }
        )
    manifest = manifest.model_copy(update={"status": status, "reason": reason})
    write_manifest(plan.layout, manifest)
    if status == "succeeded":
        storage.write_bytes(plan.layout.success, f"{manifest.run_id}\n".encode())
    lease.release(plan.layout, manifest.run_id)
    return manifest


def end_early(plan: RunPlan, error: BaseException, now: datetime) -> None:
    """Leave in a run's manifest what ended it before its time; finished shards stay, and the next run keeps them."""
    interrupted = isinstance(error, KeyboardInterrupt)
    reason = str(error) if isinstance(error, MaskdetError) else f"{type(error).__name__} {error}".strip()
    update = {
        "status": "interrupted" if interrupted else "failed",
        "interrupted_by": exit_code_of_interrupt(error) if interrupted else None,
        "reason": reason[:_MAX_REASON_LENGTH],
        "finished_at": now,
    }
    write_manifest(plan.layout, plan.manifest.model_copy(update=update))


def exit_code_of_interrupt(error: BaseException) -> int:
    """130 for Ctrl-C, 143 for SIGTERM: 128 and the signal's number."""
    return Terminated.exit_code if isinstance(error, Terminated) else INTERRUPTED


def write_manifest(layout: Layout, manifest: RunManifest) -> None:
    """Write a run's manifest."""
    storage.write_bytes(layout.run(manifest.run_id), (manifest.model_dump_json(indent=2) + "\n").encode())


def read_run(layout: Layout, run_id: str | None = None) -> RunManifest:
    """Read a run's manifest; without an id, the latest run's.

    Raises:
        OutputError: there is none.
    """
    if run_id is None:
        runs = sorted(file.uri for file in storage.list_folder(layout.folder("_runs")) if file.uri.endswith(".json"))
        if not runs:
            raise OutputError(
                f"output {layout.root}", "at least one run (_runs/*.json)", "none", "Run maskdet score first."
            )
        uri = runs[-1]
    else:
        uri = layout.run(run_id)
    try:
        return RunManifest.model_validate_json(storage.read_bytes(uri))
    except NotFoundError as error:
        raise OutputError(
            f"output {layout.root}", f"the run {run_id!r} (_runs/{run_id}.json)", "none", "Check the run's id."
        ) from error
    except ValidationError as error:
        raise OutputError(f"{uri}: not a run manifest of this version: {error.errors()[0]['msg']}") from error


def _with_counts(manifest: RunManifest, listing: Mapping[str, int], reports: Sequence[ShardReport]) -> RunManifest:
    receipts = [report.receipt for report in reports]
    skipped = {reason: count for reason, count in sorted(listing.items()) if reason != LISTED}
    failed: Counter[str] = Counter()
    for receipt in receipts:
        failed.update(receipt.failed)
    seconds = sum((report.seconds for report in reports), StageSeconds())
    kept = sum(report.kept for report in reports)
    counts = ImageCounts(
        listed=listing.get(LISTED, 0),
        scored=sum(receipt.scored for receipt in receipts),
        no_face=sum(receipt.no_face for receipt in receipts),
        failed=failed.total(),
        skipped=sum(skipped.values()),
    )
    return manifest.model_copy(
        update={
            "images": counts,
            "failed_by_code": dict(sorted(failed.items())),
            "skipped_by_reason": skipped,
            "shards": {"total": len(reports), "scored": len(reports) - kept, "kept": kept},
            "images_scored_now": sum(report.receipt.images for report in reports if not report.kept),
            "size_bytes": sum(receipt.size_bytes for receipt in receipts),
            "thread_seconds": {name: round(value, 3) for name, value in vars(seconds).items()},
            "shard_seconds": _distributions([report.seconds for report in reports if not report.kept]),
        }
    )


def _distributions(shards: Sequence[StageSeconds]) -> dict[str, dict[str, float]]:
    """Of each stage, by nearest rank; nothing without shards."""
    columns = {name: sorted(getattr(shard, name) for shard in shards) for name in vars(StageSeconds()) if shards}
    ranks = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {
        name: {
            rank: round(values[math.ceil(share * len(values)) - 1 if share else 0], 3) for rank, share in ranks.items()
        }
        for name, values in columns.items()
    }


def _judge(
    manifest: RunManifest, reports: Sequence[ShardReport], levels: Mapping[str, Counts], budget: FailureBudget
) -> tuple[Status, str]:
    """How a run ended, and why if not well."""
    images = manifest.images
    to_score = images.listed - images.skipped
    if images.listed != images.accounted:
        return "unreconciled", (
            f"reconciliation: expected listed = scored + no_face + failed + skipped, received {images.listed} listed, "
            f"{images.accounted} accounted for ({images!r}). This is a defect or a runner that lost work; run again"
        )
    slots = Counter(report.receipt.slot for report in reports)
    if len(slots) != len(reports):
        return "unreconciled", f"reconciliation: two shards share the slot {slots.most_common(1)[0][0]!r}"
    if to_score == 0:
        return "empty", (
            f"--input: expected images, received none among {images.listed} files listed "
            f"({images.skipped} skipped: {manifest.skipped_by_reason}). Tables of earlier runs are kept as they are"
        )
    for level, counts in levels.items():
        if (counts.images_scored, counts.images_no_face, counts.images_failed) != (
            images.scored,
            images.no_face,
            images.failed,
        ):
            return (
                "unreconciled",
                f"reconciliation: the compliance level {level!r} counts {counts!r}, the shards {images!r}",
            )
    # The ratio as it was written: in binary, 0.29 of 100 images would be 28.
    allowed = int(Fraction(str(budget.max_ratio)) * to_score)
    allowed = allowed if budget.max_images is None else min(allowed, budget.max_images)
    if images.failed > allowed:
        return "over_budget", (
            f"failure budget: expected at most {allowed} failed images of {to_score} (failure_budget.max_ratio = "
            f"{budget.max_ratio:g}, max_images = {budget.max_images}), received {images.failed} "
            f"{manifest.failed_by_code}. The tables are written, _SUCCESS is not: see the failures, or raise the budget"
        )
    return "succeeded", ""


def _superseded(layout: Layout, run_id: str) -> str:
    other = lease.read_holder(layout)
    return (
        f"--output {layout.root}: expected no other writer, received {other.describe() if other else 'no lease'}, "
        f"which took run {run_id} for dead. The tables are left to it"
    )


def _faces(total: Counts, class_names: Iterable[str]) -> dict[str, int]:
    named = {name: getattr(total, f"faces_{name}") for name in LABELS}
    return {name: count for name, count in named.items() if name in (*class_names, UNCERTAIN)}


def _remove_others(layout: Layout, owned: set[str]) -> int:
    """Delete files of ours in the tables' folders that no shard of this run owns."""
    folders = (*SHARD_TABLES, RECEIPTS, COMPLIANCE)
    stale = [
        file.uri
        for folder in folders
        for file in storage.list_folder(layout.folder(folder))
        if file.uri not in owned and is_ours(folder, file.uri)
    ]
    storage.delete(stale)
    storage.remove_empty_folders(layout.folder(folder) for folder in folders)
    return len(stale)


def _read_dataset(layout: Layout) -> Dataset | None:
    try:
        return Dataset.model_validate_json(storage.read_bytes(layout.dataset))
    except NotFoundError:
        return None
    except ValidationError as error:
        raise OutputError(
            f"{layout.dataset}", f"schema version {SCHEMA_VERSION}", error.errors()[0]["msg"], "Choose another output."
        ) from error


def refuse_strangers(layout: Layout) -> None:
    """Refuse an output with files of others in the tables' folders, where readers would take them for tables of ours.

    Raises:
        OutputError: names one of them.
        StorageError: the output cannot be listed.
    """
    for folder in (*SHARD_TABLES, COMPLIANCE):
        for file in storage.list_folder(layout.folder(folder)):
            if not is_ours(folder, file.uri):
                raise OutputError(
                    f"--output {layout.root}",
                    "an empty location or tables of maskdet",
                    file.uri,
                    "Choose another output, or move that file away: no run deletes what a run did not write.",
                )


def _describe(dataset: Dataset, fields: Iterable[str]) -> str:
    return ", ".join(f"{name} {getattr(dataset, name)!r}" for name in fields)
