"""Intervals where a bootstrap has no width, against their definitions worked out otherwise."""

import numpy as np
import pytest
from scipy import stats

from maskdet.evaluation.alike import auc_interval, f1_interval, share_interval
from maskdet.evaluation.classes import LabelledFaces, measure_classes
from maskdet.evaluation.intervals import Bootstrap, estimate_all
from maskdet.evaluation.metrics import MASK, NO_MASK, Sample
from maskdet.labels import CODES

FEW = Bootstrap(resamples=100)


@pytest.mark.parametrize(("right", "wrong"), [(50, 14), (3, 1), (200, 7)])
def test_an_f1_s_interval_is_that_of_its_posterior(right, wrong):
    """F1 = U / (U + V) with U of a gamma distribution of scale 2 and V of one of scale 1."""
    draws = np.random.default_rng(5)
    hits, misses = draws.gamma(right + 0.5, 2, 400_000), draws.gamma(wrong + 1, 1, 400_000)
    expected = np.quantile(hits / (hits + misses), [0.025, 0.975])
    assert f1_interval(right, wrong, 0.95) == pytest.approx(expected, abs=0.003)


def test_an_f1_at_its_bounds_reaches_them():
    assert f1_interval(36, 0, 0.95).high == 1
    assert f1_interval(0, 14, 0.95).low == 0


@pytest.mark.parametrize(("auc", "positives", "negatives"), [(1.0, 50, 36), (0.0, 10, 10), (0.87, 50, 50), (0.5, 4, 9)])
def test_an_area_s_interval_holds_those_within_z_standard_errors(auc, positives, negatives):
    areas = np.linspace(0, 1, 200_001)[1:-1]
    mean = (positives + negatives) / 2 - 1
    spread = 1 + mean * (1 - areas) / (2 - areas) + mean * areas / (1 + areas)
    errors = np.sqrt(areas * (1 - areas) * spread / (positives * negatives))
    within = areas[np.abs(auc - areas) <= stats.norm.ppf(0.975) * errors]
    assert auc_interval(auc, positives, negatives, 0.95) == pytest.approx((within[0], within[-1]), abs=1e-4)


def test_an_area_s_interval_holds_the_true_one_often_enough():
    """Two normal distributions of which a draw of one is above one of the other in 97 of 100 cases."""
    draws, distance, held = np.random.default_rng(3), stats.norm.ppf(0.97) * np.sqrt(2), 0
    for _ in range(400):
        above, below = draws.normal(distance, 1, 40), draws.normal(0, 1, 30)
        low, high = auc_interval((above[:, None] > below).mean(), 40, 30, 0.95)
        held += low <= 0.97 <= high
    assert held / 400 >= 0.93


def test_a_share_s_is_wilson_s():
    assert share_interval(1.0, 10, 0.95) == pytest.approx((10 / (10 + stats.norm.ppf(0.975) ** 2), 1.0))


def test_without_a_mistake_no_score_is_certain():
    truth = np.arange(60) < 36
    sample = Sample(np.where(truth, 0.9, 0.1), truth, np.where(truth, MASK, NO_MASK).astype(np.int8))
    found = {one.metric: one for one in estimate_all(sample, FEW)}
    for name in ("f1", "roc_auc", "average_precision"):
        assert found[name].value == found[name].high == 1
        assert 0.85 < found[name].low < 0.99, name


def test_where_each_class_is_always_called_alike_no_f1_is_certain():
    """All worn incorrectly are called masks: no resample differs, and yet little is known."""
    truth = np.array([CODES["mask"]] * 50 + [CODES["incorrect"]] * 14 + [CODES["no_mask"]] * 36, np.int8)
    labels = np.where(truth == CODES["incorrect"], CODES["mask"], truth).astype(np.int8)
    uniform = {name: np.full(100, 1 / 3) for name in ("mask", "incorrect", "no_mask")}
    found = {one.metric: one for one in measure_classes(LabelledFaces(truth, labels, uniform), FEW).estimates}
    mask = found["f1_mask"]
    assert (mask.value, mask.low, mask.high) == pytest.approx((100 / 114, 0.797, 0.927), abs=1e-3)
    assert found["f1_incorrect"].low == 0 < found["f1_incorrect"].high
    each = [found[f"f1_{name}"] for name in ("mask", "incorrect", "no_mask")]
    macro = found["macro_f1"]
    assert macro.value == pytest.approx(np.mean([one.value for one in each]))
    down = np.linalg.norm([one.value - one.low for one in each]) / 3
    up = np.linalg.norm([one.high - one.value for one in each]) / 3
    assert (macro.low, macro.high) == pytest.approx((macro.value - down, macro.value + up))
