"""How far a run has come, and how it ended, as Prometheus metrics.

Read from an output alone, as :mod:`maskdet.tables.status` is, so that nothing has to watch the run itself: a timer
writes a file for the textfile collector of the node exporter, or a job pushes to a gateway. Every name begins with
``maskdet_`` and ends in its unit, as Prometheus recommends (https://prometheus.io/docs/practices/naming/).
"""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Gauge

from maskdet.tables.disclosure import privacy_of, shown_changes, shown_count, shown_faces, shown_images, shown_videos
from maskdet.tables.layout import Layout
from maskdet.tables.run_records import RunRecord, Status, latest_first
from maskdet.tables.status import RunStatus


def last_success(layout: Layout) -> RunRecord | None:
    """The record of the latest run that scored and succeeded; ``None`` if none did.

    Prunes and recounts do not count: they must not silence an alert about a late run.

    Raises:
        OutputError: a run's record cannot be understood.
        StorageError: the output cannot be read.
    """
    return next((run for run in latest_first(layout) if run.status == "succeeded" and run.scores), None)


def run_metrics(status: RunStatus, success: RunRecord | None, layout: Layout) -> CollectorRegistry:
    """Gauges of a run, each with the label ``output``.

    What ``privacy`` hides in the tables is left out here; where it hides or rounds, counts change in steps.

    Args:
        status: of the run; while it is running, images are those of its finished shards.
        success: the latest run that scored and succeeded, if any did.
        layout: where the tables lie.

    Returns:
        A registry of its own, to be written or pushed. Times are seconds since 1970 (UTC).

    Raises:
        StorageError: the output cannot be read.
    """
    run, gauges = status.run, _Gauges(layout.root)
    working = run.status == "running"
    images = status.images if working else run.images
    gauges.by("maskdet_run_status", "1 for the status that the run has", "status", _one_of(run.status))
    gauges.set("maskdet_run_exit_code", "Exit code of maskdet status", status.exit_code)
    gauges.set("maskdet_run_started_timestamp_seconds", "When the run began", run.started_at.timestamp())
    if run.finished_at is not None:
        gauges.set("maskdet_run_finished_timestamp_seconds", "When the run ended", run.finished_at.timestamp())
    if status.heartbeat is not None:
        seen = status.heartbeat.at.timestamp()
        gauges.set("maskdet_run_heartbeat_timestamp_seconds", "The latest sign of life", seen)
    outcomes = shown_images(images, privacy_of(run))
    gauges.by("maskdet_run_images", "Images of the run's input by outcome, and listed in all", "outcome", outcomes)
    if run.videos is not None and not working:
        videos = shown_videos(run.videos, privacy_of(run))
        gauges.by("maskdet_run_videos", "Videos of the run's input by outcome, and listed in all", "outcome", videos)
    if run.scores and run.changes:  # a run that ended early does not know
        changes = shown_changes(run.changes, privacy_of(run))
        gauges.by("maskdet_run_changed_images", "Images and videos, as the run found them", "change", changes)
    failed = dict(status.failed_by_code) if working else run.failed_by_code
    gauges.by("maskdet_run_failed_images", "Failed images, and stretches of videos, by code", "code", failed)
    shards, finished = (status.shards or 0, status.finished) if working else (run.shards.get("total", 0),) * 2
    gauges.set("maskdet_run_shards", "Shards of the run", shards)
    gauges.set("maskdet_run_finished_shards", "Shards of the run that are finished", finished)
    if success is not None and success.finished_at is not None:
        ended = success.finished_at.timestamp()
        duration_s = ended - success.started_at.timestamp()
        gauges.set("maskdet_last_success_timestamp_seconds", "When the latest successful run ended", ended)
        gauges.set("maskdet_last_success_duration_seconds", "How long the latest successful run took", duration_s)
        read = shown_count(success.images_scored_now, privacy_of(success))
        if read is not None:
            gauges.set("maskdet_last_success_scored_images", "Images that run read", read)
        tables = run if run.status == "succeeded" else success  # a prune or a recount may have changed them since
        faces = shown_faces(layout, tables)
        gauges.by("maskdet_faces", "Faces in the tables of the latest successful run", "label", faces)
    return gauges.registry


class _Gauges:
    """Gauges that share the label ``output``."""

    def __init__(self, output: str) -> None:
        self.registry = CollectorRegistry()
        self._output = output

    def set(self, name: str, meaning: str, value: float) -> None:
        Gauge(name, meaning, ["output"], registry=self.registry).labels(self._output).set(value)

    def by(self, name: str, meaning: str, label: str, values: dict[str, int]) -> None:
        gauge = Gauge(name, meaning, ["output", label], registry=self.registry)
        for key, value in values.items():
            gauge.labels(self._output, key).set(value)


def _one_of(status: Status) -> dict[str, int]:
    return {name: int(name == status) for name in get_args(Status)}
