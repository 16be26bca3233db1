"""Overlap and non-maximum suppression against loops over single boxes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from maskdet.faces.boxes import pairwise_iou, suppress


def slow_iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, width) * max(0.0, height)
    area = sum(max(0.0, (box[2] - box[0]) * (box[3] - box[1])) for box in (one, other))
    return common / (area - common) if area > common else 0.0


def slow_inside(box, outer):
    width = min(box[2], outer[2]) - max(box[0], outer[0])
    height = min(box[3], outer[3]) - max(box[1], outer[1])
    return max(0.0, width) * max(0.0, height) / ((box[2] - box[0]) * (box[3] - box[1]))


def slow_suppress(boxes, scores, max_iou, max_inside):
    alive, kept = list(range(len(boxes))), []
    while alive:
        best = max(alive, key=lambda index: (scores[index], -index))
        kept.append(best)
        alive = [
            index
            for index in alive
            if index != best
            and slow_iou(boxes[best], boxes[index]) < max_iou
            and slow_inside(boxes[index], boxes[best]) < max_inside
        ]
    return kept


@st.composite
def some_boxes(draw):
    count = draw(st.integers(0, 12))
    corner = draw(arrays.arrays(np.float32, (count, 2), elements=st.integers(0, 20).map(float)))
    side = draw(arrays.arrays(np.float32, (count, 2), elements=st.integers(1, 15).map(float)))
    scores = draw(arrays.arrays(np.float32, count, elements=st.sampled_from([0.25, 0.5, 0.75, 1.0])))
    return np.concatenate([corner, corner + side], axis=1), scores


@given(some_boxes(), some_boxes())
def test_overlap_is_that_of_every_pair(one, other):
    received = pairwise_iou(one[0], other[0])
    expected = [[slow_iou(a.tolist(), b.tolist()) for b in other[0]] for a in one[0]]
    np.testing.assert_allclose(received, np.reshape(expected, received.shape), atol=1e-12)


@given(some_boxes(), st.sampled_from([0.2, 0.3, 0.5]), st.sampled_from([0.5, 0.8, 2.0]))
def test_suppression_keeps_what_the_loop_keeps(found, max_iou, max_inside):
    boxes, scores = found
    expected = slow_suppress(boxes.tolist(), scores.tolist(), max_iou, max_inside)
    assert suppress(boxes, scores, max_iou, max_inside).tolist() == expected


def test_a_box_inside_another_and_an_empty_one():
    boxes = np.array([[0, 0, 4, 4], [0, 0, 2, 4], [5, 5, 5, 5]], np.float32)
    np.testing.assert_allclose(pairwise_iou(boxes[:1], boxes), [[1.0, 0.5, 0.0]])
