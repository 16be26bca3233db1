"""Decoding of the detector's outputs, against a loop over cells and by hand."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskdet.faces.decoding import Heads, decode, decode_centerface, decode_yunet


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
            box = (left, top, left + width, top + height)
            expected.append((box, heads.score[row, column], points, max(width, height)))
    found = decode(heads, threshold)
    assert len(found.scores) == len(expected)
    for received, wanted in zip(zip(*found, strict=True), expected, strict=True):
        for one, other in zip(received, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


def test_the_published_outputs_are_read_as_ours():
    heads = random_heads(3)
    ours = {name: values if values.ndim == 3 else values[..., np.newaxis] for name, values in heads._asdict().items()}
    published = dict(
        zip(("537", "538", "539", "540"), (values.transpose(2, 0, 1) for values in ours.values()), strict=True)
    )
    for one, other in zip(*(decode_centerface(maps, (20, 28), 0.4) for maps in (ours, published)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_yunet_boxes_by_hand():
    # A canvas of 64 x 32: 4 x 8 cells of stride 8, 2 x 4 of 16, 1 x 2 of 32.
    maps = {}
    for stride in (8, 16, 32):
        cells = (32 // stride) * (64 // stride)
        for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            maps[f"{name}_{stride}"] = np.zeros((cells, width), np.float32)
    # The cell in row 1, column 2 of stride 16: centre (2 + .5, 1 + .25) cells, sides e^0 and e^(ln 2) cells.
    maps["cls_16"][6], maps["obj_16"][6] = 0.81, 1.0
    maps["bbox_16"][6] = (0.5, 0.25, 0.0, math.log(2))
    maps["kps_16"][6] = 0.5
    found = decode_yunet(maps, (32, 64), 0.5)
    np.testing.assert_allclose(found.boxes, [[32, 4, 48, 36]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.9], atol=1e-6)
    np.testing.assert_allclose(found.landmarks, [[[40, 24]] * 5], atol=1e-4)
    np.testing.assert_allclose(found.canvas_px, [32], atol=1e-4)


def test_a_size_beyond_reason_stays_finite():
    heads = Heads(*(np.full((1, 1, *shape), 1e30, np.float32) for shape in ((), (2,), (2,), (10,))))
    assert np.isfinite(decode(heads._replace(offset=heads.offset * 0, landmarks=heads.landmarks * 0), 0.5).boxes).all()
