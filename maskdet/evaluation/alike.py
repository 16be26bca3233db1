"""Intervals of scores whose resamples are all alike, as where no label is wrong: a bootstrap's has no width there.

Few faces without a mistake are no proof that there will be none, so such a score gets an interval from a formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from maskdet.compliance.intervals import Interval, wilson_interval

GOUTTE_GAUSSIER = "goutte and gaussier"
NEWCOMBE = "newcombe, method 5"


def f1_interval(right: float, wrong: float, confidence: float) -> Interval:
    """Interval of an F1 from its counts.

    The posterior of Goutte & Gaussier, "A probabilistic interpretation of precision, recall and F-score", ECIR 2005,
    equation 14, with Jeffreys' prior: 2w / (1 + w), where w has a beta distribution.

    Args:
        right: true positives.
        wrong: false positives and false negatives together.
        confidence: such as 0.95.
    """
    from scipy import special

    low, high = special.betaincinv(right + 0.5, wrong + 1.0, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(
        2 * float(low) / (1 + float(low)) if right else 0.0, 2 * float(high) / (1 + float(high)) if wrong else 1.0
    )


def auc_interval(auc: float, positives: float, negatives: float, confidence: float) -> Interval:
    """Interval of the area under a ROC curve.

    Method 5 of Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2",
    Statistics in Medicine 25 (2006), 559-573: the areas whose standard error allows for the one that was found.

    Args:
        auc: from 0 to 1.
        positives: faces of the class, at least 1.
        negatives: other faces, at least 1.
        confidence: such as 0.95.
    """
    from scipy import special

    z = float(special.ndtri((1 + confidence) / 2))
    mean = (positives + negatives) / 2 - 1

    def distance(area: float) -> float:
        spread = 1 + mean * ((1 - area) / (2 - area) + area / (1 + area))
        return abs(auc - area) - z * math.sqrt(area * (1 - area) * spread / (positives * negatives))

    return Interval(_root(distance, auc, 0.0), _root(distance, auc, 1.0))


def share_interval(value: float, count: float, confidence: float) -> Interval | None:
    """Wilson's interval of a score that is taken for a share of some faces."""
    return wilson_interval(round(value * count), round(count), confidence)


def _root(distance: Callable[[float], float], inside: float, outside: float) -> float:
    """Where a function changes its sign, from not positive to not negative; ``outside`` if it never does."""
    from scipy import optimize

    if inside == outside or distance(outside) <= 0:
        return outside
    near = inside + math.copysign(1e-9, outside - inside)  # at 0 and 1 themselves there is no standard error
    return float(optimize.brentq(distance, near, outside))
