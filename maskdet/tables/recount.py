"""Apply labels that people gave: the compliance tables are counted anew, and no image is read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import chain

from maskdet.compliance.corrections import Corrections
from maskdet.inputs.earlier import OUTSIDE
from maskdet.tables.corrections import read_corrections, write_corrections
from maskdet.tables.counting import READERS, count_output
from maskdet.tables.endings import Endings
from maskdet.tables.layout import IMAGES, Layout
from maskdet.tables.receipts import Receipt, read_kept
from maskdet.tables.rewriting import Rewriting
from maskdet.tables.run_records import RunRecord
from maskdet.tables.runs import holding_output
from maskdet.tables.snapshot import Snapshot, current_snapshot


def correct_faces(
    layout: Layout, corrections: Corrections, now: datetime, *, replace: bool = False, wait_s: float = 0.0
) -> RunRecord:
    """Add corrections to those of an output, and count its compliance tables anew, as a run that scores nothing.

    Args:
        layout: the output.
        corrections: labels that people gave; where a face has two, the new one wins. Those of images without rows in
            the output, such as pruned ones, are left out: they would name what was removed.
        now: the start and, in the record, the end of the run.
        replace: drop the corrections that were there.
        wait_s: how long to wait for another run that writes the output, in seconds.

    Returns:
        The run's record as written.

    Raises:
        HeldError: another run writes the output.
        SourceError: it holds no tables.
        OutputError: a file of them is missing or damaged.
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
    """URIs of the corrected images in a set of tables, in the order of the corrections."""

    def corrected(receipt: Receipt) -> list[str]:
        images = read_kept(layout, receipt, IMAGES, ["image_uri"])
        return [uri for uri in images["image_uri"].to_pylist() if uri in corrections.labels]

    with ThreadPoolExecutor(READERS, thread_name_prefix="images") as pool:
        known = set(chain.from_iterable(pool.map(corrected, snapshot.shards if corrections else ())))
    return [uri for uri in corrections.labels if uri in known]


def _recount(layout: Layout, snapshot: Snapshot, corrections: Corrections, run_id: str, now: datetime) -> RunRecord:
    about = {"recounted": True, "corrections": len(corrections)}
    with Rewriting.begun(layout, snapshot, run_id, now, **about) as run:
        return _count_anew(run, corrections, now)


def _count_anew(run: Rewriting, corrections: Corrections, now: datetime) -> RunRecord:
    layout, snapshot = run.plan.layout, run.snapshot
    grouping = run.settings.grouping(corrections, str(run.latest.model["id"]))
    record = run.replace(snapshot.shards, count_output(layout, snapshot, grouping))
    counts, videos = Endings.of_receipts(snapshot.shards).counts, run.latest.dataset_videos
    record = record.model_copy(
        update={
            "finished_at": now,
            "dataset": counts,
            "dataset_videos": videos,
            "changes": {OUTSIDE: counts.listed + (videos.listed if videos else 0)},
        }
    )
    run.finish(record)
    return record
