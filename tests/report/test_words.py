"""What a report says of its figures in words."""

from types import SimpleNamespace

import pytest

from maskdet.compliance.change import NAIVE
from maskdet.compliance.intervals import Interval
from maskdet.report.words import pairs_words


@pytest.mark.parametrize(
    ("interval", "method", "pairs", "said"),
    [
        (None, NAIVE, 0, "There is no interval: one of the periods has fewer than two clusters"),
        (Interval(-0.1, 0.1), NAIVE, 0, "The intervals take all faces for independent"),
        (Interval(-0.1, 0.1), "cluster", 1, "at most one such cluster is in both periods"),
        (Interval(-0.1, 0.1), "cluster", 7, "7 such clusters are in both periods"),
    ],
)
def test_a_change_says_how_its_interval_was_made_or_that_there_is_none(interval, method, pairs, said):
    change = SimpleNamespace(interval=interval, method=method, pairs=pairs)
    assert said in pairs_words(change, "a camera's hour")
