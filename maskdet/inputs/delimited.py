"""Text files as people and spreadsheets write them: detects encoding, compression, delimiter and broken rows."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from maskdet import storage
from maskdet.errors import SourceError

IMAGE_LIST = "image list"
"""What messages call a file by default."""

_BLANKS = " \t\u00a0"
_DELIMITERS = (",", ";", "\t", "|")
_HEAD_BYTES = 64 * 1024
# A field that is longer has lost its closing quote, and would swallow the rest of the file.
_FIELD_CHARACTERS = 128 * 1024
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, UnicodeError)
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


class Line(NamedTuple):
    """A row of a delimited file."""

    fields: list[str]
    """Trimmed, one for each column of the header; empty if the row is broken."""
    problem: str = ""
    """What is wrong with the row."""


@contextlib.contextmanager
def open_text(uri: str, what: str = IMAGE_LIST) -> Iterator[io.TextIOWrapper]:
    """Open a text file, decompressed, in the encoding that it appears to have.

    A byte-order mark decides; without one, a file whose beginning is not UTF-8 is taken for Windows-1252. Later bytes
    that are not valid in the encoding are kept as surrogates.

    Args:
        uri: the file.
        what: what messages call it.

    Raises:
        SourceError: it is a workbook, or its compression is damaged.
        StorageError: it cannot be read.
    """
    with storage.open_binary(uri) as raw, contextlib.ExitStack() as opened:
        stream = opened.enter_context(_buffered(raw))
        head = stream.peek(_HEAD_BYTES)
        for mark, opener in _OPENERS:
            if head.startswith(mark):
                stream = opened.enter_context(_buffered(opened.enter_context(opener(stream, "rb"))))
                with refusing_damage(uri, what):
                    head = stream.peek(_HEAD_BYTES)
        if head.startswith(_WORKBOOKS):
            remedy = "Save the sheet as CSV, or the table as Parquet."
            raise SourceError(f"{what} {uri}", "text or Parquet", "a workbook or an archive", remedy)
        text = io.TextIOWrapper(stream, _encoding(head), errors="surrogateescape", newline="")
        yield opened.enter_context(text)


@contextlib.contextmanager
def refusing_damage(uri: str, what: str = IMAGE_LIST) -> Iterator[None]:
    """Turn errors of damaged compression into :class:`SourceError` while the body runs."""
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, _DAMAGE) and error.errno is not None:
            raise  # an error of the store; those that bz2 raises have no errno
        raise SourceError(f"{what} {uri}: not readable as text: {' '.join(str(error).split())}") from error


def header(uri: str, wanted: str, what: str = IMAGE_LIST) -> list[str]:
    """The names of a delimited file's columns.

    Args:
        uri: the file.
        wanted: a column that should be there, in any case; helps to recognise the delimiter.
        what: what messages call the file.

    Raises:
        SourceError: the file is empty or damaged.
    """
    with open_text(uri, what) as text, refusing_damage(uri, what):
        names, _ = _header(uri, text, wanted, what)
        return names


def lines(uri: str, wanted: str, what: str = IMAGE_LIST) -> Iterator[Line]:
    """Rows of a delimited file after its header, without blank ones.

    Raises:
        SourceError: the file is empty or its compression is damaged; a broken row does not raise.
    """
    with open_text(uri, what) as text, refusing_damage(uri, what):
        names, delimiter = _header(uri, text, wanted, what)
        reader = _reader(text, delimiter)
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Line([], f"line {reader.line_num + 1}: {error}; most often a quote that is not closed")
                continue
            yield from _line(fields, len(names), reader.line_num + 1)


def is_utf8(text: str) -> bool:
    """Whether a text is free of surrogates, which stand for bytes that are not valid in its file's encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str) -> str:
    """A text in which surrogates are escaped, so that a table can hold it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _line(fields: list[str], count: int, number: int) -> Iterator[Line]:
    fields = [field.strip(_BLANKS) for field in fields]
    while len(fields) > count and not fields[-1]:  # spreadsheets fill up to the longest row
        fields.pop()
    if not any(fields):
        return
    if len(fields) != count:
        yield Line([], f"line {number}: {len(fields)} fields, where the header names {count} columns")
    elif not all(map(is_utf8, fields)):
        bad = shown(" ".join(fields))[:200]
        yield Line([], f"line {number}: bytes that are not valid in the file's encoding: {bad}")
    else:
        yield Line(fields)


def _header(uri: str, text: io.TextIOWrapper, wanted: str, what: str) -> tuple[list[str], str]:
    """The names of the columns and their delimiter; leaves the text at its first row."""
    first = text.readline().removeprefix("\ufeff")
    while first and not first.strip():
        first = text.readline()
    told = None
    if first.lower().startswith("sep=") and len(first.strip("\r\n")) == 5:  # Excel's own line
        told, first = first[4], text.readline()
    while first.count('"') % 2 and (more := text.readline()) and len(first) < _HEAD_BYTES:
        first += more
    if not first.strip():
        raise SourceError(f"{what} {uri}: not readable as CSV: it is empty")
    found = [(delimiter, _names(first, delimiter)) for delimiter in ((told,) if told else _DELIMITERS)]
    delimiter, names = next(
        ((delimiter, names) for delimiter, names in found if wanted.casefold() in map(str.casefold, names)),
        max(found, key=lambda one: len(one[1])),
    )
    if not is_utf8("".join(names)):
        raise SourceError(f"{what} {uri}: not readable as CSV: its column names are in an unknown encoding")
    return names, delimiter


def _names(line: str, delimiter: str) -> list[str]:
    try:
        return [name.strip() for name in next(_reader(iter([line]), delimiter), [])]
    except csv.Error:
        return []


def _reader(text: Iterator[str], delimiter: str) -> Any:
    csv.field_size_limit(_FIELD_CHARACTERS)
    return csv.reader(text, delimiter=delimiter, skipinitialspace=True)


def _encoding(head: bytes) -> str:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(head)  # which may end within a character
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _buffered(stream: object) -> io.BufferedReader:
    """A stream that can be peeked into."""
    return io.BufferedReader(cast(io.RawIOBase, stream), _HEAD_BYTES)
