"""What a preparation found, as JSON and in words, without times: the same input gives the same report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from maskdet.errors import BudgetError, MaskdetError, ReconciliationError, SourceError
from maskdet.preparation.assembling import Prepared
from maskdet.preparation.records import SCHEMA_VERSION
from maskdet.preparation.settings import SPLITS, PrepareSettings

_PERCENTILES = (0, 10, 50, 90, 100)
Status = Literal["succeeded", "over_budget", "unreconciled", "empty"]
Row = dict[str, Any]


class PrepareReport(BaseModel):
    """The content of ``report.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    status: Status
    reason: str = ""
    """Why the preparation did not succeed."""
    settings: dict[str, Any]
    images: dict[str, int]
    """listed = kept + failed + skipped."""
    failed_by_code: dict[str, int]
    skipped_by_reason: dict[str, int]
    counts: list[Row]
    """Images by source, label, official split and split."""
    sizes: list[Row]
    """By source and label: percentiles 0, 10, 50, 90 and 100 of width, height, bytes and JPEG quality."""
    formats: list[Row]
    """Images by source, label and format."""
    groups: dict[str, int]
    duplicates: list[Row]
    """Pairs by kind, and by whether labels, sources and official splits differ."""
    official_leaks: list[Row]
    """By source, label and official split: images, and those whose group is in official train too."""
    official_leaks_by_content: dict[str, int]
    """Leaks shown by duplicates alone, without the given groups, by official split."""
    given_groups: dict[str, int]
    """Images with a group from a manifest or file name, by source."""
    suspicious: list[Row]
    """By source and label: images with a duplicate that has the other label."""
    flat: list[Row]
    """By source and label: images that show nothing."""

    def outcome(self) -> MaskdetError | None:
        """The error in which the preparation ended, if any."""
        kinds: dict[str, type[MaskdetError]] = {
            "over_budget": BudgetError,
            "unreconciled": ReconciliationError,
            "empty": SourceError,
        }
        kind = kinds.get(self.status)
        return kind(self.reason) if kind else None


def make_report(prepared: Prepared, settings: PrepareSettings) -> PrepareReport:
    """Count what a preparation found, and judge whether it succeeded."""
    images = prepared.images
    counted = {
        "listed": prepared.listed,
        "kept": images.num_rows,
        "failed": prepared.failures.num_rows,
        "skipped": sum(prepared.skipped.values()),
    }
    status, reason = _judge(counted, settings)
    if status in ("empty", "over_budget") and prepared.failures.num_rows:
        first = prepared.failures.slice(0, 1).to_pylist()[0]
        reason = f"{reason}. The first: {first['image_uri']}: {first['message']}"
    return PrepareReport(
        status=status,
        reason=reason,
        settings=settings.model_dump(mode="json", exclude={"output"}),
        images=counted,
        failed_by_code=_tally(prepared.failures["code"].to_pylist()),
        skipped_by_reason=dict(sorted(prepared.skipped.items())),
        counts=_count_by(images, ["source", "label", "official_split", "split"]),
        sizes=_sizes(images),
        formats=_count_by(images, ["source", "label", "format"]),
        groups=_groups(images["group_id"].to_pylist()),
        duplicates=_duplicates(prepared.duplicates),
        official_leaks=_leaks(images),
        official_leaks_by_content=dict(prepared.leaks_by_content),
        given_groups=dict(prepared.given_groups),
        suspicious=_count_by(images.filter(images["suspicious"]), ["source", "label"]),
        flat=_count_by(images.filter(images["flat"]), ["source", "label"]),
    )


def describe_report(report: PrepareReport) -> str:
    """A report in words, for people at a terminal."""
    images = report.images
    head = f"prepare: {report.status.replace('_', ' ')}" + (f" — {report.reason}" if report.reason else "")
    lines = [
        head,
        f"  images      {images['listed']:,} listed = {images['kept']:,} kept + {images['failed']:,} failed "
        f"+ {images['skipped']:,} skipped",
        *_line("failed", report.failed_by_code),
        *_line("skipped", report.skipped_by_reason),
        *_split_lines(report.counts),
        *_line("formats", _total(report.formats, "format")),
        *_line("duplicates", _duplicate_totals(report.duplicates)),
        *_line("groups", report.groups),
        *_leak_lines(report),
        *_line("suspicious", {_name(row): row["images"] for row in report.suspicious}),
        *_line("flat", {_name(row): row["images"] for row in report.flat}),
    ]
    return "\n".join(lines)


def _judge(counted: Mapping[str, int], settings: PrepareSettings) -> tuple[Status, str]:
    listed, kept, failed, skipped = (counted[name] for name in ("listed", "kept", "failed", "skipped"))
    if listed != kept + failed + skipped:
        return "unreconciled", f"{listed} listed, but {kept} kept, {failed} failed and {skipped} skipped"
    if kept == 0:
        return "empty", f"no image could be used: {failed} failed and {skipped} skipped of {listed} listed"
    budget = settings.failure_budget
    too_many = budget.max_images is not None and failed > budget.max_images
    if too_many or failed > budget.max_ratio * (kept + failed):
        return "over_budget", f"{failed} of {kept + failed} images failed, more than failure_budget allows"
    return "succeeded", ""


def _count_by(table: pa.Table, names: Sequence[str]) -> list[Row]:
    counts = Counter(zip(*(table[name].to_pylist() for name in names), strict=True))
    ordered = sorted(counts.items(), key=lambda item: tuple(str(value or "") for value in item[0]))
    return [{**dict(zip(names, key, strict=True)), "images": count} for key, count in ordered]


def _sizes(images: pa.Table) -> list[Row]:
    rows = []
    for row in _count_by(images, ["source", "label"]):
        chosen = images.filter(
            pc.and_(pc.equal(images["source"], row["source"]), pc.equal(images["label"], row["label"]))
        )
        for name in ("width_px", "height_px", "size_bytes", "jpeg_quality"):
            values = chosen[name].drop_null().to_numpy()
            # The nearest value that occurs: an integer, the same on every machine.
            cuts = np.percentile(values, _PERCENTILES, method="nearest").tolist() if len(values) else None
            row[name] = cuts
        rows.append(row)
    return rows


def _groups(group_ids: Sequence[str]) -> dict[str, int]:
    sizes = list(Counter(group_ids).values())
    shared = [size for size in sizes if size > 1]
    return {
        "groups": len(sizes),
        "of several images": len(shared),
        "images in those": sum(shared),
        "images in the largest": max(sizes, default=0),
    }


def _duplicates(pairs: pa.Table) -> list[Row]:
    both = {
        f"differing_{name}": [
            first != second
            for first, second in zip(pairs[name].to_pylist(), pairs[f"other_{name}"].to_pylist(), strict=True)
        ]
        for name in ("label", "source", "official_split")
    }
    table = pa.table({"kind": pairs["kind"], **{name: pa.array(values, pa.bool_()) for name, values in both.items()}})
    return [
        {**{name: value for name, value in row.items() if name != "images"}, "pairs": row["images"]}
        for row in _count_by(table, table.column_names)
    ]


def _leaks(images: pa.Table) -> list[Row]:
    names = ["source", "label", "official_split"]
    leaked = {_key(row): row["images"] for row in _count_by(images.filter(images["official_leak"]), names)}
    rows = [row for row in _count_by(images, names) if row["official_split"] in ("validation", "test")]
    return [{**row, "leaked": leaked.get(_key(row), 0)} for row in rows]


def _key(row: Row) -> tuple[str, ...]:
    return row["source"], row["label"], row["official_split"]


def _name(row: Row) -> str:
    return f"{row['source']}/{row['label']}"


def _tally(values: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _total(rows: Sequence[Row], name: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for row in rows:
        total[row[name]] += row["images"]
    return dict(total)


def _duplicate_totals(rows: Sequence[Row]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for row in rows:
        total[f"{row['kind']} pairs"] += row["pairs"]
        for name in ("label", "source", "official_split"):
            total[f"with another {name.replace('_', ' ')}"] += row["pairs"] if row[f"differing_{name}"] else 0
    return {name: count for name, count in total.items() if count}


def _split_lines(counts: Sequence[Row]) -> list[str]:
    totals: Counter[tuple[str, str]] = Counter()
    for row in counts:
        totals[_name(row), row["split"]] += row["images"]
    names = sorted({name for name, _ in totals})
    return [f"  {name:<26} " + ", ".join(f"{totals[name, split]:,} {split}" for split in SPLITS) for name in names]


def _leak_lines(report: PrepareReport) -> list[str]:
    lines = [
        f"  leaks       {_name(row)}: {row['leaked']:,} of {row['images']:,} official {row['official_split']} images "
        "have a sibling in official train"
        for row in report.official_leaks
        if row["leaked"]
    ]
    return lines + (_line("by content", report.official_leaks_by_content) if lines else [])


def _line(name: str, counts: Mapping[str, int]) -> list[str]:
    text = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
    return [f"  {name:<11} {text}"] if counts else []
