"""A report's numbers in words."""

from types import SimpleNamespace

import pytest

from maskdet.compliance.change import NAIVE
from maskdet.compliance.intervals import Interval
from maskdet.report.scales import of_hundred
from maskdet.report.words import bare_share, pairs_words


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


@pytest.mark.parametrize(
    ("counts", "hundred", "said"),
    [
        # 68.48, 15.20 and 16.32 percent: largest remainder over all three would call the first 69.
        ((6848, 1520, 1632), [68, 15, 17], "68"),
        # 40.6, 29.7 and 29.7: the first takes what the others would have been rounded up to.
        ((406, 297, 297), [41, 30, 29], "41"),
        ((9970, 10, 20), [99, 0, 1], ">99"),
        ((995, 5), [99, 1], ">99"),
        ((1, 0, 399), [0, 0, 100], "<1"),
        ((1, 199), [0, 100], "<1"),
        ((7, 0, 0), [100, 0, 0], "100"),
        ((0, 1, 2), [0, 33, 67], "0"),
    ],
)
def test_of_every_hundred_agrees_with_the_share_in_percent(counts, hundred, said):
    assert of_hundred(counts) == hundred
    assert bare_share(counts[0] / sum(counts), 0) == said


def test_of_every_hundred_adds_up_and_is_nowhere_a_whole_one_off():
    for first in range(0, 401):
        for second in range(0, 401 - first, 7):
            counts = (first, second, 400 - first - second)
            found = of_hundred(counts)
            assert sum(found) == 100 and min(found) >= 0
            assert all(abs(number - count / 4) <= 1 for number, count in zip(found, counts, strict=True))
            said = bare_share(first / 400, 0)
            assert found[0] == {"<1": 0, ">99": 99}.get(said) or str(found[0]) == said


def test_only_none_is_nothing_and_only_all_is_everything():
    assert [bare_share(value, 0) for value in (0.0, 0.005, 0.995, 1.0)] == ["0", "<1", ">99", "100"]
    assert [bare_share(value) for value in (0.0004, 0.001, 0.9996)] == ["<0.1", "0.1", ">99.9"]
