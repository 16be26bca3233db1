"""A group's rates, each with every interval that can be computed for it, from the group's state.

The naive interval assumes independent faces and a perfect model. The others drop one assumption each: clusters
the first, the correction the second, the melded interval both. Bounds say what the rate would be if what is not known
were all of one kind. See :mod:`maskdet.compliance.intervals` for the formulas.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from maskdet.compliance.intervals import (
    LEAST_YOUDEN,
    ClusterSums,
    ErrorRates,
    Estimate,
    Interval,
    cluster_interval,
    corrected_interval,
    ignorance_bounds,
    melded_interval,
    wilson_interval,
)
from maskdet.compliance.state import Counts, State
from maskdet.labels import INCORRECT, TWO_CLASSES, ClassNames

WILSON = "wilson, naive: as if faces were independent and the model without error"
CLUSTER = "wilson of effective numbers, Student's t (Korn and Graubard 1998)"
CORRECTED = "Rogan and Gladen 1978; interval of Lang and Reiczigel 2014"
MELDED = "melded (Bayer, Fay and Graubard 2023)"
OTHER_MODELS = "some faces are of another model, whose errors may be others"
CORRECTED_RATES = ("any_mask_rate", "correct_rate")
_FIELDS = {"any_mask_rate": "any_mask", "correct_rate": "correct"}


class KnownErrors(NamedTuple):
    """What is known of how often the model is wrong, for each of the two questions that rates answer."""

    any_mask: ErrorRates | None = None
    """Errors in telling faces with a mask, worn correctly or not, from those without."""
    correct: ErrorRates | None = None
    """Errors in telling masks over nose and mouth from everything else."""
    refused: str | None = "nothing is known of the model's errors"
    """Why there is no correction; ``None`` if there is one."""

    def of(self, rate: str) -> ErrorRates | None:
        """The errors that a rate suffers from, if they can be corrected for."""
        errors: ErrorRates | None = getattr(self, _FIELDS[rate])
        usable = self.refused is None and errors is not None and min(errors.positives, errors.negatives) > 0
        return errors if usable and errors is not None and errors.youden >= LEAST_YOUDEN else None

    def refusal(self) -> str | None:
        """Why the rate of any mask is not corrected; ``None`` if it is."""
        if self.refused is not None or self.of("any_mask_rate") is not None:
            return self.refused
        return f"sensitivity + specificity - 1 lies below {LEAST_YOUDEN:g}: the model tells too little"


class RateRule(NamedTuple):
    """How rates are computed from counts."""

    confidence: float
    class_names: ClassNames = TWO_CLASSES
    """The model's classes; rates of others are null."""
    errors: KnownErrors = KnownErrors()
    clustered: bool = False
    """Whether faces were counted by cluster."""


def measures(state: State, rule: RateRule) -> dict[str, Any]:
    """All columns of a compliance table except the keys, by name."""
    rates = _Rates(state, rule)
    return {**_counts(state.counts, rule), **rates.columns(), **_scores(state)}


class _Rates:
    """The rates of one group."""

    def __init__(self, state: State, rule: RateRule) -> None:
        self._counts, self._rule = state.counts, rule
        self._state, self._by_model = state, state.by_model
        self._tells_incorrect = INCORRECT in rule.class_names
        # Estimates of several models would each have to be corrected for its own errors, which no table holds.
        self._errors = KnownErrors(refused=OTHER_MODELS) if self._by_model.of_other_models else rule.errors

    def columns(self) -> dict[str, Any]:
        counts = self._counts
        correct = counts.faces_mask if self._tells_incorrect else None
        naive = {"mask_rate": counts.faces_any_mask, "any_mask_rate": counts.faces_any_mask, "correct_rate": correct}
        columns: dict[str, Any] = {}
        for name, faces in naive.items():
            columns.update(self._naive(name, faces))
        for name in CORRECTED_RATES:
            columns.update(self._more(name, naive[name]))
        return {**columns, **self._methods(columns)}

    def _naive(self, name: str, faces: int | None) -> dict[str, float | None]:
        total = 0 if faces is None else self._counts.faces_labelled
        interval = wilson_interval(faces or 0, total, self._rule.confidence)
        return {name: (faces or 0) / total if total else None, **_ends(name, interval)}

    def _more(self, name: str, faces: int | None) -> dict[str, float | None]:
        counts, confidence = self._counts, self._rule.confidence
        sums = None if faces is None else self._state.cluster_sums(_FIELDS[name], "labelled")
        clustered = None if sums is None or not self._rule.clustered else cluster_interval(sums, confidence)
        corrected, melded = self._corrected(name) if faces is not None else (None, None)
        uncertain = no_face = None
        if faces is not None:
            uncertain = ignorance_bounds(faces, counts.faces_labelled, counts.faces_uncertain)
            no_face = ignorance_bounds(faces, counts.faces_labelled, counts.images_no_face)
        return {
            f"{name}_design_effect": None if clustered is None or sums is None else _design_effect(sums),
            f"{name}_corrected": corrected.share if corrected else None,
            **_ends(f"{name}_cluster", clustered),
            **_ends(f"{name}_corrected", corrected.interval if corrected else None),
            **_ends(f"{name}_melded", melded.interval if melded else None),
            **_ends(f"{name}_uncertain", uncertain),
            **_ends(f"{name}_no_face", no_face),
        }

    def _corrected(self, name: str) -> tuple[Estimate | None, Estimate | None]:
        """The rate corrected for the model's errors, which are known for its own labels, not for people's."""
        errors, confidence, field = self._errors.of(name), self._rule.confidence, f"{_FIELDS[name]}_by_model"
        if errors is None:
            return None, None
        successes, trials = getattr(self._by_model, field), self._by_model.labelled_by_model
        corrected = corrected_interval(successes, trials, errors, confidence)
        if not self._rule.clustered:
            return corrected, None
        return corrected, melded_interval(self._state.cluster_sums(field, "labelled_by_model"), errors, confidence)

    def _methods(self, columns: dict[str, Any]) -> dict[str, Any]:
        clustered, corrected, melded = (
            columns[f"any_mask_rate_{kind}_low"] is not None for kind in ("cluster", "corrected", "melded")
        )
        ways = {"melded": melded, "cluster": clustered, "corrected": corrected, "wilson": True}
        usable = [way for way, there in ways.items() if there]
        if self._rule.clustered and not clustered:
            usable = []
        return {
            "rate_method": "raw",
            "interval_method": WILSON,
            "interval_confidence": self._rule.confidence,
            "clusters": _labelled_clusters(self._state) if self._rule.clustered else None,
            "cluster_method": CLUSTER if clustered else None,
            "corrected_method": CORRECTED if corrected else None,
            "melded_method": MELDED if melded else None,
            "correction_refused": self._errors.refusal(),
            "recommended": usable[0] if usable and self._counts.faces_labelled else None,
        }


def _counts(counts: Counts, rule: RateRule) -> dict[str, int | None]:
    tells_incorrect = INCORRECT in rule.class_names
    return {
        "images_listed": counts.images_listed,
        "images_scored": counts.images_scored,
        "images_no_face": counts.images_no_face,
        "images_failed": counts.images_failed,
        "faces": counts.faces,
        "faces_mask": counts.faces_mask,
        # Rows of an earlier model with that class may be among them.
        "faces_incorrect": counts.faces_incorrect if tells_incorrect or counts.faces_incorrect else None,
        "faces_no_mask": counts.faces_no_mask,
        "faces_uncertain": counts.faces_uncertain,
        "faces_corrected": counts.faces_corrected,
    }


def _scores(state: State) -> dict[str, Any]:
    counts, scores = state.counts, state.scores
    readable = counts.images_scored + counts.images_no_face
    return {
        "no_face_share": counts.images_no_face / readable if readable else None,
        "mean_probability": scores.mean,
        "sd_probability": scores.deviation,
        "score_histogram": list(scores.histogram) if scores.faces else None,
        "first_captured_at": _instant(state.first_ms),
        "last_captured_at": _instant(state.last_ms),
    }


def _labelled_clusters(state: State) -> int:
    return sum(tally.labelled > 0 for tally in state.clusters.values())


def _design_effect(sums: ClusterSums) -> float | None:
    effective = sums.effective_trials
    return None if effective is None else sums.trials / effective


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    return {
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
    }


def _instant(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
