"""How far shortcuts get: image width alone, and a thumbnail's border alone, neither of which shows a face.

Where a shortcut does well, the data distinguish the classes by something other than masks, and a model's figures on
them mean that much less. Shortcuts are fitted on one half of the images, by hash of their groups, and measured on the
other, like the model.
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskdet.errors import ConfigError
from maskdet.evaluation import metrics
from maskdet.evaluation.intervals import Estimate, mean_of, wilson_estimate
from maskdet.evaluation.metrics import MASK, Bools, Floats, Sample
from maskdet.preparation.grouping import in_hash_band


class Row(NamedTuple):
    """A model or a shortcut, measured on the half on which nothing was fitted."""

    name: str
    accuracy: Estimate
    balanced_accuracy: Estimate


def halves(names: list[str]) -> Bools:
    """Whether an image belongs to the half for fitting, ``(images,)``, by the SHA-256 of its group's name."""
    return np.array([in_hash_band(name, (0.0, 0.5)) for name in names], np.bool_)


def compare(sample: Sample, rows: pa.Table, thumbnails: NDArray[np.uint8], fit: Bools, confidence: float) -> list[Row]:
    """The model beside the shortcuts; none if a half lacks a class.

    Args:
        sample: the model's labels and the truth.
        rows: with ``width_px``.
        thumbnails: RGB uint8 ``(images, height, width, 3)``.
        fit: which images the shortcuts are fitted on, ``(images,)``.
        confidence: of the intervals.
    """
    truth, test = sample.truth, ~fit
    if any(len(set(truth[half].tolist())) < 2 for half in (fit, test)):
        return []
    widths = rows["width_px"].to_numpy()
    low, high, inside = fit_interval(widths[fit], truth[fit])
    by_width = ((widths >= low) & (widths <= high)) == inside
    by_border = border_calls(thumbnails, truth, fit)
    word = "inside" if inside else "outside"
    right = np.where(truth, sample.labels == MASK, sample.labels == metrics.NO_MASK)
    return [
        _row("model", right[test], truth[test], confidence),
        _row(f"image width alone (mask {word} {low}-{high} px)", (by_width == truth)[test], truth[test], confidence),
        _row("border of a 16x16 thumbnail alone", (by_border == truth)[test], truth[test], confidence),
    ]


def fit_interval(values: NDArray[np.integer], truth: Bools) -> tuple[int, int, bool]:
    """The interval of values that best separates the classes, by balanced accuracy.

    Args:
        values: ``(images,)``.
        truth: whether a mask is worn, ``(images,)``, some of each.

    Returns:
        Its ends, both inclusive, and whether "mask" is inside.
    """
    distinct, place = np.unique(values, return_inverse=True)
    masked = np.bincount(place, truth, len(distinct)) / truth.sum()
    unmasked = np.bincount(place, ~truth, len(distinct)) / (~truth).sum()
    best = (-1.0, 0, 0, True)
    for gains, inside in ((masked - unmasked, True), (unmasked - masked, False)):
        # The run of values with the largest sum: for each end, from the start with the lowest prefix sum.
        sums = np.concatenate([[0.0], np.cumsum(gains)])
        lowest = np.minimum.accumulate(sums[:-1])
        end = int(np.argmax(sums[1:] - lowest))
        start = int(np.argmin(sums[: end + 1]))
        best = max(best, (float(sums[end + 1] - sums[start]), start, end, inside))
    _, start, end, inside = best
    return int(distinct[start]), int(distinct[end]), inside


def border(thumbnails: NDArray[np.uint8]) -> Floats:
    """The outermost pixels of thumbnails, 0 to 1, float64 ``(images, features)``."""
    ring = np.ones(thumbnails.shape[1:3], np.bool_)
    ring[1:-1, 1:-1] = False
    return thumbnails[:, ring].reshape(len(thumbnails), -1).astype(np.float64) / 255


def check_installed() -> None:
    """Refuse, at launch, baselines that cannot be fitted here.

    Raises:
        ConfigError: scikit-learn is missing.
    """
    if importlib.util.find_spec("sklearn") is None:
        remedy = "Install it: pip install 'maskdet[evaluate]'; or leave baselines out."
        raise ConfigError("baselines", "scikit-learn, which fits them", "an environment without it", remedy)


def border_calls(thumbnails: NDArray[np.uint8], truth: Bools, fit: Bools) -> Bools:
    """What a thumbnail's border alone says, ``(images,)``: logistic regression with classes of equal weight.

    Args:
        thumbnails: RGB uint8 ``(images, height, width, 3)``.
        truth: whether a mask is worn, ``(images,)``.
        fit: which images to fit on, ``(images,)``, some of each class.
    """
    from sklearn.linear_model import LogisticRegression

    features = border(thumbnails)
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(features[fit], truth[fit])
    return np.asarray(model.predict(features), np.bool_)


def _row(name: str, right: Bools, truth: Bools, confidence: float) -> Row:
    sensitivity, specificity = (
        wilson_estimate("", float(right[of].sum()), float(of.sum()), confidence) for of in (truth, ~truth)
    )
    interval = mean_of((sensitivity, specificity))
    assert interval is not None and sensitivity.value is not None and specificity.value is not None
    value = (sensitivity.value + specificity.value) / 2
    balanced = Estimate("balanced_accuracy", value, *interval, "wilson, square-and-add", len(truth))
    return Row(name, wilson_estimate("accuracy", float(right.sum()), float(len(truth)), confidence), balanced)
