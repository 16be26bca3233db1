"""Matching and average precision against slow versions, and a case by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdet.evaluation.annotations import AnnotatedImage
from maskdet.evaluation.detection_metrics import FALSE, IGNORED, FoundFaces, average_precision, match_faces, measure


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def annotated(found, labels=None, ignored=None):
    count = len(found)
    return AnnotatedImage("x", found, labels or (None,) * count, np.array(ignored or [False] * count, bool))


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
    assert match_faces(found, truth).tolist() == [0, FALSE, FALSE]


def test_ignored_faces_are_neither_asked_for_nor_false():
    truth = boxes((0, 0, 10, 10))
    found = FoundFaces(boxes((0, 0, 10, 10), (0, 0, 10, 10)), np.array([0.9, 0.8], np.float32))
    assert match_faces(found, truth, np.array([True])).tolist() == [IGNORED, IGNORED]
    report = measure([(found, annotated(truth, ignored=[True]))])
    assert report.false_detections == 0 and sum(size.faces for size in report.by_size) == 0


def test_a_report_by_hand():
    truth = boxes((0, 0, 20, 16), (40, 0, 80, 40), (100, 0, 200, 90), (300, 0, 310, 10))
    found = FoundFaces(
        boxes((0, 0, 20, 15), (100, 0, 200, 100), (500, 0, 600, 100)),
        np.array([0.9, 0.8, 0.7], np.float32),
        ("mask", "mask", "mask"),
    )
    nothing = (FoundFaces(boxes(), np.empty(0)), annotated(boxes()))
    report = measure([(found, annotated(truth, ("mask", "mask", "no_mask", None))), nothing])
    assert [(size.faces, size.found) for size in report.by_size] == [(1, 1), (1, 0), (1, 1)]
    assert report.false_per_image == 0.5
    assert report.average_precision == pytest.approx(0.5)
    assert (report.labelled, report.found_and_right, report.end_to_end) == (3, 1, pytest.approx(1 / 3))


def test_nothing_at_all():
    report = measure([])
    assert math.isnan(report.end_to_end) and math.isnan(report.average_precision) and math.isnan(report.false_per_image)


def test_detections_within_a_crowd_are_not_false():
    truth = boxes((0, 0, 100, 100), (200, 0, 220, 20))
    # Two faces of the crowd, one of them at its edge; one mostly outside; one beside.
    found = boxes((10, 10, 30, 30), (90, 0, 110, 20), (95, 40, 115, 60), (300, 0, 320, 20))
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    crowd = np.array([True, False])
    assert match_faces(FoundFaces(found, scores), truth, crowd).tolist() == [IGNORED, IGNORED, FALSE, FALSE]


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
