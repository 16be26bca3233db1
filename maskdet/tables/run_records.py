"""The record of a run: its settings, what became of every image, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from maskdet import storage
from maskdet.compliance.intervals import ErrorRates
from maskdet.compliance.rates import KnownErrors
from maskdet.errors import (
    BudgetError,
    HeldError,
    MaskdetError,
    NotFoundError,
    OutputError,
    ReconciliationError,
    SourceError,
    error_of_code,
)
from maskdet.labels import TWO_CLASSES, ClassNames, Decision
from maskdet.schemas import SCHEMA_VERSION
from maskdet.tables.layout import RUNS, Layout
from maskdet.tables.missing import missing_tables
from maskdet.tables.videos import VideoCounts

_QUESTIONS = ("any_mask", "correct")

Status = Literal[
    "running", "succeeded", "over_budget", "unreconciled", "empty", "shrunk", "superseded", "failed", "interrupted"
]


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
        """Images whose ending is known."""
        return self.scored + self.no_face + self.failed + self.skipped


class RunRecord(BaseModel):
    """The content of ``_runs/<run_id>.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: Status = "running"
    reason: str = ""
    """Why the run did not succeed."""
    interrupted_by: int | None = None
    """Exit code of the interruption: 130 for Ctrl-C, 143 for SIGTERM."""
    failed_with: int | None = None
    """Exit code of the error that ended a failed run; ``None`` in records of an older version."""
    started_at: datetime
    finished_at: datetime | None = None
    pruned_before: date | None = None
    """The run scored nothing: it removed rows of images taken before this day."""
    undated: int | None = None
    """Images that a prune left because nobody knows when they were taken."""
    recounted: bool = False
    """The run scored nothing: it counted the compliance tables anew, with other corrections."""
    corrections: int = 0
    """How many labels from people count in place of the model's; see ``corrections.parquet``."""
    settings: dict[str, Any]
    model: dict[str, Any]
    """In words, but for ``classes``, by name, ``decision``, thresholds as :class:`maskdet.labels.Decision`, and
    ``errors``, as :class:`maskdet.compliance.rates.KnownErrors`."""
    fingerprint: str
    versions: dict[str, str]
    runner: dict[str, str] = {}
    """Name of the runner and of the job on it; for a job on Flink, where to ask Flink about it."""
    images: ImageCounts = ImageCounts()
    """Images of the run's input."""
    videos: VideoCounts | None = None
    """Videos of the run's input; ``None`` where there are none."""
    dataset: ImageCounts = ImageCounts()
    """All images in the tables, including those of earlier runs."""
    dataset_videos: VideoCounts | None = None
    """The same for videos."""
    changes: dict[str, int] = {}
    """Images and videos of the data set: ``added``, ``changed`` and ``unchanged`` are listed by this run; ``gone`` are
    those that it no longer found, whose rows stay; ``absent`` those that it was given by name, of which nothing is
    there, whose rows stay; ``removed`` those whose rows went; ``displaced`` those whose path or
    list row no longer fits, whose file is as it was and whose rows stay; ``lost`` those whose rows a failure
    replaces, since the file changed too or cannot be read; ``outside`` those beyond its input. Of a run that was
    refused, they say what it would have done."""
    failed_by_code: dict[str, int] = {}
    skipped_by_reason: dict[str, int] = {}
    faces: dict[str, int] = {}
    """Faces of the data set, by label."""
    faces_by_model: dict[str, int] = {}
    """The same by the model that looked at them, before corrections: images that no later model was shown, since
    they are gone or lie elsewhere, keep an earlier one's. Empty where shards of an older version do not tell."""
    tracks: dict[str, int] = {}
    """People-tracks of the data set's videos, by label."""
    shards: dict[str, int] = {}
    """Shards in total, scored by this run, and kept from earlier ones."""
    images_scored_now: int = 0
    """Images that this run read rather than kept."""
    size_bytes: int = 0
    """Bytes of all scored images."""
    files_removed: int = 0
    """Files of earlier runs that no longer belong to the tables."""
    thread_seconds: dict[str, float] = {}
    shard_seconds: dict[str, dict[str, float]] = {}
    """Thread-seconds per shard in each stage, as a distribution over the shards that this run scored."""

    @property
    def classes(self) -> ClassNames:
        """The classes of the run's model; two where the record of an older version does not say."""
        names: ClassNames = tuple(self.model.get("classes", TWO_CLASSES))
        return names

    @property
    def decision(self) -> Decision:
        """The thresholds of the run's labels.

        Raises:
            OutputError: the record does not have them as numbers, because an older version wrote it.
        """
        try:
            return Decision.model_validate(self.model.get("decision"))
        except ValidationError as error:
            expected = "thresholds as numbers (model.decision)"
            remedy = "Run maskdet score again; this version writes them."
            raise OutputError(f"run {self.run_id}", expected, self.model.get("decision"), remedy) from error

    @property
    def errors(self) -> KnownErrors:
        """What is known of the errors of the run's labels; nothing in records of an older version."""
        found = self.model.get("errors")
        if not found:
            return KnownErrors()
        any_mask, correct = (None if found[name] is None else ErrorRates(*found[name]) for name in _QUESTIONS)
        return KnownErrors(any_mask, correct, found["refused"])

    @property
    def scores(self) -> bool:
        """Whether the run scored images, rather than pruned or recounted."""
        return self.pruned_before is None and not self.recounted

    def outcome(self) -> MaskdetError | None:
        """The error that the run ended in, if any."""
        kinds: dict[str, type[MaskdetError]] = {
            "over_budget": BudgetError,
            "unreconciled": ReconciliationError,
            "empty": SourceError,
            "shrunk": OutputError,
            "superseded": HeldError,
            "failed": error_of_code(self.failed_with),
            "running": MaskdetError,
        }
        kind = kinds.get(self.status)
        return kind(self.reason or f"run {self.run_id} ended without finishing") if kind else None


def write_run(layout: Layout, record: RunRecord) -> None:
    """Write a run's record."""
    storage.write_bytes(layout.run(record.run_id), (record.model_dump_json(indent=2) + "\n").encode())


def read_run(layout: Layout, run_id: str | None = None) -> RunRecord:
    """Read a run's record; without an id, the latest run's.

    Raises:
        SourceError: there is none, or no such output.
        OutputError: its record cannot be understood.
        StorageError: the output cannot be read.
    """
    if run_id is None:
        runs = sorted(file.uri for file in storage.list_folder(layout.folder(RUNS)) if file.uri.endswith(".json"))
        if not runs:
            raise missing_tables(layout, "at least one run (_runs/*.json)")
        uri = runs[-1]
    else:
        uri = layout.run(run_id)
    try:
        return RunRecord.model_validate_json(storage.read_bytes(uri))
    except NotFoundError as error:
        raise missing_tables(layout, f"the run {run_id!r} (_runs/{run_id}.json)", "Check the run's id.") from error
    except ValidationError as error:
        raise OutputError(f"{uri}: not a run record of this version: {error.errors()[0]['msg']}") from error


def is_marked_complete(layout: Layout) -> bool:
    """Whether the current tables have the mark of success, or lost it to a prune or recount that died.

    Such a run changes no image's ending: repeating it restores the mark, if the last run that scored had it.

    Raises:
        OutputError: a run's record cannot be understood.
        StorageError: the output cannot be read.
    """
    if storage.exists(layout.success):
        return True
    runs = latest_first(layout)
    latest = next(runs, None)
    if latest is None or latest.scores or latest.status not in ("running", "interrupted", "failed"):
        return False
    before = next((run for run in runs if run.scores), None)
    return before is not None and before.status == "succeeded"


def scoring_run(layout: Layout, latest: RunRecord) -> RunRecord:
    """The run that scored a run's tables: itself or, for a prune or a recount, the latest before it that scored.

    Args:
        layout: the output.
        latest: the run that left its tables.

    Raises:
        OutputError: a run's record cannot be understood.
        StorageError: the output cannot be read.
    """
    if latest.scores:
        return latest
    made = (run for run in latest_first(layout) if run.scores and run.run_id < latest.run_id)
    return next((run for run in made if run.status in ("succeeded", "over_budget")), latest)


def standing(layout: Layout, latest: RunRecord) -> tuple[Status, str]:
    """How a successful prune or recount ends: over budget where the run that scored the tables was, and why.

    Args:
        layout: the output.
        latest: the run that left its tables.

    Raises:
        OutputError: a run's record cannot be understood.
        StorageError: the output cannot be read.
    """
    # Older versions wrote that a prune or recount succeeded, however the run before it had ended.
    scored = scoring_run(layout, latest) if latest.status == "succeeded" else latest
    if scored.status != "over_budget":
        return "succeeded", ""
    return "over_budget", f"as run {scored.run_id} left it: {scored.reason}" if scored.scores else scored.reason


def latest_first(layout: Layout) -> Iterator[RunRecord]:
    """The records of all runs, latest first, each read when it is needed.

    Raises:
        OutputError: a run's record cannot be understood.
        StorageError: the output cannot be read.
    """
    names = sorted(file.uri.rsplit("/", 1)[-1] for file in storage.list_folder(layout.folder(RUNS)))
    return (read_run(layout, name.removesuffix(".json")) for name in reversed(names) if name.endswith(".json"))
