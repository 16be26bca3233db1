"""What the page shows, as a file: CSV, Excel or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from maskdet.errors import ConfigError
from maskdet.explore.questions import Question
from maskdet.labels import LABELS
from maskdet.report.database import FILE, ROW, Tables, literal, quoted

FORMATS = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
}
"""File ending → media type."""

EXCEL_ROWS = 1_048_575
"""Rows below the head of an Excel sheet."""


def write_faces(tables: Tables, question: Question, kind: str, path: Path) -> None:
    """Write all rows that a question is about, with all their columns.

    Args:
        tables: whose rows.
        question: which.
        kind: of :data:`FORMATS`.
        path: where to.

    Raises:
        ConfigError: they are too many for Excel.
    """
    view = "faceless" if question.faceless else "faces"
    condition, values = tables.condition(question.selection, faces=not question.faceless)
    local = f"timezone({literal(tables.timezone)}, captured_at)"
    # Excel and CSV know no time zones: the local time stands beside the instant's column.
    extra = "" if kind == "parquet" else f" REPLACE ({local} AS captured_at)"
    query = f"SELECT * EXCLUDE ({FILE}, {ROW}){extra} FROM {view} WHERE {condition}"
    with tables.cursor as cursor:
        if kind == "xlsx":
            (count,) = cursor.execute(f"SELECT count(*) FROM {view} WHERE {condition}", values).fetchone() or (0,)
            if count > EXCEL_ROWS:
                remedy = "Filter more, or export CSV or Parquet."
                raise ConfigError("export", f"at most {EXCEL_ROWS:,} rows for Excel", f"{count:,} rows", remedy)
            found = cursor.execute(query, values)
            names = [column[0] for column in found.description or ()]
            write_excel(path, {"faceless images" if question.faceless else "faces": (names, _batches(found))})
            return
        options = "FORMAT parquet, COMPRESSION zstd" if kind == "parquet" else "FORMAT csv, HEADER"
        cursor.execute(f"COPY ({query}) TO {literal(str(path))} ({options})", values)


def counts_table(name: str, bars: Iterable[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """The bars of the page as a table: its head, and its rows.

    Args:
        name: what they are of.
        bars: as :meth:`maskdet.explore.questions.Asked.view` gives them.
    """
    head = [
        name or "all",
        "images",
        "images_no_face",
        "images_failed",
        "faces",
        *(f"faces_{label}" for label in LABELS),
    ]
    head += ["rate", "rate_low", "rate_high", "interval_method"]
    rows = []
    for bar in bars:
        counts = [bar["images"], bar["no_face"], bar["failed"], bar["faces"], *(bar["labels"][one] for one in LABELS)]
        rows.append([bar["value"], *counts, bar["share"], bar["low"], bar["high"], bar["method"]])
    return head, rows


def write_counts(tables: Tables, name: str, bars: Sequence[dict[str, Any]], kind: str, path: Path) -> None:
    """Write the bars of the page.

    Args:
        tables: whose.
        name: what they are of.
        bars: the numbers.
        kind: of :data:`FORMATS`.
        path: where to.
    """
    head, rows = counts_table(name, bars)
    if kind == "xlsx":
        write_excel(path, {"counts": (head, rows)})
    elif kind == "csv":
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([head, *rows])
        path.write_text(stream.getvalue(), encoding="utf-8", newline="")
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in head]
        pq.write_table(pa.table(dict(zip(head, columns, strict=True))), path, compression="zstd")


def write_excel(path: Path, sheets: dict[str, tuple[Sequence[str], Iterable[Sequence[Any]]]]) -> None:
    """Write an Excel file; no text in it is a formula or a link, whatever it looks like.

    Args:
        path: where to.
        sheets: name → head and rows. Their texts, numbers, days and times become cells of that kind.

    Raises:
        ConfigError: XlsxWriter is not installed.
    """
    try:
        from xlsxwriter import Workbook
    except ImportError as error:
        remedy = "Install it: pip install 'maskdet[explore]'."
        raise ConfigError("Excel files", "the package xlsxwriter", "none", remedy) from error
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


def _batches(found: Any) -> Iterable[tuple[Any, ...]]:
    while rows := found.fetchmany(10_000):
        yield from rows


__all__ = ["EXCEL_ROWS", "FORMATS", "counts_table", "quoted", "write_counts", "write_excel", "write_faces"]
