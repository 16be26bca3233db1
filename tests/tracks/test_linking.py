"""Tracks against the known paths of people; measured by IDF1, from its definition."""

from __future__ import annotations

import numpy as np
import pytest

from maskdet.tracks.linking import NO_TRACK, LinkRule, link_faces
from tests.tracks.scenes import PICTURE, Walk, crowd, idf1, see

RULE = LinkRule()


def link(times_us, boxes, scores, rule=RULE):
    return link_faces(times_us, boxes, scores, rule, PICTURE)


def linked(seen):
    return link(seen.times_us, seen.boxes, seen.scores)


@pytest.mark.parametrize("seed", range(100, 106))  # the rule was chosen on others
@pytest.mark.parametrize("rate", [2.0, 5.0, 25.0])
def test_people_who_walk_by_are_kept_apart(seed, rate):
    seen = see(crowd(seed), seed, rate)
    assert idf1(seen.people, linked(seen)) >= 0.95


@pytest.mark.parametrize("seed", range(4))
def test_missed_faces_and_false_boxes_cost_little(seed):
    seen = see(crowd(seed), seed, 5.0, missed=0.15, false=0.2)
    assert idf1(seen.people, linked(seen)) >= 0.85


def test_two_who_meet_go_on_as_they_came():
    walks = [Walk((100, 300), (120, 0), 60, 0, 8), Walk((900, 330), (-120, 0), 60, 0, 8)]
    seen = see(walks, 0, 5.0, 8.0)
    tracks = linked(seen)
    assert idf1(seen.people, tracks) == 1
    assert set(tracks) == {0, 1}


def test_the_order_of_faces_changes_nothing():
    seen = see(crowd(3), 3, 5.0, missed=0.1, false=0.3)
    expected = linked(seen)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(expected))
        shuffled = link(seen.times_us[order], seen.boxes[order], seen.scores[order])
        assert (shuffled == expected[order]).all()


def test_a_face_out_of_sight_for_longer_than_the_gap_comes_back_as_another():
    times = np.array([0.0, 0.5, 1.0, 3.5, 4.0])
    boxes = np.tile([100.0, 100.0, 50.0, 60.0], (5, 1))
    scores = np.full(5, 0.9)
    of = (times * 1e6).astype(np.int64), boxes, scores
    assert link(*of).tolist() == [0, 0, 0, 1, 1]
    assert link(*of, LinkRule(max_gap_s=2.5)).tolist() == [0, 0, 0, 0, 0]


def test_faint_faces_go_on_with_tracks_and_start_none():
    times = np.array([0, 500_000, 1_000_000, 1_000_000])
    boxes = np.array([[100, 100, 50, 60], [105, 100, 50, 60], [110, 100, 50, 60], [600, 100, 50, 60]], float)
    scores = np.array([0.9, 0.3, 0.8, 0.3])
    assert link(times, boxes, scores).tolist() == [0, 0, 0, NO_TRACK]


def test_a_sure_face_is_preferred_to_a_faint_one_that_is_nearer():
    times = np.array([0, 500_000, 500_000])
    boxes = np.array([[100, 100, 50, 60], [101, 100, 50, 60], [115, 100, 50, 60]], float)
    assert link(times, boxes, np.array([0.9, 0.3, 0.9])).tolist() == [0, NO_TRACK, 0]


def test_a_face_twice_as_large_is_another():
    times = np.array([0, 500_000])
    boxes = np.array([[100, 100, 50, 60], [75, 70, 110, 130]], float)
    assert link(times, boxes, np.full(2, 0.9)).tolist() == [0, 1]


def test_tracks_are_numbered_by_when_they_begin_and_from_left_to_right():
    times = np.array([1_000_000, 0, 1_000_000])
    boxes = np.array([[900, 0, 50, 60], [500, 0, 50, 60], [100, 0, 50, 60]], float)
    assert link(times, boxes, np.full(3, 0.9)).tolist() == [2, 0, 1]


def test_no_faces_have_no_tracks():
    assert link(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0)).tolist() == []
