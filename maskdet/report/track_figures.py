"""Figures of people in videos, each counted once, however many frames show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskdet.compliance.intervals import Interval, wilson_interval
from maskdet.compliance.track_rates import TrackCounts
from maskdet.labels import INCORRECT, LABELS, MASK
from maskdet.report.database import Selection, Tables, quoted, tells_incorrect
from maskdet.sections import TrackSettings
from maskdet.tracks.voting import PUT_ON, PUT_RIGHT, SLIPPED, TAKEN_OFF

CHANGES = (PUT_ON, TAKEN_OFF, SLIPPED, PUT_RIGHT)


@dataclass(frozen=True)
class TrackGroup:
    """People in some place.

    Attributes:
        values: of the key that groups are formed by; empty for all people.
        counts: tracks that count, by label.
        share: of those labelled with a class, who wore a mask correctly where the model can tell, else who wore one.
        interval: of the share, with n = tracks.
    """

    values: tuple[Any, ...]
    counts: TrackCounts
    share: float | None
    interval: Interval | None

    @property
    def tracks(self) -> int:
        """How many tracks count."""
        return sum(self.counts)

    @property
    def labelled(self) -> int:
        """How many are labelled with a class: the share's denominator."""
        return self.counts.labelled


@dataclass(frozen=True)
class TrackFigures:
    """Figures of the videos of a selection.

    Attributes:
        images: images that are not frames.
        frames: frames that were to be used, including lost ones.
        videos: videos that have frames.
        brief: tracks with too few frames to count.
        min_frames: fewest frames of a track that counts.
        total: all that count.
        groups: by the first key, the lowest share first.
        changes: what people did → how often, in tracks that count.
    """

    images: int
    frames: int
    videos: int
    brief: int
    min_frames: int
    total: TrackGroup
    groups: list[TrackGroup]
    changes: dict[str, int]


def read_track_figures(tables: Tables, selection: Selection, key: str | None = None) -> TrackFigures:
    """Count the people of videos.

    The shares are computed as in ``track_rates``, for any selection.

    Args:
        tables: of an output that has tracks.
        selection: keys and days.
        key: that groups are formed by; default: no groups.
    """
    least = TrackSettings.model_validate(tables.run.settings.get("tracks", {})).min_frames
    condition, values = tables.condition(selection, faces=False)
    of = f"FROM tracks WHERE {condition}"
    counts = ", ".join(f"count(*) FILTER (label = '{label}' AND frames >= {least})" for label in LABELS)
    [(brief, *total)] = tables.rows(f"SELECT count(*) FILTER (frames < {least}), {counts} {of}", values)
    groups: Sequence[tuple[Any, ...]] = []
    if key is not None:
        groups = tables.rows(f"SELECT {quoted(key)}, {counts} {of} GROUP BY 1 ORDER BY 1", values)
    found = [_group(tables, row[:1], row[1:]) for row in groups]
    kinds = f"SELECT unnest(changes).kind AS kind {of} AND frames >= {least}"
    changes = dict(tables.rows(f"SELECT kind, count(*) FROM ({kinds}) GROUP BY 1", values))
    images, frames, videos = _looked_at(tables, selection)
    return TrackFigures(
        images,
        frames,
        videos,
        brief,
        least,
        _group(tables, (), total),
        sorted((one for one in found if one.tracks), key=lambda one: (one.share is None, one.share or 0.0)),
        {kind: changes.get(kind, 0) for kind in CHANGES},
    )


def pictures_of(tables: Tables) -> str:
    """What the images that a page counts are: ``images``, ``frames``, or ``images and frames``."""
    if not tables.has_tracks:
        return "images"
    images, frames, _ = _looked_at(tables, Selection())
    return " and ".join(word for word, number in (("images", images), ("frames", frames)) if number) or "images"


def _looked_at(tables: Tables, selection: Selection) -> tuple[int, int, int]:
    """Images, frames, and videos that have any."""
    condition, values = tables.condition(selection, faces=False)
    parts = [
        f"SELECT image_uri, frame_time_us, 1 AS pictures FROM faces WHERE face_index = 0 AND {condition}",
        f"SELECT image_uri, frame_time_us, 1 FROM faceless WHERE {condition}",
        # A lost stretch stands for its frames; a video that cannot be opened stands for none.
        "SELECT image_uri, CASE WHEN frames IS NOT NULL THEN coalesce(frame_time_us, 0) END, coalesce(frames, 1) "
        f"FROM failed WHERE {condition}",
    ]
    [(images, frames, videos)] = tables.rows(
        "SELECT coalesce(sum(pictures) FILTER (frame_time_us IS NULL), 0), "
        "coalesce(sum(pictures) FILTER (frame_time_us IS NOT NULL), 0), "
        "count(DISTINCT image_uri) FILTER (frame_time_us IS NOT NULL AND pictures > 0) "
        f"FROM ({' UNION ALL '.join(parts)})",
        values * 3,
    )
    return int(images), int(frames), int(videos)


def _group(tables: Tables, values: tuple[Any, ...], counted: Sequence[int]) -> TrackGroup:
    by_label = dict(zip(LABELS, counted, strict=True))
    counts = TrackCounts(**{name: by_label[name] for name in TrackCounts._fields})
    right = by_label[MASK] if tells_incorrect(tables) else by_label[MASK] + by_label[INCORRECT]
    if not counts.labelled:
        return TrackGroup(values, counts, None, None)
    confidence = float(tables.run.settings.get("compliance", {}).get("confidence", 0.95))
    return TrackGroup(values, counts, right / counts.labelled, wilson_interval(right, counts.labelled, confidence))
