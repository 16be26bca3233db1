"""Exports of what the page shows: CSV, Excel or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from maskdet.errors import ConfigError
from maskdet.explore.questions import Question
from maskdet.labels import LABELS
from maskdet.report.database import FILE, ROW, Tables, literal
from maskdet.report.excel import write_excel

FORMATS = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
}
"""File ending → media type."""

EXCEL_ROWS = 1_048_575
"""Most rows below the header of an Excel sheet."""


def write_faces(tables: Tables, question: Question, kind: str, path: Path) -> None:
    """Write all rows that a question is about, with all their columns.

    Args:
        tables: whose rows.
        question: which.
        kind: of :data:`FORMATS`.
        path: where to.

    Raises:
        ConfigError: there are too many rows for Excel.
    """
    view = "faceless" if question.faceless else "faces"
    condition, values = tables.condition(question.selection, faces=not question.faceless)
    local = f"timezone({literal(tables.timezone)}, captured_at)"
    # Excel and CSV have no time zones: the local time takes the instant's place.
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
    """The bars of the page as a table: its header and its rows.

    Args:
        name: the key that they are grouped by.
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
        name: the key that they are grouped by.
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


def _batches(found: Any) -> Iterable[tuple[Any, ...]]:
    while rows := found.fetchmany(10_000):
        yield from rows
