"""Positions in a chart that is as wide as its page, in percent of the width, so that its text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from maskdet.compliance.intervals import Interval

_LEAST_SPAN = 0.2
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)


class Mark(NamedTuple):
    """A line of a grid, and the text at it."""

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """An axis of shares.

    Attributes:
        low: share at its beginning.
        high: at its end.
    """

    low: float
    high: float

    @classmethod
    def around(cls, shares: Iterable[float | None]) -> Scale:
        """An axis that begins and ends at tens of percent and holds all shares, with a minimum length."""
        known = [share for share in shares if share is not None]
        low = math.floor(min(known, default=0.0) * 10 + 1e-9) / 10
        high = math.ceil(max(known, default=1.0) * 10 - 1e-9) / 10
        if high - low < _LEAST_SPAN:
            high = min(1.0, low + _LEAST_SPAN)
            low = max(0.0, high - _LEAST_SPAN)
        return cls(round(low, 2), round(high, 2))

    def at(self, share: float) -> float:
        """A share's position, in percent of the axis."""
        return round(100 * (share - self.low) / (self.high - self.low), 2)

    def marks(self, most: int = 6) -> list[Mark]:
        """Round shares, evenly spaced, at most so many; if two, the ends."""
        if most == 2:
            return [Mark(0.0, f"{self.low:.0%}"), Mark(100.0, f"{self.high:.0%}")]
        span = self.high - self.low
        step = next((step for step in _STEPS if span / step < most - 1 + 1e-9), 0.5)
        count = round(span / step)
        shares = [self.low + step * number for number in range(count + 1)]
        return [Mark(self.at(share), f"{share:.0%}") for share in shares if share <= self.high + 1e-9]


def ends(intervals: Iterable[Interval | None]) -> list[float]:
    """All ends of intervals."""
    return [end for one in intervals if one is not None for end in one]


def stacked(counts: Sequence[int], total: int | None = None) -> list[tuple[float, float]]:
    """The parts of a bar: where each begins and how wide it is, in percent.

    Args:
        counts: of the parts.
        total: the whole bar; default: the sum of the counts.
    """
    whole = sum(counts) if total is None else total
    places, begin = [], 0
    for count in counts:
        places.append((round(100 * begin / whole, 2), round(100 * count / whole, 2)) if whole else (0.0, 0.0))
        begin += count
    return places


def of_hundred(counts: Sequence[int]) -> list[int]:
    """Counts as whole numbers of every hundred, which add up to it.

    The first is rounded on its own, so that it agrees with its share in percent on the same page, and is 100 only if it
    is everything. The others divide the rest among themselves by largest remainder.
    """
    total = sum(counts)
    if not total:
        return [0] * len(counts)
    first = round(100 * (counts[0] / total))
    if counts[0] < total:
        first = min(first, 99)
    shares = [divmod(100 * count, total) for count in counts[1:]]
    left = 100 - first - sum(whole for whole, _ in shares)
    largest = sorted(range(len(shares)), key=lambda place: -shares[place][1])[:left]
    return [first, *(whole + (place in largest) for place, (whole, _) in enumerate(shares))]


def spread_labels(texts: Sequence[str], most: int) -> list[int]:
    """Which of many labels along an axis to show: the first, the last, and some evenly spaced between them."""
    if len(texts) <= most:
        return list(range(len(texts)))
    return sorted({round(number * (len(texts) - 1) / (most - 1)) for number in range(most)})
