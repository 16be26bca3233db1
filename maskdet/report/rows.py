"""Rows of a chart of rates: a group, its rate, and the interval around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from maskdet.compliance.intervals import Interval
from maskdet.report.scales import Scale, ends
from maskdet.report.words import group_name

MOST_GROUPS = 40
"""Most rows of a chart; the report says how many more groups there are."""


class Rated(Protocol):
    """A share with its interval."""

    @property
    def share(self) -> float | None:
        """The share; ``None`` if nothing was counted."""

    @property
    def interval(self) -> Interval | None:
        """The interval around it; ``None`` where nothing can be inferred."""


G = TypeVar("G")


class Row(NamedTuple, Generic[G]):
    """A group in a chart of rates."""

    name: str
    group: G
    at: float | None
    """The place of its rate, in percent of the axis."""
    span: tuple[float, float] | None
    """Both ends of its interval."""


def row_of(scale: Scale, values: Sequence[Any], group: G, rate: Rated) -> Row[G]:
    """A group's row.

    Args:
        scale: of the chart.
        values: that name the group.
        group: what the row is of.
        rate: its rate.
    """
    at = None if rate.share is None else scale.at(rate.share)
    span = None if rate.interval is None else (scale.at(rate.interval.low), scale.at(rate.interval.high))
    return Row(group_name(values), group, at, span)


def scale_of(rates: Iterable[Rated]) -> Scale:
    """An axis for all rates and their intervals."""
    known = list(rates)
    return Scale.around([*ends(rate.interval for rate in known), *(rate.share for rate in known)])
