"""Differences of rates: against published values, statsmodels, and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from maskdet.compliance import change
from maskdet.compliance.change import adjust, difference
from maskdet.compliance.state import State, Tally

P_VALUES = st.lists(st.floats(1e-6, 1), min_size=1, max_size=20)


def side(n, x, names=None, **counts):
    names = names or [str(number) for number in range(len(n))]
    return State(clusters={name: Tally(a, b, b, a, b, b) for name, a, b in zip(names, n, x, strict=True)})


def one_each(successes, trials, name):
    return side([1] * trials, [1] * successes + [0] * (trials - successes), [f"{name}{i}" for i in range(trials)])


@pytest.mark.parametrize(
    ("after", "before", "low", "high"),
    [
        # R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in
        # Medicine 17 (1998), 873-890, table II, method 10.
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_the_naive_interval_has_the_published_values(after, before, low, high):
    found = difference(one_each(*before, "b"), one_each(*after, "a"), "any_mask_rate", 0.95)
    assert found.naive == pytest.approx((low, high), abs=5e-5)
    assert found.difference == pytest.approx(after[0] / after[1] - before[0] / before[1])


@pytest.mark.parametrize(("x1", "n1", "x2", "n2"), [(56, 70, 48, 80), (1, 9, 30, 40), (0, 12, 5, 9)])
def test_statsmodels_agrees(x1, n1, x2, n2):
    expected = confint_proportions_2indep(x1, n1, x2, n2, method="newcomb", compare="diff", alpha=0.05)
    found = difference(one_each(x2, n2, "b"), one_each(x1, n1, "a"), "any_mask_rate", 0.95)
    assert found.naive == pytest.approx(expected, abs=1e-9)


def test_clusters_widen_it_and_pairs_narrow_it():
    n, x, y = [40, 50, 45, 60, 30, 40], [35, 20, 40, 30, 10, 36], [37, 24, 42, 36, 14, 37]
    paired = difference(side(n, x), side(n, y), "any_mask_rate", 0.95)
    apart = difference(side(n, x), side(n, y, [f"other {i}" for i in range(6)]), "any_mask_rate", 0.95)
    assert (paired.pairs, apart.pairs) == (6, 0)
    assert (paired.method, apart.method) == (change.PAIRED, change.CLUSTER)
    widths = [high - low for low, high in (paired.interval, paired.naive, apart.interval)]
    assert max(widths[:2]) < widths[2] / 2
    assert paired.interval.low > 0 > apart.interval.low
    assert paired.p < 0.05 < apart.p


def test_the_correlation_is_that_of_the_clusters_residuals():
    n, x, y = np.array([40, 50, 45, 60]), np.array([35, 20, 40, 30]), np.array([30, 26, 42, 36])
    found = change._correlation(change._Side.of(side(n, x), "any_mask"), change._Side.of(side(n, y), "any_mask"))
    residuals = [z - z.sum() / n.sum() * n for z in (x, y)]
    expected = residuals[0] @ residuals[1] / np.sqrt((residuals[0] ** 2).sum() * (residuals[1] ** 2).sum())
    assert found == pytest.approx(expected, abs=1e-12)


def test_p_is_the_level_at_which_the_interval_begins_to_hold_nothing():
    before, after = side([40, 50, 45], [30, 26, 30]), side([40, 52, 41], [34, 33, 33])
    found = difference(before, after, "any_mask_rate", 0.95)
    wider = difference(before, after, "any_mask_rate", 1 - found.p * 0.99).interval
    narrower = difference(before, after, "any_mask_rate", 1 - found.p * 1.01).interval
    assert wider.low <= 0 <= wider.high
    assert narrower.low > 0


def test_below_two_clusters_only_the_naive_interval_is_given():
    found = difference(side([50], [40]), side([50, 40], [45, 39]), "any_mask_rate", 0.95)
    assert (found.interval, found.method) == (None, change.NAIVE)
    assert found.naive is not None
    assert found.p is not None


def test_a_side_without_faces_has_no_difference():
    found = difference(State(), side([5, 5], [4, 4]), "any_mask_rate", 0.95)
    assert (found.before, found.after, found.difference, found.p) == (None, 0.8, None, None)


def test_equal_sides_do_not_differ():
    both = side([40, 50, 45], [30, 26, 30])
    found = difference(both, both, "any_mask_rate", 0.95)
    assert found.difference == 0
    assert found.p == pytest.approx(1)


@given(P_VALUES)
def test_adjusted_p_values_are_those_of_statsmodels(values):
    for name, theirs in (("holm", "holm"), ("benjamini-hochberg", "fdr_bh")):
        expected = multipletests(values, method=theirs)[1]
        assert adjust(values, name) == pytest.approx(expected.tolist(), abs=1e-9)
    assert adjust(values, "none") == values


def test_what_has_no_p_value_counts_for_nothing():
    assert adjust([None, 0.01, None, 0.04], "holm") == [None, 0.02, None, 0.04]
    assert adjust([], "holm") == []


@pytest.mark.parametrize("pairs", [True, False])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(pairs):
    generator, held, naive, count = np.random.default_rng(3), 0, 0, 250
    rates, clusters, faces, effect = (0.7, 0.8), 20, 40, 5
    total = (faces - 1) / (effect - 1) - 1
    for _ in range(count):
        level = [generator.beta(rate * total, (1 - rate) * total, clusters) for rate in rates]
        if pairs:  # the same cameras: those with low rates before have low rates after
            level[1] = np.clip(level[0] + (rates[1] - rates[0]), 0, 1)
        x = [generator.binomial(faces, one).tolist() for one in level]
        truth = rates[1] - rates[0] if not pairs else float(np.mean(np.clip(level[0] + 0.1, 0, 1) - level[0]))
        names = None if pairs else [f"other {i}" for i in range(clusters)]
        found = difference(side([faces] * clusters, x[0]), side([faces] * clusters, x[1], names), "any_mask_rate", 0.95)
        held += found.interval.low <= truth <= found.interval.high
        naive += found.naive.low <= truth <= found.naive.high
    assert held / count > 0.91
    if not pairs:
        assert naive / count < 0.8
