"""The figures of a report: counts, rates and intervals of a data set, of its sites and of its days.

All of them follow from cells, the counts by all keys, day and hour, which are also the clusters that intervals go by.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from maskdet.compliance.intervals import (
    ClusterSums,
    Interval,
    cluster_interval,
    ignorance_bounds,
    wilson_interval,
)
from maskdet.compliance.state import Counts
from maskdet.errors import ConfigError
from maskdet.labels import LABELS
from maskdet.report.database import COUNTED, WORN, Selection, Tables, quoted, tells_incorrect

Unit = Literal["day", "week", "month"]

BINS = 20
"""Of the distribution of probabilities."""

CAMERA_HOURS = "cluster-robust"
WILSON = "wilson"
TOO_FEW = "none: one cluster"

_MOST_DAYS, _MOST_WEEK_DAYS = 45, 500
_LABELLED = "faces_mask + faces_incorrect + faces_no_mask"
_MEASURES = {"correct": "faces_mask", "worn": "faces_mask + faces_incorrect"}


@dataclass(frozen=True)
class Rate:
    """A share of the faces that are labelled with a class.

    Attributes:
        successes: those that count.
        faces: all of them.
        interval: of the share; ``None`` where nothing can be said.
        method: how the interval was made.
    """

    successes: int
    faces: int
    interval: Interval | None
    method: str

    @property
    def share(self) -> float | None:
        """The rate; ``None`` without faces."""
        return self.successes / self.faces if self.faces else None


@dataclass(frozen=True)
class Group:
    """What is known of some images: of a site, a day, all.

    Attributes:
        values: of the keys that the group is of.
        counts: images and faces.
        rate: the share that the report is about: worn correctly, where the model can tell; else worn.
        worn: the share with any mask.
        clusters: cells with labelled faces.
    """

    values: tuple[Any, ...]
    counts: Counts
    rate: Rate
    worn: Rate
    clusters: int


@dataclass(frozen=True)
class Change:
    """A rate now and before.

    Attributes:
        values: of the keys that it is of.
        before: the earlier period.
        after: the later one.
        difference: of the rates, later less earlier; ``None`` if one is not known.
        interval: of the difference.
    """

    values: tuple[Any, ...]
    before: Group
    after: Group
    difference: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """The last period beside the one before.

    Attributes:
        before: first and last day of the earlier period.
        after: of the later one.
        total: of all images.
        groups: of each value of the first key.
    """

    before: tuple[date, date]
    after: tuple[date, date]
    total: Change
    groups: list[Change]


@dataclass(frozen=True)
class Bound:
    """What the rate would be, whatever is true of faces that have no label.

    Attributes:
        unknown: how many of them there are.
        interval: from all without a mask worn right to all with one.
    """

    unknown: int
    interval: Interval | None


@dataclass(frozen=True)
class Figures:
    """All figures of a report.

    Attributes:
        confidence: nominal coverage of the intervals.
        tells_incorrect: whether the rate is of masks worn correctly; else of any mask.
        keys: the keys that groups are of: none, one or two.
        unit: of the periods of the trend.
        days: first and last day with images; ``None`` without capture times.
        total: of everything.
        undated: of images without a capture time.
        trend: of each period from the first to the last; one without images has none.
        groups: of each value of the first key.
        subgroups: value of the first key → groups of the second.
        group_trends: value of the first key → its trend.
        bins: label → faces in each of :data:`BINS` equal parts of the probability of a mask.
        bounds: name → bound.
        failures: code → images.
        comparison: of the last periods; ``None`` where there is one alone.
        silent: values of all keys of cameras that have images, but none on the last day.
    """

    confidence: float
    tells_incorrect: bool
    keys: tuple[str, ...]
    unit: Unit
    days: tuple[date, date] | None
    total: Group
    undated: Counts
    trend: list[Group]
    groups: list[Group]
    subgroups: dict[Any, list[Group]]
    group_trends: dict[Any, list[Group]]
    bins: dict[str, list[int]]
    bounds: dict[str, Bound]
    failures: dict[str, int]
    comparison: Comparison | None
    silent: list[tuple[Any, ...]]


class _Cells:
    """Groups of the cells that a database holds."""

    def __init__(self, tables: Tables, confidence: float, clustered: bool, measure: str) -> None:
        self._tables, self._confidence, self._clustered, self._measure = tables, confidence, clustered, measure

    def groups(self, by: Sequence[str], where: str = "true", values: Sequence[object] = ()) -> list[Group]:
        """Groups of the cells, sorted by their values; those that are missing come last.

        Args:
            by: SQL expressions.
            where: SQL condition.
            values: of its question marks.
        """
        names = [f"v{number}" for number in range(len(by))]
        keys = "".join(f"{expression} AS {name}, " for expression, name in zip(by, names, strict=True))
        sums = ", ".join(f"CAST(coalesce(sum({column}), 0) AS BIGINT)" for column in COUNTED)
        clusters = ", ".join(_cluster_sums(x) for x in _MEASURES.values())
        # Each sum of a group is of whole numbers, so that it does not depend on the order of its cells.
        order = ", ".join(f"{name} NULLS LAST" for name in names)
        query = f"SELECT {keys}{sums}, {clusters} FROM cells WHERE {where}"
        if by:
            query += f" GROUP BY {', '.join(names)} ORDER BY {order}"
        return [self._group(row, len(by)) for row in self._tables.rows(query, values)]

    def _group(self, row: tuple[Any, ...], keys: int) -> Group:
        counts = Counts(**dict(zip(COUNTED, row[keys:], strict=False)))
        numbers = [int(number) for number in row[keys + len(COUNTED) :]]
        size = len(numbers) // len(_MEASURES)
        sums = {name: ClusterSums(*numbers[place * size : (place + 1) * size]) for place, name in enumerate(_MEASURES)}
        rates = {name: self._rate(one) for name, one in sums.items()}
        return Group(row[:keys], counts, rates[self._measure], rates["worn"], sums["worn"].clusters)

    def _rate(self, sums: ClusterSums) -> Rate:
        if not self._clustered:
            interval = wilson_interval(sums.successes, sums.trials, self._confidence)
            return Rate(sums.successes, sums.trials, interval, WILSON)
        interval = cluster_interval(sums, self._confidence)
        return Rate(sums.successes, sums.trials, interval, TOO_FEW if interval is None else CAMERA_HOURS)


def read_figures(tables: Tables, selection: Selection, by: Sequence[str] | None = None) -> Figures:
    """All figures of a report.

    Args:
        tables: an output's.
        selection: keys and days that it is about.
        by: one or two keys that groups are of; default: the first two.

    Raises:
        ConfigError: ``by`` names a key that the tables lack, or too many.
    """
    keys = _checked(tables, by)
    tables.make_cells(selection)
    confidence = float(tables.run.settings.get("compliance", {}).get("confidence", 0.95))
    incorrect = tells_incorrect(tables)
    (used,) = tables.rows(f"SELECT count(*) FROM cells WHERE {_LABELLED} > 0")[0]
    cells = _Cells(tables, confidence, used > 1, "correct" if incorrect else "worn")
    first, last = tables.rows("SELECT min(day), max(day) FROM cells")[0]
    days = None if first is None else (first, last)
    unit = _unit(days)
    period = f"CAST(date_trunc('{unit}', day) AS DATE)"
    names = [quoted(key) for key in keys]
    (total,) = cells.groups([])
    return Figures(
        confidence=confidence,
        tells_incorrect=incorrect,
        keys=keys,
        unit=unit,
        days=days,
        total=total,
        undated=cells.groups([], "day IS NULL")[0].counts,
        trend=cells.groups([period], "day IS NOT NULL"),
        groups=cells.groups(names[:1]) if keys else [],
        subgroups=_split(cells.groups(names)) if len(keys) > 1 else {},
        group_trends=_split(cells.groups([names[0], period], "day IS NOT NULL")) if keys else {},
        bins=_bins(tables, selection),
        bounds=_bounds(total),
        failures=_failures(tables, selection),
        comparison=None if days is None else _compare(cells, names[:1], days),
        silent=[] if days is None else _silent(tables, days[1]),
    )


def periods(figures: Figures) -> list[date]:
    """First days of all periods of the trend, those without images too."""
    if figures.days is None:
        return []
    found = [period_of(figures.days[0], figures.unit)]
    while (following := _following(found[-1], figures.unit)) <= figures.days[1]:
        found.append(following)
    return found


def period_of(day: date, unit: Unit) -> date:
    """The first day of the period that a day lies in; weeks begin on Monday."""
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def difference_interval(before: Rate, after: Rate) -> Interval | None:
    """An interval of the difference of two rates, from their own.

    R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
    (1998), 873-890, method 10, for any two intervals: G. Y. Zou and A. Donner, "Construction of confidence limits about
    effect measures", Statistics in Medicine 27 (2008), 1693-1702. The two rates are taken for independent.
    """
    if before.share is None or after.share is None or before.interval is None or after.interval is None:
        return None
    difference = after.share - before.share
    low = math.hypot(after.share - after.interval.low, before.interval.high - before.share)
    high = math.hypot(after.interval.high - after.share, before.share - before.interval.low)
    return Interval(max(-1.0, difference - low), min(1.0, difference + high))


def _cluster_sums(successes: str) -> str:
    n, x = f"({_LABELLED})", f"({successes})"
    products = ("1", n, x, f"{n} * {n}", f"{x} * {x}", f"{n} * {x}")
    return ", ".join(f"coalesce(sum({product}) FILTER ({n} > 0), 0)" for product in products)


def _checked(tables: Tables, by: Sequence[str] | None) -> tuple[str, ...]:
    keys = tuple(tables.keys[:2] if by is None else by)
    if len(keys) > 2 or set(keys) - set(tables.keys) or len(set(keys)) < len(keys):
        raise ConfigError("--by", f"one or two of the keys {list(tables.keys)}", list(keys), "See maskdet inspect.")
    return keys


def _unit(days: tuple[date, date] | None) -> Unit:
    span = 0 if days is None else (days[1] - days[0]).days + 1
    return "day" if span <= _MOST_DAYS else "week" if span <= _MOST_WEEK_DAYS else "month"


def _following(period: date, unit: Unit) -> date:
    if unit == "month":
        return (period + timedelta(days=31)).replace(day=1)
    return period + timedelta(days=7 if unit == "week" else 1)


def _split(groups: Iterable[Group]) -> dict[Any, list[Group]]:
    """Groups by the first of their values, which they lose."""
    found = defaultdict(list)
    for one in groups:
        found[one.values[0]].append(Group(one.values[1:], one.counts, one.rate, one.worn, one.clusters))
    return dict(found)


def _bins(tables: Tables, selection: Selection) -> dict[str, list[int]]:
    condition, values = tables.condition(selection)
    query = (
        f"SELECT label, CAST(least(floor(({WORN}) * {BINS}), {BINS - 1}) AS INTEGER) AS bin, count(*) FROM faces "
        f"WHERE {condition} GROUP BY ALL"
    )
    found = {label: [0] * BINS for label in LABELS}
    for label, place, faces in tables.rows(query, values):
        found[label][place] = faces
    return found


def _bounds(total: Group) -> dict[str, Bound]:
    counts = total.counts
    unknown = {
        "uncertain": counts.faces_uncertain,
        "no_face": counts.images_no_face,
        "failed": counts.images_failed,
        "all": counts.faces_uncertain + counts.images_no_face + counts.images_failed,
    }
    return {
        name: Bound(number, ignorance_bounds(total.rate.successes, total.rate.faces, number))
        for name, number in unknown.items()
    }


def _failures(tables: Tables, selection: Selection) -> dict[str, int]:
    condition, values = tables.condition(selection, faces=False)
    query = f"SELECT code, count(*) AS images FROM failed WHERE {condition} GROUP BY code ORDER BY images DESC, code"
    return dict(tables.rows(query, values))


def _compare(cells: _Cells, by: Sequence[str], days: tuple[date, date]) -> Comparison | None:
    """The last seven days and the seven before; of a shorter data set, the last two days."""
    span = (days[1] - days[0]).days + 1
    if span < 2:
        return None
    length = timedelta(days=7 if span > 7 else 1)
    one = timedelta(days=1)
    after = (days[1] - length + one, days[1])
    before = (after[0] - length, after[0] - one)
    found = {}
    for keys in ((), tuple(by)):
        sides = [
            {group.values: group for group in cells.groups(keys, "day BETWEEN ? AND ?", period)}
            for period in (before, after)
        ]
        values = sorted(set(sides[0]) & set(sides[1]), key=lambda value: [(part is None, part or "") for part in value])
        found[keys] = [_change(value, sides[0][value], sides[1][value]) for value in values]
    return Comparison(before, after, found[()][0], found[tuple(by)] if by else [])


def _change(values: tuple[Any, ...], before: Group, after: Group) -> Change:
    known = before.rate.share is not None and after.rate.share is not None
    difference = (after.rate.share or 0.0) - (before.rate.share or 0.0) if known else None
    return Change(values, before, after, difference, difference_interval(before.rate, after.rate))


def _silent(tables: Tables, last: date) -> list[tuple[Any, ...]]:
    if not tables.keys:
        return []
    keys = ", ".join(quoted(key) for key in tables.keys)
    query = f"SELECT {keys} FROM cells WHERE day IS NOT NULL GROUP BY {keys} HAVING max(day) < ? ORDER BY ALL"
    return tables.rows(query, [last])
