"""The fast path for Parquet image lists: a whole batch of rows becomes columns of references at once.

The result is that of :func:`maskdet.inputs.image_lists.read_rows`, but each distinct key, time and version is parsed
only once. A batch with a row that is broken, not allowed or a video, or with URIs that are not all of one plain kind,
is left to be read row by row.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskdet import storage
from maskdet.config import SourceSettings
from maskdet.inputs import columns
from maskdet.inputs.cells import text_of
from maskdet.inputs.image_lists import ListedBatch, milliseconds_of
from maskdet.inputs.references import CLAIMED

# What a plain URI does not contain: parts of a path that have to be normalised (dots, doubled and final slashes, home
# folders, Windows' backslashes) and control characters, since a line feed would end a line.
_ODD = r"[\x00-\x1f\x7f\\]|(?:^|/)\.{0,2}(?:/|$)|^~"
_OF_A_STORE = r"^[a-zA-Z][a-zA-Z0-9+.-]+://"
# From the year 2 to 9998, so that a time is valid in every time zone; in microseconds since 1970.
_FIRST_US, _LAST_US = -62_100_000_000_000_000, 253_300_000_000_000_000


class ListRule(NamedTuple):
    """How the rows of an image list are read.

    Attributes:
        source: the run's settings.
        base: the folder that relative URIs start from; absolute if it is local.
        places: prefixes of the URIs that the list may name.
        videos: extensions of videos.
    """

    source: SourceSettings
    base: str
    places: tuple[str, ...]
    videos: frozenset[str]


def columns_of_batch(batch: ListedBatch, rule: ListRule) -> pa.RecordBatch | None:
    """The references that a part of an image list names; ``None`` where its rows have to be read one by one."""
    if rule.source.path_template is not None or not batch.rows.num_rows:
        return None
    try:
        uris = _uris(batch.column(batch.columns.uri), rule)
        return None if uris is None else _columns(uris, batch, rule.source)
    except (ValueError, TypeError, OverflowError, NotImplementedError):  # Arrow's errors are subclasses of these
        return None


def _columns(uris: pa.Array, batch: ListedBatch, source: SourceSettings) -> pa.RecordBatch:
    count, named, zone = len(uris), batch.columns, ZoneInfo(source.timezone)

    def told(name: str | None, missing: Any, made: Callable[[Any], Any], kind: pa.DataType) -> pa.Array:
        return pa.repeat(missing, count) if name is None else _mapped(batch.column(name), made, kind)

    versions = told(named.version, "", _version, pa.string())
    sizes = told(named.size, pa.scalar(-1, pa.int64()), _size, pa.int64())
    keys = [told(name, None, _key, pa.string()) for name in named.keys]
    no_keys = [pa.nulls(count, pa.string())] * (len(source.key_names) - len(keys))
    time = pa.nulls(count) if named.captured_at is None else batch.column(named.captured_at)
    arrays = {
        "uri": uris,
        # A size without a version is not believed.
        "size_bytes": pc.if_else(pc.equal(versions, ""), pa.scalar(-1, pa.int64()), sizes),
        "version": versions,
        "keys": _lists([*no_keys, *keys], count),
        "captured_at_ms": _times(time, zone),
        "earlier": pa.repeat("", count),
        "gone": pa.repeat(False, count),
        "absent": pa.repeat(False, count),
        "replaces": pa.repeat("", count),
    }
    return pa.RecordBatch.from_arrays(
        [arrays[field.name] if field.name in arrays else pa.nulls(count, field.type) for field in columns.COLUMNS],
        schema=columns.COLUMNS,
    )


def _uris(column: pa.Array, rule: ListRule) -> pa.Array | None:
    """Absolute URIs, if all are of one plain kind, allowed and not videos; else ``None``."""
    if column.null_count or not pa.types.is_string(column.type):
        return None
    if _all(pc.starts_with(column, "/")):
        uris, rest = column, pc.utf8_slice_codeunits(column, 1)
    elif _all(pc.match_substring_regex(column, _OF_A_STORE)):
        if _any(pc.starts_with(column, "file:", ignore_case=True)):
            return None
        uris, rest = column, pa.array([], pa.string())  # names of objects are not normalised
    elif storage.is_local(rule.base) and not _any(pc.match_substring_regex(column, "^/|:")):
        base = f"{rule.base.rstrip('/')}/"
        uris, rest = pc.binary_join_element_wise(base, column, ""), column
    else:
        return None
    if _any(pc.match_substring_regex(rest, _ODD)) or _any(pc.equal(column, "")):
        return None
    if not _all(functools.reduce(pc.or_, (pc.starts_with(uris, place) for place in rule.places))):
        return None
    of_videos = rf"\.(?:{'|'.join(sorted(rule.videos))})$"
    is_video = bool(rule.videos) and _any(pc.match_substring_regex(uris, of_videos, ignore_case=True))
    return None if is_video else uris


def _mapped(column: pa.Array, made: Callable[[Any], Any], kind: pa.DataType) -> pa.Array:
    """A function of each value, called once for each distinct value."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode(null_encoding="encode")
    values = pa.array([made(value) for value in encoded.dictionary.to_pylist()], kind)
    return values.take(encoded.indices)


def _times(column: pa.Array, zone: ZoneInfo) -> pa.Array:
    """Capture times in milliseconds since the epoch, rounded down."""
    if not (pa.types.is_timestamp(column.type) and column.type.tz):
        return _mapped(column, lambda value: milliseconds_of(value, zone), pa.int64())
    moments = column.cast(pa.int64())
    values = np.asarray(moments.fill_null(0))
    if len(values) and not _FIRST_US <= values.min() <= values.max() <= _LAST_US:
        raise ValueError("a time that is out of range in some time zones")
    return pa.array(values // 1000, pa.int64(), mask=np.asarray(moments.is_null()))


def _lists(keys: Sequence[pa.Array], count: int) -> pa.ListArray:
    """Columns of keys as one column of lists, a list for each row."""
    if not keys:
        return pa.array([[]] * count, columns.COLUMNS.field("keys").type)
    by_row = np.arange(len(keys) * count).reshape(len(keys), count).T.ravel()
    ends = np.arange(count + 1, dtype=np.int32) * len(keys)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.concat_arrays(keys).take(pa.array(by_row)))


def _key(value: Any) -> str | None:
    text = text_of(value)
    return text if text is None or text.isascii() else unicodedata.normalize("NFC", text)


def _version(value: Any) -> str:
    told = text_of(value)
    return f"{CLAIMED}{told}" if told else ""


def _size(value: Any) -> int:
    return max(int(value), -1) if text_of(value) else -1


def _all(found: pa.Array) -> bool:
    return bool(pc.all(found, min_count=0).as_py())


def _any(found: pa.Array) -> bool:
    return bool(pc.any(found, min_count=0).as_py())
