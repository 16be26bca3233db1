"""Labels that people gave, put into force: the compliance tables are counted anew, and no image is read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import chain

from maskdet import storage
from maskdet.compliance.corrections import Corrections
from maskdet.inputs.earlier import OUTSIDE
from maskdet.sections import FailureBudget
from maskdet.tables.corrections import read_corrections, write_corrections
from maskdet.tables.counting import READERS, count_output
from maskdet.tables.endings import Endings
from maskdet.tables.layout import IMAGES, Layout
from maskdet.tables.levels import TableSettings, track_job, write_levels
from maskdet.tables.manifest import RunManifest, is_marked_complete, read_run, standing, write_manifest
from maskdet.tables.receipts import Receipt, read_kept
from maskdet.tables.runs import RunPlan, begin_run, face_counts, holding_output, replace_tables
from maskdet.tables.snapshot import Snapshot, current_snapshot


def correct_faces(
    layout: Layout, corrections: Corrections, now: datetime, *, replace: bool = False, wait_s: float = 0.0
) -> RunManifest:
    """Add corrections to those of an output, and count its compliance tables anew, as a run that scores nothing.

    Args:
        layout: the output.
        corrections: labels that people gave; of two of one face, the new one holds. Those of images of which the
            output has no rows, such as pruned ones, are left out: they would name what was removed.
        now: the start and, in the record, the end of the run.
        replace: drop the corrections that were there.
        wait_s: how long to wait for another run that writes the output, in seconds.

    Returns:
        The run's record as written.

    Raises:
        HeldError: another run writes the output.
        OutputError: it holds no tables, or a file of them is missing or damaged.
        StorageError: it cannot be read or written.
    """
    current_snapshot(layout)
    with holding_output(layout, now, wait_s=wait_s) as run_id:
        whole = corrections if replace else read_corrections(layout) | corrections
        snapshot = current_snapshot(layout)
        whole = whole.within(_images_of(layout, snapshot, whole))
        write_corrections(layout, whole)
        return _recount(layout, snapshot, whole, run_id, now)


def _images_of(layout: Layout, snapshot: Snapshot, corrections: Corrections) -> list[str]:
    """URIs of corrected images that a set of tables has, in the order of the corrections."""

    def corrected(receipt: Receipt) -> list[str]:
        images = read_kept(layout, receipt, IMAGES, ["image_uri"])
        return [uri for uri in images["image_uri"].to_pylist() if uri in corrections.labels]

    with ThreadPoolExecutor(READERS, thread_name_prefix="images") as pool:
        known = set(chain.from_iterable(pool.map(corrected, snapshot.shards if corrections else ())))
    return [uri for uri in corrections.labels if uri in known]


def _recount(layout: Layout, snapshot: Snapshot, corrections: Corrections, run_id: str, now: datetime) -> RunManifest:
    latest = read_run(layout, snapshot.run_id)
    keep = {"settings", "model", "fingerprint", "versions"}
    manifest = RunManifest(
        run_id=run_id,
        started_at=now,
        recounted=True,
        corrections=len(corrections),
        **latest.model_dump(include=keep, mode="python"),
    )
    plan = RunPlan(layout, manifest, FailureBudget(), snapshot.dataset, base_run=snapshot.run_id)
    complete = is_marked_complete(layout)
    begin_run(plan)
    settings = TableSettings.of(latest)
    groups = count_output(layout, snapshot, settings.grouping(corrections))
    totals = write_levels(settings.writer(layout, manifest, snapshot.dataset.timezone), groups)
    tracks = track_job(layout, snapshot, latest, settings).write_all(snapshot.shards)
    status, reason, removed = replace_tables(plan, snapshot.shards, totals, *standing(layout, latest), tracks)
    counts, videos = Endings.of_receipts(snapshot.shards).counts, latest.dataset_videos
    manifest = manifest.model_copy(
        update={
            "status": status,
            "reason": reason,
            "finished_at": now,
            "dataset": counts,
            "dataset_videos": videos,
            "changes": {OUTSIDE: counts.listed + (videos.listed if videos else 0)},
            "tracks": tracks.by_label,
            **face_counts(totals["all"].counts, manifest.classes, snapshot.shards),
            "shards": {"total": len(snapshot.shards), "scored": 0, "kept": len(snapshot.shards)},
            "files_removed": removed,
        }
    )
    write_manifest(layout, manifest)
    if status == "succeeded" and complete:
        storage.write_bytes(layout.success, f"{run_id}\n".encode())
    return manifest
