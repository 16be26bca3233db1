"""Intervals contain the estimate, keep their width, repeat with their seed, and widen with groups."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdet.compliance.intervals import wilson_interval
from maskdet.evaluation.intervals import DESCRIPTIONS, Bootstrap, draw, estimate_all, mean_of, wilson_estimate
from maskdet.evaluation.metrics import MASK, NO_MASK, Sample, Tally

FEW = Bootstrap(resamples=200)


def made_sample(faces=200, seed=1, groups=None):
    generator = np.random.default_rng(seed)
    truth = np.arange(faces) % 2 == 0
    probabilities = np.round(np.clip(generator.normal(np.where(truth, 0.7, 0.3), 0.2), 0, 1), 2)
    labels = np.where(probabilities >= 0.5, MASK, NO_MASK).astype(np.int8)
    return Sample(probabilities, truth, labels, groups)


def by_name(sample, bootstrap=FEW):
    return {estimate.metric: estimate for estimate in estimate_all(sample, bootstrap)}


def test_every_metric_has_an_interval_around_it():
    found = by_name(made_sample())
    assert list(found) == list(DESCRIPTIONS)
    for estimate in found.values():
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.low < estimate.high or estimate.metric == "coverage"


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=30))
@settings(deadline=None, max_examples=40)
def test_intervals_contain_the_point_whatever_the_data(faces):
    steps, truth = map(np.array, zip(*faces, strict=True))
    labels = np.where(steps >= 10, MASK, NO_MASK).astype(np.int8)
    sample = Sample(steps / 20, truth.astype(np.bool_), labels)
    for estimate in estimate_all(sample, Bootstrap(resamples=50)):
        assert (estimate.value is None) == (estimate.low is None) == (estimate.high is None)
        if estimate.value is not None:
            assert estimate.low <= estimate.value <= estimate.high


def test_shares_have_the_interval_of_wilson():
    sample = made_sample()
    found = by_name(sample)["sensitivity"]
    right = int(np.sum(sample.labels[sample.truth] == MASK))
    assert (found.low, found.high) == wilson_interval(right, 100, 0.95)
    assert (found.count, found.method) == (100, "wilson")


def test_a_perfect_model_keeps_doubt_about_its_shares():
    sample = Sample(np.array([1.0, 0.0] * 20), np.array([True, False] * 20), np.array([MASK, NO_MASK] * 20, np.int8))
    found = by_name(sample)
    assert found["balanced_accuracy"].value == found["balanced_accuracy"].high == 1
    # Two shares of 20 of 20, each no lower than .839: 1 - sqrt(2) * .161 / 2.
    low = 1 - wilson_interval(20, 20, 0.95).low
    assert found["balanced_accuracy"].low == pytest.approx(1 - 2**0.5 * low / 2)


def test_equal_seeds_give_equal_intervals_and_others_do_not():
    sample = made_sample()
    assert by_name(sample) == by_name(sample)
    assert by_name(sample)["roc_auc"] != by_name(sample, FEW._replace(seed=2))["roc_auc"]


def test_resamples_keep_the_size_of_each_class():
    sample = made_sample(101)
    for groups in (None, np.arange(101)):
        grouped = dataclasses.replace(sample, groups=groups)
        drawn = list(draw(grouped, Tally.of(grouped), FEW))
        assert sum(len(part.masked) for part in drawn) == FEW.resamples
        for part in drawn:
            assert set(part.masked_total.tolist()) == {51}
            assert set(part.unmasked_total.tolist()) == {50}


def test_the_bootstrap_agrees_with_theory_on_a_mean():
    sample = made_sample(2000)
    loss = (sample.probabilities - sample.truth) ** 2
    # Stratified: the variance within the classes.
    spread = np.sqrt(sum(loss[kind].var() * kind.sum() for kind in (sample.truth, ~sample.truth))) / 2000
    found = by_name(sample, Bootstrap(resamples=2000))["brier"]
    assert found.value == pytest.approx(loss.mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * spread, rel=0.1)


def test_copies_in_groups_do_not_narrow_an_interval():
    once = made_sample(100)
    copies = Sample(*(np.repeat(values, 9) for values in (once.probabilities, once.truth, once.labels)))
    grouped = dataclasses.replace(copies, groups=np.repeat(np.arange(100), 9))
    single, fooled, honest = by_name(once), by_name(copies), by_name(grouped)

    def width(estimate):
        return estimate.high - estimate.low

    for name in ("accuracy", "balanced_accuracy", "roc_auc", "brier"):
        assert width(fooled[name]) < 0.5 * width(single[name])
        assert width(honest[name]) == pytest.approx(width(single[name]), rel=0.25)


def test_without_faces_nothing_is_claimed():
    empty = made_sample().select(np.zeros(200, np.bool_))
    assert all(estimate.value is None and estimate.count == 0 for estimate in estimate_all(empty, FEW))
    assert mean_of([wilson_estimate("", 0, 0, 0.95), wilson_estimate("", 1, 1, 0.95)]) is None
