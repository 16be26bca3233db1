"""Path templates: partition keys and capture times out of file paths.

``{site}/{camera}/{captured_at:%Y-%m-%d}/{captured_at:%H}/*.jpg`` reads two keys and a capture time in two parts:

- ``{name}`` matches within one path segment and becomes the key ``name``;
- ``{captured_at:FORMAT}`` matches :meth:`~datetime.datetime.strptime` directives; several parts make one time;
- ``*`` matches within a segment, ``**`` across segments; everything else stands for itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from maskdet.errors import ConfigError

CAPTURED_AT = "captured_at"

# Fixed-width directives only: with others ("%B", "%p") a path would mean different times in different locales.
_DIRECTIVES = {
    "Y": r"\d{4}",
    "m": r"\d{2}",
    "d": r"\d{2}",
    "H": r"\d{2}",
    "M": r"\d{2}",
    "S": r"\d{2}",
    "f": r"\d{1,6}",
    "j": r"\d{3}",
    "%": "%",
}
_TOKEN = re.compile(r"\{(?P<field>[^{}]*)\}|(?P<deep>\*\*)|(?P<star>\*)|(?P<brace>[{}])|(?P<literal>[^{}*]+)")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


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
    _time_format: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keys: list[str] = []
        formats: list[str] = []
        pattern = "".join(self._compile(token, keys, formats) for token in _TOKEN.finditer(self.text.strip("/")))
        object.__setattr__(self, "keys", tuple(keys))
        object.__setattr__(self, "_time_format", " ".join(formats))
        object.__setattr__(self, "_regex", re.compile(pattern))

    @property
    def has_captured_at(self) -> bool:
        """Whether the template reads a capture time."""
        return bool(self._time_format)

    @property
    def depth(self) -> int | None:
        """How many path segments it spans; ``None`` if ``**`` leaves that open."""
        return None if "**" in self.text else self.text.strip("/").count("/") + 1

    def match(self, path: str, timezone: tzinfo = UTC) -> TemplateMatch | None:
        """Read a path.

        Args:
            path: the part of a file's path that the template describes, in whole.
            timezone: that of the capture times written in paths.

        Returns:
            What was read, or ``None`` if the path does not fit or names no real time (``2026-02-30``).
        """
        found = self._regex.fullmatch(path)
        if found is None:
            return None
        keys = tuple(found[name] for name in self.keys)
        if not self.has_captured_at:
            return TemplateMatch(keys, None)
        parts = " ".join(found[f"captured_at_{i}"] for i in range(self._time_format.count(" ") + 1))
        try:
            captured_at = datetime.strptime(parts, self._time_format).replace(tzinfo=timezone)
        except ValueError:
            return None
        return TemplateMatch(keys, round(captured_at.timestamp() * 1000))

    def match_tail(self, path: str, timezone: tzinfo = UTC) -> TemplateMatch | None:
        """Read the last segments of a path that has no known root (an absolute path or a URI)."""
        if self.depth is None:
            return self.match(path.lstrip("/"), timezone)
        return self.match("/".join(path.split("/")[-self.depth :]), timezone)

    def _compile(self, token: re.Match[str], keys: list[str], formats: list[str]) -> str:
        if token["deep"]:
            return ".*"
        if token["star"]:
            return "[^/]*"
        if token["literal"]:
            return re.escape(token["literal"])
        if token["brace"]:
            raise self._error("every { closed by }", token["brace"])
        name, _, time_format = token["field"].partition(":")
        if name == CAPTURED_AT:
            formats.append(time_format)
            return f"(?P<captured_at_{len(formats) - 1}>{self._time_pattern(time_format)})"
        if not _NAME.fullmatch(name) or time_format:
            raise self._error("{name} or {captured_at:%Y-%m-%d}, names in lower case", "{" + token["field"] + "}")
        if name in keys:
            raise self._error("each key once", "{" + name + "}")
        keys.append(name)
        return f"(?P<{name}>[^/]+?)"

    def _time_pattern(self, time_format: str) -> str:
        pieces = re.split(r"%(.)", time_format)
        directives, literals = pieces[1::2], pieces[::2]
        unknown = [directive for directive in directives if directive not in _DIRECTIVES]
        if unknown or not directives or " " in time_format or "/" in time_format:
            known = ", ".join(f"%{name}" for name in _DIRECTIVES)
            raise self._error(f"a time format of {known} within one path segment", time_format)
        patterns = [_DIRECTIVES[directive] for directive in directives]
        return "".join(re.escape(text) + pattern for text, pattern in zip(literals, [*patterns, ""], strict=True))

    def _error(self, expected: str, received: str) -> ConfigError:
        return ConfigError(
            f"source.template {self.text!r}", expected, received, "Example: {site}/{captured_at:%Y-%m-%d}/*.jpg."
        )
