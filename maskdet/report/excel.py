"""Excel files of a report's figures, and of any rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from maskdet.errors import missing_package
from maskdet.labels import LABELS
from maskdet.report.figures import Change, Figures, Group, Rate

Sheet = tuple[Sequence[str], Iterable[Sequence[Any]]]
"""A sheet's header and rows."""

_IMAGES = ("images_listed", "images_scored", "images_no_face", "images_failed", "faces")
_FACES = tuple(f"faces_{label}" for label in LABELS)
_RATE = ("rate", "rate_low", "rate_high", "interval_method")


def report_sheets(figures: Figures) -> dict[str, Sheet]:
    """A report's figures as sheets: numbers as numbers, shares from 0 to 1.

    Args:
        figures: of the report.
    """
    counts = (*_IMAGES, *_FACES, *_RATE)
    key = figures.keys[0] if figures.keys else ""
    sheets: dict[str, Sheet] = {"all": (counts, [_numbers(figures.total)])}
    if figures.trend:
        sheets[f"by {figures.unit}"] = ((figures.unit, *counts), _rows(figures.trend))
    if figures.groups:
        sheets[f"by {_plain(key, 28)}"] = ((key, *counts), _rows(figures.groups))
    if figures.subgroups:
        inner = figures.keys[1]
        rows = [(one, *row) for one, groups in figures.subgroups.items() for row in _rows(groups)]
        sheets[f"by {_plain(key, 11)} and {_plain(inner, 11)}"] = ((key, inner, *counts), rows)
    if figures.comparison:
        changes = [figures.comparison.total, *figures.comparison.groups]
        head = (key or "all", *_CHANGE)
        sheets["change"] = (head, [_change(change) for change in changes])
    sheets["failures"] = (("code", "images"), list(figures.failures.items()))
    return sheets


_CHANGE = (
    *("images_before", "images_after", "faces_before", "faces_after", "rate_before", "rate_after"),
    *("difference", "difference_low", "difference_high"),
)


def _change(change: Change) -> tuple[Any, ...]:
    sides = (change.before, change.after)
    ends = change.interval or (None, None)
    return (
        change.values[0] if change.values else "(all)",
        *(side.counts.images_listed for side in sides),
        *(side.rate.faces for side in sides),
        *(side.rate.share for side in sides),
        *(change.difference, *ends),
    )


def _rows(groups: Iterable[Group]) -> Iterator[tuple[Any, ...]]:
    for group in groups:
        yield (*group.values, *_numbers(group))


def _numbers(group: Group) -> tuple[Any, ...]:
    counts = (getattr(group.counts, name) for name in (*_IMAGES, *_FACES))
    return (*counts, *_rate(group.rate))


def _rate(rate: Rate) -> tuple[Any, ...]:
    return (rate.share, *(rate.interval or (None, None)), rate.method)


def _plain(key: str, most: int) -> str:
    """A key as part of a sheet's name; Excel allows 31 characters, and not all kinds."""
    return "".join(character if character.isalnum() else "_" for character in key)[:most]


def excel_bytes(sheets: Mapping[str, Sheet]) -> bytes:
    """An Excel file, as :func:`write_excel` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.xlsx"
        write_excel(path, sheets)
        return path.read_bytes()


def write_excel(path: Path, sheets: Mapping[str, Sheet]) -> None:
    """Write an Excel file; no text becomes a formula or a link, whatever it looks like.

    Args:
        path: where to.
        sheets: name → header and rows. Texts, numbers, days and times become cells of that kind.

    Raises:
        ConfigError: XlsxWriter is not installed.
    """
    try:
        from xlsxwriter import Workbook
    except ImportError as error:
        raise missing_package("Excel files", "xlsxwriter", "explore") from error
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "remove_timezone": True}
    with Workbook(str(path), options) as book:
        bold = book.add_format({"bold": True, "bottom": 1})
        day, time = book.add_format({"num_format": "yyyy-mm-dd"}), book.add_format({"num_format": "yyyy-mm-dd hh:mm"})
        for name, (head, rows) in sheets.items():
            sheet = book.add_worksheet(name)
            sheet.freeze_panes(1, 1)
            for place, title in enumerate(head):
                sheet.set_column(place, place, max(10, min(40, len(title) + 3)))
                sheet.write_string(0, place, title, bold)
            for number, row in enumerate(rows, start=1):
                for place, value in enumerate(row):
                    _write_cell(sheet, (number, place), value, day, time)


def _write_cell(sheet: Any, place: tuple[int, int], value: object, day: Any, time: Any) -> None:
    if value is None:
        return
    if isinstance(value, datetime):
        sheet.write_datetime(*place, value, time)
    elif isinstance(value, date):
        sheet.write_datetime(*place, value, day)
    elif isinstance(value, bool):
        sheet.write_boolean(*place, value)
    elif isinstance(value, int | float):
        sheet.write_number(*place, value)
    else:
        sheet.write_string(*place, str(value))
