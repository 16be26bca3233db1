"""What a stratified, labelled sample says about all faces: shares, sensitivity, specificity, each with an interval.

A share is a ratio of two estimated totals: faces that count, and all faces (a box may hold none). The model's
probabilities of *all* faces make the first more precise, as in prediction-powered inference: A. N. Angelopoulos, J. C.
Duchi and T. Zrnic, "PPI++", 2023 (arXiv 2311.01453), by strata as in A. Fisch et al., "Stratified prediction-powered
inference", 2024 (arXiv 2406.04291). For a finite population that is the difference estimator of survey sampling with
its best weight: C.-E. Särndal, B. Swensson and J. Wretman, Model Assisted Survey Sampling (1992), chapter 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskdet.compliance.intervals import Interval, student_quantile, wilson_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StratumSample:
    """The labelled faces of a stratum.

    Attributes:
        faces: how many the stratum has, labelled or not.
        score_total: the sum of the model's score over all of them.
        counts: whether a labelled face is in the numerator, 0 or 1, ``(labelled,)``.
        within: whether it is in the denominator, 0 or 1, ``(labelled,)``.
        scores: its score, ``(labelled,)``.
    """

    faces: int
    score_total: float
    counts: Floats
    within: Floats
    scores: Floats

    @property
    def labelled(self) -> int:
        """How many faces have a label."""
        return len(self.counts)


@dataclass(frozen=True)
class SampledShare:
    """A share of all faces, as estimated from a sample.

    Attributes:
        share: the estimate.
        interval: Wilson's, of the effective number of faces, with Student's t.
        labelled: labelled faces in the share's denominator.
        weight: how far the model's scores were relied on, 0 to 1.
    """

    share: float
    interval: Interval
    labelled: int
    weight: float


def sampled_share(
    strata: Sequence[StratumSample], confidence: float, *, use_scores: bool = True
) -> SampledShare | None:
    """A share of all faces of some strata.

    Args:
        strata: each with at least one labelled face.
        confidence: nominal coverage.
        use_scores: whether to use the model's scores to make the estimate more precise.

    Returns:
        ``None`` if no labelled face is in the share's denominator.
    """
    strata = [stratum for stratum in strata if stratum.labelled]
    labelled = int(sum(stratum.within.sum() for stratum in strata))
    if labelled == 0:
        return None
    of = sum(one.faces * one.within.mean() for one in strata)
    hits = sum(one.faces * (one.counts * one.within).mean() for one in strata)
    surplus = sum(one.score_total - one.faces * one.scores.mean() for one in strata)
    weight, share = 0.0, hits / of
    for _ in range(3 if use_scores else 0):  # the weight depends on the share, but only a little
        weight = _best_weight(strata, share)
        share = min(1.0, max(0.0, (hits + weight * surplus) / of))
    variance = sum(_variance(one, share, weight) for one in strata) / of**2
    effective = share * (1 - share) / variance if variance > 0 and 0 < share < 1 else float(labelled)
    effective = min(effective, float(sum(one.faces for one in strata)))
    degrees = max(1, sum(one.labelled - 1 for one in strata))
    found = wilson_interval(share * effective, effective, confidence, z=student_quantile(confidence, degrees))
    assert found is not None
    return SampledShare(share, found, labelled, weight)


def _residuals(stratum: StratumSample, share: float) -> Floats:
    return stratum.within * (stratum.counts - share)


def _scale(stratum: StratumSample) -> float:
    """The weight of a stratum's variance per face in the variance of the total; 0 where all were labelled."""
    return stratum.faces**2 * max(0.0, 1 - stratum.labelled / stratum.faces) / stratum.labelled


def _best_weight(strata: Sequence[StratumSample], share: float) -> float:
    together = apart = 0.0
    for stratum in strata:
        if stratum.labelled >= 2:
            covariance = np.cov(_residuals(stratum, share), stratum.scores, ddof=1)
            together += _scale(stratum) * float(covariance[0, 1])
            apart += _scale(stratum) * float(covariance[1, 1])
    return min(1.0, max(0.0, together / apart)) if apart > 0 else 0.0


def _variance(stratum: StratumSample, share: float, weight: float) -> float:
    """A stratum's part of the variance of the total.

    Where a stratum's labels all agree, that says little if they are few: by Laplace's rule, one more label that differs
    is assumed.
    """
    values, n = _residuals(stratum, share), stratum.labelled
    agree = (n + 1) / (n + 2) ** 2
    if n < 2 or np.ptp(values) == 0:
        return _scale(stratum) * agree
    return _scale(stratum) * float(np.var(values - weight * stratum.scores, ddof=1))


@dataclass(frozen=True)
class Agreement:
    """How far two people agree.

    Attributes:
        faces: how many both labelled.
        agreed: share of them with equal labels.
        kappa: Cohen's: agreement beyond chance, 1 at most; ``None`` where chance alone would always agree.
        low: lower end of its interval.
        high: upper end.
    """

    faces: int
    agreed: float
    kappa: float | None
    low: float | None
    high: float | None


def agreement(first: Sequence[str], second: Sequence[str], confidence: float) -> Agreement | None:
    """Cohen's kappa of two people's labels.

    J. Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20 (1960),
    37-46; the interval by the standard error of J. L. Fleiss, J. Cohen and B. S. Everitt, Psychological Bulletin 72
    (1969), 323-327.

    Args:
        first: labels of one person.
        second: labels of the other, of the same faces.
        confidence: nominal coverage.

    Returns:
        ``None`` without faces.
    """
    if not first:
        return None
    names = sorted({*first, *second})
    table = np.zeros((len(names), len(names)))
    for one, other in zip(first, second, strict=True):
        table[names.index(one), names.index(other)] += 1
    p = table / table.sum()
    rows, columns, observed = p.sum(axis=1), p.sum(axis=0), float(np.trace(p))
    chance = float(rows @ columns)
    if chance >= 1:
        return Agreement(len(first), observed, None, None, None)
    kappa = (observed - chance) / (1 - chance)
    diagonal = sum(p[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in range(len(names)))
    off = (
        sum(p[i, j] * (columns[i] + rows[j]) ** 2 for i in range(len(names)) for j in range(len(names)) if i != j)
        * (1 - kappa) ** 2
    )
    variance = (diagonal + off - (kappa - chance * (1 - kappa)) ** 2) / ((1 - chance) ** 2 * len(first))
    spread = student_quantile(confidence, 10**9) * math.sqrt(max(0.0, variance))
    return Agreement(len(first), observed, kappa, max(-1.0, kappa - spread), min(1.0, kappa + spread))
