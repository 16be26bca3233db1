"""Metrics by hand, against scikit-learn, and by their mathematical properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from maskdet.evaluation import metrics
from maskdet.evaluation.metrics import MASK, NO_MASK, UNCERTAIN, Sample, Tally


def sample_of(probabilities, truth, below=0.5, above=0.5, groups=None):
    values = np.array(probabilities, np.float64)
    labels = np.where(values >= above, MASK, np.where(values < below, NO_MASK, UNCERTAIN)).astype(np.int8)
    return Sample(values, np.array(truth, np.bool_), labels, None if groups is None else np.array(groups, np.int64))


def tally_of(*args, **kwargs):
    return Tally.of(sample_of(*args, **kwargs))


# Masked: .9 .8 .6 .3; unmasked: .7 .4 .1 .1; uncertain from .5 to .65.
BY_HAND = tally_of([0.9, 0.8, 0.6, 0.3, 0.7, 0.4, 0.1, 0.1], [1, 1, 1, 1, 0, 0, 0, 0], below=0.5, above=0.65)


@pytest.mark.parametrize(
    ("proportion", "right", "total"),
    [
        (metrics.sensitivity, 2, 4),  # .9 .8; the uncertain .6 is not found
        (metrics.specificity, 3, 4),
        (metrics.precision, 2, 3),  # .9 .8 of .9 .8 .7
        (metrics.accuracy, 5, 8),
        (metrics.coverage, 7, 8),
        (metrics.decided_accuracy, 5, 7),
    ],
)
def test_shares_by_hand(proportion, right, total):
    assert tuple(map(float, proportion(BY_HAND))) == (right, total)


def test_scores_by_hand():
    assert metrics.balanced_accuracy(BY_HAND) == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert metrics.f1(BY_HAND) == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    # .9 and .8 beat all four, .6 beats three, .3 beats two.
    assert metrics.roc_auc(BY_HAND) == pytest.approx((4 + 4 + 3 + 2) / 16)
    # Precision at each masked face from above: 1, 1, 3/4, 4/6.
    assert metrics.average_precision(BY_HAND) == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)
    squares = [0.1**2, 0.2**2, 0.4**2, 0.7**2, 0.7**2, 0.4**2, 0.1**2, 0.1**2]
    assert metrics.brier(BY_HAND) == pytest.approx(sum(squares) / 8)
    truths = [0.9, 0.8, 0.6, 0.3, 0.3, 0.6, 0.9, 0.9]
    assert metrics.log_loss(BY_HAND) == pytest.approx(-np.log(truths).mean())


def test_ties_count_half():
    assert metrics.roc_auc(tally_of([0.5, 0.5, 0.5], [1, 0, 0])) == 0.5
    assert metrics.roc_auc(tally_of([0.5, 0.5, 0.2], [1, 0, 0])) == 0.75


def test_calibration_error_by_hand():
    tally = tally_of([0.1, 0.1, 0.3, 0.9], [0, 1, 0, 1])
    # Two bins of width .5: mean probability .5/3, 1/3 masked; mean probability .9, all masked.
    bins = metrics.equal_width_bins(tally, 2)
    assert bins.tolist() == [0, 0, 1]
    assert metrics.calibration_error(tally, bins) == pytest.approx(3 / 4 * (1 / 3 - 0.5 / 3) + 1 / 4 * 0.1)
    # Two bins of two faces: mean probability .1, half masked; mean probability .6, half masked.
    bins = metrics.equal_mass_bins(tally, 2)
    assert bins.tolist() == [0, 1, 1]
    assert metrics.calibration_error(tally, bins) == pytest.approx(1 / 2 * 0.4 + 1 / 2 * 0.1)


def test_a_missing_class_leaves_metrics_undefined():
    tally = tally_of([0.9, 0.2], [1, 1])
    assert metrics.share(metrics.sensitivity(tally)) == 0.5
    for score in (metrics.roc_auc, metrics.balanced_accuracy):
        assert np.isnan(score(tally))
    assert np.isnan(metrics.share(metrics.specificity(tally)))


def test_a_threshold_of_its_own_labels_every_face():
    tally = metrics.at_threshold(BY_HAND, 0.4)
    assert tuple(map(float, metrics.sensitivity(tally))) == (3, 4)
    assert tuple(map(float, metrics.specificity(tally))) == (2, 4)
    assert metrics.share(metrics.coverage(tally)) == 1


# Multiples of 1/64, as a quantised model gives them, so that there are ties.
PROBABILITIES = st.integers(0, 64).map(lambda step: step / 64)
FACES = st.lists(st.tuples(PROBABILITIES, st.booleans()), min_size=2, max_size=60).filter(
    lambda faces: len({truth for _, truth in faces}) == 2
)


@given(FACES)
@settings(deadline=None)
def test_scikit_learn_agrees(faces):
    probabilities, truth = map(np.array, zip(*faces, strict=True))
    tally = tally_of(probabilities, truth)
    called = probabilities >= 0.5
    assert metrics.roc_auc(tally) == pytest.approx(reference.roc_auc_score(truth, probabilities))
    assert metrics.average_precision(tally) == pytest.approx(reference.average_precision_score(truth, probabilities))
    assert metrics.brier(tally) == pytest.approx(reference.brier_score_loss(truth, probabilities))
    assert metrics.balanced_accuracy(tally) == pytest.approx(reference.balanced_accuracy_score(truth, called))
    assert metrics.f1(tally) == pytest.approx(reference.f1_score(truth, called, zero_division=0.0))
    clipped = np.clip(probabilities, 1 / 512, 1 - 1 / 512)
    assert metrics.log_loss(tally) == pytest.approx(reference.log_loss(truth, clipped))
    expected = reference.roc_curve(truth, probabilities, drop_intermediate=False)
    for found, points in zip(metrics.roc_curve(tally), expected[:2], strict=True):
        assert found == pytest.approx(points)


@given(FACES, st.integers(1, 5))
def test_ranking_metrics_survive_a_monotone_map(faces, power):
    probabilities, truth = map(np.array, zip(*faces, strict=True))
    plain, mapped = tally_of(probabilities, truth), tally_of(probabilities**power / 2, truth)
    assert metrics.roc_auc(plain) == pytest.approx(metrics.roc_auc(mapped))
    assert metrics.average_precision(plain) == pytest.approx(metrics.average_precision(mapped))


@given(FACES)
def test_calibration_scores_keep_their_bounds(faces):
    probabilities, truth = map(np.array, zip(*faces, strict=True))
    tally = tally_of(probabilities, truth)
    for bins in (metrics.equal_mass_bins(tally), metrics.equal_width_bins(tally)):
        error = metrics.calibration_error(tally, bins)
        # One bin sees only the overall gap; no binning sees more than the mean absolute error.
        assert abs(probabilities.mean() - truth.mean()) - 1e-12 <= error <= np.abs(probabilities - truth).mean() + 1e-12
    assert 0 <= metrics.brier(tally) <= 1


@given(FACES, st.data())
def test_counts_weigh_as_repeated_faces(faces, data):
    repeats = data.draw(st.lists(st.integers(1, 3), min_size=len(faces), max_size=len(faces)))
    repeated = [face for face, count in zip(faces, repeats, strict=True) for _ in range(count)]
    probabilities, truth = map(np.array, zip(*repeated, strict=True))
    tally = tally_of(probabilities, truth)
    stacked = tally.with_counts(np.stack([tally.masked, 2 * tally.masked]), np.stack([tally.unmasked] * 2))
    doubled = tally.with_counts(2 * tally.masked, tally.unmasked)
    assert metrics.average_precision(stacked).tolist() == pytest.approx(
        [float(metrics.average_precision(tally)), float(metrics.average_precision(doubled))]
    )
