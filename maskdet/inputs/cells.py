"""Columns and values of tables that people write: found by name in any case, and read as text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

# What pandas makes of an integer in a column that has gaps.
_WHOLE_NUMBER = re.compile(r"-?\d+\.0")


def columns_like(names: Iterable[str], name: str) -> list[str]:
    """The columns of a name: those called exactly so; where there are none, those called so in any case."""
    known = list(names)
    return [one for one in known if one == name] or [one for one in known if one.casefold() == name.casefold()]


def text_of(value: Any) -> str | None:
    """A value as text; ``None`` for nothing, an empty text and NaN."""
    if isinstance(value, bytes):  # text that its writer did not mark as such
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, float):  # integers, where some are missing
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if value is None or value == "" else str(value)


def without_fraction(text: str) -> str:
    """``7`` of ``7.0``, which is how an integer is written where others of its column are missing."""
    return text[:-2] if text.endswith(".0") and _WHOLE_NUMBER.fullmatch(text) else text
