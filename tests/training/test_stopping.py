import pytest

from maskdet.training.recipe import EarlyStopping
from maskdet.training.stopping import best_epoch, should_stop


def stops_after(values, **settings):
    """How many epochs a training with these losses takes, and the best one's number, from 1."""
    stopping = EarlyStopping(**settings)
    history = []
    for value in values:
        history.append({stopping.monitor: value})
        if should_stop(history, stopping):
            break
    return len(history), best_epoch(history, stopping) + 1


def test_stops_after_so_many_epochs_without_a_best():
    assert stops_after([5, 4, 4.5, 4.2, 4.1, 1], patience=3) == (5, 2)
    assert stops_after([5, 4, 4.5, 4.2, 3.9, 1], patience=3) == (6, 6)
    assert stops_after([5, 6], patience=1) == (2, 1)


def test_accuracies_should_rise():
    assert stops_after([0.5, 0.9, 0.8, 0.7, 0.99], monitor="val_accuracy", patience=2) == (4, 2)


def test_an_equal_figure_is_no_new_best():
    assert stops_after([3, 3, 3, 3], patience=2) == (3, 1)


def test_small_improvements_do_not_count():
    # From 1.0: .95 and .91 are within .1 of it, .89 is not.
    assert stops_after([1.0, 0.95, 0.91, 0.89, 0.88], min_delta=0.1, patience=3) == (5, 4)
    assert stops_after([1.0, 0.95, 0.91, 0.89, 0.88], min_delta=0.1, patience=2) == (3, 1)


def test_not_a_number_is_never_better():
    assert stops_after([2.0, float("nan"), float("nan")], patience=2) == (3, 1)


@pytest.mark.parametrize("history", [[], [{"loss": 1.0}] * 30])
def test_without_early_stopping_training_goes_on(history):
    assert not should_stop(history, None)
