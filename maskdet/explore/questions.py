"""What the page asks, and the answers as they travel: numbers as numbers, texts as texts, never markup."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from maskdet.errors import ConfigError
from maskdet.explore.row_ids import RowId
from maskdet.labels import LABELS
from maskdet.report.database import CAPTURED_MS, FILE, ROW, WORN, Selection, Tables, quoted, tells_incorrect
from maskdet.report.figures import Cells, Group, read_bins
from maskdet.report.track_figures import pictures_of
from maskdet.tables.run_records import RunRecord
from maskdet.tracks.table import BOX

NO_FACE = "no_face"
"""The label that stands for images in which no face was found."""

PAGE_FACES = 60
MOST_BARS = 200
_MOST_VALUES = 2000

ORDERS = {
    "stored": "",
    "unsure": "abs(({worn}) - {middle})",
    "sure_mask": "-({worn})",
    "sure_bare": "({worn})",
    "random": "hash(content_sha256, face_index)",
    "latest": "-epoch_ms(captured_at)",
    "small": "face_width_px * face_height_px",
}
"""Order of faces → expression to sort by."""

TIMES = {
    "day": ("day", "CAST(day AS VARCHAR)"),
    "week": ("date_trunc('week', day)", "CAST(CAST(date_trunc('week', day) AS DATE) AS VARCHAR)"),
    "hour": ("hour_of_day", "CAST(hour_of_day AS VARCHAR)"),
    "weekday": ("isodow(day)", "CAST(isodow(day) AS VARCHAR)"),
}
"""What bars may show besides keys → what they are sorted by, and what they are called."""


@dataclass(frozen=True)
class Question:
    """What the page shows.

    Attributes:
        selection: which faces.
        faceless: whether it shows images without a face instead.
        by: what the bars are grouped by: a key or one of :data:`TIMES`; empty for no bars.
        order: of faces.
        offset: of the first face shown.
    """

    selection: Selection
    faceless: bool = False
    by: str = ""
    order: str = "stored"
    offset: int = 0

    @classmethod
    def read(cls, tables: Tables, asked: Sequence[tuple[str, str]]) -> Question:
        """A question from the parameters of a request.

        Args:
            tables: the tables that it is about.
            asked: ``key.NAME`` (a value), ``none.NAME`` (a missing one), ``since``, ``until``, ``label``, ``from``,
                ``to`` (probability of a mask), ``by``, ``order``, ``offset``; the first two and ``label`` repeatedly.

        Raises:
            ConfigError: something is not as expected.
        """
        keys: dict[str, tuple[str | None, ...]] = {}
        labels: list[str] = []
        one: dict[str, str] = {}
        for name, value in asked:
            kind, _, key = name.partition(".")
            if kind in ("key", "none") and key:
                _one_of("key", key, tables.keys)
                keys[key] = (*keys.get(key, ()), value if kind == "key" else None)
            elif name == "label":
                labels.append(_one_of("label", value, (*LABELS, NO_FACE)))
            else:
                one[_one_of("parameter", name, ("since", "until", "from", "to", "by", "order", "offset"))] = value
        selection = Selection(
            keys,
            _day("since", one.get("since", "")),
            _day("until", one.get("until", "")),
            tuple(label for label in labels if label != NO_FACE),
            _number("from", one.get("from") or "0", 1),
            _number("to", one.get("to") or "1", 1),
        )
        return cls(
            selection,
            NO_FACE in labels,
            _one_of("by", one.get("by", ""), ("", *tables.keys, *TIMES)),
            _one_of("order", one.get("order", "stored"), tuple(ORDERS)),
            int(_number("offset", one.get("offset", "0"), 10**9)),
        )


class Asked:
    """Answers questions about an output's tables.

    Args:
        tables: of the output.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._lock = threading.Lock()
        self._cells: Cells | None = None

    @property
    def cells(self) -> Cells:
        """Counts by all keys, day and hour, computed when they are first needed."""
        with self._lock:
            if self._cells is None:
                self.tables.make_cells(Selection())
                self._cells = Cells.of(self.tables)
            return self._cells

    @functools.cached_property
    def _pictures(self) -> str:
        return pictures_of(self.tables)

    def prepare(self) -> None:
        """Compute what the first answers need."""
        self.view(Question(Selection()))

    def move(self, row: Mapping[str, Any], before: str, after: str) -> None:
        """Count a face under another label.

        Args:
            row: the face's.
            before: label that it had.
            after: the label that it has now; a label that no count includes is not counted.
        """
        when = self.tables.local_time(row["captured_at_ms"])
        place = [*(row[key] for key in self.tables.keys), when and when.date(), when and when.hour]
        names = [*map(quoted, self.tables.keys), "day", "hour_of_day"]
        changes = [f"faces_{label} = faces_{label} {sign} 1" for label, sign in ((before, "-"), (after, "+"))]
        changes = [change for change in changes if change.split(" ")[0].removeprefix("faces_") in LABELS]
        if before == after or not changes:
            return
        same = " AND ".join(f"{name} IS NOT DISTINCT FROM ?" for name in names)
        with self.tables.cursor as cursor:
            cursor.execute(f"UPDATE cells SET {', '.join(changes)} WHERE {same}", place)

    def start(self) -> dict[str, Any]:
        """What there is to choose from."""
        cells = self.cells
        days = self.tables.rows("SELECT CAST(min(day) AS VARCHAR), CAST(max(day) AS VARCHAR) FROM cells")[0]
        keys = []
        for key in self.tables.keys:
            column = quoted(key)
            values = self.tables.rows(
                f"SELECT {column}, count(*) OVER () FROM cells GROUP BY 1 ORDER BY 1 LIMIT {_MOST_VALUES}"
            )
            total = values[0][1] if values else 0
            keys.append({"name": key, "values": [value for value, _ in values], "total": total})
        run = self.tables.run
        return {
            "output": self.tables.layout.root,
            "run": run.run_id,
            "model": _models(run),
            "timezone": self.tables.timezone,
            "confidence": cells.confidence,
            "tells_incorrect": tells_incorrect(self.tables),
            "labels": [label for label in LABELS if tells_incorrect(self.tables) or label != "incorrect"],
            "days": list(days),
            "keys": keys,
            "times": list(TIMES) if days[0] is not None else [],
            "corrections": self.tables.corrections,
            "has_tracks": self.tables.has_tracks,
            "pictures": self._pictures,
            "thresholds": sorted({run.decision.no_mask_below, run.decision.mask_from}),
        }

    def view(self, question: Question) -> dict[str, Any]:
        """Counts and rates of places and times, of all labels, whichever are chosen."""
        condition, values = self._condition_of_cells(question.selection)
        cells = self.cells
        total = cells.groups([], condition, values)[0]
        bars: list[Group] = []
        if question.by in TIMES:
            bars = cells.groups(list(TIMES[question.by]), condition, values)
        elif question.by:
            bars = cells.groups([quoted(question.by)], condition, values)
        return {
            "total": _as_numbers(total),
            "bars": [_as_numbers(group) for group in bars[:MOST_BARS]],
            "more": max(0, len(bars) - MOST_BARS),
        }

    def histogram(self, question: Question) -> dict[str, Any]:
        """Faces of each label by probability of a mask, whichever probabilities are chosen."""
        return {"bins": read_bins(self.tables, replace(question.selection, worn_from=0.0, worn_to=1.0))}

    def faces(self, question: Question) -> dict[str, Any]:
        """Some faces, or images without one, and how many there are."""
        tables, selection = self.tables, question.selection
        view = "faceless" if question.faceless else "faces"
        condition, values = tables.condition(selection, faces=not question.faceless)
        total = tables.rows(f"SELECT count(*) FROM {view} WHERE {condition}", values)[0][0]
        decision = tables.run.decision
        order = ORDERS["latest" if question.faceless and question.order == "latest" else question.order]
        if question.faceless and question.order != "latest":
            order = ""
        columns = [FILE, ROW, "image_uri", CAPTURED_MS, tables.frame_time, "width_px", "height_px"]
        columns += map(quoted, (*tables.keys, *tables.carried))
        if not question.faceless:
            columns += [
                *BOX,
                WORN,
                "probability_mask",
                "probability_incorrect",
                "label",
                "model_label",
                "is_corrected",
            ]
        query = f"SELECT {', '.join(columns)} FROM {view} WHERE {condition}"
        if order:
            query += f" ORDER BY {order.format(worn=WORN, middle=decision.middle)}, {FILE}, {ROW}"
        rows = tables.rows(f"{query} LIMIT {PAGE_FACES} OFFSET {question.offset}", values)
        return {"total": total, "offset": question.offset, "faces": [self._face(view, row) for row in rows]}

    def _face(self, view: str, row: tuple[Any, ...]) -> dict[str, Any]:
        tables = self.tables
        file, number, uri, captured_at_ms, time_us, width, height = row[:7]
        keys, carried = len(tables.keys), len(tables.carried)
        place, more, rest = row[7 : 7 + keys], row[7 + keys : 7 + keys + carried], row[7 + keys + carried :]
        when = tables.local_time(captured_at_ms)
        found = {
            "id": str(RowId.of(tables, view, file, number)),
            "uri": uri,
            "captured_at": f"{when:%Y-%m-%d %H:%M}" if when is not None else "",
            "keys": dict(zip(tables.keys, place, strict=True)),
            "carried": dict(zip(tables.carried, more, strict=True)),
            "size": [width, height],
            "time_us": time_us,
        }
        if view == "faceless":
            return found
        box, answers = rest[:4], rest[4:]
        found["box"] = None if box[0] is None else [float(side) for side in box]
        names = ("worn", "mask", "incorrect", "label", "model_label", "corrected")
        return {**found, **dict(zip(names, answers, strict=True))}

    def _condition_of_cells(self, selection: Selection) -> tuple[str, list[object]]:
        condition, values = self.tables.condition(Selection(selection.keys), faces=False)
        for limit, sign in ((selection.since, ">="), (selection.until, "<=")):
            if limit is not None:
                condition += f" AND day {sign} ?"
                values.append(limit)
        return condition, values


def _as_numbers(group: Group) -> dict[str, Any]:
    counts, interval = group.counts, group.rate.interval
    return {
        "value": group.values[-1] if group.values else None,
        "images": counts.images_listed,
        "no_face": counts.images_no_face,
        "failed": counts.images_failed,
        "faces": counts.faces,
        "labels": {label: getattr(counts, f"faces_{label}") for label in LABELS},
        "share": group.rate.share,
        "labelled": group.rate.faces,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "method": group.rate.method,
    }


def _one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ConfigError(name, f"one of {list(allowed)}", value)
    return value


def _day(name: str, text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise ConfigError(name, "a day such as 2026-03-02", text) from error


def _number(name: str, text: str, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise ConfigError(name, f"a number from 0 to {most:g}", text)
    return number


def _models(run: RunRecord) -> str:
    """The run's model, and those of before whose faces the tables have, too."""
    latest = str(run.model.get("id", ""))
    others = [f"{faces:,} faces of {model}" for model, faces in run.faces_by_model.items() if model != latest]
    return "; ".join([latest, *others])
