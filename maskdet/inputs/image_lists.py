"""Manifests: images named row by row in a CSV, Parquet or plain list file.

A CSV or Parquet manifest has a column of URIs and any others; settings say which are partition keys and capture time.
``size_bytes`` and ``version`` columns, when both are there, are believed and save one request an image. A list file has
one URI a line; blank lines and lines that begin with ``#`` are no images. A relative URI counts from the manifest's own
folder.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from maskdet import storage
from maskdet.config import SourceSettings
from maskdet.errors import FailureCode, SourceError
from maskdet.templates import epoch_ms

SIZE_COLUMN = "size_bytes"
VERSION_COLUMN = "version"

# Python's parser takes any character between date and time, and so the digits of a Unix time for a day in 1712.
_ISO_TIME = re.compile(r"\d{4}-?\d{2}-?\d{2}([Tt ].+)?")

# OSError: what Arrow makes of pages that do not decompress, beside a store that fails while it is read.
_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)


class Row(NamedTuple):
    """One image that a manifest names."""

    uri: str
    keys: tuple[str | None, ...] = ()
    """One value for each of the settings' ``source.keys``."""
    captured_at_ms: int | None = None
    size_bytes: int = -1
    version: str = ""
    problem: tuple[str, str] | None = None


def check_columns(uri: str, source: SourceSettings) -> None:
    """Refuse a manifest that lacks a column which the settings name.

    Raises:
        SourceError: a column is missing, or the file is not of its kind.
    """
    found = _column_names(uri)
    for column, setting in _required_columns(source).items():
        if column not in found:
            raise SourceError(f"manifest {uri}", f"a column {column!r} ({setting})", found, "Rename one or the other.")
    for column in (*_required_columns(source), SIZE_COLUMN, VERSION_COLUMN):
        if found.count(column) > 1:
            raise SourceError(f"manifest {uri}", f"one column {column!r}", found, "Rename or remove the others.")


def is_parquet(uri: str) -> bool:
    """Whether a manifest is Parquet, by its name."""
    return uri.lower().endswith(".parquet")


def row_group_count(uri: str) -> int:
    """Row groups of a Parquet manifest.

    Raises:
        SourceError: the file is not Parquet.
    """
    with storage.open_binary(uri) as stream:
        try:
            return int(pq.ParquetFile(stream).num_row_groups)
        except _UNREADABLE as error:
            raise _damaged(uri, error) from error


def read_rows(uri: str, part: int, source: SourceSettings) -> Iterator[Row]:
    """Read the images that a manifest names.

    Args:
        uri: the manifest.
        part: row group of a Parquet manifest; −1 for all.
        source: names of the columns.

    Raises:
        SourceError: the manifest is damaged or lacks a column.
    """
    if _is_table(uri, source):
        # Part by part even when all are asked for, so that a row has one name however the manifest is read.
        whole = is_parquet(uri) and part < 0
        for group in range(row_group_count(uri)) if whole else [part]:
            yield from _table_rows(uri, group, source)
        return
    with storage.open_binary(uri) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise SourceError(
                    f"list file {uri}, line {number}", "UTF-8 text", line[:40], "Save it as UTF-8."
                ) from error
            if text and not text.startswith("#"):
                yield Row(_absolute(text, uri), keys=(None,) * len(source.keys))


def _table_rows(uri: str, part: int, source: SourceSettings) -> Iterator[Row]:
    timezone = ZoneInfo(source.timezone)
    number = 0
    for batch in _record_batches(uri, part, source):
        columns = {name: _values(batch.column(name)) for name in batch.schema.names}
        missing = [None] * batch.num_rows
        uris = columns[source.uri_column]
        times = columns[source.captured_at_column] if source.captured_at_column else missing
        believed = SIZE_COLUMN in columns and VERSION_COLUMN in columns
        sizes, versions = (columns[SIZE_COLUMN], columns[VERSION_COLUMN]) if believed else (missing, missing)
        key_rows = (
            zip(*(columns[key] for key in source.keys), strict=True) if source.keys else iter([()] * batch.num_rows)
        )
        for row_uri, keys, time, size, version in zip(uris, key_rows, times, sizes, versions, strict=True):
            number += 1
            place = f"{uri}#part={max(part, 0)}&row={number}"
            yield _row(row_uri, keys, time, size, version, place=place, manifest=uri, timezone=timezone)


def _row(
    uri: Any, keys: Iterable[Any], time: Any, size: Any, version: Any, *, place: str, manifest: str, timezone: tzinfo
) -> Row:
    texts = tuple(_text(key) for key in keys)
    if not _text(uri):
        problem = (FailureCode.BAD_MANIFEST_ROW.value, "the row names no URI")
        return Row(place, texts, problem=problem)
    absolute = _absolute(_text(uri) or "", manifest)
    try:
        captured_at_ms = _milliseconds(time, timezone)
        size_bytes = max(int(size), -1) if _text(size) and _text(version) else -1
    except (ValueError, OverflowError):
        message = f"capture time {time!r} must look like 2026-01-31T08:15:00, and size_bytes {size!r} like 1234"
        return Row(absolute, texts, problem=(FailureCode.BAD_MANIFEST_ROW.value, message))
    return Row(absolute, texts, captured_at_ms, size_bytes, _text(version) or "" if size_bytes >= 0 else "")


def _record_batches(uri: str, part: int, source: SourceSettings) -> Iterator[pa.RecordBatch]:
    with storage.open_binary(uri) as stream:
        try:
            found = _column_names(uri)
            columns = dict.fromkeys((*_required_columns(source), SIZE_COLUMN, VERSION_COLUMN))
            wanted = [name for name in columns if name in found]
            if is_parquet(uri):
                yield from pq.ParquetFile(stream).iter_batches(row_groups=[part], columns=wanted)
            else:
                # Only nothing is null: a site may be called NA.
                options = pa_csv.ConvertOptions(
                    include_columns=wanted,
                    column_types=dict.fromkeys(wanted, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                )
                parsing = pa_csv.ParseOptions(newlines_in_values=True)
                yield from pa_csv.open_csv(stream, parse_options=parsing, convert_options=options)
        except _UNREADABLE as error:
            raise _damaged(uri, error) from error


def _column_names(uri: str) -> list[str]:
    with storage.open_binary(uri) as stream:
        try:
            if is_parquet(uri):
                return list(pq.ParquetFile(stream).schema_arrow.names)
            parsing = pa_csv.ParseOptions(newlines_in_values=True)
            return list(pa_csv.open_csv(stream, parse_options=parsing).schema.names)
        except _UNREADABLE as error:
            raise _damaged(uri, error) from error


def _required_columns(source: SourceSettings) -> dict[str, str]:
    """Columns that must be there, and the setting that names each."""
    columns = {source.uri_column: "source.uri_column", **dict.fromkeys(source.keys, "source.keys")}
    if source.captured_at_column is not None:
        columns[source.captured_at_column] = "source.captured_at_column"
    return columns


def _is_table(uri: str, source: SourceSettings) -> bool:
    if source.kind in ("list", "manifest"):
        return source.kind == "manifest"
    return is_parquet(uri) or uri.lower().endswith(".csv")


def _absolute(uri: str, manifest: str) -> str:
    if not storage.is_local(uri):
        return uri
    if uri.startswith(("/", "~/")) or uri.lower().startswith("file://"):
        return storage.normalize(uri)
    folder = storage.parent(manifest)
    if storage.is_local(manifest):
        return str(storage.local_path(storage.join(folder, uri)))
    # A store takes "./a.jpg" and "../a.jpg" for names of objects.
    scheme, _, path = folder.partition("://")
    return f"{scheme}://{posixpath.normpath(storage.join(path, uri))}"


def _values(column: pa.Array) -> list[Any]:
    """A column as Python values; times in microseconds, since ``datetime`` has no finer ones."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return list(column.to_pylist())


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):  # text that its writer did not mark as such
        value = value.decode("utf-8", "backslashreplace")
    return None if value is None or value == "" else str(value)


def _milliseconds(value: Any, timezone: tzinfo) -> int | None:
    """A capture time as milliseconds since the epoch; without an offset it is the source's local time."""
    text = _text(value)
    if text is None:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        return epoch_ms(value, timezone)
    if not _ISO_TIME.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is no time in the form of ISO 8601")
    return epoch_ms(datetime.fromisoformat(text.strip()), timezone)


def _damaged(uri: str, error: Exception) -> SourceError:
    kind = "Parquet" if is_parquet(uri) else "CSV"
    return SourceError(f"manifest {uri}: not readable as {kind}: {' '.join(str(error).split())}")
