"""Protocol buffers read field by field, without the library that made them.

SavedModel and ONNX files are protocol buffers. Reading them with their own libraries means importing those, which takes
seconds for TensorFlow; for names and shapes, the wire format is enough, which has four kinds of fields:
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10
_SOMETHING_ELSE = "a file with other content, which cannot be read as one"
_CUT_OFF = "a file that is cut off, or has other content"


class WireError(ValueError):
    """The bytes are not a protocol buffer."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    value: int | memoryview
    """A number, or the bytes of a string, a message, or packed numbers."""


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message, in order.

    Raises:
        WireError: it is cut off, or not a message.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise WireError(_SOMETHING_ELSE)
        value: int | memoryview
        if kind == _VARINT:
            value, place = _varint(message, place)
        elif kind == _LENGTH:
            size, place = _varint(message, place)
            value, place = _part(message, place, size), place + size
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
            (value,) = struct.unpack("<Q" if size == 8 else "<I", _part(message, place, size))
            place += size
        else:
            raise WireError(_SOMETHING_ELSE)
        yield Field(number, value)


def messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """The values of a repeated field: messages or strings."""
    return (field.value for field in fields(message) if field.number == number and isinstance(field.value, memoryview))


def single(message: memoryview, number: int) -> memoryview:
    """The value of a field that is not repeated; empty if it is missing.

    Raises:
        WireError: it occurs twice. Readers merge the two, so inspecting only one would miss half.
    """
    found = list(messages(message, number))
    if len(found) > 1:
        raise WireError(f"field {number} twice")
    return found[0] if found else memoryview(b"")


def text(message: memoryview, number: int) -> str:
    """A field that is a string."""
    return text_of(single(message, number))


def text_of(value: memoryview) -> str:
    """The bytes of a string as text."""
    return bytes(value).decode("utf-8", "replace")


def integer(message: memoryview, number: int, default: int = 0) -> int:
    """A field that is an integer; signed, 64 bits."""
    found = default
    for field in fields(message):
        if field.number == number and isinstance(field.value, int):
            found = field.value
    return found - (1 << 64) if found >= 1 << 63 else found


def integers(message: memoryview, number: int) -> list[int]:
    """A repeated field of integers, packed or not."""
    found: list[int] = []
    for field in fields(message):
        if field.number != number:
            continue
        if isinstance(field.value, int):
            found.append(field.value)
            continue
        place = 0
        while place < len(field.value):
            value, place = _varint(field.value, place)
            found.append(value)
    return [value - (1 << 64) if value >= 1 << 63 else value for value in found]


def entries(message: memoryview, number: int) -> Iterator[tuple[str, memoryview]]:
    """A map from strings to messages."""
    for entry in messages(message, number):
        yield text(entry, 1), single(entry, 2)


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(_MOST_VARINT_BYTES):
        if place + shift >= len(message):
            raise WireError(_CUT_OFF)
        byte = message[place + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value & ((1 << 64) - 1), place + shift + 1
    raise WireError(_SOMETHING_ELSE)


def _part(message: memoryview, place: int, size: int) -> memoryview:
    if place + size > len(message):
        raise WireError(_CUT_OFF)
    return message[place : place + size]
