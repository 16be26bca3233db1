"""How well annotated faces are found, and labelled once found, with confidence intervals.

A face counts as found by centre (:func:`maskdet.evaluation.detection_metrics.match_by_centre`); recall, precision and
false positives use the stricter IoU of .5, as is customary.

Shares of faces get Wilson's interval, as if faces were independent, widened to that of a bootstrap over images, since
faces in an image are not. False positives per image get the score interval of a Poisson rate (Barker, The American
Statistician 56 (2002), 85-89), widened in the same way, so that a rate of 0 keeps an upper end.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.compliance.intervals import Interval
from maskdet.evaluation.detection_matching import AnnotatedRun, SeenImage
from maskdet.evaluation.detection_metrics import (
    FALSE,
    IGNORED,
    SIZE_BINS_PX,
    PrecisionRecall,
    area_under,
    precision_at,
    precision_recall,
)
from maskdet.evaluation.intervals import Bootstrap, Estimate, percentiles, wilson_estimate
from maskdet.evaluation.metrics import Bools, Floats, ratio
from maskdet.labels import CODES, THREE_CLASSES

FROM_PX = 32.0
"""Size from which faces are large enough to be relied on."""
AVERAGE_PRECISION = "average_precision"
FALSE_PER_IMAGE = "false_positives_per_image"
UNMATCHED_PER_IMAGE = "unmatched_per_image"
RATES = (UNMATCHED_PER_IMAGE, FALSE_PER_IMAGE)
"""Metrics that may exceed 1."""
RECALL_LEVELS = {f"precision_at_recall_{level:g}": level for level in (0.5, 0.7, 0.8, 0.9, 0.95)}
FOUND_BALANCED = "balanced_accuracy_found"


_OF_CURVES: Mapping[str, Callable[[PrecisionRecall], float]] = {
    AVERAGE_PRECISION: area_under,
    **{name: functools.partial(precision_at, recall=level) for name, level in RECALL_LEVELS.items()},
}


def _ranges() -> dict[str, tuple[float, float]]:
    """Suffix of a metric's name → its range of sizes: the single ranges, those to be relied on, and all."""
    named = {
        f"_{low:g}_to_{high:g}_px" if math.isfinite(high) else f"_from_{low:g}_px": (low, high)
        for low, high in SIZE_BINS_PX
    }
    return {**named, f"_from_{FROM_PX:g}_px": (FROM_PX, math.inf), "": (0.0, math.inf)}


RANGES = _ranges()
DESCRIPTIONS: Mapping[str, str] = {
    **{f"found{name}": f"annotated faces found{name.replace('_', ' ')}, by centre or IoU .3" for name in RANGES},
    UNMATCHED_PER_IMAGE: "detections for each image that are no annotated face, by centre or IoU .3",
    **{f"recall{name}": f"annotated faces found{name.replace('_', ' ')} at IoU .5" for name in RANGES},
    FALSE_PER_IMAGE: "detections for each image that are no annotated face at IoU .5",
    AVERAGE_PRECISION: "area under precision against recall at IoU .5, of what faces.min_score lets through",
    **{
        name: f"best precision at IoU .5 where {level:g} of the faces or more are found"
        for name, level in RECALL_LEVELS.items()
    },
    **{f"end_to_end{name}": f"annotated faces found and labelled right{name.replace('_', ' ')}" for name in RANGES},
    "end_to_end_mask": "masked faces found and labelled mask",
    "end_to_end_incorrect": "faces with a mask worn incorrectly found and labelled incorrect",
    "end_to_end_no_mask": "unmasked faces found and labelled no_mask",
    FOUND_BALANCED: "mean of sensitivity and specificity of the faces found",
}


@dataclass(frozen=True)
class FaceFigures:
    """All figures about how faces were found.

    Attributes:
        counts: images and faces by what became of them, as in
            :class:`maskdet.evaluation.detection_matching.AnnotatedRun`.
        examples: images behind some of the counts.
        estimates: in the order of :data:`DESCRIPTIONS`.
        curve: precision against recall at IoU .5; ``None`` without faces.
    """

    counts: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]
    estimates: list[Estimate]
    curve: PrecisionRecall | None = None


class Detections(NamedTuple):
    """Detections of all images together, without those of ignored faces."""

    scores: NDArray[np.float32]
    """``(detections,)``."""
    hits: Bools
    """Whether each is a face, ``(detections,)``."""
    unit: NDArray[np.intp]
    """The unit of the bootstrap to which each belongs, ``(detections,)``."""


@dataclass(frozen=True)
class Outcomes:
    """Annotated faces and detections of all images together, without ignored ones.

    Attributes:
        sizes_px: longer side of each face, ``(faces,)``.
        labels: code of each face's class, ``(faces,)``; -1 if it is not given, or is a class that the model lacks.
        found: by centre, ``(faces,)``.
        right: found and labelled right, ``(faces,)``.
        overlapping: found at IoU .5, ``(faces,)``.
        face_unit: the unit of the bootstrap to which each face belongs, ``(faces,)``.
        by_centre: detections that are faces by centre, and others.
        by_overlap: the same at IoU .5.
        images: how many each unit has, ``(units,)``: 1, or those that share a group.
    """

    sizes_px: Floats
    labels: NDArray[np.int8]
    found: Bools
    right: Bools
    overlapping: Bools
    face_unit: NDArray[np.intp]
    by_centre: Detections
    by_overlap: Detections
    images: Floats


def measure_faces(
    annotated: AnnotatedRun,
    of_found: Sequence[Estimate],
    bootstrap: Bootstrap,
    class_names: Sequence[str] = THREE_CLASSES,
) -> FaceFigures:
    """Every metric of :data:`DESCRIPTIONS`.

    Args:
        annotated: faces and detections.
        of_found: metrics of the labels of found faces.
        bootstrap: confidence, resamples and seed.
        class_names: the model's; labels that it cannot give are not expected of it.
    """
    outcomes = gather(annotated.images, class_names)
    estimates = estimate_faces(outcomes, bootstrap)
    (balanced,) = (estimate for estimate in of_found if estimate.metric == "balanced_accuracy")
    estimates[FOUND_BALANCED] = replace(balanced, metric=FOUND_BALANCED)
    in_order = [estimates[name] for name in DESCRIPTIONS]
    return FaceFigures(annotated.counts, annotated.examples, in_order, curve_of(outcomes))


def curve_of(outcomes: Outcomes) -> PrecisionRecall | None:
    """Precision against recall at IoU .5; ``None`` without faces."""
    scores, hits, _ = outcomes.by_overlap
    return precision_recall(scores, hits, len(outcomes.found)) if len(outcomes.found) else None


def gather(images: Sequence[SeenImage], class_names: Sequence[str] = THREE_CLASSES) -> Outcomes:
    """Collect the faces and detections of all images."""
    units = np.unique([image.group for image in images], return_inverse=True)[1]
    faces: list[tuple[float, int, bool, bool, bool, int]] = []
    for image, unit in zip(images, units.tolist(), strict=True):
        said = dict(zip(image.match.tolist(), image.found.labels or (), strict=True))
        sides = (image.truth.boxes[:, 2:] - image.truth.boxes[:, :2]).max(axis=1, initial=0)
        overlapping = set(image.overlapping.tolist())
        for face in np.flatnonzero(image.wanted).tolist():
            label = image.truth.labels[face]
            asked = label is not None and label in class_names
            right = asked and said.get(face) == label
            code = CODES[label] if asked and label is not None else -1
            faces.append((float(sides[face]), code, face in said, right, face in overlapping, unit))
    sizes, labels, found, right, overlapping, face_unit = _columns(faces, 6)
    return Outcomes(
        sizes,
        labels.astype(np.int8),
        found.astype(np.bool_),
        right.astype(np.bool_),
        overlapping.astype(np.bool_),
        face_unit.astype(np.intp),
        _detections(images, units, [image.match for image in images]),
        _detections(images, units, [image.overlapping for image in images]),
        np.bincount(units).astype(np.float64),
    )


def _detections(
    images: Sequence[SeenImage], units: NDArray[np.intp], matches: Sequence[NDArray[np.int64]]
) -> Detections:
    scores = np.concatenate([np.empty(0, np.float32), *(image.found.scores for image in images)])
    match = np.concatenate([np.empty(0, np.int64), *matches])
    unit = np.repeat(units, [len(one) for one in matches])
    counted = match != IGNORED
    return Detections(scores[counted], match[counted] != FALSE, unit[counted])


def estimate_faces(outcomes: Outcomes, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Every metric of :data:`DESCRIPTIONS` except those of found faces alone."""
    shares, images = _shares(outcomes), outcomes.images
    falses = {name: _false_by_unit(shown, len(images)) for name, shown in _by_rate(outcomes).items()}
    drawn = _resampled(outcomes, {**shares, **{name: (count, images) for name, count in falses.items()}}, bootstrap)
    estimates = {}
    for name, (part, whole) in shares.items():
        plain = wilson_estimate(name, float(part.sum()), float(whole.sum()), bootstrap.confidence)
        estimates[name] = plain.widened(drawn[name], bootstrap, "images")
    for name, by_unit in falses.items():
        count, total = float(by_unit.sum()), float(images.sum())
        low, high = poisson_interval(count, total, bootstrap.confidence)
        rate = Estimate(name, count / total, low, high, "poisson score", round(total))
        estimates[name] = rate.widened(drawn[name], bootstrap, "images")
    curve = curve_of(outcomes)
    for name, score in _OF_CURVES.items():
        value = float("nan") if curve is None else score(curve)
        estimates[name] = _of_curve(name, value, drawn[name], len(outcomes.found), bootstrap)
    return estimates


def poisson_interval(count: float, exposure: float, confidence: float) -> Interval:
    """Score interval of a Poisson rate: the rates r for which the count is within z standard errors √(r·exposure).

    Barker, "A comparison of nine confidence intervals for a Poisson parameter when the expected number of events is
    ≤ 5", The American Statistician 56 (2002), 85-89.

    Args:
        count: events.
        exposure: images in which they were counted; more than 0.
        confidence: nominal coverage, 0 to 1 (exclusive).
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre, spread = count + z * z / 2, z * math.sqrt(count + z * z / 4)
    return Interval(0.0 if count == 0 else (centre - spread) / exposure, (centre + spread) / exposure)


def _shares(outcomes: Outcomes) -> dict[str, tuple[Floats, Floats]]:
    """Name → numerator and denominator of the share in each unit, ``(units,)``."""
    labelled = outcomes.labels >= 0
    ranges = {name: (outcomes.sizes_px >= low) & (outcomes.sizes_px < high) for name, (low, high) in RANGES.items()}
    chosen = {f"found{name}": (outcomes.found, inside) for name, inside in ranges.items()}
    chosen |= {f"recall{name}": (outcomes.overlapping, inside) for name, inside in ranges.items()}
    chosen |= {f"end_to_end{name}": (outcomes.right, inside & labelled) for name, inside in ranges.items()}
    chosen |= {
        f"end_to_end_{name}": (outcomes.right, outcomes.labels == label) for name, label in CODES.items() if label >= 0
    }

    def by_unit(faces: Bools) -> Floats:
        return np.bincount(outcomes.face_unit[faces], minlength=len(outcomes.images)).astype(np.float64)

    return {name: (by_unit(among & of), by_unit(among)) for name, (of, among) in chosen.items()}


def _by_rate(outcomes: Outcomes) -> dict[str, Detections]:
    return {UNMATCHED_PER_IMAGE: outcomes.by_centre, FALSE_PER_IMAGE: outcomes.by_overlap}


def _false_by_unit(shown: Detections, units: int) -> Floats:
    return np.bincount(shown.unit[~shown.hits], minlength=units).astype(np.float64)


def _resampled(
    outcomes: Outcomes, shares: Mapping[str, tuple[Floats, Floats]], bootstrap: Bootstrap
) -> dict[str, Floats]:
    """Ratios and values read off curves, for resamples of the units with replacement, ``(resamples,)`` each."""
    generator = np.random.default_rng(bootstrap.seed)
    units = len(outcomes.images)
    scores, hits, unit = outcomes.by_overlap
    counts = np.stack([count for both in shares.values() for count in both])
    sums = np.empty((bootstrap.resamples, len(counts)))
    read = np.full((bootstrap.resamples, len(_OF_CURVES)), np.nan)
    for row in range(bootstrap.resamples):
        weights = np.bincount(generator.integers(units, size=units), minlength=units)
        sums[row] = counts @ weights
        if faces := float(weights[outcomes.face_unit].sum()):
            curve = precision_recall(scores, hits, faces, weights[unit])
            read[row] = [score(curve) for score in _OF_CURVES.values()]
    ratios = {name: ratio(sums[:, 2 * at], sums[:, 2 * at + 1]) for at, name in enumerate(shares)}
    return {**ratios, **dict(zip(_OF_CURVES, read.T, strict=True))}


def _of_curve(name: str, value: float, drawn: Floats, faces: int, bootstrap: Bootstrap) -> Estimate:
    method = "bootstrap over images"
    if math.isnan(value):
        return Estimate(name, None, None, None, method, faces)
    low, high = percentiles(drawn, bootstrap.confidence)
    return Estimate(name, value, min(low, value), max(high, value), method, faces)


def _columns(rows: Sequence[Sequence[float]], count: int) -> NDArray[np.float64]:
    return np.array(rows, np.float64).reshape(-1, count).T
