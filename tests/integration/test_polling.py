"""Readers by snapshot see the tables before or after a run; long form: `python -m tests.integration.polling`."""

from __future__ import annotations

from tests.integration.polling import Polls, judge, poll_during_runs


def test_a_reading_that_is_of_no_one_set_is_found():
    expected = {"one": [1, [2]], "two": [3, [4]]}
    readings = [["one", [1, [2]], 5], ["two", [3, [4]], 2], ["two", [3, [2]], 1], ["one", [3, [2]], 1]]
    assert judge("pandas", {"readings": readings, "late": 1}, expected) == Polls("pandas", 9, 2, 2, 1)


def test_no_reader_sees_two_sets_at_once(tmp_path):
    for polls in poll_during_runs(tmp_path, runs=3):
        assert polls.mixed == 0, polls
        assert polls.polls >= 3
        assert polls.sets >= 2
