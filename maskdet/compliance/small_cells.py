"""Small groups are hidden, and others with them, so that no hidden number follows from the published ones.

Numbers about a few faces may reveal one person. A group is hidden whole if one of its counts is small. Levels add up to
each other (the days of a site to the site), so one hidden group among published ones would be found by subtraction:
others are hidden along with it (*complementary suppression*), until every small count could be any of several numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.compliance.state import Counts, GroupKey

COUNTED = ("images_scored", "images_no_face", "faces_mask", "faces_incorrect", "faces_no_mask", "faces_uncertain")
"""Counts that may reveal people. Failed images show nobody."""
MOST_CHECKED_BY_RANGE = 150
"""Most connected hidden groups for which the range of each is computed; beyond it, only whether each is determined."""
_OF_DATE: Mapping[str, Callable[[date], str]] = {
    "week": lambda day: f"{day.isocalendar().year:04d}-W{day.isocalendar().week:02d}",
    "month": lambda day: f"{day.year:04d}-{day.month:02d}",
    "weekday": lambda day: str(day.isoweekday()),
}


class Relation(NamedTuple):
    """A group and the groups of a finer level that add up to it."""

    whole: GroupKey
    parts: tuple[GroupKey, ...]

    @property
    def members(self) -> tuple[GroupKey, ...]:
        """All of them."""
        return (self.whole, *self.parts)


class _Unknown(NamedTuple):
    """Hidden groups that are connected by sums, and what is known of the sums: matrix times numbers = sums."""

    groups: list[GroupKey]
    matrix: NDArray[np.float64]
    relations: list[Relation]


def hide_groups(
    groups: Mapping[GroupKey, Counts], levels: Mapping[str, Sequence[str]], least: int
) -> frozenset[GroupKey]:
    """The groups to hide so that no count from 1 to ``least - 1`` is published or follows from what is.

    Hidden from the start are groups with such a count, faces in all included. Then, until nothing changes:

    - of a group and its parts, no single one may be hidden alone;
    - the sum of the hidden parts of a published group must not be small either;
    - no small number may follow from the others, by any combination of sums: its range, given that counts are not
      negative, has to be at least as wide as the number.

    Args:
        groups: counts of every group of every level.
        levels: level → its keys.
        least: smallest count other than 0 that may be published.
    """
    relations = find_relations(groups, levels)
    hidden = {key for key, counts in groups.items() if _is_small(_numbers(counts), least)}
    while True:
        more = _by_relation(groups, relations, hidden, least) or _by_range(groups, relations, hidden, least)
        if not more:
            return frozenset(hidden)
        hidden |= more


def find_relations(groups: Iterable[GroupKey], levels: Mapping[str, Sequence[str]]) -> list[Relation]:
    """Which groups add up to which: every level to each whose keys follow from its own."""
    by_level: dict[str, list[GroupKey]] = {}
    for key in groups:
        by_level.setdefault(key.level, []).append(key)
    found = []
    for coarse, names in levels.items():
        for fine, finer in levels.items():
            if coarse == fine or not set(names) <= _known(finer) or (set(names) == set(finer) and coarse > fine):
                continue
            parts: dict[GroupKey, list[GroupKey]] = {}
            for key in sorted(by_level.get(fine, []), key=GroupKey.encode):
                parts.setdefault(GroupKey(coarse, _project(key, finer, names)), []).append(key)
            found += [Relation(whole, tuple(some)) for whole, some in parts.items()]
    # The tightest first: what is hidden because of them often serves the wider ones too.
    return sorted(found, key=lambda relation: (len(relation.parts), [key.encode() for key in relation.members]))


def _known(names: Sequence[str]) -> set[str]:
    return {*names, *(_OF_DATE if "date" in names else ())}


def _project(key: GroupKey, finer: Sequence[str], names: Sequence[str]) -> tuple[str | None, ...]:
    values = dict(zip(finer, key.values, strict=True))
    day = values.get("date")
    derived = {name: None if day is None else of(date.fromisoformat(day)) for name, of in _OF_DATE.items()}
    return tuple(values[name] if name in values else derived[name] for name in names)


def _numbers(counts: Counts) -> NDArray[np.int64]:
    return np.array([getattr(counts, name) for name in COUNTED] + [counts.faces])


def _sum(groups: Mapping[GroupKey, Counts], keys: Sequence[GroupKey]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = np.sum([_numbers(groups[key]) for key in keys], axis=0)
    return total


def _is_small(numbers: NDArray[np.int64], least: int) -> bool:
    return bool(np.any((numbers > 0) & (numbers < least)))


def _by_relation(
    groups: Mapping[GroupKey, Counts], relations: Sequence[Relation], hidden: set[GroupKey], least: int
) -> set[GroupKey]:
    """Groups to hide because a relation has only one hidden group, or because its hidden parts add up to little."""
    more: set[GroupKey] = set()
    for relation in relations:
        unseen = [key for key in relation.members if key in hidden or key in more]
        parts = [key for key in unseen if key != relation.whole]
        alone = len(unseen) == 1
        little = len(parts) == len(unseen) > 0 and _is_small(_sum(groups, parts), least)
        if alone or little:
            more |= _smallest_open(groups, relation, hidden | more)
    return more


def _smallest_open(groups: Mapping[GroupKey, Counts], relation: Relation, hidden: set[GroupKey]) -> set[GroupKey]:
    """The published part with the fewest faces; the whole where all parts are hidden."""
    parts = [key for key in relation.parts if key not in hidden and groups[key].faces]
    parts = parts or [key for key in relation.parts if key not in hidden]
    if parts:
        return {min(parts, key=lambda key: (groups[key].faces, key.encode()))}
    return {relation.whole} - hidden


def _by_range(
    groups: Mapping[GroupKey, Counts], relations: Sequence[Relation], hidden: set[GroupKey], least: int
) -> set[GroupKey]:
    """Groups to hide because a small number follows from the published ones, or nearly."""
    more: set[GroupKey] = set()
    for unknown in _components(relations, hidden):
        numbers = np.array([_numbers(groups[key]) for key in unknown.groups])
        ranges = len(unknown.groups) <= MOST_CHECKED_BY_RANGE
        for place in _exposed(unknown.matrix, numbers, least, ranges=ranges):
            tied = [relation for relation in unknown.relations if unknown.groups[place] in relation.members]
            found = (_smallest_open(groups, relation, hidden | more) for relation in tied)
            more |= next((some for some in found if some), set())
    return more


def _components(relations: Sequence[Relation], hidden: set[GroupKey]) -> list[_Unknown]:
    """Hidden groups, grouped by the relations that connect them."""
    tied: dict[GroupKey, list[Relation]] = {key: [] for key in hidden}
    for relation in relations:
        for key in relation.members:
            if key in hidden:
                tied[key].append(relation)
    found, seen = [], set[GroupKey]()
    for start in sorted(hidden, key=GroupKey.encode):
        if start in seen:
            continue
        members, todo, own = [], [start], dict[Relation, None]()
        seen.add(start)
        while todo:
            key = todo.pop()
            members.append(key)
            for relation in tied[key]:
                own.setdefault(relation)
                new = [other for other in relation.members if other in hidden and other not in seen]
                seen.update(new)
                todo += new
        found.append(_Unknown(members, _matrix(members, list(own)), list(own)))
    return found


def _matrix(members: Sequence[GroupKey], relations: Sequence[Relation]) -> NDArray[np.float64]:
    places = {key: place for place, key in enumerate(members)}
    matrix = np.zeros((len(relations), len(members)))
    for row, relation in enumerate(relations):
        for key in relation.parts:
            if key in places:
                matrix[row, places[key]] += 1
        if relation.whole in places:
            matrix[row, places[relation.whole]] -= 1
    return matrix


def determined(matrix: NDArray[np.float64]) -> list[int]:
    """Unknowns that a system of sums determines: those that no solution of the homogeneous system changes."""
    if not matrix.size:
        return []
    _, sizes, vectors = np.linalg.svd(matrix, full_matrices=True)
    rank = int(np.sum(sizes > 1e-9))
    free = vectors[rank:]
    return np.flatnonzero(np.all(np.abs(free) < 1e-9, axis=0)).tolist() if len(free) else list(range(matrix.shape[1]))


def _exposed(matrix: NDArray[np.float64], numbers: NDArray[np.int64], least: int, *, ranges: bool) -> list[int]:
    """Unknowns whose small count is determined, or can only lie in a range narrower than itself."""
    if not matrix.size:
        return []
    known, exposed = determined(matrix), set[int]()
    for column in numbers.T:
        for place in np.flatnonzero((column > 0) & (column < least)).tolist():
            if place in exposed:
                continue
            low, high = feasible_range(matrix, column, place) if ranges else (0.0, np.inf)
            if place in known or high - low < column[place] - 1e-6:
                exposed.add(place)
    return sorted(exposed)


def feasible_range(matrix: NDArray[np.float64], numbers: NDArray[np.int64], place: int) -> tuple[float, float]:
    """The limits between which one of several numbers must lie, given sums of them and that none is negative.

    Args:
        matrix: which numbers each sum adds up, ``(sums, numbers)``.
        numbers: the actual numbers, ``(numbers,)``; only their sums are used.
        place: which number.
    """
    from scipy.optimize import linprog

    cost = np.zeros(len(numbers))
    cost[place] = 1
    ends = []
    for sign in (1, -1):
        found = linprog(sign * cost, A_eq=matrix, b_eq=matrix @ numbers, bounds=(0, None), method="highs")
        ends.append(float(sign * found.fun) if found.status == 0 else sign * -np.inf)
    return ends[0], ends[1]


def is_small(count: int, least: int) -> bool:
    """Whether a count must not be shown: it is not 0, and smaller than the least."""
    return 0 < count < least


def round_count(count: int, base: int) -> int:
    """A count rounded to the nearest multiple of a base, halves up."""
    return base * ((2 * count + base) // (2 * base))


def round_counts(counts: Counts, base: int) -> Counts:
    """Counts rounded to the nearest multiples of a base, halves up."""
    return Counts(*(round_count(count, base) for count in counts))
