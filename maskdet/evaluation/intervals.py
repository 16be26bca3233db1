"""Metrics with confidence intervals: Wilson's for shares of faces, a seeded stratified bootstrap for the rest.

Where all resamples are alike, as without a mistake, F1 and rankings have an interval by a formula instead
(:mod:`maskdet.evaluation.alike`).

Wilson's interval assumes independent faces. Where groups are given (persons, source photos), they are not independent:
shares then get the wider ends of Wilson's interval and a bootstrap over groups, so that a share of 1.0 keeps a lower
end.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.compliance.intervals import Interval, wilson_interval
from maskdet.evaluation import metrics
from maskdet.evaluation.alike import GOUTTE_GAUSSIER, NEWCOMBE, auc_interval, f1_interval, share_interval
from maskdet.evaluation.metrics import Floats, Metric, Proportion, Sample, Tally

# Counts of all resamples at once would be (resamples, values), and a float model has as many values as images.
_CELLS_AT_ONCE = 2_000_000

PROPORTIONS: dict[str, Proportion] = {
    "accuracy": metrics.accuracy,
    "decided_accuracy": metrics.decided_accuracy,
    "coverage": metrics.coverage,
    "sensitivity": metrics.sensitivity,
    "specificity": metrics.specificity,
    "precision": metrics.precision,
}
SCORES: dict[str, Metric] = {
    "f1": metrics.f1,
    "roc_auc": metrics.roc_auc,
    "average_precision": metrics.average_precision,
    "brier": metrics.brier,
    "log_loss": metrics.log_loss,
}
DESCRIPTIONS = {
    "accuracy": "faces labelled right, of all",
    "balanced_accuracy": "mean of sensitivity and specificity",
    "sensitivity": "masked faces labelled mask (recall)",
    "specificity": "unmasked faces labelled no_mask",
    "precision": "masked faces among those labelled mask",
    "f1": "harmonic mean of precision and sensitivity",
    "coverage": "faces not labelled uncertain",
    "decided_accuracy": "right among those not uncertain",
    "roc_auc": "a masked face ranks above an unmasked one, ties half",
    "average_precision": "area under the precision-recall steps",
    "ece": "expected calibration error, equal-mass bins",
    "ece_equal_width": "expected calibration error, equal-width bins",
    "brier": "mean squared error of the probability",
    "log_loss": "mean negative log of the probability of the truth",
}


@dataclass(frozen=True)
class Estimate:
    """A metric and its confidence interval; ``None`` where the data do not define it."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    method: str
    count: int
    """How many faces the metric is about."""

    def widened(self, drawn: Floats, bootstrap: Bootstrap, by: str) -> Estimate:
        """The same estimate with its interval widened to that of resampling.

        Args:
            drawn: the metric in each resample.
            bootstrap: for its confidence.
            by: what was resampled, for the method's name.
        """
        if self.low is None or self.high is None:
            return self
        low, high = percentiles(drawn, bootstrap.confidence)
        method = f"{self.method}, widened by {by}"
        return replace(self, low=min(low, self.low), high=max(high, self.high), method=method)


class Bootstrap(NamedTuple):
    """How intervals are drawn."""

    confidence: float = 0.95
    resamples: int = 1000
    seed: int = 20260101
    """Seed of the generator; the same sample and seed give the same intervals."""


def estimate_all(sample: Sample, bootstrap: Bootstrap) -> list[Estimate]:
    """Every metric of a sample, in the order of :data:`DESCRIPTIONS`.

    Args:
        sample: faces with known truth; may be empty or have only one class, which leaves metrics undefined.
        bootstrap: confidence, resamples and seed.
    """
    if len(sample) == 0:
        return [Estimate(name, None, None, None, "none", 0) for name in DESCRIPTIONS]
    tally = Tally.of(sample)
    drawn = _resampled(sample, tally, _scores_of(tally), bootstrap)
    estimates = {name: _of_score(name, score, tally, drawn, bootstrap) for name, score in _scores_of(tally).items()}
    grouped = sample.groups is not None
    for name, proportion in PROPORTIONS.items():
        estimates[name] = _of_proportion(name, proportion, tally, drawn[name] if grouped else None, bootstrap)
    balanced = _of_balanced(estimates, tally, drawn["balanced_accuracy"] if grouped else None, bootstrap)
    estimates["balanced_accuracy"] = balanced
    return [estimates[name] for name in DESCRIPTIONS]


def estimate_score(name: str, score: Metric, sample: Sample, bootstrap: Bootstrap) -> Estimate:
    """One metric of a sample, with the bootstrap's interval.

    Args:
        name: what to call it.
        score: the metric.
        sample: faces of both classes.
        bootstrap: confidence, resamples and seed.
    """
    tally = Tally.of(sample)
    drawn = {name: np.concatenate([score(some) for some in draw(sample, tally, bootstrap)])}
    return _of_score(name, score, tally, drawn, bootstrap)


def wilson_estimate(metric: str, right: float, total: float, confidence: float) -> Estimate:
    """A share with Wilson's interval."""
    interval = wilson_interval(round(right), round(total), confidence)
    if interval is None:
        return Estimate(metric, None, None, None, "wilson", 0)
    return Estimate(metric, right / total, interval.low, interval.high, "wilson", round(total))


def mean_of(shares: Sequence[Estimate]) -> Interval | None:
    """Interval of the mean of independent shares, from the interval of each (square-and-add).

    Zou & Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27 (2008),
    1693-1702, after Newcombe (1998). Unlike a bootstrap it keeps its width where all shares are 1. ``None`` if one of
    them is not defined, or there is none.
    """
    known = [
        (one.value, one.low, one.high)
        for one in shares
        if one.value is not None and one.low is not None and one.high is not None
    ]
    if not shares or len(known) < len(shares):
        return None
    centre = math.fsum(value for value, _, _ in known) / len(known)
    down = math.hypot(*(value - low for value, low, _ in known)) / len(known)
    up = math.hypot(*(high - value for value, _, high in known)) / len(known)
    return Interval(max(0.0, centre - down), min(1.0, centre + up))


def _scores_of(tally: Tally) -> dict[str, Metric]:
    # Bins belong to the sample, not to each resample, so that all resamples estimate the same quantity.
    mass, width = metrics.equal_mass_bins(tally), metrics.equal_width_bins(tally)
    return {
        **SCORES,
        "ece": functools.partial(metrics.calibration_error, bins=mass),
        "ece_equal_width": functools.partial(metrics.calibration_error, bins=width),
    }


def _resampled(sample: Sample, tally: Tally, scores: Mapping[str, Metric], bootstrap: Bootstrap) -> dict[str, Floats]:
    """Each metric of each resample, ``(resamples,)``."""
    wanted: dict[str, Metric] = dict(scores)
    if sample.groups is not None:
        wanted["balanced_accuracy"] = metrics.balanced_accuracy
        wanted.update({name: functools.partial(_share_of, proportion=p) for name, p in PROPORTIONS.items()})
    found: dict[str, list[Floats]] = {name: [] for name in wanted}
    for drawn in draw(sample, tally, bootstrap):
        for name, score in wanted.items():
            found[name].append(score(drawn))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _share_of(tally: Tally, proportion: Proportion) -> Floats:
    return metrics.share(proportion(tally))


def draw(sample: Sample, tally: Tally, bootstrap: Bootstrap) -> Iterator[Tally]:
    """Tallies of resamples with replacement, counts ``(some, values)``, until there are ``bootstrap.resamples``.

    They are stratified: each resample has as many faces of each class as the sample or, with groups, as many groups of
    each kind (masked, unmasked, both). Drawing faces of a class means drawing counts from a multinomial distribution.
    """
    generator = np.random.default_rng(bootstrap.seed)
    at_once = max(1, _CELLS_AT_ONCE // len(tally.values))
    for start in range(0, bootstrap.resamples, at_once):
        size = min(at_once, bootstrap.resamples - start)
        if sample.groups is None:
            yield tally.with_counts(
                _multinomial(generator, tally.masked, size), _multinomial(generator, tally.unmasked, size)
            )
        else:
            yield _draw_groups(sample, tally, generator, size)


def _multinomial(generator: np.random.Generator, counts: Floats, size: int) -> Floats:
    total = int(counts.sum())
    if total == 0:
        return np.zeros((size, len(counts)))
    return generator.multinomial(total, counts / total, size).astype(np.float64)


def _draw_groups(sample: Sample, tally: Tally, generator: np.random.Generator, size: int) -> Tally:
    assert sample.groups is not None
    _, group = np.unique(sample.groups, return_inverse=True)
    place = np.searchsorted(tally.values, sample.probabilities)
    kinds = _group_kinds(group, sample.truth)
    masked, unmasked = np.empty((size, len(tally.values))), np.empty((size, len(tally.values)))
    for row in range(size):
        weights = np.zeros(len(kinds))
        for kind in np.unique(kinds):
            members = np.flatnonzero(kinds == kind)
            weights[members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)))
        each = weights[group]
        masked[row] = np.bincount(place, each * sample.truth, minlength=len(tally.values))
        unmasked[row] = np.bincount(place, each * ~sample.truth, minlength=len(tally.values))
    return tally.with_counts(masked, unmasked)


def _group_kinds(group: NDArray[np.intp], truth: metrics.Bools) -> NDArray[np.int64]:
    """1 for a group of masked faces, 2 for unmasked ones, 3 for both, ``(groups,)``."""
    masked = np.bincount(group, truth) > 0
    unmasked = np.bincount(group, ~truth) > 0
    return masked.astype(np.int64) + 2 * unmasked.astype(np.int64)


def _of_score(name: str, score: Metric, tally: Tally, drawn: Mapping[str, Floats], bootstrap: Bootstrap) -> Estimate:
    value = float(score(tally))
    count = round(float(tally.masked_total + tally.unmasked_total))
    if math.isnan(value):
        return Estimate(name, None, None, None, "bootstrap", count)
    low, high = percentiles(drawn[name], bootstrap.confidence)
    if low == high and (plain := _where_alike(name, value, tally, bootstrap.confidence)):
        interval, method = plain
        return Estimate(name, value, interval.low, interval.high, method, count)
    # The resamples of a biased estimate such as ECE may all be above it.
    return Estimate(name, value, min(low, value), max(high, value), "bootstrap", count)


def _where_alike(name: str, value: float, tally: Tally, confidence: float) -> tuple[Interval, str] | None:
    """Interval of a ranking's score whose resamples are all alike, and its method; ``None`` for other scores."""
    masked, unmasked = float(tally.masked_total), float(tally.unmasked_total)
    if name.startswith("roc_auc"):
        return auc_interval(value, masked, unmasked, confidence), NEWCOMBE
    if name == "f1":
        (right, _), (_, called) = metrics.sensitivity(tally), metrics.precision(tally)
        return f1_interval(float(right), masked + float(called) - 2 * float(right), confidence), GOUTTE_GAUSSIER
    if name == "average_precision" and (interval := share_interval(value, masked, confidence)):
        return interval, "wilson"
    return None


def _of_proportion(
    name: str, proportion: Proportion, tally: Tally, drawn: Floats | None, bootstrap: Bootstrap
) -> Estimate:
    right, total = proportion(tally)
    return _widened(wilson_estimate(name, float(right), float(total), bootstrap.confidence), drawn, bootstrap)


def _of_balanced(
    estimates: Mapping[str, Estimate], tally: Tally, drawn: Floats | None, bootstrap: Bootstrap
) -> Estimate:
    first, second = (
        wilson_estimate("", float(right), float(total), bootstrap.confidence)
        for right, total in (metrics.sensitivity(tally), metrics.specificity(tally))
    )
    interval, count = mean_of((first, second)), estimates["accuracy"].count
    if interval is None:
        return Estimate("balanced_accuracy", None, None, None, "wilson, square-and-add", count)
    value = float(metrics.balanced_accuracy(tally))
    plain = Estimate("balanced_accuracy", value, interval.low, interval.high, "wilson, square-and-add", count)
    return _widened(plain, drawn, bootstrap)


def _widened(estimate: Estimate, drawn: Floats | None, bootstrap: Bootstrap) -> Estimate:
    return estimate if drawn is None else estimate.widened(drawn, bootstrap, "groups")


def percentiles(drawn: Floats, confidence: float) -> tuple[float, float]:
    """The middle part of the resamples' values, ``(resamples,)``, without those that do not define the metric."""
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
