"""The tables of an output in DuckDB, where pages for people query millions of rows.

The files are those of the last run that finished, so that a page shows one set of tables even while a run is at work.
Files in a store are fetched to this machine first. Of capture times, only days and hours in the data set's time zone
matter. Converting ten million times takes a minute; converting just the quarter-hours that occur takes no time, and
every offset of a time zone since 1972 is a multiple of a quarter of an hour.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from maskdet import storage
from maskdet.compliance.corrections import Corrections
from maskdet.cores import available_cores
from maskdet.errors import ConfigError, missing_package
from maskdet.labels import INCORRECT, LABELS
from maskdet.schemas import RESERVED_NAMES, predictions_schema
from maskdet.tables.corrections import read_corrections
from maskdet.tables.layout import FAILURES, NO_FACE, PREDICTIONS, TRACKS, Layout
from maskdet.tables.metadata import NO_METADATA, Metadata
from maskdet.tables.run_records import read_run
from maskdet.tables.snapshot import current_snapshot

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TIME_KEYS = ("date", "hour")
"""Keys that follow from capture times; all others say where or what."""

COUNTED = ("images_scored", "images_no_face", "images_failed", *(f"faces_{label}" for label in LABELS))
"""Columns of the cells, as in the compliance tables."""

WORN = "CAST(probability_mask AS DOUBLE) + coalesce(CAST(probability_incorrect AS DOUBLE), 0)"
"""Probability that there is a mask, in double precision, in which labels are decided."""

VIEWS = {"faces": PREDICTIONS, "faceless": NO_FACE, "failed": FAILURES, "tracks": TRACKS}
"""View of the database → table of the output; an output without videos has no tracks."""

FILE, ROW = "_file", "file_row_number"
"""Columns that say where a row is: its file, and its number there."""

CAPTURED_MS = "epoch_ms(captured_at) AS captured_at_ms"

_SLOT_MS = 900_000
_SLOT = f"epoch_ms(captured_at) // {_SLOT_MS}"


@dataclass(frozen=True)
class Selection:
    """Which rows of an output to look at.

    Attributes:
        keys: key → the values that it may have; ``None`` among them is a missing one.
        since: first day, in the data set's time zone.
        until: last day.
        labels: labels of faces; empty: all.
        worn_from: least probability of a mask.
        worn_to: largest.
    """

    keys: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    since: date | None = None
    until: date | None = None
    labels: tuple[str, ...] = ()
    worn_from: float = 0.0
    worn_to: float = 1.0

    @property
    def of_images(self) -> Selection:
        """The part of it that applies to images without faces as well."""
        return Selection(self.keys, self.since, self.until)


class Tables:
    """The tables of an output, opened once; usable from several threads.

    Attributes:
        layout: the output.
        snapshot: its set of tables.
        run: the record of the run that left it.
        keys: names of keys that say where or what, those from metadata last, without ``date`` and ``hour``.
        stored_keys: those keys that are columns of the tables.
        carried: names of columns that an image list had in addition to its keys.
        timezone: time zone of days and hours.
        frame_time: SQL for when a face's frame is shown in its video, in microseconds; null for images.
        failed_images: SQL for the number of images that some rows of ``failed`` stand for.
        cluster: names of the keys that all faces of a cluster share; ``None``: all keys, day and hour.

    Args:
        output: the output of scoring runs.
        metadata: more keys, derived from one of the output's.

    Raises:
        ConfigError: DuckDB is not installed, or the metadata does not fit the tables.
        SourceError: no run has finished there, or there is no such place.
        StorageError: the output cannot be read.
    """

    def __init__(self, output: str, metadata: Metadata = NO_METADATA) -> None:
        connect = _duckdb().connect
        self.layout = Layout(storage.normalize(output))
        self.snapshot = current_snapshot(self.layout)
        self.run = read_run(self.layout, self.snapshot.run_id)
        dataset = self.snapshot.dataset
        self.carried = dataset.carried or ()
        names = tuple(dict.fromkeys((*dataset.place_names, *dataset.partition_by)))
        self.stored_keys = tuple(name for name in names if name not in (*TIME_KEYS, *self.carried))
        compliance = self.run.settings.get("compliance", {})
        self.timezone = str(compliance.get("time_zone") or dataset.timezone)
        named = compliance.get("cluster")
        self.cluster = None if named is None or set(named) == {*self.stored_keys, *TIME_KEYS} else tuple(named)
        self._metadata = self._usable(metadata)
        self.keys = (*self.stored_keys, *self._metadata.columns)
        self._fetched = tempfile.TemporaryDirectory(prefix="maskdet-tables-")
        self._connection = connect(config={"threads": available_cores()})
        self._files = {view: self._local(table) for view, table in VIEWS.items()}
        self._load_metadata()
        self.attach(self)
        self._looking: bool | None = None
        self._connection.execute(f"CREATE TABLE corrected ({FILE} VARCHAR, {ROW} BIGINT, given VARCHAR)")
        self._find_corrected(read_corrections(self.layout))

    @property
    def corrections(self) -> int:
        """How many faces of the tables have a label that people gave."""
        return int(self.rows("SELECT count(*) FROM corrected")[0][0])

    def correct(self, file: int, number: int, label: str | None) -> None:
        """Give a face the label that people say, from now on.

        Args:
            file: the number of its file.
            number: of the row in the file.
            label: the label; ``None``: the model's again.
        """
        place = [self._files["faces"][file], number]
        with self.cursor as cursor:
            cursor.execute(f"DELETE FROM corrected WHERE {FILE} = ? AND {ROW} = ?", place)
            if label is not None:
                cursor.execute("INSERT INTO corrected VALUES (?, ?, ?)", [*place, label])
        self._see_faces()

    def given(self, file: int, number: int) -> str | None:
        """The label that people gave to the face at a place; ``None`` if they gave none."""
        found = self.rows(
            f"SELECT given FROM corrected WHERE {FILE} = ? AND {ROW} = ?", [self._files["faces"][file], number]
        )
        return found[0][0] if found else None

    def _find_corrected(self, corrections: Corrections) -> None:
        """Find the rows that corrections apply to; for an image that has changed, they apply to none."""
        if corrections:
            self._connection.register("given", corrections.to_table())
            same = " AND ".join(f"s.{name} = g.{name}" for name in ("image_uri", "content_sha256", "face_index"))
            self._connection.execute(
                f"INSERT INTO corrected SELECT s.{FILE}, s.{ROW}, g.label FROM stored s JOIN given g ON {same}"
            )
            self._connection.unregister("given")
        self._see_faces()

    def _see_faces(self) -> None:
        """Make the view of faces; looking for corrections takes time, so it is skipped where there are none."""
        looking = self.corrections > 0
        if looking == self._looking:
            return
        self._looking = looking
        if looking:
            query = (
                "SELECT s.* REPLACE (coalesce(c.given, s.label) AS label), s.label AS model_label, c.given IS NOT NULL "
                f"AS is_corrected FROM stored s LEFT JOIN corrected c USING ({FILE}, {ROW})"
            )
        else:
            query = "SELECT *, label AS model_label, false AS is_corrected FROM stored"
        with self.cursor as cursor:
            cursor.execute(f"CREATE OR REPLACE VIEW faces AS {query}")

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns of the metadata that are named like a column of the tables and that nobody asked for."""
        return self._metadata.left_out

    def _usable(self, metadata: Metadata) -> Metadata:
        """The metadata without columns named like one of the tables; refused if it is about none of their keys."""
        if metadata.on and metadata.on not in self.stored_keys:
            raise ConfigError("--on", f"one of the keys {list(self.stored_keys)}", metadata.on, "See maskdet inspect.")
        return metadata.beside((*predictions_schema(self.snapshot.dataset.key_names).names, *RESERVED_NAMES))

    def _load_metadata(self) -> None:
        """Make a table of the metadata, to be joined to rows by its key."""
        known = self._metadata
        if known.on:
            columns = {name: pa.array([values.get(key) for key in known.values], pa.string())
                       for name, values in known.columns.items()}  # fmt: skip
            self._connection.register("given", pa.table({known.on: pa.array(known.values, pa.string()), **columns}))
            self._connection.execute("CREATE TABLE metadata AS SELECT * FROM given")
            self._connection.unregister("given")

    @property
    def _joined(self) -> str:
        on = quoted(self._metadata.on)
        return f" LEFT JOIN metadata m ON s.{on} = m.{on}" if self._metadata.on else ""

    def close(self) -> None:
        """Close the database and remove what was fetched."""
        self._connection.close()
        self._fetched.cleanup()

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def has_tracks(self) -> bool:
        """Whether there is a view of tracks of videos."""
        return bool(self._files["tracks"])

    @property
    def cursor(self) -> DuckDBPyConnection:
        """Another connection to the same database, for one thread."""
        connection: DuckDBPyConnection = self._connection.cursor()
        return connection

    def attach(self, other: Tables, prefix: str = "") -> None:
        """Make an output's tables views of this database: ``stored`` (faces as the model labelled them) and others.

        Args:
            other: the output, which stays open as long as this one.
            prefix: of the views' names: ``stored``, ``faceless``, ``failed`` and, where there are videos, ``tracks``.
        """
        joined = "" if prefix else self._joined
        for view, files in other._files.items():
            if not files:
                continue
            name = "stored" if view == "faces" else view
            more = "".join(f", m.{quoted(column)}" for column in self._metadata.columns) if joined else ""
            self._connection.execute(f"CREATE VIEW {prefix}{name} AS SELECT s.*{more} FROM {_parquet(files)} s{joined}")
        if not prefix:
            known = {column[0] for column in self.rows("DESCRIBE stored")}
            self.frame_time = "frame_time_us" if "frame_time_us" in known else "NULL AS frame_time_us"
            names = {column[0] for column in self.rows("DESCRIBE failed")}
            # A lost stretch of a video stands for as many images as it has frames; older tables have none.
            self.failed_images = "coalesce(sum(coalesce(frames, 1)), 0)" if "frames" in names else "count(*)"

    def execute(self, statement: str) -> None:
        """Run a statement without a result, such as one that makes a table for this session."""
        self._connection.execute(statement)

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows that a query returns.

        Args:
            query: SQL over the views ``faces``, ``faceless``, ``failed`` and, where there are videos, ``tracks``.
            values: for its question marks; they are never part of its text.
        """
        with self.cursor as cursor:
            return cursor.execute(query, list(values)).fetchall()

    def condition(self, selection: Selection, *, faces: bool = True) -> tuple[str, list[object]]:
        """A selection as SQL.

        Args:
            selection: which rows.
            faces: whether the rows are faces, which have labels and probabilities.

        Returns:
            What follows WHERE, and the values for its question marks.

        Raises:
            ConfigError: it names a key that the tables lack.
        """
        parts: list[str] = ["true"]
        values: list[object] = []
        for name, allowed in selection.keys.items():
            if name not in (*self.keys, *self.carried):
                raise ConfigError("key", f"one of {[*self.keys, *self.carried]}", name, "See maskdet inspect.")
            given = [value for value in allowed if value is not None]
            options = [f"{quoted(name)} IN ({', '.join('?' * len(given))})"] if given else []
            options += [f"{quoted(name)} IS NULL"] if None in allowed else []
            parts.append(f"({' OR '.join(options) or 'false'})")
            values += given
        for limit, sign in ((selection.since, ">="), (_after(selection.until), "<")):
            if limit is not None:
                parts.append(f"captured_at {sign} ?")
                values.append(self.midnight(limit))
        if faces and selection.labels:
            parts.append(f"label IN ({', '.join('?' * len(selection.labels))})")
            values += selection.labels
        if faces and (selection.worn_from, selection.worn_to) != (0.0, 1.0):
            parts.append(f"{WORN} BETWEEN ? AND ?")
            values += (selection.worn_from, selection.worn_to)
        return " AND ".join(parts), values

    def midnight(self, day: date) -> datetime:
        """The instant at which a day begins in the data set's time zone."""
        return datetime.combine(day, datetime.min.time(), ZoneInfo(self.timezone)).astimezone(UTC)

    def local_time(self, captured_at_ms: int | None) -> datetime | None:
        """A capture time, in milliseconds since 1970 in UTC, in the data set's time zone."""
        if captured_at_ms is None:
            return None
        return datetime.fromtimestamp(captured_at_ms / 1000, ZoneInfo(self.timezone))

    def captured_ms(self) -> tuple[int | None, int | None]:
        """The earliest and the latest capture time of all images, in milliseconds since 1970 in UTC."""
        times = " UNION ALL ".join(f"SELECT captured_at FROM {view}" for view in ("faces", "faceless", "failed"))
        [(first, last)] = self.rows(f"SELECT epoch_ms(min(captured_at)), epoch_ms(max(captured_at)) FROM ({times})")
        return first, last

    def make_cells(self, selection: Selection, name: str = "cells") -> None:
        """Count the selected rows by all keys, day and hour, in a table of the database.

        A cell holds faces that are alike because of what they share: one camera, one hour. Its columns are the keys,
        ``day``, ``hour_of_day`` and :data:`COUNTED`. It takes one pass over a few columns of the Parquet files;
        everything else follows from it.
        """
        keys = "".join(f"{quoted(key)}, " for key in self.keys)
        columns = f"{keys}{_SLOT} AS slot"
        faces = [f"count(*) FILTER (label = '{label}')" for label in LABELS]
        nothing = ["0"] * len(LABELS)
        parts, values = [], []
        for view, counts in (
            ("faces", ["count(*) FILTER (face_index = 0)", "0", "0", *faces]),
            ("faceless", ["0", "count(*)", "0", *nothing]),
            ("failed", ["0", "0", self.failed_images, *nothing]),
        ):
            condition, given = self.condition(selection, faces=view == "faces")
            counted = ", ".join(f"{count} AS {column}" for count, column in zip(counts, COUNTED, strict=True))
            parts.append(f"SELECT {columns}, {counted} FROM {view} WHERE {condition} GROUP BY ALL")
            values += given
        local = f"timezone({literal(self.timezone)}, make_timestamptz(slot * {_SLOT_MS} * 1000))"
        sums = ", ".join(f"CAST(sum({column}) AS BIGINT) AS {column}" for column in COUNTED)
        query = (
            f"CREATE OR REPLACE TABLE {name} AS SELECT {keys}CAST({local} AS DATE) AS day, "
            f"extract('hour' FROM {local}) AS hour_of_day, {sums} FROM ({' UNION ALL '.join(parts)}) GROUP BY ALL"
        )
        with self.cursor as cursor:
            cursor.execute(query, values)

    def row(self, view: str, file: int, number: int) -> dict[str, Any] | None:
        """The row at a place of a table; ``None`` if there is none.

        Args:
            view: ``faces``, ``faceless`` or ``tracks``.
            file: the number of its file, as :meth:`file_number` gives it.
            number: of the row in the file.
        """
        if not 0 <= file < len(self._files[view]):
            return None
        query = f"SELECT *, {CAPTURED_MS} FROM {_parquet(self._files[view][file : file + 1])} WHERE {ROW} = ?"
        with self.cursor as cursor:
            found = cursor.execute(query, [number]).fetchone()
            names = [column[0] for column in cursor.description or ()]
        if found is None:
            return None
        row = dict(zip(names, found, strict=True))
        row.pop("captured_at")  # DuckDB's time zones are not Python's
        known = self._metadata
        return row | {name: known.value_of(name, row) for name in known.columns}

    def file_number(self, view: str, file: str) -> int:
        """The number of a file of a view."""
        return self._numbers[view][file]

    @functools.cached_property
    def _numbers(self) -> dict[str, dict[str, int]]:
        return {view: {file: number for number, file in enumerate(files)} for view, files in self._files.items()}

    def _local(self, table: str) -> list[str]:
        """The local names of a table's files."""
        uris = self.snapshot.files(self.layout, table)
        if not storage.is_local(self.layout.root):
            uris = [self._fetch(uri, f"{table}-{number}.parquet") for number, uri in enumerate(uris)]
        return [str(storage.local_path(uri)) for uri in uris]

    def _fetch(self, uri: str, name: str) -> str:
        path = Path(self._fetched.name) / name
        path.write_bytes(storage.read_bytes(uri))
        return str(path)


def quoted(name: str) -> str:
    """A column's name in SQL, whatever it is."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def tells_incorrect(tables: Tables) -> bool:
    """Whether masks worn incorrectly are a class of their own, for the run's model or in rows of an earlier one."""
    return INCORRECT in tables.run.classes or bool(tables.run.faces.get(INCORRECT))


def _parquet(files: Sequence[str]) -> str:
    """Files as a table in SQL, with the place of each row."""
    names = ", ".join(literal(_plain(file)) for file in files)
    return f"read_parquet([{names}], filename = '{FILE}', {ROW} = true)"


def _plain(path: str) -> str:
    """A file's name, escaped so that DuckDB does not take it for a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _after(day: date | None) -> date | None:
    return None if day is None else day + timedelta(days=1)


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise missing_package("maskdet report and explore", "duckdb", "explore") from error
    return duckdb
