"""How well annotated faces are found, and labelled once found, with confidence intervals.

Shares of faces get Wilson's interval, as if faces were independent, widened to that of a bootstrap over images, since
faces of an image are not. False positives an image get the score interval of a Poisson rate (Barker, The American
Statistician 56 (2002), 85-89), widened likewise, so that a rate of 0 keeps an upper end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from maskdet.compliance.groups import Interval
from maskdet.evaluation.detection_matching import AnnotatedRun
from maskdet.evaluation.detection_metrics import FALSE, IGNORED, SIZE_BINS_PX, average_precision
from maskdet.evaluation.intervals import Bootstrap, Estimate, percentiles, wilson_estimate
from maskdet.evaluation.metrics import Bools, Floats, ratio

FROM_PX = 32.0
"""Size from which faces are large enough to count on."""
AVERAGE_PRECISION = "average_precision"
FALSE_PER_IMAGE = "false_positives_per_image"
FOUND_BALANCED = "balanced_accuracy_found"


def _ranges() -> dict[str, tuple[float, float]]:
    """Suffix of a metric's name → sizes that it is about: the ranges of sizes, those worth counting on, and all."""
    named = {
        f"_{low:g}_to_{high:g}_px" if math.isfinite(high) else f"_from_{low:g}_px": (low, high)
        for low, high in SIZE_BINS_PX
    }
    return {**named, f"_from_{FROM_PX:g}_px": (FROM_PX, math.inf), "": (0.0, math.inf)}


RANGES = _ranges()
DESCRIPTIONS: Mapping[str, str] = {
    **{f"recall{name}": f"annotated faces found{name.replace('_', ' ')}" for name in RANGES},
    AVERAGE_PRECISION: "area under precision against recall at IoU .5, of what faces.min_score lets through",
    FALSE_PER_IMAGE: "detections that are no annotated face, for each image",
    **{f"end_to_end{name}": f"annotated faces found and labelled right{name.replace('_', ' ')}" for name in RANGES},
    "end_to_end_mask": "masked faces found and labelled mask",
    "end_to_end_no_mask": "unmasked faces found and labelled no_mask",
    FOUND_BALANCED: "mean of sensitivity and specificity of the faces found",
}


@dataclass(frozen=True)
class FaceFigures:
    """What there is to say of how faces were found.

    Attributes:
        counts: images and faces by what became of them, as in
            :class:`maskdet.evaluation.detection_matching.AnnotatedRun`.
        examples: images behind some of the counts.
        estimates: in the order of :data:`DESCRIPTIONS`.
    """

    counts: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]
    estimates: list[Estimate]


@dataclass(frozen=True)
class Outcomes:
    """Annotated faces and detections of all images, one beside the other; ignored ones are left out.

    Attributes:
        sizes_px: longer side of each face, ``(faces,)``.
        labels: what each face wears, ``(faces,)``: 1 a mask, 0 none, -1 not said.
        found: ``(faces,)``.
        right: found and labelled right, ``(faces,)``.
        face_unit: which unit of the bootstrap each face is of, ``(faces,)``.
        scores: of each detection, ``(detections,)``.
        hits: whether a detection is a face, ``(detections,)``.
        detection_unit: which unit each detection is of, ``(detections,)``.
        images: of each unit, ``(units,)``: 1, or as many as share a group.
    """

    sizes_px: Floats
    labels: NDArray[np.int8]
    found: Bools
    right: Bools
    face_unit: NDArray[np.intp]
    scores: NDArray[np.float32]
    hits: Bools
    detection_unit: NDArray[np.intp]
    images: Floats


def measure_faces(annotated: AnnotatedRun, of_found: Sequence[Estimate], bootstrap: Bootstrap) -> FaceFigures:
    """Every metric of :data:`DESCRIPTIONS`.

    Args:
        annotated: faces and detections.
        of_found: metrics of the labels of the faces found.
        bootstrap: confidence, resamples and seed.
    """
    estimates = estimate_faces(gather(annotated), bootstrap)
    (balanced,) = (estimate for estimate in of_found if estimate.metric == "balanced_accuracy")
    estimates[FOUND_BALANCED] = replace(balanced, metric=FOUND_BALANCED)
    return FaceFigures(annotated.counts, annotated.examples, [estimates[name] for name in DESCRIPTIONS])


def gather(annotated: AnnotatedRun) -> Outcomes:
    """Lay the faces and detections of all images one beside the other."""
    units = np.unique([image.group for image in annotated.images], return_inverse=True)[1]
    faces: list[tuple[float, int, bool, bool, int]] = []
    shown: list[tuple[float, bool, int]] = []
    for image, unit in zip(annotated.images, units.tolist(), strict=True):
        said = dict(zip(image.match.tolist(), image.found.labels or (), strict=True))
        sides = (image.truth.boxes[:, 2:] - image.truth.boxes[:, :2]).max(axis=1, initial=0)
        for face in np.flatnonzero(image.wanted).tolist():
            label = image.truth.labels[face]
            code = -1 if label is None else int(label == "mask")
            faces.append((float(sides[face]), code, face in said, label is not None and said.get(face) == label, unit))
        for score, match in zip(image.found.scores.tolist(), image.match.tolist(), strict=True):
            if match != IGNORED:
                shown.append((score, match != FALSE, unit))
    sizes, labels, found, right, face_unit = _columns(faces, 5)
    scores, hits, detection_unit = _columns(shown, 3)
    return Outcomes(
        sizes,
        labels.astype(np.int8),
        found.astype(np.bool_),
        right.astype(np.bool_),
        face_unit.astype(np.intp),
        scores.astype(np.float32),
        hits.astype(np.bool_),
        detection_unit.astype(np.intp),
        np.bincount(units).astype(np.float64),
    )


def estimate_faces(outcomes: Outcomes, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Every metric of :data:`DESCRIPTIONS` but that of the found ones alone."""
    shares = _shares(outcomes)
    falses = np.bincount(outcomes.detection_unit[~outcomes.hits], minlength=len(outcomes.images)).astype(np.float64)
    drawn = _resampled(outcomes, {**shares, FALSE_PER_IMAGE: (falses, outcomes.images)}, bootstrap)
    estimates = {}
    for name, (part, whole) in shares.items():
        plain = wilson_estimate(name, float(part.sum()), float(whole.sum()), bootstrap.confidence)
        estimates[name] = _widened(plain, drawn[name], bootstrap)
    count, images = float(falses.sum()), float(outcomes.images.sum())
    low, high = poisson_interval(count, images, bootstrap.confidence)
    rate = Estimate(FALSE_PER_IMAGE, count / images, low, high, "poisson score", round(images))
    estimates[FALSE_PER_IMAGE] = _widened(rate, drawn[FALSE_PER_IMAGE], bootstrap)
    estimates[AVERAGE_PRECISION] = _of_precision(outcomes, drawn[AVERAGE_PRECISION], bootstrap)
    return estimates


def poisson_interval(count: float, exposure: float, confidence: float) -> Interval:
    """Score interval of a Poisson rate: the rates r for which the count lies within z standard errors √(r·exposure).

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
    """Name → faces of the share and faces in all, in each unit, ``(units,)``."""
    labelled = outcomes.labels >= 0
    ranges = {name: (outcomes.sizes_px >= low) & (outcomes.sizes_px < high) for name, (low, high) in RANGES.items()}
    chosen = {f"recall{name}": (outcomes.found, inside) for name, inside in ranges.items()}
    chosen |= {f"end_to_end{name}": (outcomes.right, inside & labelled) for name, inside in ranges.items()}
    chosen |= {
        f"end_to_end_{name}": (outcomes.right, outcomes.labels == label)
        for name, label in (("mask", 1), ("no_mask", 0))
    }

    def by_unit(faces: Bools) -> Floats:
        return np.bincount(outcomes.face_unit[faces], minlength=len(outcomes.images)).astype(np.float64)

    return {name: (by_unit(among & of), by_unit(among)) for name, (of, among) in chosen.items()}


def _resampled(
    outcomes: Outcomes, shares: Mapping[str, tuple[Floats, Floats]], bootstrap: Bootstrap
) -> dict[str, Floats]:
    """Ratios and average precision of resamples of the units, with replacement, ``(resamples,)`` each."""
    generator = np.random.default_rng(bootstrap.seed)
    units = len(outcomes.images)
    order = np.argsort(-outcomes.scores, kind="stable")
    scores, hits, unit = outcomes.scores[order], outcomes.hits[order], outcomes.detection_unit[order]
    counts = np.stack([count for both in shares.values() for count in both])
    sums, precision = np.empty((bootstrap.resamples, len(counts))), np.empty(bootstrap.resamples)
    for row in range(bootstrap.resamples):
        weights = np.bincount(generator.integers(units, size=units), minlength=units)
        sums[row] = counts @ weights
        faces = float(weights[outcomes.face_unit].sum())
        precision[row] = average_precision(scores, hits, faces, weights[unit])
    ratios = {name: ratio(sums[:, 2 * at], sums[:, 2 * at + 1]) for at, name in enumerate(shares)}
    return {**ratios, AVERAGE_PRECISION: precision}


def _of_precision(outcomes: Outcomes, drawn: Floats, bootstrap: Bootstrap) -> Estimate:
    value = average_precision(outcomes.scores, outcomes.hits, len(outcomes.found))
    if math.isnan(value):
        return Estimate(AVERAGE_PRECISION, None, None, None, "bootstrap over images", 0)
    low, high = percentiles(drawn, bootstrap.confidence)
    return Estimate(
        AVERAGE_PRECISION, value, min(low, value), max(high, value), "bootstrap over images", len(outcomes.found)
    )


def _widened(estimate: Estimate, drawn: Floats, bootstrap: Bootstrap) -> Estimate:
    if estimate.low is None or estimate.high is None:
        return estimate
    low, high = percentiles(drawn, bootstrap.confidence)
    method = f"{estimate.method}, widened by images"
    return replace(estimate, low=min(low, estimate.low), high=max(high, estimate.high), method=method)


def _columns(rows: Sequence[Sequence[float]], count: int) -> NDArray[np.float64]:
    return np.array(rows, np.float64).reshape(-1, count).T
