"""The figures of a report: counts, rates and intervals of a data set, of its sites and of its days.

All of them follow from cells: counts by all keys, day and hour, which are also the clusters that intervals use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from maskdet.compliance.change import difference
from maskdet.compliance.intervals import (
    ClusterSums,
    ErrorRates,
    Estimate,
    Interval,
    cluster_interval,
    corrected_interval,
    ignorance_bounds,
    melded_interval,
    wilson_interval,
)
from maskdet.compliance.state import HISTOGRAM_BINS, Counts, State, Tally
from maskdet.errors import ConfigError
from maskdet.labels import LABELS
from maskdet.report.database import COUNTED, WORN, Selection, Tables, quoted, tells_incorrect

Unit = Literal["day", "week", "month"]

BINS = HISTOGRAM_BINS

CAMERA_HOURS = "cluster-robust"
WILSON = "wilson"
TOO_FEW = "none: one cluster"

_MOST_DAYS, _MOST_WEEK_DAYS = 45, 500
_WITHIN = "day BETWEEN ? AND ?"
_LABELLED = "faces_mask + faces_incorrect + faces_no_mask"
_MEASURES = {"correct": "faces_mask", "worn": "faces_mask + faces_incorrect"}


@dataclass(frozen=True)
class Rate:
    """A share of the faces that are labelled with a class.

    Attributes:
        successes: faces in the numerator.
        faces: faces in the denominator.
        interval: of the share; ``None`` where nothing can be inferred.
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
    """What is known of a group of images: of a site, of a day, or all.

    Attributes:
        values: of the keys that the group is of.
        counts: images and faces.
        rate: the share that the report is about: masks worn correctly where the model can tell, else masks worn.
        worn: the share with any mask.
        sums: over its clusters, for the rate.
    """

    values: tuple[Any, ...]
    counts: Counts
    rate: Rate
    worn: Rate
    sums: ClusterSums


@dataclass(frozen=True)
class Change:
    """A rate now and before.

    Attributes:
        values: of the keys that it is of.
        before: the earlier period.
        after: the later one.
        difference: the later rate minus the earlier one; ``None`` if one is not known.
        interval: of the difference, as of ``maskdet diff``; ``None`` where nothing can be said.
        pairs: clusters with faces in both periods.
        method: how the interval was made.
    """

    values: tuple[Any, ...]
    before: Group
    after: Group
    difference: float | None
    interval: Interval | None
    pairs: int
    method: str


@dataclass(frozen=True)
class Comparison:
    """The last period compared with the one before.

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
    """What the rate could be, whatever is true of faces that have no label.

    Attributes:
        unknown: how many of them there are.
        interval: from none of them wearing a mask correctly to all of them.
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
        undated: images without a capture time.
        trend: a group for each period that has images, from the first to the last.
        groups: of each value of the first key.
        subgroups: value of the first key → groups of the second.
        group_trends: value of the first key → its trend.
        bins: label → faces in each of :data:`BINS` equal parts of the probability of a mask.
        bounds: name → bound.
        failures: code → images.
        corrected: the rate corrected for the model's errors; ``None`` where they are not known.
        corrections: faces whose label people gave.
        comparison: of the last two periods; ``None`` where there is only one.
        silent: cameras, by the values of all keys, that have images but none on the last day.
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
    corrected: Estimate | None
    corrections: int
    comparison: Comparison | None
    silent: list[tuple[Any, ...]]


class Cells:
    """Groups of the cells that a database holds.

    Args:
        tables: with the cells of :meth:`maskdet.report.database.Tables.make_cells`.
        confidence: nominal coverage of the intervals.
        clustered: whether faces of one cell count as alike.
        measure: ``correct`` or ``worn``: what the rate counts.
    """

    def __init__(self, tables: Tables, confidence: float, clustered: bool, measure: str) -> None:
        self.confidence = confidence
        self._tables, self._clustered, self._measure = tables, clustered, measure
        self._clusters = None if tables.cluster is None else _cluster_columns(tables)

    @classmethod
    def of(cls, tables: Tables) -> Cells:
        """The cells of tables, with their run's settings."""
        confidence = float(tables.run.settings.get("compliance", {}).get("confidence", 0.95))
        named = _cluster_columns(tables)
        used = f"SELECT count(*) FROM (SELECT DISTINCT {', '.join(named) or '1'} FROM cells WHERE {_LABELLED} > 0)"
        clustered = bool(named) and tables.rows(used)[0][0] > 1
        return cls(tables, confidence, clustered, "correct" if tells_incorrect(tables) else "worn")

    def groups(self, by: Sequence[str], where: str = "true", values: Sequence[object] = ()) -> list[Group]:
        """Groups of the cells, sorted by their values, missing values last.

        Args:
            by: SQL expressions.
            where: SQL condition.
            values: of its question marks.
        """
        names = [f"v{number}" for number in range(len(by))]
        keys = "".join(f"{expression} AS {name}, " for expression, name in zip(by, names, strict=True))
        sums = ", ".join(f"CAST(coalesce(sum({column}), 0) AS BIGINT)" for column in COUNTED)
        source = f"(SELECT {keys}* FROM cells WHERE {where})"
        if self._clusters is not None:
            # Sum over clusters first: a cluster may have many cells.
            parts = [*names, *(f"({column}) AS c{place}" for place, column in enumerate(self._clusters))]
            added = [f"sum({column}) AS {column}" for column in COUNTED]
            source = f"(SELECT {', '.join([*parts, *added])} FROM {source} GROUP BY ALL)"
        clusters = ", ".join(_cluster_sums(x) for x in _MEASURES.values())
        # A group's sums are of whole numbers, so they do not depend on the order of its cells.
        order = ", ".join(f"{name} NULLS LAST" for name in names)
        query = f"SELECT {', '.join([*names, sums])}, {clusters} FROM {source}"
        if by:
            query += f" GROUP BY {', '.join(names)} ORDER BY {order}"
        return [self._group(row, len(by)) for row in self._tables.rows(query, values)]

    def _group(self, row: tuple[Any, ...], keys: int) -> Group:
        counts = Counts(**dict(zip(COUNTED, row[keys:], strict=False)))
        numbers = [int(number) for number in row[keys + len(COUNTED) :]]
        size = len(numbers) // len(_MEASURES)
        sums = {name: ClusterSums(*numbers[place * size : (place + 1) * size]) for place, name in enumerate(_MEASURES)}
        rates = {name: self._rate(one) for name, one in sums.items()}
        return Group(row[:keys], counts, rates[self._measure], rates["worn"], sums[self._measure])

    def changes(self, by: Sequence[str], before: tuple[date, date], after: tuple[date, date]) -> list[Change]:
        """How the rates differ between two periods, for each group that occurs in both.

        Args:
            by: SQL expressions.
            before: first and last day of the earlier period.
            after: of the later one.
        """
        sides = [{group.values: group for group in self.groups(by, _WITHIN, period)} for period in (before, after)]
        states = [self._clusters_of(by, period) for period in (before, after)]
        rate = {"correct": "correct_rate", "worn": "any_mask_rate"}[self._measure]
        clustered, changes = bool(_cluster_columns(self._tables, of_day=False)), []
        for values in sorted(set(sides[0]) & set(sides[1]), key=_with_missing_last):
            first, second = (side.get(values, State()) for side in states)
            found = difference(first, second, rate, self.confidence, clustered=clustered, with_p=False)
            interval = found.interval if clustered else found.naive
            ends = (found.difference, interval, found.pairs, found.method)
            changes.append(Change(values, sides[0][values], sides[1][values], *ends))
        return changes

    def _clusters_of(self, by: Sequence[str], period: tuple[date, date]) -> dict[tuple[Any, ...], State]:
        """Labelled faces of each group of a period by cluster.

        Days count together: a camera at an hour of the day is one cluster in both periods.
        """
        named = _cluster_columns(self._tables, of_day=False)
        counts = ", ".join(f"CAST(sum({number}) AS BIGINT)" for number in (_LABELLED, *reversed(_MEASURES.values())))
        columns = ", ".join([*by, *named, counts])
        rows = self._tables.rows(
            f"SELECT {columns} FROM cells WHERE {_WITHIN} GROUP BY ALL HAVING sum({_LABELLED}) > 0", period
        )
        found: dict[tuple[Any, ...], dict[str, Tally]] = defaultdict(dict)
        for row in rows:
            values, cluster, numbers = row[: len(by)], row[len(by) : -3], row[-3:]
            found[values][repr(cluster)] = Tally(*(int(number) for number in numbers))
        # Sorted, because sums of floats depend on their order.
        return {values: State(clusters=dict(sorted(clusters.items()))) for values, clusters in found.items()}

    def corrected(self, errors: ErrorRates, sums: ClusterSums) -> Estimate | None:
        """A rate corrected for the model's errors."""
        if self._clustered:
            return melded_interval(sums, errors, self.confidence)
        return corrected_interval(sums.successes, sums.trials, errors, self.confidence)

    def _rate(self, sums: ClusterSums) -> Rate:
        if not self._clustered:
            interval = wilson_interval(sums.successes, sums.trials, self.confidence)
            return Rate(sums.successes, sums.trials, interval, WILSON)
        interval = cluster_interval(sums, self.confidence)
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
    cells = Cells.of(tables)
    first, last = tables.rows("SELECT min(day), max(day) FROM cells")[0]
    days = None if first is None else (first, last)
    unit = _unit(days)
    period = f"CAST(date_trunc('{unit}', day) AS DATE)"
    names = [quoted(key) for key in keys]
    (total,) = cells.groups([])
    return Figures(
        confidence=cells.confidence,
        tells_incorrect=tells_incorrect(tables),
        keys=keys,
        unit=unit,
        days=days,
        total=total,
        undated=cells.groups([], "day IS NULL")[0].counts,
        trend=cells.groups([period], "day IS NOT NULL"),
        groups=cells.groups(names[:1]) if keys else [],
        subgroups=_split(cells.groups(names)) if len(keys) > 1 else {},
        group_trends=_split(cells.groups([names[0], period], "day IS NOT NULL")) if keys else {},
        bins=read_bins(tables, selection),
        bounds=_bounds(total),
        failures=_failures(tables, selection),
        corrected=_freed_of_errors(tables, selection, cells, total),
        corrections=tables.corrections,
        comparison=None if days is None else _compare(cells, names[:1], days),
        silent=[] if days is None else _silent(tables, days[1]),
    )


def periods(figures: Figures) -> list[date]:
    """The first days of all periods of the trend, including periods without images."""
    if figures.days is None:
        return []
    found = [period_of(figures.days[0], figures.unit)]
    while (following := _following(found[-1], figures.unit)) <= figures.days[1]:
        found.append(following)
    return found


def period_of(day: date, unit: Unit) -> date:
    """The first day of the period that contains a day; weeks begin on Monday."""
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def _cluster_columns(tables: Tables, *, of_day: bool = True) -> list[str]:
    """What all faces of a cluster share, as SQL over the cells.

    Args:
        tables: whose cells.
        of_day: whether faces of different days belong to different clusters; in comparisons they do not.
    """
    known = {"date": "day", "hour": "hour_of_day", "weekday": "isodow(day)"}
    known |= {unit: f"date_trunc('{unit}', day)" for unit in ("week", "month")}
    names = [*tables.keys, "date", "hour"] if tables.cluster is None else tables.cluster
    return [known[name] if name in known else quoted(name) for name in names if of_day or name != "date"]


def _with_missing_last(values: Sequence[Any]) -> list[tuple[bool, Any]]:
    return [(part is None, part or "") for part in values]


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
    """Groups by their first value, which is removed from them."""
    found = defaultdict(list)
    for one in groups:
        found[one.values[0]].append(Group(one.values[1:], one.counts, one.rate, one.worn, one.sums))
    return dict(found)


def read_bins(tables: Tables, selection: Selection) -> dict[str, list[int]]:
    """Faces of each label in each of :data:`BINS` equal parts of the probability of a mask."""
    condition, values = tables.condition(selection)
    place = f"CAST(greatest(0, least(floor(({WORN}) * {BINS}), {BINS - 1})) AS INTEGER)"
    query = f"SELECT label, {place} AS bin, count(*) FROM faces WHERE {condition} GROUP BY ALL"
    found = {label: [0] * BINS for label in LABELS}
    for label, bin_number, faces in tables.rows(query, values):
        if label in found:  # boxes that people say hold no face are not counted
            found[label][bin_number] = faces
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


def _freed_of_errors(tables: Tables, selection: Selection, cells: Cells, total: Group) -> Estimate | None:
    """The rate corrected for the model's errors, known of its own labels: not of people's, nor of another model's."""
    errors = tables.run.errors.of("correct_rate" if tells_incorrect(tables) else "any_mask_rate")
    if errors is None or tables.corrections or not total.rate.faces or earlier_models(tables, selection):
        return None
    return cells.corrected(errors, total.sums)


def earlier_models(tables: Tables, selection: Selection) -> list[tuple[str, int]]:
    """Models other than the last run's that faces of a selection are of, and how many; most faces first."""
    latest = str(tables.run.model.get("id", ""))
    if set(tables.run.faces_by_model) == {latest}:
        return []
    where, values = tables.condition(selection)
    counted = f"SELECT model_id, count(*) FROM faces WHERE {where} AND model_id <> ? GROUP BY 1 ORDER BY 2 DESC, 1"
    return [(str(model), int(faces)) for model, faces in tables.rows(counted, [*values, latest])]


def _failures(tables: Tables, selection: Selection) -> dict[str, int]:
    condition, values = tables.condition(selection, faces=False)
    images = f"CAST({tables.failed_images} AS BIGINT) AS images"
    query = f"SELECT code, {images} FROM failed WHERE {condition} GROUP BY code ORDER BY images DESC, code"
    return dict(tables.rows(query, values))


def _compare(cells: Cells, by: Sequence[str], days: tuple[date, date]) -> Comparison | None:
    """The last seven days and the seven before; in a shorter data set, the last two days."""
    span = (days[1] - days[0]).days + 1
    if span < 2:
        return None
    length = timedelta(days=7 if span > 7 else 1)
    one = timedelta(days=1)
    after = (days[1] - length + one, days[1])
    before = (after[0] - length, after[0] - one)
    (total,) = cells.changes((), before, after)
    return Comparison(before, after, total, cells.changes(by, before, after) if by else [])


def _silent(tables: Tables, last: date) -> list[tuple[Any, ...]]:
    if not tables.keys:
        return []
    keys = ", ".join(quoted(key) for key in tables.keys)
    query = f"SELECT {keys} FROM cells WHERE day IS NOT NULL GROUP BY {keys} HAVING max(day) < ? ORDER BY ALL"
    return tables.rows(query, [last])
