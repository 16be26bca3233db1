"""Votes of frames and changes, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from maskdet.labels import Decision
from maskdet.tracks.voting import Change, effective_frames, find_changes, vote

TWO = Decision(no_mask_below=0.4, mask_from=0.6)
THREE = Decision(no_mask_below=0.4, mask_from=0.6, incorrect_from=0.4)


def odds(probability):
    return math.log(probability / (1 - probability))


def test_frames_are_worth_less_together_than_apart():
    assert effective_frames(1) == 1
    assert effective_frames(2) == pytest.approx(4 / 3)
    assert effective_frames(10_000) == pytest.approx(2, abs=1e-3)


def test_one_frame_is_its_own_vote():
    voted = vote(np.array([0.7]), None, TWO)
    assert voted == ("mask", pytest.approx(0.7), None, pytest.approx(0.3))


def test_two_frames_that_agree_are_surer_and_a_middle_is_uncertain():
    voted = vote(np.array([0.8, 0.8]), None, TWO)
    assert voted.mask == pytest.approx(1 / (1 + math.exp(-odds(0.8) * 4 / 3)))
    assert vote(np.array([0.8, 0.2]), None, TWO).label == "uncertain"


def test_three_classes_are_two_questions():
    mask, incorrect = np.array([0.5, 0.3]), np.array([0.4, 0.6])
    voted = vote(mask, incorrect, THREE)
    worn = 1 / (1 + math.exp(-odds(0.9) * 4 / 3))
    shown = 0.9 + 0.9  # frames that show a mask
    share = 1 / (1 + math.exp(-(odds(4 / 9) + odds(6 / 9)) / 2 * shown / (1 + (shown - 1) / 2)))
    assert voted.incorrect == pytest.approx(worn * share)
    assert voted.mask + voted.incorrect + voted.no_mask == pytest.approx(1)
    assert voted.label == "incorrect"


def test_one_wild_frame_does_not_outvote_the_others():
    assert vote(np.array([0.9, 0.9, 0.9, 0.0]), None, TWO).mask < vote(np.array([0.9] * 4), None, TWO).mask
    assert vote(np.array([0.95] * 5 + [0.0]), None, TWO).label == "mask"


def test_changes_take_frames_in_a_row():
    labels = (
        ["no_mask"] * 3
        + ["mask", "no_mask"]
        + ["mask"] * 2
        + ["uncertain"]
        + ["mask"]
        + ["incorrect"] * 3
        + ["no_mask"] * 4
    )
    times = list(range(len(labels)))
    assert find_changes(times, labels, 3) == [Change(5, "put_on"), Change(9, "slipped"), Change(12, "taken_off")]
    assert find_changes(times, labels, 5) == []
    assert [change.kind for change in find_changes(times, labels, 1)] == [
        *("put_on", "taken_off", "put_on", "slipped", "taken_off")
    ]
    assert find_changes([0, 1, 2], ["incorrect", "mask", "mask"], 1) == [Change(1, "put_right")]
