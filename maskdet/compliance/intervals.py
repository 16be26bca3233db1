"""Confidence intervals of a rate: for independent faces, for clusters, for a model with errors, and from labels.

Every function takes counts or sums, which add up over shards in any order, and returns an :class:`Interval` within
[0, 1]. Which one fits:

| faces are | the model's errors are | function |
|---|---|---|
| independent | ignored | :func:`wilson_interval` |
| alike within clusters | ignored | :func:`cluster_interval` |
| independent | known by a sensitivity and a specificity | :func:`corrected_interval` |
| alike within clusters | known by a sensitivity and a specificity | :func:`melded_interval` |
| independent | measured on a labelled random part | :func:`labelled_interval` |

A *cluster* is a set of faces that are alike because of what they share: a camera and an hour, a person, a track. SciPy
takes a third of a second to import, so it is imported where a quantile is needed.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ConfigError

Floats = NDArray[np.float64]

LEAST_YOUDEN = 0.1
"""Smallest sensitivity + specificity - 1 that a rate is corrected for: below it, a model says next to nothing."""

_MELDED_DRAWS = 4096


class Interval(NamedTuple):
    """A confidence interval of a share."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A share and an interval that contains it."""

    share: float
    interval: Interval


class ClusterSums(NamedTuple):
    """Sums over clusters, from which a share's variance follows; they add up as integers do."""

    clusters: int
    trials: int
    """Sum of n, the faces of a cluster."""
    successes: int
    """Sum of x, those of them that count as positive."""
    trials_squared: int
    """Sum of n²."""
    successes_squared: int
    """Sum of x²."""
    products: int
    """Sum of n x."""

    @classmethod
    def of(cls, trials: list[int], successes: list[int]) -> ClusterSums:
        """The sums over clusters that are given one by one."""
        pairs = [(n, x) for n, x in zip(trials, successes, strict=True) if n]
        return cls(
            len(pairs),
            sum(n for n, _ in pairs),
            sum(x for _, x in pairs),
            sum(n * n for n, _ in pairs),
            sum(x * x for _, x in pairs),
            sum(n * x for n, x in pairs),
        )

    def __add__(self, other: object) -> ClusterSums:
        if not isinstance(other, ClusterSums):
            return NotImplemented
        return ClusterSums(*(one + another for one, another in zip(self, other, strict=True)))

    @property
    def effective_trials(self) -> float | None:
        """How many independent faces would carry as much information; ``None`` with fewer than two clusters.

        The variance of x/n is that of a ratio of cluster totals, by linearisation (W. G. Cochran, Sampling Techniques,
        3rd ed., 1977, section 9.7): m / (m - 1) times the sum of (x - p n)² over n². Where all faces of all clusters
        agree, there is no telling how alike a cluster's faces are; they are then taken to be identical.
        """
        m, n, x, nn, xx, nx = self
        if m < 2:
            return None
        if x in (0, n):
            return n * n / nn
        share = x / n
        variance = m / (m - 1) * (xx - 2 * share * nx + share * share * nn) / (n * n)
        # Clusters that vary less than chance would have it must not narrow the interval.
        return min(float(n), share * (1 - share) / variance) if variance > 0 else float(n)


class ErrorRates(NamedTuple):
    """How often a model was right on labelled faces that it was not trained on."""

    positives_right: int
    positives: int
    negatives_right: int
    negatives: int

    @property
    def sensitivity(self) -> float:
        """Share of the positive faces that the model calls positive."""
        return self.positives_right / self.positives

    @property
    def specificity(self) -> float:
        """Share of the negative faces that the model calls negative."""
        return self.negatives_right / self.negatives

    @property
    def youden(self) -> float:
        """Sensitivity + specificity - 1: 1 for a perfect model, 0 for one that guesses."""
        return self.sensitivity + self.specificity - 1


class LabelledSums(NamedTuple):
    """Sums over a random labelled part of some faces, and over the rest."""

    labelled: int
    truths: int
    """Labelled faces that are positive."""
    scores: float
    """Sum of the labelled faces' scores, 0 to 1."""
    scores_squared: float
    """Sum of their squares."""
    scores_of_truths: float
    """Sum of the scores of positive labelled faces."""
    others: int
    """Faces without a label."""
    other_scores: float
    other_scores_squared: float


def wilson_interval(successes: float, trials: float, confidence: float, *, z: float | None = None) -> Interval | None:
    """Wilson's score interval of a share.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209-212:
    the shares p for which the observed one lies within z standard errors sqrt(p(1 - p)/n).

    Args:
        successes: from 0 to ``trials``.
        trials: how many were counted; effective numbers need not be whole.
        confidence: nominal coverage, 0 to 1 (exclusive).
        z: standard errors on either side; default: those of a normal distribution.

    Returns:
        The interval within [0, 1], or ``None`` without trials.
    """
    if trials == 0:
        return None
    z = _normal_quantile(confidence) if z is None else z
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # The ends are exact at 0 and 1; rounding may carry them just outside.
    low = 0.0 if successes == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if successes == trials else min(1.0, (centre + spread) / scale)
    return Interval(low, high)


def cluster_interval(sums: ClusterSums, confidence: float) -> Interval | None:
    """An interval of a share whose faces come in clusters: Wilson's, for effective numbers, with Student's t.

    Effective numbers as in E. L. Korn and B. I. Graubard, "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data", Survey Methodology 24 (1998), 193-201; t has one degree of
    freedom fewer than there are clusters.

    Returns:
        ``None`` with fewer than two clusters, from which nothing can be inferred.
    """
    effective = sums.effective_trials
    if effective is None:
        return None
    share = sums.successes / sums.trials
    return wilson_interval(share * effective, effective, confidence, z=_t_quantile(confidence, sums.clusters - 1))


def paired_difference_interval(
    clusters: int, faces: int, difference: int, squares: tuple[int, int, int], confidence: float
) -> Interval | None:
    """An interval of a difference of two shares of the same faces, which come in clusters.

    The difference is a ratio of sums over clusters, d faces more of n: W. G. Cochran, "Sampling Techniques", third
    edition (1977), equation 2.46 with m - 1 for the variance, and Student's t with m - 1 degrees of freedom.

    Args:
        clusters: m, how many there are.
        faces: sum of n.
        difference: sum of d, the faces that count after less those that did before.
        squares: sums of n squared, d squared, and n times d.
        confidence: nominal coverage.

    Returns:
        ``None`` with fewer than two clusters, from which nothing can be inferred.
    """
    if clusters < 2:
        return None
    share = difference / faces
    nn, dd, nd = squares
    scatter = max(0.0, dd - 2 * share * nd + share * share * nn)
    half = _t_quantile(confidence, clusters - 1) * math.sqrt(clusters / (clusters - 1) * scatter) / faces
    return Interval(max(-1.0, share - half), min(1.0, share + half))


def correct_share(share: float, errors: ErrorRates) -> float:
    """A share corrected for the model's errors, within [0, 1].

    W. J. Rogan and B. Gladen, "Estimating prevalence from the results of a screening test", American Journal of
    Epidemiology 107 (1978), 71-76: (p + Sp - 1) / (Se + Sp - 1).

    Raises:
        ConfigError: the model says too little; see :data:`LEAST_YOUDEN`.
    """
    _refuse_guessing(errors)
    return _clip((share + errors.specificity - 1) / errors.youden)


def corrected_interval(successes: int, trials: int, errors: ErrorRates, confidence: float) -> Estimate | None:
    """The Rogan-Gladen estimate of a share of independent faces, with the interval of Lang and Reiczigel.

    Z. Lang and J. Reiczigel, "Confidence limits for prevalence of disease adjusted for estimated sensitivity and
    specificity", Preventive Veterinary Medicine 113 (2014), 13-22, equations 8 to 12: each of the three shares is
    moved towards a half, and the centre by a term for the skewness of a ratio.

    Args:
        successes: faces that the model calls positive.
        trials: faces that it labels.
        errors: counted on other faces.
        confidence: nominal coverage.

    Returns:
        ``None`` without trials.

    Raises:
        ConfigError: the model says too little; see :data:`LEAST_YOUDEN`.
    """
    _refuse_guessing(errors)
    if trials == 0:
        return None
    z = _normal_quantile(confidence)
    share = (successes + z * z / 2) / (trials + z * z)
    sensitivity = (errors.positives_right + 1) / (errors.positives + 2)
    specificity = (errors.negatives_right + 1) / (errors.negatives + 2)
    youden = sensitivity + specificity - 1
    middle = (share + specificity - 1) / youden
    of_share = share * (1 - share) / (trials + z * z)
    of_sensitivity = sensitivity * (1 - sensitivity) / (errors.positives + 2)
    of_specificity = specificity * (1 - specificity) / (errors.negatives + 2)
    shift = 2 * z * z * (middle * of_sensitivity - (1 - middle) * of_specificity)
    spread = z * math.sqrt(of_share + middle**2 * of_sensitivity + (1 - middle) ** 2 * of_specificity) / youden
    interval = Interval(_clip(middle + shift - spread), _clip(middle + shift + spread))
    return _within(correct_share(successes / trials, errors), interval)


def melded_interval(sums: ClusterSums, errors: ErrorRates, confidence: float) -> Estimate | None:
    """A share of clustered faces, corrected for the model's errors: a melded interval.

    D. M. Bayer, M. P. Fay and B. I. Graubard, "Confidence intervals for prevalence estimates from complex surveys with
    imperfect assays", Statistics in Medicine 42 (2023), 1822-1867: the confidence distributions of the three shares
    (beta; of the apparent one with Korn and Graubard's effective numbers) are carried through the Rogan-Gladen formula,
    those for the lower end apart from those for the upper. The mid-p form is used (each distribution the mean of its
    two one-sided ones), whose coverage is nearer to the nominal one. The draws are a fixed lattice, not random, so that
    equal counts give equal intervals.

    Returns:
        ``None`` with fewer than two clusters.

    Raises:
        ConfigError: the model says too little; see :data:`LEAST_YOUDEN`.
    """
    _refuse_guessing(errors)
    effective = sums.effective_trials
    if effective is None:
        return None
    share = sums.successes / sums.trials
    degrees = sums.clusters - 1
    trials = effective * (_normal_quantile(confidence) / _t_quantile(confidence, degrees)) ** 2
    apparent = _mid_distribution(share * trials, trials, 0)
    sensitivity, specificity = _error_distributions(errors)
    youden = np.maximum(sensitivity + specificity - 1, 1e-9)
    drawn = np.clip((apparent + specificity - 1) / youden, 0.0, 1.0)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return _within(correct_share(share, errors), Interval(float(low), float(high)))


def labelled_interval(sums: LabelledSums, confidence: float) -> Estimate | None:
    """A share estimated from all scores and a random labelled part: prediction-powered inference.

    A. N. Angelopoulos, J. C. Duchi and T. Zrnic, "PPI++: efficient prediction-powered inference", 2023 (arXiv
    2311.01453), for a mean: the labelled mean, plus λ times what the scores' mean differs between all and the labelled,
    with the λ that gives the least variance. In large samples it is never wider than the labels' own interval.
    Student's t with one degree of freedom fewer than there are labels.

    Returns:
        ``None`` below two labels, or without other faces.
    """
    n, others = sums.labelled, sums.others
    if n < 2 or others < 2:
        return None
    mean, score, other_score = sums.truths / n, sums.scores / n, sums.other_scores / others
    of_truth = n / (n - 1) * mean * (1 - mean)
    of_score = (sums.scores_squared - n * score**2) / (n - 1)
    of_others = max(0.0, (sums.other_scores_squared - others * other_score**2) / (others - 1))
    together = (sums.scores_of_truths - n * score * mean) / (n - 1)
    pooled = (max(0.0, of_score) * (n - 1) + of_others * (others - 1)) / (n + others - 2)
    weight = min(1.0, max(0.0, together / ((1 + n / others) * pooled))) if pooled > 0 else 0.0
    share = mean + weight * (other_score - score)
    residual = max(0.0, of_truth - 2 * weight * together + weight**2 * of_score)
    spread = _t_quantile(confidence, n - 1) * math.sqrt(residual / n + weight**2 * of_others / others)
    return _within(_clip(share), Interval(_clip(share - spread), _clip(share + spread)))


def ignorance_bounds(successes: int, trials: int, unknown: int) -> Interval | None:
    """What the share would be if none, or all, of the unknown faces counted.

    Args:
        successes: faces that count.
        trials: faces that are known to count or not to.
        unknown: faces for which that is not known.
    """
    total = trials + unknown
    return Interval(successes / total, (successes + unknown) / total) if total else None


def _refuse_guessing(errors: ErrorRates) -> None:
    if min(errors.positives, errors.negatives) <= 0 or errors.youden < LEAST_YOUDEN:
        raise ConfigError(
            "correction for the model's errors",
            f"sensitivity + specificity - 1 of at least {LEAST_YOUDEN:g}, counted on labelled faces of both kinds",
            f"{errors.positives_right} of {errors.positives} and {errors.negatives_right} of {errors.negatives} right",
            "Give the raw rate, or measure the model on labelled faces of these cameras.",
        )


def _within(share: float, interval: Interval) -> Estimate:
    """An estimate inside its interval: a shrunk centre may leave an estimate at the border just outside."""
    return Estimate(share, Interval(min(interval.low, share), max(interval.high, share)))


def _clip(share: float) -> float:
    return min(1.0, max(0.0, share))


@functools.lru_cache(maxsize=64)
def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def student_quantile(confidence: float, degrees: int) -> float:
    """How many standard errors an interval reaches to either side, by Student's t.

    Args:
        confidence: nominal coverage.
        degrees: of freedom, at least 1.
    """
    return _t_quantile(confidence, degrees)


@functools.lru_cache(maxsize=4096)
def _t_quantile(confidence: float, degrees: int) -> float:
    from scipy import special

    return float(special.stdtrit(degrees, (1 + confidence) / 2))


@functools.lru_cache(maxsize=16)
def _lattice(dimension: int) -> Floats:
    """Evenly spread numbers between 0 and 1: one coordinate of a rank-1 lattice with the generators of Korobov type.

    As quantiles of a normal distribution, in which those of a beta distribution are nearly straight.
    """
    from scipy import special

    generator = (1, 1517, 2389)[dimension]
    steps: Floats = special.ndtri((np.arange(_MELDED_DRAWS) * generator % _MELDED_DRAWS + 0.5) / _MELDED_DRAWS)
    return steps


def _mid_distribution(successes: float, trials: float, dimension: int) -> Floats:
    """Draws of a share's mid-p confidence distribution: half from the lower one-sided beta, half from the upper."""
    steps = _lattice(dimension)
    lower = _beta_quantiles(steps, successes, trials - successes + 1) if successes > 0 else np.zeros_like(steps)
    upper = _beta_quantiles(steps, successes + 1, trials - successes) if successes < trials else np.ones_like(steps)
    # Which of the two a draw comes from must not depend on its position: a bit-reversed coin, another for each
    # dimension.
    coin = (np.arange(_MELDED_DRAWS) >> dimension) % 2 == 0
    drawn: Floats = np.where(coin, lower, upper)
    return drawn


def _beta_quantiles(steps: Floats, a: float, b: float) -> Floats:
    """Quantiles of a beta distribution, interpolated between 257 of them: within 1e-5, in a tenth of the time."""
    from scipy import special

    nodes: Floats = np.linspace(steps.min(), steps.max(), 257)
    found: Floats = np.interp(steps, nodes, special.betaincinv(a, b, special.ndtr(nodes)))
    return found


@functools.lru_cache(maxsize=64)
def _error_distributions(errors: ErrorRates) -> tuple[Floats, Floats]:
    """The same for sensitivity and specificity, which belong to the model and so are the same for all groups."""
    return (
        _mid_distribution(errors.positives_right, errors.positives, 1),
        _mid_distribution(errors.negatives_right, errors.negatives, 2),
    )
