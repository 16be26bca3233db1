"""People in videos for the page: tracks with their best face, and the frames that each is made of."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from maskdet.errors import ConfigError
from maskdet.explore.questions import Question
from maskdet.explore.row_ids import RowId
from maskdet.report.database import CAPTURED_MS, FILE, ROW, WORN, Selection, Tables, quoted
from maskdet.report.track_figures import TrackFigures, read_track_figures
from maskdet.tracks.table import BOX

PAGE_TRACKS = 24
MOST_FRAMES = 24
"""Most frames shown of a track, spread evenly over it."""

_FIRST = "first"
_MOST_KEPT = 64


class Tracks:
    """Answers questions about the people in an output's videos.

    Args:
        tables: of the output, which have tracks.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        # The page asks again with each step through faces or people, and open tables do not change.
        self._figures = functools.lru_cache(_MOST_KEPT)(self._read_figures)

    def page(self, asked: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Some of the people, how many there are, and their rate.

        Args:
            asked: as :meth:`maskdet.explore.questions.Question.read`, and ``first``, the place of the first one shown.

        Raises:
            ConfigError: something is not as expected.
        """
        question = Question.read(self._tables, [(name, value) for name, value in asked if name != _FIRST])
        first = _place(next((value for name, value in asked if name == _FIRST), "0"))
        condition, values = self._tables.condition(question.selection)
        total = self._tables.rows(f"SELECT count(*) FROM tracks WHERE {condition}", values)[0][0]
        asked_for = question.selection
        figures = self._figures(tuple(asked_for.keys.items()), asked_for.since, asked_for.until)
        interval = figures.total.interval
        return {
            "total": total,
            "first": first,
            "tracks": [self._track(row) for row in self._rows(condition, values, first)],
            "videos": figures.videos,
            "counted": figures.total.tracks,
            "labelled": figures.total.labelled,
            "share": figures.total.share,
            "low": None if interval is None else interval.low,
            "high": None if interval is None else interval.high,
            "min_frames": figures.min_frames,
            "changes": figures.changes,
        }

    def frames(self, place: RowId) -> list[dict[str, Any]] | None:
        """Some of the faces that a track is made of, in the order of their times; ``None``: there is no such track."""
        track = self._tables.row(*place)
        if track is None:
            return None
        named = track["faces"]
        step = max(1, -(-len(named) // MOST_FRAMES))
        times = {face["frame_time_us"]: face["face_index"] for face in named[::step]}
        marks = ", ".join("?" * len(times))
        rows = self._tables.rows(
            f"SELECT {FILE}, {ROW}, frame_time_us, face_index, label, {WORN}, probability_incorrect FROM faces "
            f"WHERE image_uri = ? AND frame_time_us IN ({marks}) ORDER BY frame_time_us",
            [track["image_uri"], *times],
        )
        return [
            {
                "id": self._face_id(file, number),
                "time_us": time_us,
                "label": label,
                "worn": worn,
                "incorrect": incorrect,
            }
            for file, number, time_us, index, label, worn, incorrect in rows
            if times[time_us] == index
        ]

    def _read_figures(
        self, keys: tuple[tuple[str, tuple[str | None, ...]], ...], since: date | None, until: date | None
    ) -> TrackFigures:
        return read_track_figures(self._tables, Selection(dict(keys), since, until))

    def _rows(self, condition: str, values: Sequence[object], first: int) -> list[dict[str, Any]]:
        same = ("track", "first_us", "last_us", "best_us", "frames", "label", "worn", "changes", "captured_at_ms")
        columns = {
            **{"file": f"t.{FILE}", "row": f"t.{ROW}", "uri": "t.image_uri", "incorrect": "t.probability_incorrect"},
            **{"face_file": f"s.{FILE}", "face_row": f"s.{ROW}", "width": "s.width_px", "height": "s.height_px"},
            **{name: f"t.{quoted(name)}" for name in (*same, *BOX, *self._tables.keys)},
        }
        query = (
            f"WITH t AS (SELECT *, {WORN} AS worn, {CAPTURED_MS} FROM tracks WHERE {condition} "
            f"ORDER BY epoch_ms(captured_at), image_uri, track LIMIT {PAGE_TRACKS} OFFSET {first}) "
            f"SELECT {', '.join(columns.values())} FROM t LEFT JOIN stored s ON s.image_uri = t.image_uri "
            "AND s.frame_time_us = t.best_us AND s.face_left_px = t.face_left_px AND s.face_top_px = t.face_top_px "
            "ORDER BY t.captured_at_ms, t.image_uri, t.track"
        )
        return [dict(zip(columns, row, strict=True)) for row in self._tables.rows(query, values)]

    def _track(self, row: dict[str, Any]) -> dict[str, Any]:
        tables = self._tables
        when = tables.local_time(row["captured_at_ms"])
        same = ("uri", "track", "first_us", "last_us", "best_us", "frames", "label", "worn", "incorrect", "changes")
        return {
            **{name: row[name] for name in same},
            "id": str(RowId.of(tables, "tracks", row["file"], row["row"])),
            "face": None if row["face_file"] is None else self._face_id(row["face_file"], row["face_row"]),
            "captured_at": "" if when is None else f"{when:%Y-%m-%d %H:%M:%S}",
            "ended_at": "" if when is None else f"{when + _passed(row):%H:%M:%S}",
            "keys": {key: row[key] for key in tables.keys},
            "size": [row["width"], row["height"]],
            "box": [float(row[side]) for side in BOX],
        }

    def _face_id(self, file: str, number: int) -> str:
        return str(RowId.of(self._tables, "faces", file, number))


def _passed(row: dict[str, Any]) -> timedelta:
    """The time from a track's first face to its last."""
    return timedelta(microseconds=row["last_us"] - row["first_us"])


def _place(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise ConfigError(_FIRST, "a number from 0", text)
    return int(text)
