"""What is known of a group: integers that add up over shards, in any order and grouping, to the run's totals.

Nothing here is a float: probabilities are summed in fixed point, so that a sum is the same to the last bit in any
order. Rates and intervals are computed once, from the sums.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from maskdet.compliance.intervals import ClusterSums

FIXED_POINT = 2**30
"""Parts of 1 that probabilities and their squares are rounded to before they are summed."""
HISTOGRAM_BINS = 20
"""Bins of equal width, 0 to 1, of the probability that there is a mask; the last holds 1 itself."""


class GroupKey(NamedTuple):
    """A group of a level: one value for each of the level's keys."""

    level: str
    values: tuple[str | None, ...]

    def encode(self) -> str:
        """A string that orders and compares as the key does, on every runner."""
        return json.dumps(self, ensure_ascii=True)

    @classmethod
    def decode(cls, text: str) -> GroupKey:
        """The key that :meth:`encode` turned into a string."""
        level, values = json.loads(text)
        return cls(level, tuple(values))


class Counts(NamedTuple):
    """What is counted in a group, with people's labels in place of the model's where they gave any."""

    images_scored: int = 0
    images_no_face: int = 0
    images_failed: int = 0
    faces_mask: int = 0
    faces_no_mask: int = 0
    faces_uncertain: int = 0
    faces_incorrect: int = 0
    faces_corrected: int = 0
    """Faces whose label people gave; also counted above, except for boxes that hold no face."""

    @property
    def images_listed(self) -> int:
        """Images of the group, however they ended."""
        return self.images_scored + self.images_no_face + self.images_failed

    @property
    def faces(self) -> int:
        """Faces scored."""
        return self.faces_labelled + self.faces_uncertain

    @property
    def faces_labelled(self) -> int:
        """Faces whose label is a class: the denominator of rates."""
        return self.faces_mask + self.faces_incorrect + self.faces_no_mask

    @property
    def faces_any_mask(self) -> int:
        """Faces with a mask, worn correctly or not."""
        return self.faces_mask + self.faces_incorrect


def merge_counts(counts: Iterable[Counts]) -> Counts:
    """Add up counts."""
    return Counts(*(sum(column) for column in zip(Counts(), *counts, strict=True)))


class Tally(NamedTuple):
    """Faces of a cluster that are labelled with a class, and how many of them count for each rate."""

    labelled: int = 0
    any_mask: int = 0
    correct: int = 0
    labelled_by_model: int = 0
    """The same by the model's own labels, for which its errors are known."""
    any_mask_by_model: int = 0
    correct_by_model: int = 0
    of_other_models: int = 0
    """Of those by the model's own labels, faces that another model than the run's labelled."""


class Scores(NamedTuple):
    """Sums over faces of the model's probability that there is a mask, worn correctly or not."""

    faces: int = 0
    total: int = 0
    """In units of 1 / :data:`FIXED_POINT`."""
    squares: int = 0
    """The sum of the squares, in the same units."""
    histogram: tuple[int, ...] = (0,) * HISTOGRAM_BINS

    @property
    def mean(self) -> float | None:
        """Mean probability; ``None`` without faces."""
        return self.total / FIXED_POINT / self.faces if self.faces else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the probabilities, with n - 1; ``None`` with fewer than two faces."""
        n = self.faces
        if n < 2:
            return None
        # In integers up to the root: the difference of two nearly equal floats would be noise.
        scaled = n * FIXED_POINT * self.squares - self.total * self.total
        return float(max(0.0, scaled / (n * (n - 1))) ** 0.5 / FIXED_POINT)


@dataclass(frozen=True)
class State:
    """All that is known of a group.

    Attributes:
        counts: images and faces.
        scores: sums of probabilities.
        clusters: cluster → its faces; a cluster may have faces in several shards, so that squares of its numbers can
            only be taken at the end. Empty where clusters are not counted.
        first_ms: earliest capture time, in milliseconds since 1970; ``None`` where no image has one.
        last_ms: latest capture time.
    """

    counts: Counts = Counts()
    scores: Scores = Scores()
    clusters: Mapping[str, Tally] = field(default_factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None

    @property
    def by_model(self) -> Tally:
        """The sum of all clusters."""
        return Tally(*(sum(column) for column in zip(Tally(), *self.clusters.values(), strict=True)))

    def cluster_sums(self, successes: str, trials: str) -> ClusterSums:
        """What intervals need of the clusters.

        Args:
            successes: field of :class:`Tally`, such as ``"any_mask"``.
            trials: field of it, such as ``"labelled"``.
        """
        pairs = [(getattr(tally, trials), getattr(tally, successes)) for tally in self.clusters.values()]
        return ClusterSums.of([n for n, _ in pairs], [x for _, x in pairs])


class Merger:
    """Adds states up in place, so that adding one costs as much as its own size, not that of the sum so far."""

    def __init__(self) -> None:
        self._counts = Counts()
        self._scores = Scores()
        self._clusters: dict[str, Tally] = {}
        self._times: list[int] = []

    def add(self, state: State) -> Merger:
        """Add one state; returns itself."""
        self._counts = _plus(self._counts, state.counts)
        mine, other = self._scores, state.scores
        bins = tuple(a + b for a, b in zip(mine.histogram, other.histogram, strict=True))
        self._scores = Scores(mine.faces + other.faces, mine.total + other.total, mine.squares + other.squares, bins)
        for name, tally in state.clusters.items():
            known = self._clusters.get(name)
            self._clusters[name] = tally if known is None else Tally(*map(sum, zip(known, tally, strict=True)))
        times = [*self._times, *(time for time in (state.first_ms, state.last_ms) if time is not None)]
        self._times = [min(times), max(times)] if times else []
        return self

    def state(self) -> State:
        """The sum, with clusters in the order of their names, so that equal sums have equal bytes."""
        first, last = self._times or (None, None)
        return State(self._counts, self._scores, dict(sorted(self._clusters.items())), first, last)


def merge_states(states: Iterable[State]) -> State:
    """Add up states."""
    merger = Merger()
    for state in states:
        merger.add(state)
    return merger.state()


def _plus(one: Counts, other: Counts) -> Counts:
    return Counts(*map(sum, zip(one, other, strict=True)))
