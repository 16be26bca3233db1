"""Image lists: images named row by row in a CSV, Parquet or plain list file.

A CSV or Parquet image list has a column of URIs and any others; settings say which are partition keys, capture time,
version and size. Where no column name matches exactly, case is ignored. A CSV may be delimited, encoded and compressed
as spreadsheets and exports do it (:mod:`maskdet.inputs.delimited`); a broken row becomes a failure of its own. A folder
of Parquet files is one image list, and its ``name=value`` folders are columns.

A list file has one URI per line; blank lines and lines that begin with ``#`` are skipped. A relative URI is relative to
the image list's own folder.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskdet import storage
from maskdet.config import SourceSettings
from maskdet.errors import FailureCode, SourceError
from maskdet.inputs.cells import columns_like, text_of, without_fraction
from maskdet.inputs.delimited import header, is_utf8, lines, open_text, refusing_damage, shown
from maskdet.inputs.references import CLAIMED, HIVE_NULL
from maskdet.templates import epoch_ms

_KINDS_BY_EXTENSION: dict[str, Literal["list", "image_list"]] = {
    **dict.fromkeys(("csv", "tsv", "tab", "parquet", "pq"), "image_list"),
    **dict.fromkeys(("txt", "lst"), "list"),
}
_COMPRESSIONS = (".gz", ".bz2", ".xz")

# Python's parser accepts any character between date and time, so it reads a Unix time as a day in 1712.
_ISO_TIME = re.compile(r"\d{4}-?\d{2}-?\d{2}([Tt ].+)?")

# Parts of a path that have to be normalised: dots, doubled and final slashes, home folders.
_NOT_PLAIN = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|^~")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")

# OSError: Arrow raises it for pages that do not decompress, as a store does that fails during a read.
_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)


class Row(NamedTuple):
    """One image that an image list names."""

    uri: str
    keys: tuple[str | None, ...] = ()
    """One value for each of the settings' ``source.keys`` and ``source.carry``."""
    captured_at_ms: int | None = None
    size_bytes: int = -1
    version: str = ""
    problem: tuple[str, str] | None = None


class _Columns(NamedTuple):
    """An image list's own names of the columns that the settings name."""

    uri: str
    keys: tuple[str, ...]
    captured_at: str | None
    version: str | None
    size: str | None

    @property
    def wanted(self) -> list[str]:
        """All of them, each once."""
        return [name for name in dict.fromkeys((self.uri, *self.keys, *self[2:])) if name is not None]


def check_columns(uri: str, source: SourceSettings, root: str = "") -> None:
    """Refuse an image list that lacks a column which the settings name.

    Args:
        uri: the image list.
        source: names of the columns.
        root: the folder of Parquet files that it belongs to, if any.

    Raises:
        SourceError: a column is missing or appears twice, or the file is not of the kind that its name says.
    """
    _columns(uri, source, root)


def is_parquet_list(uri: str, source: SourceSettings) -> bool:
    """Whether an input is read as a Parquet image list."""
    return _is_table(uri, source) and is_parquet(uri)


def is_parquet(uri: str) -> bool:
    """Whether an image list is Parquet, by its name."""
    return uri.lower().endswith((".parquet", ".pq"))


def row_group_count(uri: str) -> int:
    """The number of row groups in a Parquet image list.

    Raises:
        SourceError: the file is not Parquet.
    """
    with storage.open_binary(uri) as stream:
        try:
            return int(pq.ParquetFile(stream).num_row_groups)
        except _UNREADABLE as error:
            raise _damaged(uri, error) from error


def read_rows(uri: str, part: int, source: SourceSettings, root: str = "") -> Iterator[Row]:
    """Read the images that an image list names.

    Args:
        uri: the image list.
        part: row group of a Parquet image list; −1 for all.
        source: names of the columns.
        root: the folder of Parquet files that it belongs to, if any.

    Raises:
        SourceError: the image list is damaged or lacks a column.
    """
    if not _is_table(uri, source):
        yield from _listed_rows(uri, source)
    elif is_parquet(uri):
        for batch in read_batches(uri, part, source, root):
            yield from rows_of_batch(batch, uri, source, root)
    else:
        yield from _delimited_rows(uri, source)


def _listed_rows(uri: str, source: SourceSettings) -> Iterator[Row]:
    base, keys = base_of(uri, ""), (None,) * len(source.list_columns)
    with open_text(uri) as stream, refusing_damage(uri):
        for number, line in enumerate(stream, start=1):
            text = line.removeprefix("\ufeff").strip() if number == 1 else line.strip()
            if not text or text.startswith("#"):
                continue
            if not is_utf8(text):
                yield _broken(_place(uri, 0, number), keys, f"bytes that are not UTF-8: {shown(text)[:200]}")
            elif "\0" in text:
                yield _broken(_place(uri, 0, number), keys, "a zero byte, which no path can contain")
            else:
                yield _row(text, (), None, None, None, _place(uri, 0, number), base, UTC)._replace(keys=keys)


def _delimited_rows(uri: str, source: SourceSettings) -> Iterator[Row]:
    columns, timezone, base = _columns(uri, source, ""), ZoneInfo(source.timezone), base_of(uri, "")
    names = header(uri, source.uri_column)
    at = {name: names.index(name) for name in columns.wanted}
    keys = [at[name] for name in columns.keys]
    taken, version, size = (None if name is None else at[name] for name in columns[2:])
    uri_at = at[columns.uri]
    for number, (fields, problem) in enumerate(lines(uri, source.uri_column), start=1):
        place = _place(uri, 0, number)
        if problem:
            yield _broken(place, (None,) * len(keys), problem)
            continue
        yield _row(
            fields[uri_at],
            [without_fraction(fields[one]) for one in keys],
            None if taken is None else fields[taken],
            None if version is None else fields[version],
            None if size is None else fields[size],
            place,
            base,
            timezone,
        )


class ListedBatch(NamedTuple):
    """A part of a Parquet image list."""

    columns: _Columns
    """The file's own names of the columns that the settings name."""
    rows: pa.RecordBatch
    """Columns that the file itself has; times in microseconds, the finest that ``datetime`` has."""
    of_folders: Mapping[str, str | None]
    """Values of the other columns, from the names of folders."""
    place: str
    """Prefix of each row's name: the row group's."""
    first: int
    """How many rows of the row group come before this batch."""

    def column(self, name: str) -> pa.Array:
        """A column's values, whether the file has it or a folder's name."""
        if name in self.of_folders:
            return pa.array([self.of_folders[name]], pa.string()).take(pa.array(np.zeros(self.rows.num_rows, np.int64)))
        return self.rows[name]


def read_batches(uri: str, part: int, source: SourceSettings, root: str = "") -> Iterator[ListedBatch]:
    """Read a Parquet image list, as :func:`read_rows` does, batch by batch."""
    columns, of_folders = _columns(uri, source, root), _folder_values(uri, root)
    wanted = [name for name in columns.wanted if name not in of_folders]
    # Read row group by row group even when all are asked for, so that a row's name does not depend on how it is read.
    for group in range(row_group_count(uri)) if part < 0 else [part]:
        first = 0
        for batch in _record_batches(uri, group, wanted):
            rows = pa.RecordBatch.from_arrays(list(map(_with_microseconds, batch.columns)), names=batch.schema.names)
            yield ListedBatch(columns, rows, of_folders, f"{uri}#part={max(group, 0)}&row=", first)
            first += batch.num_rows


def rows_of_batch(batch: ListedBatch, uri: str, source: SourceSettings, root: str = "") -> Iterator[Row]:
    """The images that a part of a Parquet image list names."""
    columns, timezone, base = batch.columns, ZoneInfo(source.timezone), base_of(uri, root)
    count = batch.rows.num_rows
    values = {name: batch.column(name).to_pylist() for name in columns.wanted}
    nothing = [None] * count
    keys = zip(*(values[name] for name in columns.keys), strict=True) if columns.keys else [()] * count
    taken, versions, sizes = (nothing if name is None else values[name] for name in columns[2:])
    rows = zip(values[columns.uri], keys, taken, versions, sizes, strict=True)
    for number, (row_uri, row_keys, time, version, size) in enumerate(rows, start=batch.first + 1):
        yield _row(row_uri, row_keys, time, version, size, f"{batch.place}{number}", base, timezone)


def _row(
    uri: Any, keys: Iterable[Any], time: Any, version: Any, size: Any, place: str, base: str, timezone: tzinfo
) -> Row:
    texts = tuple(text_of(key) for key in keys)
    named = text_of(uri)
    if not named:
        return _broken(place, texts, "the row has no URI")
    if _DRIVE.match(named):
        return _broken(place, texts, f"{named!r} lies on a drive of another machine; give its path on this one")
    absolute = _absolute(named, base)
    try:
        captured_at_ms = milliseconds_of(time, timezone)
        size_bytes = max(int(size), -1) if text_of(size) else -1
    except (ValueError, OverflowError):
        message = f"capture time {time!r} must look like 2026-01-31T08:15:00, and the size {size!r} like 1234"
        return Row(absolute, texts, problem=(FailureCode.BAD_MANIFEST_ROW.value, message))
    told = text_of(version)
    return (
        Row(absolute, texts, captured_at_ms, size_bytes, f"{CLAIMED}{told}")
        if told
        else Row(absolute, texts, captured_at_ms)
    )


def _broken(place: str, keys: tuple[str | None, ...], message: str) -> Row:
    return Row(place, keys, problem=(FailureCode.BAD_MANIFEST_ROW.value, message))


def _place(uri: str, part: int, number: int) -> str:
    """A name for a row that has no URI to name it by."""
    return f"{uri}#part={max(part, 0)}&row={number}"


def _record_batches(uri: str, part: int, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with storage.open_binary(uri) as stream:
        try:
            yield from pq.ParquetFile(stream).iter_batches(row_groups=[part], columns=list(wanted))
        except _UNREADABLE as error:
            raise _damaged(uri, error) from error


def _column_names(uri: str, source: SourceSettings, root: str) -> list[str]:
    if not is_parquet(uri):
        return header(uri, source.uri_column)
    with storage.open_binary(uri) as stream:
        try:
            names = list(pq.ParquetFile(stream).schema_arrow.names)
        except _UNREADABLE as error:
            raise _damaged(uri, error) from error
    return [*names, *(name for name in _folder_values(uri, root) if name not in names)]


def _columns(uri: str, source: SourceSettings, root: str) -> _Columns:
    """The image list's own names of the columns that the settings name.

    Raises:
        SourceError: one is missing or appears twice.
    """
    found = _column_names(uri, source, root)

    def own(name: str, setting: str) -> str:
        alike = columns_like(found, name)
        if not alike:
            remedy = "Rename one or the other; the first line of a CSV names its columns."
            raise SourceError(f"image list {uri}", f"a column {name!r} ({setting})", found, remedy)
        if len(alike) > 1:
            raise SourceError(f"image list {uri}", f"one column {name!r}", found, "Rename or remove the others.")
        return alike[0]

    def maybe(name: str | None, setting: str) -> str | None:
        return None if name is None else own(name, setting)

    return _Columns(
        own(source.uri_column, "source.uri_column"),
        tuple(own(key, "source.keys" if key in source.keys else "source.carry") for key in source.list_columns),
        maybe(source.captured_at_column, "source.captured_at_column"),
        maybe(source.version_column, "source.version_column"),
        maybe(source.size_column, "source.size_column"),
    )


def _folder_values(uri: str, root: str) -> dict[str, str | None]:
    """Columns from the folder names of a partitioned data set, such as ``site=north``."""
    pairs = [folder.partition("=") for folder in uri[len(root) :].split("/")[:-1]] if root else []
    return {name: None if value == HIVE_NULL else unquote(value) for name, equals, value in pairs if equals}


def _is_table(uri: str, source: SourceSettings) -> bool:
    return source.kind == "image_list" if source.kind in ("list", "image_list") else kind_of_list(uri) == "image_list"


def kind_of_list(uri: str) -> Literal["list", "image_list"] | None:
    """What a file is by its extension, ignoring that of a compression; ``None`` if it is no list."""
    name = uri.rsplit("/", 1)[-1].lower()
    for packed in _COMPRESSIONS:
        name = name.removesuffix(packed)
    return _KINDS_BY_EXTENSION.get(name.rsplit(".", 1)[-1]) if "." in name else None


def folder_of(uri: str, root: str = "") -> str:
    """The folder that relative URIs start from: the one that holds the list; a folder of Parquet files is one list."""
    return storage.parent(root.rstrip("/") or uri)


def base_of(uri: str, root: str = "") -> str:
    """The same, as an absolute path where it is local."""
    folder = folder_of(uri, root)
    return str(storage.local_path(folder)) if storage.is_local(folder) else folder


def _absolute(uri: str, base: str) -> str:
    """An absolute URI; a local ``base`` has to be absolute."""
    if not storage.is_local(uri):
        return uri
    if "\\" in uri and "/" not in uri:  # as Windows writes paths
        uri = uri.replace("\\", "/")
    if uri.startswith("/") and not _NOT_PLAIN.search(uri[1:]):
        return uri  # the same as below, in a tenth of the time
    if uri.startswith(("/", "~/")) or uri[:7].lower() == "file://":
        return storage.normalize(uri)
    if storage.is_local(base):
        plain = not _NOT_PLAIN.search(uri)
        return f"{base.rstrip('/')}/{uri}" if plain else str(storage.local_path(storage.join(base, uri)))
    # A store would take "./a.jpg" and "../a.jpg" for names of objects.
    scheme, _, path = base.partition("://")
    return f"{scheme}://{posixpath.normpath(storage.join(path, uri))}"


def _with_microseconds(column: pa.Array) -> pa.Array:
    """A column whose times, if it holds any, are no finer than ``datetime`` can hold."""
    is_time = pa.types.is_timestamp(column.type)
    return column.cast(pa.timestamp("us", column.type.tz), safe=False) if is_time else column


def milliseconds_of(value: Any, timezone: tzinfo) -> int | None:
    """A capture time in milliseconds since the epoch; a time without an offset is the source's local time."""
    text = text_of(value)
    if text is None:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        return epoch_ms(value, timezone)
    if not _ISO_TIME.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is not an ISO 8601 time")
    return epoch_ms(datetime.fromisoformat(text.strip()), timezone)


def _damaged(uri: str, error: Exception) -> SourceError:
    return SourceError(f"image list {uri}: not readable as Parquet: {' '.join(str(error).split())}")
