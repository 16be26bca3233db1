"""Figures for three classes: the confusion matrix, recall, precision and F1 of each, and each against the rest.

Shares of faces get Wilson's interval, widened to that of a bootstrap over groups where groups are given; F1 and ROC AUC
get the bootstrap's. A resample has as many faces of each true class as the sample or, with groups, as many groups with
each mix of classes. *Uncertain* is a label, not a class: it is right for no class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maskdet.evaluation.alike import GOUTTE_GAUSSIER, f1_interval
from maskdet.evaluation.intervals import Bootstrap, Estimate, estimate_score, mean_of, percentiles, wilson_estimate
from maskdet.evaluation.metrics import Bools, Floats, Sample, Tally, ratio, roc_auc, roc_curve
from maskdet.labels import CODES, INCORRECT, LABELS, MASK, NO_MASK, THREE_CLASSES, Codes

# Cells of the confusion matrix by the codes of truth and label, the latter shifted by one: uncertain is -1.
_CODES = [CODES[name] for name in THREE_CLASSES]
_COLUMNS = len(LABELS)

BALANCED = "balanced_accuracy_of_classes"

# Masks and bare faces called incorrect are the cost of a third class; the last two are its benefit.
_CALLED = ((MASK, INCORRECT), (NO_MASK, INCORRECT), (INCORRECT, MASK), (INCORRECT, NO_MASK))
DESCRIPTIONS: Mapping[str, str] = {
    "accuracy_of_classes": "faces labelled with their class, of all",
    **{f"recall_{name}": f"{name} faces labelled so" for name in THREE_CLASSES},
    **{f"{truth}_called_{label}": f"{truth} faces labelled {label}" for truth, label in _CALLED},
    **{f"precision_{name}": f"{name} faces among those labelled so" for name in THREE_CLASSES},
    **{f"f1_{name}": f"harmonic mean of precision and recall of {name}" for name in THREE_CLASSES},
    "macro_f1": "mean of the F1 of the classes that occur",
    **{f"roc_auc_{name}": f"of p({name}): a face of {name} ranks above another, ties half" for name in THREE_CLASSES},
}


@dataclass(frozen=True)
class LabelledFaces:
    """Faces with their classes, the model's labels, and how sure it was.

    Attributes:
        truth: codes, ``(faces,)``.
        labels: codes, ``(faces,)``.
        probabilities: class → float64 ``(faces,)``; a class that the model does not know is absent.
        groups: number of the group of each face, int64 ``(faces,)``; ``None``: each face is a group.
    """

    truth: Codes
    labels: Codes
    probabilities: Mapping[str, Floats]
    groups: NDArray[np.int64] | None = None

    def select(self, keep: Bools) -> LabelledFaces:
        """The faces whose entry in ``keep``, ``(faces,)``, is true."""
        probabilities = {name: values[keep] for name, values in self.probabilities.items()}
        groups = None if self.groups is None else self.groups[keep]
        return LabelledFaces(self.truth[keep], self.labels[keep], probabilities, groups)

    @property
    def cells(self) -> NDArray[np.intp]:
        """Cell of the flattened confusion matrix of each face, ``(faces,)``."""
        return np.asarray(self.truth.astype(np.intp) * _COLUMNS + self.labels + 1, np.intp)


@dataclass(frozen=True)
class ClassFigures:
    """All figures for three classes.

    Attributes:
        confusion: truth → label → faces.
        estimates: in the order of :data:`DESCRIPTIONS`.
        curves: class → points of its ROC curve against the rest; absent for classes of no face or of all faces.
    """

    confusion: dict[str, dict[str, int]]
    estimates: list[Estimate]
    curves: dict[str, tuple[Floats, Floats]]


def measure_classes(faces: LabelledFaces, bootstrap: Bootstrap) -> ClassFigures:
    """Every figure of :data:`DESCRIPTIONS`.

    Args:
        faces: with known truth.
        bootstrap: confidence, resamples and seed.
    """
    counts = count_cells(faces.cells)
    drawn = np.concatenate(list(_resampled(faces, counts, bootstrap)))
    found: dict[str, Estimate] = {}
    for name, share in _SHARES.items():
        part, whole = share(counts)
        plain = wilson_estimate(name, float(part), float(whole), bootstrap.confidence)
        found[name] = plain if faces.groups is None else plain.widened(ratio(*share(drawn)), bootstrap, "groups")
    for name, score in _SCORES.items():
        found[name] = _of_score(name, float(score(counts)), score(drawn), len(faces.truth), bootstrap)
    _replace_where_alike(found, counts, bootstrap.confidence)
    curves: dict[str, tuple[Floats, Floats]] = {}
    for name in THREE_CLASSES:
        tally, found[f"roc_auc_{name}"] = _one_against_rest(faces, name, bootstrap)
        if tally is not None:
            curves[name] = roc_curve(tally)
    return ClassFigures(confusion_of(counts), [found[name] for name in DESCRIPTIONS], curves)


def _replace_where_alike(found: dict[str, Estimate], counts: Floats, confidence: float) -> None:
    """Replace the intervals of F1 that have no width, since all resamples are alike."""
    each = []
    for name in THREE_CLASSES:
        one = found[f"f1_{name}"]
        if one.low is not None and one.low == one.high:
            right = float(_cell(counts, name, name))
            wrong = float(_of_truth(counts, name) + _of_label(counts, name)) - 2 * right
            interval = f1_interval(right, wrong, confidence)
            one = found[one.metric] = replace(one, low=interval.low, high=interval.high, method=GOUTTE_GAUSSIER)
        if _of_truth(counts, name) > 0:
            each.append(one)
    macro = found["macro_f1"]
    if macro.low == macro.high and (mean := mean_of(each)):
        found["macro_f1"] = replace(macro, low=mean.low, high=mean.high, method=f"{GOUTTE_GAUSSIER}, square-and-add")


def balanced_accuracy(faces: LabelledFaces, bootstrap: Bootstrap) -> Estimate:
    """Mean recall of the classes that occur: what accuracy would be with equally many faces of each.

    Its interval is Wilson's of each recall, squared and added; see :func:`maskdet.evaluation.intervals.mean_of`.

    Args:
        faces: with known truth.
        bootstrap: confidence, and how groups are resampled where there are any.
    """
    counts = count_cells(faces.cells)
    present = [name for name in THREE_CLASSES if _of_truth(counts, name) > 0]
    recalls = [
        wilson_estimate("", float(_cell(counts, name, name)), float(_of_truth(counts, name)), bootstrap.confidence)
        for name in present
    ]
    interval = mean_of(recalls)
    if interval is None:
        return Estimate(BALANCED, None, None, None, "wilson, square-and-add", len(faces.truth))
    value = float(_mean_recall(counts, present))
    plain = Estimate(BALANCED, value, interval.low, interval.high, "wilson, square-and-add", len(faces.truth))
    if faces.groups is None:
        return plain
    drawn = np.concatenate(list(_resampled(faces, counts, bootstrap)))
    return plain.widened(_mean_recall(drawn, present), bootstrap, "groups")


def _mean_recall(counts: Floats, names: Sequence[str]) -> Floats:
    """The mean over classes that have faces."""
    each = [ratio(_cell(counts, name, name), _of_truth(counts, name)) for name in names]
    return np.asarray(sum(each[1:], each[0]) / len(each), np.float64)


def count_cells(cells: NDArray[np.intp], weights: Floats | None = None) -> Floats:
    """Faces by true class and label, float64 ``(3, 4)``, by code, the label's shifted by one."""
    counted = np.bincount(cells, weights, minlength=len(_CODES) * _COLUMNS)
    return np.asarray(counted.reshape(len(_CODES), _COLUMNS), np.float64)


def confusion_of(counts: Floats) -> dict[str, dict[str, int]]:
    """Truth → label → faces, in the order of the vocabulary."""
    return {truth: {label: int(counts[CODES[truth], CODES[label] + 1]) for label in LABELS} for truth in THREE_CLASSES}


def _cell(counts: Floats, truth: str, label: str) -> Floats:
    return np.asarray(counts[..., CODES[truth], CODES[label] + 1], np.float64)


def _of_truth(counts: Floats, truth: str) -> Floats:
    return np.asarray(counts[..., CODES[truth], :].sum(axis=-1), np.float64)


def _of_label(counts: Floats, label: str) -> Floats:
    return np.asarray(counts[..., :, CODES[label] + 1].sum(axis=-1), np.float64)


def _f1(counts: Floats, name: str) -> Floats:
    """2·hits / (faces of the class + faces labelled so); NaN of a class that neither occurs nor is named."""
    return ratio(2 * _cell(counts, name, name), _of_truth(counts, name) + _of_label(counts, name))


def _macro_f1(counts: Floats) -> Floats:
    """The mean over the classes that have faces."""
    each = np.stack([_f1(counts, name) for name in THREE_CLASSES])
    there = np.stack([_of_truth(counts, name) for name in THREE_CLASSES]) > 0
    return ratio(np.where(there, each, 0.0).sum(axis=0), there.sum(axis=0).astype(np.float64))


def _accuracy(counts: Floats) -> tuple[Floats, Floats]:
    right = sum((_cell(counts, name, name) for name in THREE_CLASSES), np.zeros(counts.shape[:-2]))
    return right, np.asarray(counts.sum(axis=(-2, -1)), np.float64)


def _called(truth: str, label: str) -> Callable[[Floats], tuple[Floats, Floats]]:
    return lambda counts: (_cell(counts, truth, label), _of_truth(counts, truth))


def _precision(name: str) -> Callable[[Floats], tuple[Floats, Floats]]:
    return lambda counts: (_cell(counts, name, name), _of_label(counts, name))


def _f1_of(name: str) -> Callable[[Floats], Floats]:
    return lambda counts: _f1(counts, name)


_SHARES: dict[str, Callable[[Floats], tuple[Floats, Floats]]] = {
    "accuracy_of_classes": _accuracy,
    **{f"recall_{name}": _called(name, name) for name in THREE_CLASSES},
    **{f"{truth}_called_{label}": _called(truth, label) for truth, label in _CALLED},
    **{f"precision_{name}": _precision(name) for name in THREE_CLASSES},
}
_SCORES: dict[str, Callable[[Floats], Floats]] = {
    **{f"f1_{name}": _f1_of(name) for name in THREE_CLASSES},
    "macro_f1": _macro_f1,
}


def _resampled(faces: LabelledFaces, counts: Floats, bootstrap: Bootstrap) -> Iterator[Floats]:
    """Confusion matrices of resamples, ``(some, 3, 4)``."""
    generator = np.random.default_rng(bootstrap.seed)
    if faces.groups is None:
        rows = [
            generator.multinomial(int(row.sum()), row / max(row.sum(), 1.0), bootstrap.resamples)
            if row.sum()
            else np.zeros((bootstrap.resamples, _COLUMNS))
            for row in counts
        ]
        yield np.stack(rows, axis=1).astype(np.float64)
        return
    _, group = np.unique(faces.groups, return_inverse=True)
    kinds = np.sum([(1 << code) * (np.bincount(group, faces.truth == code) > 0) for code in _CODES], axis=0)
    members = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    for _ in range(bootstrap.resamples):
        weights = np.zeros(len(kinds))
        for chosen in members:
            weights[chosen] = generator.multinomial(len(chosen), np.full(len(chosen), 1 / len(chosen)))
        yield count_cells(faces.cells, weights[group])[np.newaxis]


def _one_against_rest(faces: LabelledFaces, name: str, bootstrap: Bootstrap) -> tuple[Tally | None, Estimate]:
    truth = faces.truth == CODES[name]
    metric = f"roc_auc_{name}"
    if name not in faces.probabilities or not truth.any() or truth.all():
        return None, Estimate(metric, None, None, None, "bootstrap", len(truth))
    labels = np.zeros(len(truth), np.int8)  # a ranking needs no labels
    sample = Sample(faces.probabilities[name], truth, labels, faces.groups)
    return Tally.of(sample), estimate_score(metric, roc_auc, sample, bootstrap)


def _of_score(name: str, value: float, drawn: Floats, count: int, bootstrap: Bootstrap) -> Estimate:
    if math.isnan(value):
        return Estimate(name, None, None, None, "bootstrap", count)
    low, high = percentiles(drawn, bootstrap.confidence)
    return Estimate(name, value, min(low, value), max(high, value), "bootstrap", count)
