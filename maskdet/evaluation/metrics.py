"""Metrics of a binary classifier, as pure functions of a :class:`Tally`.

A tally counts masked and unmasked faces at each distinct probability. No metric here needs more than that, and an int8
model has at most 256 distinct probabilities, so a bootstrap over millions of images costs no more than one over
thousands. Arrays of counts may have leading axes, ``(…, values)``: one row a resample; metrics then return ``(…)``.

"mask" is the positive class. An *uncertain* label is neither correct nor a detection: it counts as wrong in accuracy,
sensitivity, specificity and F1, and is left out of precision; ``coverage`` says how often it occurs. A metric that is
not defined (a class, or a label, that never occurs) is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maskdet import labels
from maskdet.labels import CODES

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Labels = NDArray[np.int8]

NO_MASK, MASK, UNCERTAIN = (CODES[name] for name in (labels.NO_MASK, labels.MASK, labels.UNCERTAIN))
CALIBRATION_BINS = 15  # as Guo et al. (2017)


@dataclass(frozen=True)
class Sample:
    """Faces with known truth, row by row.

    Attributes:
        probabilities: of "mask", float64 ``(faces,)``.
        truth: whether a mask is worn, bool ``(faces,)``.
        labels: the model's: :data:`MASK`, :data:`NO_MASK` or :data:`UNCERTAIN`, int8 ``(faces,)``.
        groups: number of the group (person, source photo) of each face, int64 ``(faces,)``; ``None``: no groups.
    """

    probabilities: Floats
    truth: Bools
    labels: Labels
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.truth)

    def select(self, keep: Bools) -> Sample:
        """The faces whose entry in ``keep``, ``(faces,)``, is true."""
        groups = None if self.groups is None else self.groups[keep]
        return Sample(self.probabilities[keep], self.truth[keep], self.labels[keep], groups)


@dataclass(frozen=True)
class Tally:
    """Faces of each class at each distinct probability.

    Attributes:
        values: the probabilities, ascending, float64 ``(values,)``.
        masked: masked faces at each, float64 ``(…, values)``.
        unmasked: unmasked faces at each, float64 ``(…, values)``.
        labels: the label that each probability gets, int8 ``(values,)``.
    """

    values: Floats
    masked: Floats
    unmasked: Floats
    labels: Labels

    @classmethod
    def of(cls, sample: Sample) -> Tally:
        """Count a sample. Its labels must be a function of the probabilities, as with decision thresholds."""
        values, first, place = np.unique(sample.probabilities, return_index=True, return_inverse=True)
        masked = np.bincount(place[sample.truth], minlength=len(values)).astype(np.float64)
        unmasked = np.bincount(place[~sample.truth], minlength=len(values)).astype(np.float64)
        return cls(values, masked, unmasked, sample.labels[first])

    def with_counts(self, masked: Floats, unmasked: Floats) -> Tally:
        """Other counts, ``(…, values)``, at the same probabilities."""
        return replace(self, masked=masked, unmasked=unmasked)

    @property
    def masked_total(self) -> Floats:
        """Masked faces, ``(…)``."""
        return _sum(self.masked)

    @property
    def unmasked_total(self) -> Floats:
        """Unmasked faces, ``(…)``."""
        return _sum(self.unmasked)

    def counted(self, label: int) -> tuple[Floats, Floats]:
        """Masked and unmasked faces that got a label, each ``(…)``."""
        chosen = self.labels == label
        return _sum(self.masked * chosen), _sum(self.unmasked * chosen)


# A share of faces: how many were right, of how many.
Proportion = Callable[[Tally], tuple[Floats, Floats]]
Metric = Callable[[Tally], Floats]


def accuracy(tally: Tally) -> tuple[Floats, Floats]:
    """Faces labelled correctly, of all."""
    right = tally.counted(MASK)[0] + tally.counted(NO_MASK)[1]
    return right, tally.masked_total + tally.unmasked_total


def decided_accuracy(tally: Tally) -> tuple[Floats, Floats]:
    """Faces labelled correctly, of those not labelled uncertain."""
    decided = sum_of(tally.counted(MASK)) + sum_of(tally.counted(NO_MASK))
    return accuracy(tally)[0], decided


def coverage(tally: Tally) -> tuple[Floats, Floats]:
    """Faces not labelled uncertain, of all."""
    return decided_accuracy(tally)[1], tally.masked_total + tally.unmasked_total


def sensitivity(tally: Tally) -> tuple[Floats, Floats]:
    """Masked faces labelled ``mask``, of all masked (recall)."""
    return tally.counted(MASK)[0], tally.masked_total


def specificity(tally: Tally) -> tuple[Floats, Floats]:
    """Unmasked faces labelled ``no_mask``, of all unmasked."""
    return tally.counted(NO_MASK)[1], tally.unmasked_total


def precision(tally: Tally) -> tuple[Floats, Floats]:
    """Masked faces among those labelled ``mask``; depends on the mix of classes in the data."""
    masked, unmasked = tally.counted(MASK)
    return masked, masked + unmasked


def balanced_accuracy(tally: Tally) -> Floats:
    """Mean of sensitivity and specificity: what accuracy would be with equally many faces of each class."""
    return (share(sensitivity(tally)) + share(specificity(tally))) / 2


def f1(tally: Tally) -> Floats:
    """Harmonic mean of precision and sensitivity: 2·hits / (labelled ``mask`` + masked)."""
    hits, called = precision(tally)
    return ratio(2 * hits, called + tally.masked_total)


def roc_auc(tally: Tally) -> Floats:
    """Probability that a masked face gets a higher probability than an unmasked one, ties counting half.

    The Mann-Whitney U statistic over the number of pairs, exact with ties (Hanley & McNeil, Radiology 143
    (1982), 29-36).
    """
    below = np.cumsum(tally.unmasked, axis=-1) - tally.unmasked
    wins = _sum(tally.masked * (below + tally.unmasked / 2))
    return ratio(wins, tally.masked_total * tally.unmasked_total)


def average_precision(tally: Tally) -> Floats:
    """Σ (R_k − R_{k−1}) P_k over thresholds at each distinct probability, from the highest; no interpolation.

    As scikit-learn's ``average_precision_score``; depends on the mix of classes in the data.
    """
    masked, unmasked = tally.masked[..., ::-1], tally.unmasked[..., ::-1]
    hits = np.cumsum(masked, axis=-1)
    called = hits + np.cumsum(unmasked, axis=-1)
    steps = masked * np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    return ratio(_sum(steps), tally.masked_total)


def brier(tally: Tally) -> Floats:
    """Mean squared difference between probability and truth (Brier, Monthly Weather Review 78 (1950), 1-3): 0 to 1."""
    loss = tally.masked * (1 - tally.values) ** 2 + tally.unmasked * tally.values**2
    return ratio(_sum(loss), tally.masked_total + tally.unmasked_total)


def log_loss(tally: Tally, clip: float = 1 / 512) -> Floats:
    """Mean of −ln of the probability given to the truth.

    Args:
        tally: the counts.
        clip: probabilities are kept this far from 0 and 1; the default is half a step of an int8 output.
    """
    values = np.clip(tally.values, clip, 1 - clip)
    loss = -(tally.masked * np.log(values) + tally.unmasked * np.log1p(-values))
    return ratio(_sum(loss), tally.masked_total + tally.unmasked_total)


def calibration_error(tally: Tally, bins: NDArray[np.intp]) -> Floats:
    """Expected calibration error: Σ over bins of (faces of the bin / all) · |mean probability − share masked|.

    It is about the probability of "mask" itself, not the confidence in the label. Binned estimates from few faces are
    above the true error (Kumar, Liang & Ma, NeurIPS 2019).

    Args:
        tally: the counts.
        bins: the bin of each distinct probability, ``(values,)``, ascending; see :func:`equal_mass_bins`,
            :func:`equal_width_bins`.
    """
    every = tally.masked + tally.unmasked
    gap = tally.masked - every * tally.values
    bounds = np.flatnonzero(np.diff(bins, prepend=-1))
    total = _sum(np.abs(np.add.reduceat(gap, bounds, axis=-1)))
    return ratio(total, _sum(every))


def equal_mass_bins(tally: Tally, count: int = CALIBRATION_BINS) -> NDArray[np.intp]:
    """The bin of each distinct probability, ``(values,)``, so that bins hold about as many faces each.

    Equal probabilities share a bin, so a model that gives many faces the same probability fills fewer bins. Adaptive
    binning as in Nixon et al., "Measuring calibration in deep learning", CVPR workshops 2019.
    """
    every = tally.masked + tally.unmasked
    middle = np.cumsum(every) - every / 2
    return np.asarray(np.minimum(middle / max(every.sum(), 1) * count, count - 1), np.intp)


def equal_width_bins(tally: Tally, count: int = CALIBRATION_BINS) -> NDArray[np.intp]:
    """The bin of each distinct probability, ``(values,)``, cutting [0, 1] in equal parts.

    As Naeini, Cooper & Hauskrecht, AAAI 2015, and Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    return np.asarray(np.minimum(tally.values * count, count - 1), np.intp)


def roc_curve(tally: Tally) -> tuple[Floats, Floats]:
    """Points of the ROC curve from (0, 0) to (1, 1): false-alarm rate and sensitivity, each ``(values + 1,)``."""
    start = np.zeros(1)
    hits = np.concatenate([start, np.cumsum(tally.masked[::-1])])
    alarms = np.concatenate([start, np.cumsum(tally.unmasked[::-1])])
    return ratio(alarms, tally.unmasked_total), ratio(hits, tally.masked_total)


def at_threshold(tally: Tally, threshold: float) -> Tally:
    """The same counts, labelled ``mask`` from a threshold on and ``no_mask`` below."""
    return replace(tally, labels=np.where(tally.values >= threshold, MASK, NO_MASK).astype(np.int8))


def share(counts: tuple[Floats, Floats]) -> Floats:
    """A proportion's value; NaN for nothing."""
    return ratio(*counts)


def ratio(part: Floats, whole: Floats) -> Floats:
    """``part / whole``, NaN where ``whole`` is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0), np.float64)


def sum_of(counts: tuple[Floats, Floats]) -> Floats:
    """Both classes together."""
    return counts[0] + counts[1]


def _sum(counts: Floats) -> Floats:
    return np.asarray(counts.sum(axis=-1), np.float64)
