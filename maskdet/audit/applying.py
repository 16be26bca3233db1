"""What a sample's labels say: the rates of all faces, how often the model is right, and whether that has drifted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskdet.answer_schemas import audit_schema, audited_schema
from maskdet.audit.estimates import SampledShare, StratumSample, sampled_share
from maskdet.audit.labels import FaceKey, keys_of
from maskdet.compliance.intervals import ErrorRates, Interval, wilson_interval
from maskdet.compliance.rates import KnownErrors
from maskdet.labels import INCORRECT, MASK, NO_MASK
from maskdet.schemas import NOT_A_FACE

RATE_METHOD = "prediction-powered, stratified (PPI++); wilson of effective numbers, Student's t"
ERROR_METHOD = "stratified ratio; wilson of effective numbers, Student's t"
_SIDES = {"any_mask": (MASK, INCORRECT), "correct": (MASK,)}
_OF_MODEL = {"any_mask": "stratum_probability_worn", "correct": "stratum_probability_mask"}


class _Quantity(NamedTuple):
    """Something that a sample estimates: a share of faces.

    Attributes:
        name: what it is called.
        question: ``any_mask`` or ``correct``.
        within: whether a face with this true label and this label of the model is in the denominator.
        counts: whether it is in the numerator.
        known: the bundle's counts, for sensitivity and specificity.
    """

    name: str
    question: str
    within: Callable[[str, str], bool]
    counts: Callable[[str, str], bool]
    known: tuple[int, int] | None = None


def estimate_audit(
    sample: pa.Table, labels: Mapping[FaceKey, str], errors: KnownErrors, confidence: float, *, three: bool
) -> pa.Table:
    """What the labels of a sample say of all faces.

    Args:
        sample: as drawn.
        labels: of its faces, where people agree; a face without one counts as not drawn.
        errors: what the bundle says about the model's errors.
        confidence: nominal coverage.
        three: whether the model has the class ``incorrect``.

    Returns:
        See :func:`maskdet.answer_schemas.audited_schema`.
    """
    names = [name for name in sample.column_names if name not in audit_schema().names]
    truth = [labels.get(face) for face in keys_of(sample)]
    sample = sample.append_column("truth", pa.array(truth, pa.string()))
    questions = ("any_mask", "correct") if three else ("any_mask",)
    rows = []
    for values, group in _groups(sample, names):
        scope = {**values, "scope": "group" if values else "all", "confidence": confidence}
        for quantity in _quantities(questions, errors):
            row = _row(group, quantity, confidence)
            if row is not None:
                rows.append({**scope, **row})
    return pa.Table.from_pylist(rows, schema=audited_schema(names))


def _quantities(questions: Sequence[str], errors: KnownErrors) -> list[_Quantity]:
    found = []
    for question in questions:
        yes, known = _SIDES[question], getattr(errors, question) if errors.refused is None else None
        found.append(_Quantity(f"{question}_rate", question, _is_face, _is_in(yes)))
        found += _error_quantities(question, yes, known)
    return found


def _error_quantities(question: str, yes: Sequence[str], known: ErrorRates | None) -> list[_Quantity]:
    """Sensitivity and specificity; as in the rates, neither includes faces that the model is unsure of."""

    def sure(said: str) -> bool:
        return said in (MASK, INCORRECT, NO_MASK)

    return [
        _Quantity(
            f"{question}_sensitivity",
            question,
            lambda true, said: true in yes and sure(said),
            lambda true, said: said in yes,
            None if known is None else (known.positives_right, known.positives),
        ),
        _Quantity(
            f"{question}_specificity",
            question,
            lambda true, said: true != NOT_A_FACE and true not in yes and sure(said),
            lambda true, said: said not in yes,
            None if known is None else (known.negatives_right, known.negatives),
        ),
    ]


def _is_face(true: str, said: str) -> bool:
    return true != NOT_A_FACE


def _is_in(yes: Sequence[str]) -> Callable[[str, str], bool]:
    return lambda true, said: true in yes


def _groups(sample: pa.Table, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    yield {}, sample
    if not names:
        return
    for values in (
        sample.select(names).group_by(names).aggregate([]).sort_by([(n, "ascending") for n in names]).to_pylist()
    ):
        chosen = sample
        for name, value in values.items():
            same = pc.is_null(chosen[name]) if value is None else pc.equal(chosen[name], value)
            chosen = chosen.filter(same)
        yield values, chosen


def _row(sample: pa.Table, quantity: _Quantity, confidence: float) -> dict[str, Any] | None:
    is_rate = quantity.name.endswith("_rate")
    strata = list(_strata(sample, quantity))
    found = sampled_share(strata, confidence, use_scores=is_rate)
    if found is None:
        return None
    known = _said(sample, quantity) if is_rate else None
    drift = None
    if quantity.known is not None and quantity.known[1]:
        known = quantity.known[0] / quantity.known[1]
        drift = _drift(found, quantity.known, confidence)
    return {
        "quantity": quantity.name,
        "share": found.share,
        "share_low": found.interval.low,
        "share_high": found.interval.high,
        "known": known,
        "drift": None if drift is None or known is None else found.share - known,
        "drift_low": drift.low if drift else None,
        "drift_high": drift.high if drift else None,
        "weight": found.weight,
        "labelled": found.labelled,
        "faces": sum(stratum.faces for stratum in strata),
        "method": RATE_METHOD if is_rate else ERROR_METHOD,
    }


def _strata(sample: pa.Table, quantity: _Quantity) -> Iterator[StratumSample]:
    """The strata of a group; a stratum without a label joins the next one of the group, or the one before."""
    faces, total, held = 0, 0.0, []
    parts: list[tuple[int, float, list[dict[str, Any]]]] = []
    for number in sorted(set(sample["stratum"].to_pylist())):
        rows = sample.filter(pc.equal(sample["stratum"], number)).to_pylist()
        faces += rows[0]["stratum_faces"]
        total += rows[0][_OF_MODEL[quantity.question]]
        held = [row for row in rows if row["truth"] is not None]
        if held:
            parts.append((faces, total, held))
            faces, total = 0, 0.0
    if faces and parts:
        last = parts[-1]
        parts[-1] = (last[0] + faces, last[1] + total, last[2])
    for size, score_total, rows in parts:
        yield StratumSample(
            size,
            score_total,
            np.array([quantity.counts(row["truth"], row["label"]) for row in rows], np.float64),
            np.array([quantity.within(row["truth"], row["label"]) for row in rows], np.float64),
            np.array([_score(row, quantity.question) for row in rows], np.float64),
        )


def _score(row: Mapping[str, Any], question: str) -> float:
    incorrect = row["probability_incorrect"] or 0.0
    return float(row["probability_mask"] + (incorrect if question == "any_mask" else 0.0))


def _said(sample: pa.Table, quantity: _Quantity) -> float | None:
    """The rate by the model's labels as the sample estimates it, weighted by the chance of being drawn."""
    weights = 1 / np.asarray(sample["inclusion_probability"])
    said = np.array(sample["label"].to_pylist())
    sure = np.isin(said, (MASK, INCORRECT, NO_MASK))
    yes = np.isin(said, _SIDES[quantity.question])
    total = float(weights[sure].sum())
    return float(weights[yes].sum()) / total if total else None


def _drift(found: SampledShare, known: tuple[int, int], confidence: float) -> Interval | None:
    """How much the share differs from a known one: square-and-add (Zou and Donner 2008)."""
    right, total = known
    interval = wilson_interval(right, total, confidence)
    if interval is None:
        return None
    share = right / total
    difference = found.share - share
    low = math.hypot(found.share - found.interval.low, interval.high - share)
    high = math.hypot(found.interval.high - found.share, share - interval.low)
    return Interval(max(-1.0, difference - low), min(1.0, difference + high))
