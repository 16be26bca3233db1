"""Estimates from a stratified sample, against hand algebra, statsmodels, and populations whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa

from maskdet.audit.estimates import StratumSample, agreement, sampled_share


def stratum(faces, counts, within=None, scores=None, score_total=None):
    counts = np.array(counts, float)
    scores = np.full(len(counts), 0.5) if scores is None else np.array(scores, float)
    total = faces * float(scores.mean()) if score_total is None else score_total
    return StratumSample(
        faces, total, counts, np.ones(len(counts)) if within is None else np.array(within, float), scores
    )


def test_a_stratified_mean_is_weighted_by_faces():
    found = sampled_share([stratum(900, [1, 1, 1, 0]), stratum(100, [0, 0, 1, 0])], 0.95, use_scores=False)
    assert found.share == pytest.approx(0.9 * 0.75 + 0.1 * 0.25)
    share = found.share
    # Cochran, Sampling Techniques, section 5.5: sum of W² (1 - f) s² / n.
    variance = 0.81 * (1 - 4 / 900) * 0.25 / 4 + 0.01 * (1 - 4 / 100) * 0.25 / 4
    effective, t = share * (1 - share) / variance, stats.t.ppf(0.975, 6)
    roots = np.sort(np.roots([1 + t * t / effective, -2 * share - t * t / effective, share * share]).real)
    assert found.interval == pytest.approx(roots, abs=1e-9)


def test_boxes_without_a_face_are_in_neither_part_of_the_share():
    found = sampled_share([stratum(80, [1, 0, 1, 0], within=[1, 1, 1, 0])], 0.95, use_scores=False)
    assert (found.share, found.labelled) == (pytest.approx(2 / 3), 3)


def test_scores_of_all_faces_move_the_share_by_what_the_sample_misses():
    rng = np.random.default_rng(1)
    truth = rng.random(2000) < 0.4
    scores = np.clip(truth * 0.8 + 0.1 + 0.1 * rng.standard_normal(2000), 0, 1)
    chosen = rng.choice(2000, 80, replace=False)
    one = stratum(2000, truth[chosen], scores=scores[chosen], score_total=scores.sum())
    plain, powered = sampled_share([one], 0.95, use_scores=False), sampled_share([one], 0.95)
    weight = np.cov(truth[chosen] - powered.share, scores[chosen], ddof=1)[0, 1] / np.var(scores[chosen], ddof=1)
    assert powered.weight == pytest.approx(min(1, weight), abs=1e-9)
    expected = plain.share + powered.weight * (scores.mean() - scores[chosen].mean())
    assert powered.share == pytest.approx(expected, abs=1e-12)
    assert np.diff(powered.interval) < 0.6 * np.diff(plain.interval)


def test_all_faces_labelled_leave_nothing_to_doubt_but_the_formula_s_own_caution():
    found = sampled_share([stratum(6, [1, 1, 0, 1, 0, 0]), stratum(4, [1, 1, 1, 1])], 0.95)
    assert found.share == pytest.approx(7 / 10)


def test_labels_that_all_agree_do_not_make_it_sure():
    few, many = (sampled_share([stratum(10_000, [1] * n)], 0.95, use_scores=False) for n in (5, 100))
    assert few.share == many.share == 1
    assert few.interval.low < 0.6
    assert 0.94 < many.interval.low < 0.98
    assert sampled_share([stratum(10, [1, 0], within=[0, 0])], 0.95) is None


@pytest.mark.parametrize("rate", [0.6, 0.95])
def test_it_holds_the_truth_as_often_as_it_says(rate):
    rng, held, count = np.random.default_rng(7), 0, 400
    for _ in range(count):
        faces = [1500, 300, 300, 3000]
        odds = np.array([0.03, 0.3, 0.7, 0.97]) ** (1 if rate < 0.9 else 0.3)
        strata, positive = [], 0
        for size, n, p in zip(faces, (20, 30, 30, 40), odds, strict=True):
            truth = rng.random(size) < p
            scores = np.clip(p + 0.1 * rng.standard_normal(size), 0, 1)
            positive += truth.sum()
            chosen = rng.choice(size, n, replace=False)
            strata.append(stratum(size, truth[chosen], scores=scores[chosen], score_total=scores.sum()))
        found = sampled_share(strata, 0.95)
        held += found.interval.low <= positive / sum(faces) <= found.interval.high
    # 400 draws of a share of .93 or more lie above .90, except once in a hundred times.
    assert held / count > 0.90


class TestKappa:
    def test_it_is_statsmodels(self):
        rng = np.random.default_rng(2)
        first = rng.choice(["mask", "no_mask", "incorrect"], 200, p=[0.6, 0.3, 0.1])
        second = np.where(rng.random(200) < 0.8, first, rng.choice(["mask", "no_mask", "incorrect"], 200))
        names = sorted({*first, *second})
        table = [[int(np.sum((first == a) & (second == b))) for b in names] for a in names]
        expected = cohens_kappa(table)
        found = agreement(first.tolist(), second.tolist(), 0.95)
        assert found.kappa == pytest.approx(expected.kappa, abs=1e-12)
        assert (found.low, found.high) == pytest.approx((expected.kappa_low, expected.kappa_upp), abs=1e-6)
        assert found.agreed == pytest.approx(np.mean(first == second))

    def test_the_published_example(self):
        # J. L. Fleiss, Statistical Methods for Rates and Proportions, 2nd ed., table 13.1: kappa .68.
        counts = {("p", "p"): 75, ("p", "n"): 1, ("p", "o"): 4, ("n", "p"): 5, ("n", "n"): 4, ("n", "o"): 1,
                  ("o", "p"): 0, ("o", "n"): 0, ("o", "o"): 10}  # fmt: skip
        pairs = [pair for pair, count in counts.items() for _ in range(count)]
        found = agreement([a for a, _ in pairs], [b for _, b in pairs], 0.95)
        assert round(found.kappa, 2) == 0.68

    def test_one_label_only_has_no_kappa(self):
        assert agreement(["mask"] * 3, ["mask"] * 3, 0.95).kappa is None
        assert agreement([], [], 0.95) is None
