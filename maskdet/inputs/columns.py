"""References to images as Arrow columns, in which they cross the pipeline and are sorted, joined and cut in bulk.

A row is an :class:`~maskdet.inputs.references.ImageRef`: a column for each of its fields, two for ``problem``. A
million named tuples take seconds to make, and as long again at each step that takes them apart; columns avoid both.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskdet.schemas import SEGMENT
from maskdet.video.sampling import Segment

COLUMNS = pa.schema(
    [
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("version", pa.string()),
        ("keys", pa.list_(pa.string())),
        ("captured_at_ms", pa.int64()),
        ("problem_code", pa.string()),
        ("problem_message", pa.string()),
        ("earlier", pa.string()),
        ("gone", pa.bool_()),
        ("segment", SEGMENT),
        ("location", pa.string()),
        ("absent", pa.bool_()),
        ("replaces", pa.string()),
    ]
)
IDENTITY = ("size_bytes", "version", "captured_at_ms", "problem_code", "problem_message")
"""Columns that tell one state of an image from another, besides its keys and its name."""

Integers = NDArray[np.int64]
Digests = NDArray[np.uint64]


def columns_of(rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    """References as columns.

    Args:
        rows: references, or plain tuples of their fields.

    Raises:
        UnicodeEncodeError: a text is not valid Unicode.
    """
    if not rows:
        return pa.RecordBatch.from_pylist([], schema=COLUMNS)
    uris, sizes, versions, keys, times, problems, earlier, gone, segments, *others = zip(*rows, strict=True)
    has_problems, has_segments = any(problems), any(segment is not None for segment in segments)
    pairs = [problem or (None, None) for problem in problems] if has_problems else []
    columns = [
        uris,
        sizes,
        versions,
        keys,
        times,
        [code for code, _ in pairs] if pairs else pa.nulls(len(rows), pa.string()),
        [message for _, message in pairs] if pairs else pa.nulls(len(rows), pa.string()),
        earlier,
        gone,
        [segment and segment._asdict() for segment in segments] if has_segments else pa.nulls(len(rows), SEGMENT),
        *others,
    ]
    arrays = [
        one if isinstance(one, pa.Array) else pa.array(one, field.type)
        for one, field in zip(columns, COLUMNS, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=COLUMNS)


def rows_of(columns: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The rows, each as a plain tuple of a reference's fields."""

    def values(name: str) -> list[Any]:
        return list(columns[name].to_pylist())

    return zip(
        values("uri"),
        values("size_bytes"),
        values("version"),
        keys_of(columns),
        values("captured_at_ms"),
        _problems(columns),
        values("earlier"),
        values("gone"),
        _segments(columns),
        values("location"),
        values("absent"),
        values("replaces"),
        strict=True,
    )


def identities(columns: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """The :attr:`~maskdet.inputs.references.ImageRef.identity` of each row."""
    uris, sizes, versions, times = (
        columns[name].to_pylist() for name in ("uri", "size_bytes", "version", "captured_at_ms")
    )
    plain = zip(uris, sizes, versions, keys_of(columns), times, _problems(columns), strict=True)
    if not has_segments(columns):
        return list(plain)
    segments = _segments(columns)
    return [one if part is None else (*one, tuple(part)) for one, part in zip(plain, segments, strict=True)]


def encode(columns: pa.RecordBatch) -> bytes:
    """Columns as compressed bytes: runners hold all of a run's at once, several times over, and they are much alike.

    The first 8 bytes are the uncompressed size, big-endian, so the very first byte is 0.
    """
    plain = columns.serialize()
    packed: bytes = pa.Codec("zstd", compression_level=1).compress(plain, asbytes=True)
    size: bytes = plain.size.to_bytes(8, "big")
    return size + packed


def decode(packed: bytes) -> pa.RecordBatch:
    """The columns that :func:`encode` packed."""
    size = int.from_bytes(packed[:8], "big")
    return pa.ipc.read_record_batch(pa.decompress(memoryview(packed)[8:], size, codec="zstd"), COLUMNS)


def joined(parts: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows of several batches, one after the other."""
    some = [part for part in parts if part.num_rows]
    return pa.Table.from_batches(some).combine_chunks().to_batches()[0] if some else columns_of([])


def replaced(columns: pa.RecordBatch, arrays: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """The same rows with other values in some columns."""
    return pa.RecordBatch.from_arrays([arrays.get(name, columns[name]) for name in COLUMNS.names], schema=COLUMNS)


def keys_of(columns: pa.RecordBatch) -> list[tuple[str | None, ...]]:
    """Each row's values of the run's keys."""
    keys = columns["keys"]
    values, ends = keys.flatten().to_pylist(), np.cumsum(np.asarray(pc.list_value_length(keys))).tolist()
    return [tuple(values[start:end]) for start, end in itertools.pairwise([0, *ends])]


def key_column(columns: pa.RecordBatch, place: int) -> pa.StringArray:
    """Each row's value of one key.

    Args:
        columns: rows that all have the key.
        place: index of the key among the run's keys.
    """
    return pc.list_element(columns["keys"], place)


def has_segments(columns: pa.RecordBatch) -> bool:
    """Whether some rows are videos or segments of them."""
    return bool(columns["segment"].null_count < columns.num_rows)


def names_of(columns: pa.RecordBatch) -> list[str]:
    """The :attr:`~maskdet.inputs.references.ImageRef.name` of each row, unique to an image or segment."""
    return names(columns["uri"].to_pylist(), columns["segment"])


def names(uris: Sequence[str], segments: pa.Array | pa.ChunkedArray) -> list[str]:
    """The same from URIs and segments; a segment is null for an image."""
    if segments.null_count == len(segments):
        return list(uris)
    return [
        uri if segment is None else f"{uri}#t={segment['start_us']},{segment['end_us']}"
        for uri, segment in zip(uris, segments.to_pylist(), strict=True)
    ]


def digests(names: Iterable[str]) -> Digests:
    """SHA-256 of each name as four 64-bit words, ``(names, 4)``, the highest bits first."""
    data = b"".join([hashlib.sha256(name.encode()).digest() for name in names])
    return np.frombuffer(data, ">u8").reshape(-1, 4).astype(np.uint64)


def by_number(columns: pa.RecordBatch, numbers: Integers) -> list[tuple[int, pa.RecordBatch]]:
    """Rows grouped by a number for each row: groups in the order of their numbers, rows in their own order."""
    if not len(numbers):
        return []
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
    rows = columns.take(pa.array(order))
    ends = [*starts[1:].tolist(), len(ordered)]
    return [
        (int(ordered[start]), rows.slice(start, end - start)) for start, end in zip(starts.tolist(), ends, strict=True)
    ]


def _problems(columns: pa.RecordBatch) -> Iterable[tuple[str, str] | None]:
    codes = columns["problem_code"]
    if codes.null_count == len(codes):
        return itertools.repeat(None, len(codes))
    pairs = zip(codes.to_pylist(), columns["problem_message"].to_pylist(), strict=True)
    return [None if code is None else (code, message) for code, message in pairs]


def _segments(columns: pa.RecordBatch) -> Iterable[Segment | None]:
    if not has_segments(columns):
        return itertools.repeat(None, columns.num_rows)
    return [None if row is None else segment_of(row) for row in columns["segment"].to_pylist()]


def segment_of(row: Mapping[str, Any]) -> Segment:
    """The segment that a row of its fields describes."""
    numerator, denominator = row["rate"]
    return Segment(**{**row, "rate": (numerator, denominator)})
