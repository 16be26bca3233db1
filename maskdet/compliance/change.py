"""What changed between two sets of faces: differences of rates, with intervals that account for clusters and pairs.

Two periods, two outputs or two models. Where a cluster has faces on both sides (the same camera at the same hour of the
day, or the same photographs scored by two models) the sides go up and down together, and the difference is surer than
two separate rates would have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from maskdet.compliance.intervals import ClusterSums, Interval, cluster_interval, wilson_interval
from maskdet.compliance.state import State

Adjustment = Literal["holm", "benjamini-hochberg", "none"]
RATES = {"any_mask_rate": "any_mask", "correct_rate": "correct"}
"""Each rate that can be compared → the field of :class:`maskdet.compliance.state.Tally` that counts for each."""

NAIVE = "square-and-add of wilson (Newcombe 1998), naive: independent faces"
CLUSTER = "square-and-add of cluster intervals (Zou and Donner 2008)"
PAIRED = "square-and-add of cluster intervals, correlated by pairs (Zou and Donner 2008)"
_LEAST_P = 1e-6


class Difference(NamedTuple):
    """How a rate differs between two sides."""

    before: float | None
    after: float | None
    difference: float | None
    """After minus before."""
    interval: Interval | None
    """Accounts for clusters; ``None`` with fewer than two of them on either side."""
    naive: Interval | None
    """The interval if all faces were independent."""
    p: float | None
    """The level at which the interval would just include 0; of the naive interval where there is no other. ``None``
    where it was not asked for."""
    pairs: int
    """How many clusters have labelled faces on both sides."""
    method: str
    """How the interval was computed; where there is none, how the naive one was."""


class _Side(NamedTuple):
    trials: dict[str, int]
    successes: dict[str, int]

    @classmethod
    def of(cls, state: State, field: str) -> _Side:
        tallies = {name: tally for name, tally in state.clusters.items() if tally.labelled}
        return cls(
            {name: tally.labelled for name, tally in tallies.items()},
            {name: getattr(tally, field) for name, tally in tallies.items()},
        )

    @property
    def sums(self) -> ClusterSums:
        return ClusterSums.of(list(self.trials.values()), list(self.successes.values()))

    def residuals(self) -> dict[str, float]:
        """What each cluster adds to the linearised rate."""
        total = sum(self.trials.values())
        share = sum(self.successes.values()) / total
        return {name: (self.successes[name] - share * n) / total for name, n in self.trials.items()}


def difference(
    before: State, after: State, rate: str, confidence: float, *, clustered: bool = True, with_p: bool = True
) -> Difference:
    """How a rate differs between two sides.

    Square-and-add: from an interval of each share, G. Y. Zou and A. Donner, "Construction of confidence limits about
    effect measures", Statistics in Medicine 27 (2008), 1693-1702, equation 5 with the correlation of the two shares,
    which is that of their linearised values over the clusters of both sides.

    Args:
        before: one side.
        after: the other.
        rate: of :data:`RATES`.
        confidence: nominal coverage.
        clustered: whether the states were counted by cluster.
        with_p: whether to search for p, which takes most of the time.
    """
    sides = _Side.of(before, RATES[rate]), _Side.of(after, RATES[rate])
    sums = [side.sums for side in sides]
    shares = [one.successes / one.trials if one.trials else None for one in sums]
    if shares[0] is None or shares[1] is None:
        return Difference(shares[0], shares[1], None, None, None, None, 0, "none: one side has no labelled face")
    pairs = len(sides[0].trials.keys() & sides[1].trials.keys()) if clustered else 0
    robust = clustered and min(one.clusters for one in sums) >= 2
    correlation = _correlation(*sides) if robust and pairs >= 2 else 0.0

    def at(level: float, of: Callable[[ClusterSums, float], Interval | None], together: float) -> Interval:
        first, second = of(sums[0], level), of(sums[1], level)
        assert first is not None and second is not None and shares[0] is not None and shares[1] is not None
        return square_and_add((shares[0], first), (shares[1], second), together)

    naive = at(confidence, _wilson, 0.0)
    interval = at(confidence, cluster_interval, correlation) if robust else None
    of, together = (cluster_interval, correlation) if robust else (_wilson, 0.0)
    return Difference(
        before=shares[0],
        after=shares[1],
        difference=shares[1] - shares[0],
        interval=interval,
        naive=naive,
        p=_level(lambda level: at(level, of, together)) if with_p else None,
        pairs=pairs,
        method=(PAIRED if correlation else CLUSTER) if robust else NAIVE,
    )


def square_and_add(before: tuple[float, Interval], after: tuple[float, Interval], correlation: float = 0.0) -> Interval:
    """An interval of the difference of two shares, from an interval of each.

    G. Y. Zou and A. Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27
    (2008), 1693-1702, equation 5; of Wilson's intervals it is method 10 of R. G. Newcombe, "Interval estimation for the
    difference between independent proportions", Statistics in Medicine 17 (1998), 873-890.

    Args:
        before: a share and its interval.
        after: the other, from which the first is subtracted.
        correlation: of the two shares' estimates.
    """
    (p, (p_low, p_high)), (q, (q_low, q_high)) = before, after

    def spread(own: float, other: float) -> float:
        return math.sqrt(max(0.0, own * own + other * other - 2 * correlation * own * other))

    low, high = q - p - spread(q - q_low, p_high - p), q - p + spread(q_high - q, p - p_low)
    return Interval(max(-1.0, low), min(1.0, high))


def adjust(values: Sequence[float | None], method: Adjustment) -> list[float | None]:
    """P values of many comparisons, corrected for their number.

    Args:
        values: one for each comparison; ``None`` is none, and does not count.
        method: ``holm`` bounds the chance of any false alarm (S. Holm, Scandinavian Journal of Statistics 6 (1979),
            65-70); ``benjamini-hochberg`` the share of false alarms among the alarms (Journal of the Royal Statistical
            Society B 57 (1995), 289-300).
    """
    known = sorted((value, place) for place, value in enumerate(values) if value is not None)
    found: list[float | None] = list(values)
    if method == "none":
        return found
    count = len(known)
    if method == "holm":
        highest = 0.0
        for rank, (value, place) in enumerate(known):
            highest = max(highest, min(1.0, (count - rank) * value))
            found[place] = highest
        return found
    lowest = 1.0
    for rank in range(count, 0, -1):
        value, place = known[rank - 1]
        lowest = min(lowest, value * count / rank)
        found[place] = lowest
    return found


def _wilson(sums: ClusterSums, confidence: float) -> Interval | None:
    return wilson_interval(sums.successes, sums.trials, confidence)


def _correlation(before: _Side, after: _Side) -> float:
    """Of the two rates, by the clusters of both."""
    first, second = before.residuals(), after.residuals()
    product = sum(value * second[name] for name, value in first.items() if name in second)
    size = math.sqrt(sum(v * v for v in first.values()) * sum(v * v for v in second.values()))
    return max(-1.0, min(1.0, product / size)) if size > 0 else 0.0


def _level(interval_at: Callable[[float], Interval]) -> float:
    """The smallest p at which the interval of 1 - p does not hold 0, by halving."""

    def holds(p: float) -> bool:
        low, high = interval_at(1 - p)
        return low <= 0 <= high

    if not holds(_LEAST_P):
        return _LEAST_P
    below, above = math.log(_LEAST_P), 0.0
    for _ in range(30):
        middle = (below + above) / 2
        below, above = (middle, above) if holds(math.exp(middle)) else (below, middle)
    return math.exp(above)
