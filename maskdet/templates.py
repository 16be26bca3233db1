"""Path templates: read partition keys and capture times from file paths.

``{site}/{camera}/{captured_at:%Y-%m-%d}/{captured_at:%H}/*.jpg`` reads two keys and a capture time in two parts:

- ``{name}`` matches within one path segment and becomes the key ``name``;
- ``{captured_at:FORMAT}`` matches directives of :meth:`~datetime.datetime.strptime`; several parts make up one time,
  which must include a day, and a repeated directive must repeat its value;
- ``*`` matches within a segment, ``**`` across segments; everything else stands for itself, except that an
  extension at the end matches in any case, as in listing.

Text is compared, and keys are returned, in the composed form of Unicode (NFC), since macOS writes decomposed names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple

from maskdet.errors import ConfigError

CAPTURED_AT = "captured_at"

# Fixed-width directives only: with others ("%B", "%p"), a path would mean different times in different locales.
_DIRECTIVES = {
    "Y": "[0-9]{4}",
    "m": "[0-9]{2}",
    "d": "[0-9]{2}",
    "H": "[0-9]{2}",
    "M": "[0-9]{2}",
    "S": "[0-9]{2}",
    "f": "[0-9]{1,6}",
    "j": "[0-9]{3}",
    "%": "%",
}
_TOKEN = re.compile(r"\{(?P<field>[^{}]*)\}|(?P<deep>\*\*/?)|(?P<star>\*)|(?P<brace>[{}])|(?P<literal>[^{}*]+)")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]+$")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TemplateMatch(NamedTuple):
    """What a template read from one path."""

    keys: tuple[str, ...]
    """One value for each of the template's :attr:`PathTemplate.keys`."""
    captured_at_ms: int | None
    """Capture time in milliseconds since the epoch, if the template has one."""


@dataclass(frozen=True)
class PathTemplate:
    """A compiled path template.

    Attributes:
        text: the template as written.
        keys: names of its keys, in order.
    """

    text: str
    keys: tuple[str, ...] = field(init=False)
    _regex: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _directives: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keys: list[str] = []
        directives: list[str] = []
        text = unicodedata.normalize("NFC", self.text.strip("/"))
        extension = _EXTENSION.search(text)
        stem = text[: extension.start()] if extension else text
        tokens = list(_TOKEN.finditer(stem))
        parts = [self._compile(token, keys, directives) for token in tokens]
        for place in range(len(tokens) - 2):
            if _is_key(tokens[place]) and tokens[place + 1]["literal"] and _takes_anything(tokens[place + 2]):
                # The key ends at the first possible place, since what follows takes any rest. Trying the other places
                # too would take a name of 1,000 hyphens for hours.
                parts[place], parts[place + 1] = f"(?>{parts[place]}", f"{parts[place + 1]})"
        pattern = "".join(parts)
        pattern += f"(?i:{re.escape(extension[0])})" if extension else ""
        if directives and not {"Y", "m", "d"} <= set(directives) and not {"Y", "j"} <= set(directives):
            raise self._error("a capture time that names a day, by %Y with %m and %d or with %j", " ".join(directives))
        object.__setattr__(self, "keys", tuple(keys))
        object.__setattr__(self, "_directives", tuple(directives))
        object.__setattr__(self, "_regex", re.compile(pattern, re.DOTALL))

    @property
    def has_captured_at(self) -> bool:
        """Whether the template reads a capture time."""
        return bool(self._directives)

    @property
    def depth(self) -> int | None:
        """How many path segments it spans; ``None`` if ``**`` leaves that open."""
        return None if "**" in self.text else self.text.strip("/").count("/") + 1

    def match(self, path: str, timezone: tzinfo = UTC) -> TemplateMatch | None:
        """Read a path.

        Args:
            path: the part of a file's path that the template describes, in whole.
            timezone: of the capture times written in paths.

        Returns:
            What was read, or ``None`` if the path does not fit or names no real time (``2026-02-30``).
        """
        found = self._regex.fullmatch(unicodedata.normalize("NFC", path))
        if found is None:
            return None
        keys = tuple(found[name] for name in self.keys)
        if not self.has_captured_at:
            return TemplateMatch(keys, None)
        try:
            captured_at = _time_of({directive: found[f"_{directive}"] for directive in self._directives})
            return TemplateMatch(keys, epoch_ms(captured_at, timezone))
        except ValueError:
            return None

    def match_tail(self, path: str, timezone: tzinfo = UTC) -> TemplateMatch | None:
        """Read the last segments of a path without a known root (an absolute path or a URI)."""
        if self.depth is None:
            return self.match(path.lstrip("/"), timezone)
        return self.match("/".join(path.split("/")[-self.depth :]), timezone)

    def _compile(self, token: re.Match[str], keys: list[str], seen: list[str]) -> str:
        if token["deep"]:
            return "(?:.*/)?" if token["deep"].endswith("/") else ".*"
        if token["star"]:
            return "[^/]*"
        if token["literal"]:
            return re.escape(token["literal"])
        if token["brace"]:
            raise self._error("every { closed by }", token["brace"])
        name, _, time_format = token["field"].partition(":")
        if name == CAPTURED_AT:
            return self._time_pattern(time_format, seen)
        if not _NAME.fullmatch(name) or time_format:
            raise self._error("{name} or {captured_at:%Y-%m-%d}, names in lower case", "{" + token["field"] + "}")
        if name in keys:
            raise self._error("each key once", "{" + name + "}")
        keys.append(name)
        return f"(?P<{name}>[^/]+?)"

    def _time_pattern(self, time_format: str, seen: list[str]) -> str:
        pieces = re.split(r"%(.)", time_format)
        directives, literals = pieces[1::2], pieces[::2]
        unknown = [directive for directive in directives if directive not in _DIRECTIVES]
        if unknown or not set(directives) - {"%"} or any(set(text) & set(" /%") for text in literals):
            known = ", ".join(f"%{name}" for name in _DIRECTIVES)
            raise self._error(f"a time format of {known} within one path segment", time_format)
        patterns = [self._directive_pattern(directive, seen) for directive in directives]
        return "".join(re.escape(text) + pattern for text, pattern in zip(literals, [*patterns, ""], strict=True))

    @staticmethod
    def _directive_pattern(directive: str, seen: list[str]) -> str:
        if directive == "%":
            return "%"
        # The underscore distinguishes the group from those of keys, which begin with a letter.
        if directive in seen:
            return f"(?P=_{directive})"
        seen.append(directive)
        return f"(?P<_{directive}>{_DIRECTIVES[directive]})"

    def _error(self, expected: str, received: str) -> ConfigError:
        return ConfigError(
            f"source.template {self.text!r}", expected, received, "Example: {site}/{captured_at:%Y-%m-%d}/*.jpg."
        )


def _is_key(token: re.Match[str]) -> bool:
    return token["field"] is not None and token["field"].partition(":")[0] != CAPTURED_AT


def _takes_anything(token: re.Match[str]) -> bool:
    """Whether a token matches any text within a segment."""
    return _is_key(token) or token["star"] is not None or token["deep"] == "**"


def epoch_ms(time: datetime, timezone: tzinfo) -> int:
    """Milliseconds since the epoch, rounded down so that a time stays within its second, hour and day.

    Args:
        time: with or without an offset.
        timezone: of a time without an offset, and in which the time will be read.

    Raises:
        ValueError: the time is outside the years 1 to 9999 in UTC or in the time zone.
    """
    local = time.replace(tzinfo=timezone) if time.tzinfo is None else time
    try:
        local.astimezone(timezone)
        return (local.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
    except OverflowError as error:
        raise ValueError(f"{time} is outside the years 1 to 9999") from error


def _time_of(parts: Mapping[str, str]) -> datetime:
    """The time in directives; ``strptime`` would let one borrow digits from the next ("%S%f" in "7012")."""
    number = {directive: int(text) for directive, text in parts.items()}
    year, month, day = number["Y"], number.get("m", 1), number.get("d", 1)
    if "j" in number:
        if not 1 <= number["j"] <= 366:
            raise ValueError(f"no year has a day {number['j']}")
        named = date(year, 1, 1) + timedelta(days=number["j"] - 1)
        if (named.year, number.get("m", named.month), number.get("d", named.day)) != (year, named.month, named.day):
            raise ValueError(f"day {number['j']} of {year} is {named}")
        month, day = named.month, named.day
    microseconds = int(parts.get("f", "0").ljust(6, "0"))
    return datetime(year, month, day, number.get("H", 0), number.get("M", 0), number.get("S", 0), microseconds)
