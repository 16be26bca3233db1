"""The part of a report about people in videos, each counted once, however many frames show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maskdet.labels import INCORRECT, LABELS
from maskdet.report.database import Selection, Tables
from maskdet.report.excel import Sheet
from maskdet.report.rows import MOST_GROUPS, Row, row_of, scale_of
from maskdet.report.scales import Scale
from maskdet.report.track_figures import TrackFigures, TrackGroup, read_track_figures
from maskdet.sections import TrackSettings

_DID = {
    "put_on": "put a mask on",
    "taken_off": "took it off",
    "slipped": "let it slip below nose or mouth",
    "put_right": "put it right",
}


@dataclass(frozen=True)
class People:
    """What the page says of people in videos.

    Attributes:
        figures: all of them.
        key: that rows are grouped by; empty if there are no rows.
        scale: of the rows.
        total: all people.
        rows: groups of them, the lowest rate first.
        rest: how many more groups there are.
        changes: what people did, in words → how often.
        max_gap_seconds: out of sight for longer, a person comes back as another.
    """

    figures: TrackFigures
    key: str
    scale: Scale
    total: Row[TrackGroup]
    rows: list[Row[TrackGroup]]
    rest: int
    changes: list[tuple[str, str, int]]
    max_gap_seconds: float


def read_people(tables: Tables, selection: Selection, key: str | None) -> People | None:
    """What there is to say about people in videos; ``None`` where the selection has no frame of a video.

    Args:
        tables: what the page is about.
        selection: which part of them.
        key: that groups are formed by.
    """
    if not tables.has_tracks:
        return None
    figures = read_track_figures(tables, selection.of_images, key)
    if not figures.frames:
        return None
    shown = figures.groups[:MOST_GROUPS]
    scale = scale_of([figures.total, *shown])
    settings = TrackSettings.model_validate(tables.run.settings.get("tracks", {}))
    return People(
        figures,
        key or "",
        scale,
        row_of(scale, figures.total.values, figures.total, figures.total)._replace(name="all"),
        [row_of(scale, group.values, group, group) for group in shown],
        len(figures.groups) - len(shown),
        [(kind, _DID[kind], number) for kind, number in figures.changes.items() if number],
        settings.max_gap_seconds,
    )


def pictures_word(people: People | None) -> str:
    """What the images that a page counts are: ``images``, ``frames``, or ``images and frames``."""
    if people is None:
        return "images"
    return "images and frames" if people.figures.images else "frames"


def people_sheet(people: People, *, tells_incorrect: bool) -> Sheet:
    """The same as a sheet of an Excel file."""
    labels = [label for label in LABELS if tells_incorrect or label != INCORRECT]
    head = (people.key or "all", "tracks", *(f"tracks_{label}" for label in labels), "rate", "rate_low", "rate_high")
    return head, [_cells(group, labels) for group in (people.figures.total, *people.figures.groups)]


def _cells(group: TrackGroup, labels: list[str]) -> tuple[Any, ...]:
    name = group.values[0] if group.values else "(all)"
    counts = (getattr(group.counts, label) for label in labels)
    return (name, group.tracks, *counts, group.share, *(group.interval or (None, None)))
