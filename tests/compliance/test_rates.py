"""Rates of a group and all their intervals: each column against its formula, written out here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import proportion_confint

from maskdet.compliance import rates
from maskdet.compliance.intervals import ErrorRates, melded_interval
from maskdet.compliance.rates import KnownErrors, RateRule, measures
from maskdet.compliance.state import Counts, Scores, State, Tally
from maskdet.labels import THREE_CLASSES, TWO_CLASSES
from maskdet.schemas import compliance_schema

ERRORS = KnownErrors(ErrorRates(290, 300, 147, 150), ErrorRates(280, 300, 140, 150), None)
N, ANY, CORRECT = [50, 40, 60, 30, 20], [45, 30, 50, 25, 20], [40, 20, 45, 20, 15]


def group(by_model=None, **counts):
    clusters = {}
    for number, tally in enumerate(zip(N, ANY, CORRECT, strict=True)):
        clusters[str(number)] = Tally(*tally, *(by_model[number] if by_model else tally))
    fields = {
        "images_scored": 150,
        "images_no_face": 50,
        "images_failed": 3,
        "faces_mask": sum(CORRECT),
        "faces_incorrect": sum(ANY) - sum(CORRECT),
        "faces_no_mask": sum(N) - sum(ANY),
        "faces_uncertain": 25,
    }
    return State(Counts(**{**fields, **counts}), Scores(), clusters, 0, 1500)


RULE = RateRule(0.95, THREE_CLASSES, ERRORS, clustered=True)


def test_the_columns_are_those_of_the_schema():
    assert {*measures(group(), RULE), "hidden"} == set(compliance_schema().names)
    assert {*measures(State(), RULE), "hidden"} == set(compliance_schema().names)


def test_the_published_example_is_what_the_table_says():
    # 170 of 200 with sensitivity 290 of 300 and specificity 147 of 150: .8768 (.8155 to .9292).
    row = measures(group(), RULE)
    assert (sum(ANY), sum(N)) == (170, 200)
    assert round(row["any_mask_rate_corrected"], 4) == 0.8768
    assert [round(row[f"any_mask_rate_corrected_{end}"], 4) for end in ("low", "high")] == [0.8155, 0.9292]


@pytest.mark.parametrize(("name", "x"), [("any_mask_rate", ANY), ("correct_rate", CORRECT)])
def test_clusters_widen_the_interval_by_their_design_effect(name, x):
    row, n, x = measures(group(), RULE), np.array(N), np.array(x)
    share = x.sum() / n.sum()
    variance = len(n) / (len(n) - 1) * np.sum((x - share * n) ** 2) / n.sum() ** 2
    effect = variance * n.sum() / (share * (1 - share))
    assert row[f"{name}_design_effect"] == pytest.approx(max(1, effect), rel=1e-9)
    effective, t = n.sum() / max(1, effect), stats.t.ppf(0.975, len(n) - 1)
    roots = np.sort(np.roots([1 + t * t / effective, -2 * share - t * t / effective, share * share]).real)
    assert [row[f"{name}_cluster_{end}"] for end in ("low", "high")] == pytest.approx(roots, abs=1e-9)


@pytest.mark.parametrize(("name", "x"), [("any_mask_rate", ANY), ("correct_rate", CORRECT)])
def test_corrected_rates_are_rogan_and_gladen_s(name, x):
    row = measures(group(), RULE)
    errors = ERRORS.of(name)
    sensitivity, specificity = errors.positives_right / errors.positives, errors.negatives_right / errors.negatives
    share = (sum(x) / sum(N) + specificity - 1) / (sensitivity + specificity - 1)
    assert row[f"{name}_corrected"] == pytest.approx(share, abs=1e-12)
    sums = group().cluster_sums("any_mask" if name == "any_mask_rate" else "correct", "labelled")
    assert [row[f"{name}_melded_{end}"] for end in ("low", "high")] == list(
        melded_interval(sums, errors, 0.95).interval
    )


def test_correction_is_of_what_the_model_said_and_the_raw_rate_of_what_people_say():
    said = [(n, max(0, x - 5), 0) for n, x in zip(N, ANY, strict=True)]
    row = measures(group(by_model=said), RULE)
    expected = measures(group(), RULE)
    assert row["any_mask_rate"] == expected["any_mask_rate"] == 170 / 200
    assert row["any_mask_rate_cluster_low"] == expected["any_mask_rate_cluster_low"]
    assert row["any_mask_rate_corrected"] == pytest.approx((145 / 200 + 0.98 - 1) / (290 / 300 + 0.98 - 1), abs=1e-12)


def test_bounds_take_the_unknown_for_all_and_for_none():
    row = measures(group(), RULE)
    assert (row["any_mask_rate_uncertain_low"], row["any_mask_rate_uncertain_high"]) == (170 / 225, 195 / 225)
    assert (row["correct_rate_uncertain_low"], row["correct_rate_uncertain_high"]) == (140 / 225, 165 / 225)
    assert (row["any_mask_rate_no_face_low"], row["any_mask_rate_no_face_high"]) == (170 / 250, 220 / 250)
    assert row["no_face_share"] == 50 / 200


def test_methods_are_named_and_the_one_to_quote():
    row = measures(group(), RULE)
    assert row["interval_method"] == rates.WILSON
    assert "naive" in rates.WILSON
    assert (row["cluster_method"], row["corrected_method"]) == (rates.CLUSTER, rates.CORRECTED)
    assert (row["melded_method"], row["recommended"]) == (rates.MELDED, "melded")
    assert (row["correction_refused"], row["clusters"]) == (None, 5)


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (KnownErrors(), "nothing is known"),
        (KnownErrors(refused="thresholds"), "thresholds"),
        (KnownErrors(ErrorRates(50, 100, 55, 100), None, None), "too little"),
        (KnownErrors(ErrorRates(0, 0, 55, 100), None, None), "too little"),
    ],
)
def test_a_correction_that_is_refused_says_why(errors, words):
    row = measures(group(), RULE._replace(errors=errors))
    assert words in row["correction_refused"]
    for end in ("", "_low", "_high"):
        assert row[f"any_mask_rate_corrected{end}"] is None
    assert row["any_mask_rate_melded_low"] is None
    assert (row["corrected_method"], row["melded_method"], row["recommended"]) == (None, None, "cluster")


def test_a_group_with_faces_of_another_model_is_not_corrected_by_this_one_s_errors():
    own = group()
    clusters = {**own.clusters, "0": own.clusters["0"]._replace(of_other_models=1)}
    row, plain = measures(State(own.counts, own.scores, clusters, 0, 1500), RULE), measures(own, RULE)
    assert "another model" in row["correction_refused"]
    assert (row["corrected_method"], row["melded_method"], row["recommended"]) == (None, None, "cluster")
    changed = {name for name in row if row[name] != plain[name]}
    assert all("corrected" in name or "melded" in name for name in changed - {"correction_refused", "recommended"})


def test_below_two_clusters_no_interval_is_recommended():
    one = State(group().counts, Scores(), {"only": Tally(200, 170, 140, 200, 170, 140)})
    row = measures(one, RULE)
    assert [row[name] for name in ("any_mask_rate_cluster_low", "any_mask_rate_melded_low", "cluster_method")] == [
        None
    ] * 3
    assert (row["clusters"], row["recommended"]) == (1, None)
    assert row["any_mask_rate_corrected_low"] is not None
    unclustered = measures(one, RULE._replace(clustered=False))
    assert (unclustered["clusters"], unclustered["recommended"]) == (None, "corrected")
    assert measures(one, RateRule(0.95))["recommended"] == "wilson"


def test_two_classes_say_nothing_of_masks_worn_correctly():
    row = measures(group(), RULE._replace(class_names=TWO_CLASSES))
    assert all(value is None for name, value in row.items() if name.startswith("correct_rate"))
    assert row["any_mask_rate_cluster_low"] is not None


def test_no_faces_have_no_rate_and_all_bounds():
    row = measures(State(Counts(images_no_face=4)), RULE)
    assert row["any_mask_rate"] is row["recommended"] is row["any_mask_rate_uncertain_low"] is None
    assert (row["any_mask_rate_no_face_low"], row["any_mask_rate_no_face_high"], row["no_face_share"]) == (0, 1, 1)


def test_statsmodels_agrees():
    row = measures(group(), RULE)
    expected = proportion_confint(170, 200, 0.05, "wilson")
    assert [row["any_mask_rate_low"], row["any_mask_rate_high"]] == pytest.approx(expected, abs=1e-9)
    # Faces one by one: the cluster-robust variance of a mean, with m / (m - 1) as its only correction.
    y = np.concatenate([[1] * x + [0] * (n - x) for n, x in zip(N, ANY, strict=True)])
    groups = np.repeat(np.arange(len(N)), N)
    fitted = OLS(y, np.ones(len(y))).fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False})
    variance = fitted.cov_params()[0, 0] * len(N) / (len(N) - 1)
    share = y.mean()
    effect = max(1.0, variance * len(y) / (share * (1 - share)))
    assert row["any_mask_rate_design_effect"] == pytest.approx(effect, rel=1e-9)
    assert math.isclose(fitted.params[0], row["any_mask_rate"], rel_tol=1e-12)
