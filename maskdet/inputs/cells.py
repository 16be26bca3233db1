"""Columns and values of tables that people write: columns are found by name in any case, values are read as text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

# What pandas makes of an integer in a column that has gaps.
_WHOLE_NUMBER = re.compile(r"-?\d+\.0")


def columns_like(names: Iterable[str], name: str) -> list[str]:
    """The columns with a name: exact matches, or, where there are none, matches in any case."""
    known = list(names)
    return [one for one in known if one == name] or [one for one in known if one.casefold() == name.casefold()]


def text_of(value: Any) -> str | None:
    """A value as text; ``None`` for a missing value, an empty text or NaN."""
    if isinstance(value, bytes):  # text that its writer did not mark as such
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, float):  # integers become floats in a column with missing values
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if value is None or value == "" else str(value)


def without_fraction(text: str) -> str:
    """``7`` for ``7.0``, which is how an integer is written in a column with missing values."""
    return text[:-2] if text.endswith(".0") and _WHOLE_NUMBER.fullmatch(text) else text
