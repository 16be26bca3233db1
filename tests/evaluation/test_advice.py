"""Calibration and shortcut baselines on data made so that the answer is known."""

import numpy as np
import pyarrow as pa
import pytest

from maskdet.errors import ConfigError
from maskdet.evaluation import baselines, calibration
from maskdet.evaluation.image_statistics import laplacian_variance
from maskdet.evaluation.metrics import MASK, NO_MASK, Sample


def sample_of(probabilities, truth):
    labels = np.where(probabilities >= 0.5, MASK, NO_MASK).astype(np.int8)
    return Sample(np.asarray(probabilities, np.float64), np.asarray(truth, np.bool_), labels)


def drawn_sample(temperature, faces=20_000, seed=3):
    """Probabilities that are too sure by a known temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, faces)
    truth = generator.random(faces) < 1 / (1 + np.exp(-logits))
    return sample_of(1 / (1 + np.exp(-logits * temperature)), truth)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_is_found_again_and_mends_the_probabilities(temperature):
    fit = calibration.measure_temperature(drawn_sample(temperature), drawn_sample(temperature, seed=4))
    assert fit.temperature == pytest.approx(temperature, rel=0.05)
    assert fit.log_loss_after <= fit.log_loss_before + 1e-3
    assert fit.ece_after < 0.015
    assert (fit.fitted_on, fit.measured_on) == (20_000, 20_000)


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_is_that_of_least_log_loss(seed):
    sample = drawn_sample(1.7, faces=500, seed=seed)

    def loss(log_temperature):
        scaled = calibration.scale(sample.probabilities, np.exp(log_temperature))
        return -np.mean(np.log(np.where(sample.truth, scaled, 1 - scaled)))

    grid = np.linspace(-1, 3, 4001)
    best = grid[np.argmin([loss(point) for point in grid])]
    assert np.log(calibration.fit_temperature(sample)) == pytest.approx(best, abs=2e-3)


def test_scaling_moves_log_odds():
    assert calibration.scale(np.array([0.8]), 2.0) == pytest.approx([2 / 3])  # odds 4, root 2
    assert np.isfinite(calibration.scale(np.array([0.0, 1.0]), 0.1)).all()


def test_a_band_holds_its_error_rate_and_is_narrow():
    masked, unmasked = np.linspace(0.205, 0.995, 100), np.linspace(0.005, 0.795, 100)
    sample = sample_of(np.concatenate([masked, unmasked]), np.arange(200) < 100)
    below, above = calibration.choose_band(sample, 0.05)
    # Five of each class may fall on the wrong side.
    assert np.sum(masked < below) == np.sum(unmasked >= above) == 5
    band = calibration.measure_band(sample, sample, 0.05)
    assert (band.masked_as_no_mask, band.unmasked_as_mask) == (0.05, 0.05)
    assert band.uncertain == pytest.approx(np.mean((sample.probabilities >= below) & (sample.probabilities < above)))


def test_no_band_where_none_is_needed():
    sample = sample_of(np.array([0.1, 0.2, 0.8, 0.9]), [False, False, True, True])
    assert calibration.choose_band(sample, 0.01) == (0.5, 0.5)


def test_a_half_of_one_class_gives_no_advice():
    both, one = sample_of(np.array([0.2, 0.8]), [False, True]), sample_of(np.array([0.2, 0.8]), [True, True])
    assert calibration.measure_temperature(both, one) is None
    assert calibration.measure_band(one, both, 0.1) is None


@pytest.mark.parametrize("mask_inside", [True, False])
def test_the_width_interval_is_found(mask_inside):
    widths = np.arange(50, 250)
    inside = (widths >= 85) & (widths <= 125)
    assert baselines.fit_interval(widths, inside == mask_inside) == (85, 125, mask_inside)


def test_the_width_interval_is_the_best_of_all():
    generator = np.random.default_rng(5)
    widths, truth = generator.integers(0, 12, 60), generator.random(60) < 0.4
    found = baselines.fit_interval(widths, truth)

    def balanced(low, high, inside):
        called = ((widths >= low) & (widths <= high)) == inside
        return (called[truth].mean() + (~called)[~truth].mean()) / 2

    every = [(low, high, inside) for low in range(12) for high in range(low, 12) for inside in (True, False)]
    assert balanced(*found) == pytest.approx(max(balanced(*one) for one in every))


def test_the_border_s_calls_are_those_of_newton_s_method():
    """Logistic regression with classes of equal weight and a ridge penalty of 1, from its normal equations."""
    generator = np.random.default_rng(6)
    thumbnails = generator.integers(0, 256, (300, 2, 2, 3)).astype(np.uint8)
    truth = generator.random(300) < 1 / (1 + np.exp(2 - thumbnails[:, 0, 0, 1] / 64))
    fit = np.arange(300) < 200
    design = np.column_stack([np.ones(300), thumbnails.reshape(300, -1) / 255])
    weights = np.where(truth, 0.5 / truth[fit].mean(), 0.5 / (~truth[fit]).mean())[fit]
    penalty, found = np.diag([0.0] + [1.0] * 12), np.zeros(13)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-design[fit] @ found))
        curvature = (design[fit].T * (weights * chance * (1 - chance))) @ design[fit] + penalty
        found -= np.linalg.solve(curvature, design[fit].T @ (weights * (chance - truth[fit])) + penalty @ found)
    margin = design @ found
    clear = np.abs(margin) > 0.01
    np.testing.assert_array_equal(baselines.border_calls(thumbnails, truth, fit)[clear], margin[clear] > 0)
    assert clear.sum() > 290 and 0.1 < (margin > 0).mean() < 0.9


def test_shortcuts_without_scikit_learn_are_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"baselines: expected scikit-learn.*maskdet\[evaluate\]"):
        baselines.check_installed()


def test_a_shortcut_in_the_data_is_told():
    generator = np.random.default_rng(7)
    truth = np.arange(400) % 2 == 0
    thumbnails = generator.integers(0, 256, (400, 16, 16, 3)).astype(np.uint8)
    thumbnails[truth, 0] //= 4  # a darker upper edge
    rows = pa.table({"width_px": np.where(truth, 224, 105)})
    guesses = sample_of(generator.random(400), truth)
    fit = baselines.halves([f"content {number}" for number in range(400)])
    assert 0.4 < fit.mean() < 0.6
    model, width, border = baselines.compare(guesses, rows, thumbnails, fit, 0.95)
    assert model.accuracy.value == pytest.approx(0.5, abs=0.1)
    assert width.accuracy.value == width.balanced_accuracy.value == 1
    assert border.balanced_accuracy.value > 0.9
    assert model.accuracy.count == (~fit).sum()


def test_the_border_is_sixty_pixels():
    thumbnails = np.zeros((2, 16, 16, 3), np.uint8)
    thumbnails[:, 1:-1, 1:-1] = 255
    assert baselines.border(thumbnails).shape == (2, 60 * 3)
    assert not baselines.border(thumbnails).any()


def test_sharpness_of_a_checkerboard_beats_that_of_a_ramp():
    ramp = np.tile(np.arange(32, dtype=np.float32), (32, 1))
    board = 255 * (np.indices((32, 32)).sum(axis=0) % 2).astype(np.float32)
    assert laplacian_variance(ramp) == 0  # a ramp is linear
    assert laplacian_variance(board) == pytest.approx((4 * 255) ** 2)
