"""Whether a run accounts for every image, keeps its failure budget, and removes no more than it may."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from maskdet.compliance.state import Counts
from maskdet.config import FailureBudget
from maskdet.inputs.earlier import ADDED, CHANGED, REMOVED, UNCHANGED
from maskdet.tables.manifest import ImageCounts, RunManifest, Status
from maskdet.tables.receipts import ShardReport
from maskdet.tables.results import StageSeconds

LISTED = "listed"


@dataclass(frozen=True)
class Allowance:
    """What a run may lose and still succeed.

    Attributes:
        budget: how many images may fail.
        max_gone_ratio: share of the images that its input covers whose rows may be removed.
    """

    budget: FailureBudget
    max_gone_ratio: float = 1.0


@dataclass(frozen=True)
class LevelTotal:
    """A compliance table as written.

    Attributes:
        counts: its groups' sum.
        sha256: of its file.
    """

    counts: Counts
    sha256: str


def with_counts(
    manifest: RunManifest, listing: Mapping[str, int], changes: Mapping[str, int], reports: Sequence[ShardReport]
) -> RunManifest:
    """A run's record with what its shards counted."""
    receipts = [report.receipt for report in reports]
    skipped = {reason: count for reason, count in sorted(listing.items()) if reason != LISTED}
    failed: Counter[str] = Counter()
    carried_failed: Counter[str] = Counter()
    for report in reports:
        failed.update(report.receipt.failed)
        carried_failed.update(report.carried.failed)
    seconds = sum((report.seconds for report in reports), StageSeconds())
    kept = sum(report.kept for report in reports)
    scored, no_face = sum(receipt.scored for receipt in receipts), sum(receipt.no_face for receipt in receipts)
    own_failed = failed - carried_failed
    counts = ImageCounts(
        listed=listing.get(LISTED, 0),
        scored=scored - sum(report.carried.scored for report in reports),
        no_face=no_face - sum(report.carried.no_face for report in reports),
        failed=own_failed.total(),
        skipped=sum(skipped.values()),
    )
    images = sum(receipt.images for receipt in receipts)
    return manifest.model_copy(
        update={
            "images": counts,
            "dataset": ImageCounts(listed=images, scored=scored, no_face=no_face, failed=failed.total()),
            "changes": dict(sorted(changes.items())) if changes else {ADDED: counts.listed - counts.skipped},
            "failed_by_code": dict(sorted(own_failed.items())),
            "skipped_by_reason": skipped,
            "shards": {"total": len(reports), "scored": len(reports) - kept, "kept": kept},
            "images_scored_now": sum(report.images_read for report in reports),
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


def judge(
    allowed: Allowance, manifest: RunManifest, reports: Sequence[ShardReport], levels: Mapping[str, LevelTotal]
) -> tuple[Status, str]:
    """How a run ended, and why if not well."""
    images, to_score = manifest.images, manifest.images.listed - manifest.images.skipped
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
    whole = manifest.dataset
    for level, total in levels.items():
        counts = total.counts
        if (counts.images_scored, counts.images_no_face, counts.images_failed) != (
            whole.scored,
            whole.no_face,
            whole.failed,
        ):
            return (
                "unreconciled",
                f"reconciliation: the compliance level {level!r} counts {counts!r}, the shards {whole!r}",
            )
    return _judge_removals(allowed.max_gone_ratio, manifest) or _judge_failures(allowed.budget, manifest)


def _judge_removals(max_ratio: float, manifest: RunManifest) -> tuple[Status, str] | None:
    removed = manifest.changes.get(REMOVED, 0)
    covered = sum(manifest.changes.get(change, 0) for change in (REMOVED, CHANGED, UNCHANGED))
    if removed <= Fraction(str(max_ratio)) * covered:
        return None
    return "shrunk", (
        f"tables.on_gone: expected to remove at most {max_ratio:g} of the {covered} images that the input had "
        f"(tables.max_gone_ratio), received {removed} that are gone. The tables stay as they are. If the images are "
        "meant to be gone, raise the ratio; if a disk is not mounted, mount it and run again"
    )


def _judge_failures(budget: FailureBudget, manifest: RunManifest) -> tuple[Status, str]:
    images, to_score = manifest.images, manifest.images.listed - manifest.images.skipped
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
