"""Whether a run accounts for every image, stays within its failure budget, and removes no more than it may."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from maskdet.compliance.state import Counts
from maskdet.errors import FailureCode
from maskdet.inputs.earlier import ABSENT, ADDED, CHANGED, DISPLACED, LOST, REMOVED, UNCHANGED
from maskdet.inputs.videos import SEGMENTS, VIDEOS
from maskdet.sections import FailureBudget
from maskdet.tables.endings import Endings
from maskdet.tables.receipts import ShardReport
from maskdet.tables.results import StageSeconds
from maskdet.tables.run_records import ImageCounts, RunRecord, Status
from maskdet.tables.videos import SegmentCounts, VideoCounts, merge_videos

LISTED = "listed"
_NO_REASONS = (LISTED, VIDEOS, SEGMENTS)
_LOSSES = {
    DISPLACED: "whose path or list row no longer fits",
    LOST: "whose rows a failure would replace",
    REMOVED: "that are gone",
}
"""Change that a run may make only to a limited share of images → what it means."""


@dataclass(frozen=True)
class Allowance:
    """What a run may lose and still succeed.

    Attributes:
        budget: how many images may fail.
        max_gone_ratio: share of the images covered by its input whose rows may be removed.
    """

    budget: FailureBudget
    max_gone_ratio: float = 1.0


@dataclass(frozen=True)
class LevelTotal:
    """A compliance table as written.

    Attributes:
        counts: the sum of its groups.
        sha256: of its file.
    """

    counts: Counts
    sha256: str


def with_counts(
    record: RunRecord, listing: Mapping[str, int], changes: Mapping[str, int], reports: Sequence[ShardReport]
) -> RunRecord:
    """A run's record with its shards' counts."""
    receipts = [report.receipt for report in reports]
    skipped = {reason: count for reason, count in sorted(listing.items()) if reason not in _NO_REASONS}
    videos = listing.get(VIDEOS, 0)
    whole = Endings.of_receipts(receipts)
    own = whole.minus(Endings.carried(reports))
    counts = ImageCounts(
        listed=listing.get(LISTED, 0) - videos,
        scored=own.images.scored,
        no_face=own.images.no_face,
        failed=sum(own.images.failed.values()),
        skipped=sum(skipped.values()),
    )
    kept = sum(report.kept for report in reports)
    seconds = sum((report.seconds for report in reports), StageSeconds())
    return record.model_copy(
        update={
            "images": counts,
            "videos": _videos(videos, reports, own.segments, listed_only=True),
            "dataset": whole.counts,
            "dataset_videos": _videos(None, reports, whole.segments, listed_only=False),
            "changes": _changes(changes, reports) or {ADDED: counts.listed - counts.skipped + videos},
            "failed_by_code": own.failed_by_code,
            "skipped_by_reason": skipped,
            "shards": {"total": len(reports), "scored": len(reports) - kept, "kept": kept},
            "images_scored_now": sum(report.images_read for report in reports),
            "size_bytes": sum(receipt.size_bytes for receipt in receipts),
            "thread_seconds": {name: round(value, 3) for name, value in vars(seconds).items()},
            "shard_seconds": _distributions([report.seconds for report in reports if not report.kept]),
        }
    )


def _changes(joined: Mapping[str, int], reports: Sequence[ShardReport]) -> dict[str, int]:
    """Images by how they changed: as they were listed, and as it turned out when they were to be read."""
    changes = Counter({name: count for name, count in joined.items() if name != SEGMENTS})
    for report in reports:
        for (listed, found), count in report.turned.items():
            changes.update({found: count, listed: -count})
    return {name: count for name, count in sorted(changes.items()) if count}


def _videos(
    listed: int | None, reports: Sequence[ShardReport], counts: SegmentCounts, *, listed_only: bool
) -> VideoCounts | None:
    """The videos of a run, or of its data set, all of which count as listed; ``None`` where there are none."""
    seen = merge_videos((report.videos for report in reports), listed_only=listed_only)
    return VideoCounts.of(len(seen) if listed is None else listed, seen, counts) if listed or seen else None


def _distributions(shards: Sequence[StageSeconds]) -> dict[str, dict[str, float]]:
    """The distribution for each stage, by nearest rank; empty without shards."""
    columns = {name: sorted(getattr(shard, name) for shard in shards) for name in vars(StageSeconds()) if shards}
    ranks = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {
        name: {
            rank: round(values[math.ceil(share * len(values)) - 1 if share else 0], 3) for rank, share in ranks.items()
        }
        for name, values in columns.items()
    }


def judge(
    allowed: Allowance,
    record: RunRecord,
    listing: Mapping[str, int],
    reports: Sequence[ShardReport],
    levels: Mapping[str, LevelTotal],
) -> tuple[Status, str]:
    """How a run ended and, if it did not end well, why."""
    images = record.images
    if images.listed != images.accounted:
        return "unreconciled", (
            f"reconciliation: expected listed = scored + no_face + failed + skipped, received {images.listed} listed, "
            f"{images.accounted} accounted for ({images!r}). This is a defect or a runner that lost work; run again"
        )
    if lost := _lost_segments(record, listing):
        return "unreconciled", lost
    slots = Counter(report.receipt.slot for report in reports)
    if len(slots) != len(reports):
        return "unreconciled", f"reconciliation: two shards share the slot {slots.most_common(1)[0][0]!r}"
    if nothing := _why_empty(record):
        return "empty", f"--input: expected images, received none{nothing}. Tables of earlier runs are kept as they are"
    whole, frames = record.dataset, record.dataset_videos or VideoCounts()
    expected = (
        whole.scored + frames.frames_scored,
        whole.no_face + frames.frames_no_face,
        whole.failed + frames.frames_failed,
    )
    for level, total in levels.items():
        counts = total.counts
        if (counts.images_scored, counts.images_no_face, counts.images_failed) != expected:
            text = f"reconciliation: the compliance level {level!r} counts {counts!r}, the shards {expected!r}"
            return "unreconciled", text
    return judge_removals(allowed.max_gone_ratio, record.changes) or _judge_failures(allowed.budget, record)


def judge_removals(max_ratio: float, changes: Mapping[str, int]) -> tuple[Status, str] | None:
    """How a run ends that would remove too many images, and why; ``None`` if it may go on.

    Args:
        max_ratio: share of the images covered by its input whose rows may be removed.
        changes: images by how they changed, as in its record.
    """
    received = {change: changes[change] for change in _LOSSES if changes.get(change)}
    covered = sum(changes.get(change, 0) for change in (*_LOSSES, ABSENT, CHANGED, UNCHANGED))
    # Rows of displaced images would stay, but this many of them mean a wrong root or template.
    if sum(received.values()) <= Fraction(str(max_ratio)) * covered:
        return None
    of_all = f"at most {max_ratio:g} of the {covered} images that the input had"
    told = " and ".join(f"{count} {_LOSSES[change]}" for change, count in received.items())
    if set(received) != {REMOVED}:
        return "shrunk", (
            f"source: expected {of_all} under another path or lost (tables.max_gone_ratio), received {told}. The "
            "tables stay as they are. Give the input and template of the runs before, and mount what is not mounted; "
            "if these are meant, raise the ratio"
        )
    return "shrunk", (
        f"tables.on_gone: expected to lose the rows of {of_all} (tables.max_gone_ratio), received {told}. The tables "
        "stay as they are. If the images are meant to be gone, raise the ratio; if a disk is not mounted, mount it and "
        "retry"
    )


def _why_empty(record: RunRecord) -> str:
    """Why there is nothing to look at; empty if there is."""
    images, to_score = record.images, _to_score(record)
    if to_score == 0:
        return f" among {images.listed} files listed ({images.skipped} skipped: {record.skipped_by_reason})"
    absent, missing = record.changes.get(ABSENT, 0), record.failed_by_code.get(FailureCode.NOT_FOUND, 0)
    # Where nothing was ever known, failures are all there is to tell.
    return f": of all {to_score} that it names nothing is there" if 0 < absent == to_score - missing else ""


def _to_score(record: RunRecord) -> int:
    """How many images and videos were to be scored."""
    videos = record.videos.listed if record.videos else 0
    return record.images.listed - record.images.skipped + videos


def _lost_segments(record: RunRecord, listing: Mapping[str, int]) -> str:
    """Why videos are not accounted for; empty if they are."""
    videos = record.videos or VideoCounts()
    if videos.listed == videos.scored + videos.failed and videos.segments == listing.get(SEGMENTS, 0):
        return ""
    return (
        f"reconciliation: expected {videos.listed} videos in {listing.get(SEGMENTS, 0)} segments, received {videos!r}. "
        "This is a defect or a runner that lost work; run again"
    )


def _judge_failures(budget: FailureBudget, record: RunRecord) -> tuple[Status, str]:
    videos = record.videos or VideoCounts()
    files = "images and videos" if videos.listed else "images"
    failed = record.images.failed + videos.failed
    over = _over_budget(budget, files, failed, _to_score(record), budget.max_images)
    # A scored video may have lost a stretch.
    over = over or _over_budget(budget, "frames", videos.frames_failed, videos.frames, None)
    if not over:
        return "succeeded", ""
    return "over_budget", (
        f"failure budget: {over} {record.failed_by_code}. "
        "The tables are written, _SUCCESS is not: see the failures, or raise the budget"
    )


def _over_budget(budget: FailureBudget, what: str, failed: int, to_score: int, most: int | None) -> str:
    """What was expected and received, where more failed than allowed."""
    # The ratio as written: in binary, 0.29 of 100 images would be 28.
    allowed = int(Fraction(str(budget.max_ratio)) * to_score)
    allowed = allowed if most is None else min(allowed, most)
    if failed <= allowed:
        return ""
    return (
        f"expected at most {allowed} failed {what} of {to_score} (failure_budget.max_ratio = "
        f"{budget.max_ratio:g}, max_images = {budget.max_images}), received {failed}"
    )
