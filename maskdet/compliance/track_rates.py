"""Rates of people-tracks: how many of those who were seen wore a mask, each counted once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import pyarrow as pa

from maskdet.compliance.intervals import wilson_interval
from maskdet.compliance.small_cells import hide_groups, round_count
from maskdet.compliance.state import Counts, GroupKey
from maskdet.compliance.table import EVERYTHING, Disclosure, keyed_rows
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
        time_zone: of dates, weeks, months and hours.
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


def hide_track_groups(
    groups: Mapping[GroupKey, TrackCounts], levels: Mapping[str, Sequence[str]], least: int
) -> frozenset[GroupKey]:
    """The groups to hide so that no count from 1 to ``least - 1`` is published or follows from what is.

    The rule is that of the compliance tables, :func:`maskdet.compliance.small_cells.hide_groups`: people are hidden
    like faces.

    Args:
        groups: counts of every group of every level.
        levels: level → its keys.
        least: smallest count other than 0 that may be published.
    """
    as_faces = {
        key: Counts(
            faces_mask=counts.mask,
            faces_incorrect=counts.incorrect,
            faces_no_mask=counts.no_mask,
            faces_uncertain=counts.uncertain,
        )
        for key, counts in groups.items()
    }
    return hide_groups(as_faces, levels, least)


def track_rates_table(
    groups: Mapping[tuple[str | None, ...], TrackCounts],
    names: Sequence[str],
    all_names: Sequence[str],
    confidence: float,
    class_names: ClassNames,
    shown: Disclosure = EVERYTHING,
) -> pa.Table:
    """The rates of one level.

    Args:
        groups: values of the level's keys → counts.
        names: the level's keys.
        all_names: keys of all levels, which are the table's columns; those the level lacks are null.
        confidence: nominal coverage of the intervals.
        class_names: the model's classes; rates of others are null.
        shown: what is hidden or rounded.

    Returns:
        One row per group, sorted by key.
    """
    tells = INCORRECT in class_names
    rows = []
    for values, columns, exact in keyed_rows(groups, names, all_names):
        hidden = values in shown.hidden
        counts = TrackCounts(*(round_count(count, shown.round_to) for count in exact))
        numbers = {} if hidden else _numbers(counts, confidence, tells=tells)
        method = {"interval_method": "wilson", "interval_confidence": confidence}
        rows.append({**columns, **numbers, **method, "hidden": hidden})
    return pa.Table.from_pylist(rows, schema=track_rates_schema(all_names))


def _numbers(counts: TrackCounts, confidence: float, *, tells: bool) -> dict[str, float | None]:
    return {
        "tracks": sum(counts),
        "tracks_mask": counts.mask,
        "tracks_incorrect": counts.incorrect if tells or counts.incorrect else None,
        "tracks_no_mask": counts.no_mask,
        "tracks_uncertain": counts.uncertain,
        **_rate("any_mask_rate", counts.mask + counts.incorrect, counts.labelled, confidence),
        **_rate("correct_rate", counts.mask if tells else None, counts.labelled, confidence),
    }


def _key(value: object) -> str | None:
    """A key as groups have it; hours have two digits."""
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
