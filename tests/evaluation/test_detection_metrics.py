"""Matching and average precision, against slow versions and a case by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdet.evaluation.detection_metrics import (
    FALSE,
    IGNORED,
    FoundFaces,
    average_precision,
    match_by_centre,
    match_by_overlap,
    precision_at,
    precision_recall,
)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def slow_precision(scores, right, faces):
    """Area under the step curve: for every hit, the best precision at its recall or beyond, over all thresholds."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        shown = [hit for score, hit in zip(scores, right, strict=True) if score >= threshold]
        points.append((sum(shown), sum(shown) / len(shown)))
    return sum(max((p for hits, p in points if hits >= k), default=0.0) for k in range(1, faces + 1)) / faces


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7]), st.booleans()), max_size=12), st.integers(0, 3))
def test_average_precision_is_the_area_of_the_step_curve(found, missed):
    scores, right = [score for score, _ in found], [hit for _, hit in found]
    faces = sum(right) + missed
    received = average_precision(np.array(scores, np.float32), np.array(right, bool), faces)
    if faces == 0:
        assert math.isnan(received)
    else:
        assert received == pytest.approx(slow_precision(scores, right, faces))


def test_the_surest_detection_takes_the_face_and_the_next_is_false():
    truth = boxes((0, 0, 10, 10), (100, 0, 120, 20))
    found = FoundFaces(boxes((0, 0, 10, 9), (0, 0, 10, 10), (50, 50, 60, 60)), np.array([0.9, 0.8, 0.7], np.float32))
    assert match_by_overlap(found, truth).tolist() == [0, FALSE, FALSE]


def test_ignored_faces_are_neither_asked_for_nor_false():
    truth = boxes((0, 0, 10, 10))
    found = FoundFaces(boxes((0, 0, 10, 10), (0, 0, 10, 10)), np.array([0.9, 0.8], np.float32))
    assert match_by_overlap(found, truth, np.array([True])).tolist() == [IGNORED, IGNORED]


def test_detections_within_a_crowd_are_not_false():
    truth = boxes((0, 0, 100, 100), (200, 0, 220, 20))
    # Two faces of the crowd, one of them at its edge; one mostly outside; one beside.
    found = boxes((10, 10, 30, 30), (90, 0, 110, 20), (95, 40, 115, 60), (300, 0, 320, 20))
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    crowd = np.array([True, False])
    assert match_by_overlap(FoundFaces(found, scores), truth, crowd).tolist() == [IGNORED, IGNORED, FALSE, FALSE]


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5]), st.booleans(), st.integers(0, 3)), max_size=10),
    st.integers(1, 5),
)
def test_a_weight_is_that_many_detections(found, missed):
    scores, right, weights = (np.array([row[place] for row in found]) for place in range(3))
    faces = int(sum(weights[right.astype(bool)])) + missed
    repeated = (np.repeat(scores, weights.astype(int)), np.repeat(right.astype(bool), weights.astype(int)))
    received = average_precision(scores, right.astype(bool), faces, weights.astype(int))
    assert received == pytest.approx(average_precision(*repeated, faces))


def found_by_the_rule(shown, faces):
    """Which detection each face takes, or -1: the rule in plain code, a face at a time and a detection at a time."""

    def iou(a, b):
        common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        sizes = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        return common / (sum(sizes) - common)

    def holds(outer, inner):
        x, y = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
        return outer[0] < x < outer[2] and outer[1] < y < outer[3]

    used, taken = set(), []
    for face in faces:
        left = [i for i in range(len(shown)) if i not in used]
        best = max(left, key=lambda i: (iou(shown[i], face), -i), default=-1)
        if best >= 0 and iou(shown[best], face) < 0.3:
            best = next((i for i in left if holds(face, shown[i]) and holds(shown[i], face)), -1)
        taken.append(best)
        used.add(best)
    return taken


@pytest.mark.parametrize("seed", range(40))
def test_matching_by_centre_is_the_rule_in_plain_code(seed):
    rng = np.random.default_rng(seed)

    def drawn(count):
        corner, side = rng.integers(0, 60, (count, 2)), rng.integers(4, 50, (count, 2))
        return np.concatenate([corner, corner + side], axis=1).astype(np.float32)

    faces, shown = drawn(int(rng.integers(0, 9))), drawn(int(rng.integers(0, 9)))
    scores = np.sort(rng.random(len(shown)).astype(np.float32))[::-1]
    match = match_by_centre(FoundFaces(shown, scores), faces)
    taken = found_by_the_rule(shown.astype(float).tolist(), faces.astype(float).tolist())
    assert {int(face): i for i, face in enumerate(match) if face >= 0} == {f: i for f, i in enumerate(taken) if i >= 0}
    assert set(match[match < 0].tolist()) <= {FALSE}


def test_a_face_is_found_by_centre_where_the_overlap_is_small():
    truth = boxes((0, 0, 10, 10), (100, 0, 110, 10), (200, 0, 210, 10))
    # Four times the face's side around it; the face's centre inside but not the reverse; a third of it.
    found = boxes((-15, -15, 25, 25), (101, 1, 131, 31), (200, 0, 210, 3.5))
    shown = FoundFaces(found, np.array([0.9, 0.8, 0.7], np.float32))
    assert match_by_centre(shown, truth).tolist() == [0, FALSE, 2]
    assert match_by_overlap(shown, truth).tolist() == [FALSE, FALSE, FALSE]


def test_a_face_asked_for_goes_before_one_ignored_and_crowds_hold_many():
    truth = boxes((0, 0, 12, 12), (1, 1, 12, 12), (100, 0, 200, 100))
    found = boxes((1, 1, 12, 12), (110, 10, 130, 30), (170, 70, 190, 90), (300, 0, 320, 20))
    match = match_by_centre(FoundFaces(found, np.full(4, 0.5, np.float32)), truth, np.array([True, False, True]))
    assert match.tolist() == [1, IGNORED, IGNORED, FALSE]


def test_nothing_found_and_nothing_annotated():
    shown, none = FoundFaces(boxes((0, 0, 9, 9)), np.ones(1, np.float32)), FoundFaces(boxes(), np.empty(0, np.float32))
    assert match_by_centre(shown, boxes()).tolist() == [FALSE]
    assert match_by_centre(none, boxes((0, 0, 9, 9))).tolist() == []


def test_a_curve_by_hand():
    scores = np.array([0.9, 0.8, 0.8, 0.5, 0.4], np.float32)
    curve = precision_recall(scores, np.array([True, False, True, True, False]), 4)
    np.testing.assert_array_equal(curve.scores, np.array([0.9, 0.8, 0.5, 0.4], np.float32))
    np.testing.assert_allclose(curve.recall, [1 / 4, 2 / 4, 3 / 4, 3 / 4])
    np.testing.assert_allclose(curve.precision, [1, 2 / 3, 3 / 4, 3 / 5])
    assert precision_at(curve, 0.5) == 0.75  # better at the next score
    assert precision_at(curve, 0.25) == 1.0
    assert math.isnan(precision_at(curve, 0.8))
