"""Rates of people-tracks: how many of those who were seen wore a mask, each counted once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import pyarrow as pa

from maskdet.compliance.intervals import wilson_interval
from maskdet.compliance.state import GroupKey
from maskdet.compliance.table import keyed_rows
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import INCORRECT, MASK, NO_MASK, UNCERTAIN, ClassNames
from maskdet.schemas import track_rates_schema


class TrackCounts(NamedTuple):
    """Tracks of a group, by label."""

    mask: int = 0
    incorrect: int = 0
    no_mask: int = 0
    uncertain: int = 0

    @property
    def labelled(self) -> int:
        """Those whose label is a class."""
        return self.mask + self.incorrect + self.no_mask


_LABELS = (MASK, INCORRECT, NO_MASK, UNCERTAIN)


def count_tracks(
    tracks: pa.Table, rule: KeyRule, levels: Mapping[str, Sequence[str]], time_zone: str, min_frames: int
) -> dict[GroupKey, TrackCounts]:
    """Count tracks in every group of every level.

    Args:
        tracks: of :func:`maskdet.schemas.tracks_schema`.
        rule: the run's keys; a track's date and hour are those of its first face.
        levels: level name → key names.
        time_zone: that of dates, weeks, months and hours.
        min_frames: tracks of fewer frames do not count.
    """
    names = sorted({name for level in levels.values() for name in level})
    total: dict[GroupKey, list[int]] = {}
    wanted = tracks.select(["label", "frames", "captured_at", *rule.all_names])
    times = wanted["captured_at"].cast(pa.int64()).to_pylist()
    local = replace(rule, timezone=time_zone)
    given = set(rule.key_names if time_zone != rule.timezone else rule.all_names)
    for row, time_ms in zip(wanted.to_pylist(), times, strict=True):
        if row["frames"] < min_frames:
            continue
        keys = {name: _key(row[name]) if name in given else local.derive(time_ms, name) for name in names}
        for level, of_level in levels.items():
            counted = total.setdefault(GroupKey(level, tuple(keys[name] for name in of_level)), [0] * len(_LABELS))
            counted[_LABELS.index(row["label"])] += 1
    return {key: TrackCounts(*counted) for key, counted in total.items()}


def merge_tracks(counts: Iterable[TrackCounts]) -> TrackCounts:
    """Add up counts."""
    return TrackCounts(*(sum(column) for column in zip(TrackCounts(), *counts, strict=True)))


def track_rates_table(
    groups: Mapping[tuple[str | None, ...], TrackCounts],
    names: Sequence[str],
    all_names: Sequence[str],
    confidence: float,
    class_names: ClassNames,
) -> pa.Table:
    """The rates of one level.

    Args:
        groups: values of the level's keys → counts.
        names: the level's keys.
        all_names: keys of all levels, which are the table's columns; those the level lacks are null.
        confidence: nominal coverage of the intervals.
        class_names: the model's; what it cannot tell is null.

    Returns:
        One row per group, sorted by key.
    """
    tells = INCORRECT in class_names
    rows = []
    for _, columns, counts in keyed_rows(groups, names, all_names):
        rows.append(
            {
                **columns,
                "tracks": sum(counts),
                "tracks_mask": counts.mask,
                "tracks_incorrect": counts.incorrect if tells or counts.incorrect else None,
                "tracks_no_mask": counts.no_mask,
                "tracks_uncertain": counts.uncertain,
                **_rate("any_mask_rate", counts.mask + counts.incorrect, counts.labelled, confidence),
                **_rate("correct_rate", counts.mask if tells else None, counts.labelled, confidence),
                "interval_method": "wilson",
                "interval_confidence": confidence,
            }
        )
    return pa.Table.from_pylist(rows, schema=track_rates_schema(all_names))


def _key(value: object) -> str | None:
    """A key as groups have it: of an hour, two digits."""
    if value is None:
        return None
    return f"{value:02d}" if isinstance(value, int) else str(value)


def _rate(name: str, tracks: int | None, total: int, confidence: float) -> dict[str, float | None]:
    interval = None if tracks is None else wilson_interval(tracks, total, confidence)
    return {
        name: tracks / total if tracks is not None and total else None,
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
    }
