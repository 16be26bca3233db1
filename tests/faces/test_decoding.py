"""Decoding against a loop over cells, and as the inverse of the maps that lessons are made of."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskdet.faces.decoding import Heads, decode
from tools.detector.lessons import targets


def random_heads(seed, rows=5, columns=7):
    rng = np.random.default_rng(seed)
    shapes = ((), (2,), (2,), (10,))
    score, *rest = (rng.normal(0, 1, (rows, columns, *shape)).astype(np.float32) for shape in shapes)
    return Heads(1 / (1 + np.exp(-score)), *rest)


@given(st.integers(0, 50), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_every_cell_over_the_threshold_is_decoded(seed, threshold):
    heads, expected = random_heads(seed), []
    for row in range(5):
        for column in range(7):
            if heads.score[row, column] < threshold:
                continue
            height, width = (4 * math.exp(value) for value in heads.size[row, column])
            y = 4 * (row + 0.5 + heads.offset[row, column, 0])
            x = 4 * (column + 0.5 + heads.offset[row, column, 1])
            left, top = x - width / 2, y - height / 2
            down, right = heads.landmarks[row, column, 0::2], heads.landmarks[row, column, 1::2]
            points = [(left + r * width, top + d * height) for d, r in zip(down, right, strict=True)]
            expected.append(((left, top, left + width, top + height), heads.score[row, column], points))
    found = decode(heads, threshold)
    assert len(found.scores) == len(expected)
    for received, wanted in zip(zip(*found, strict=True), expected, strict=True):
        for one, other in zip(received, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


@given(st.floats(0, 200), st.floats(0, 200), st.floats(10, 50), st.floats(10, 50))
def test_decoding_undoes_the_maps_of_a_lesson(left, top, width, height):
    box = (left, top, left + width, top + height)
    score, centres, shape, _ = targets([box])
    heads = Heads(centres, shape[..., :2], shape[..., 2:], np.zeros((64, 64, 10), np.float32))
    found = decode(heads, 0.5)
    np.testing.assert_allclose(found.boxes, [box], atol=1e-3)
    assert score.max() == 1.0


def test_a_size_beyond_reason_stays_finite():
    heads = Heads(*(np.full((1, 1, *shape), 1e30, np.float32) for shape in ((), (2,), (2,), (10,))))
    assert np.isfinite(decode(heads._replace(offset=heads.offset * 0, landmarks=heads.landmarks * 0), 0.5).boxes).all()
