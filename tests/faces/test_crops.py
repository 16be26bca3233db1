"""Crops against pixels picked one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskdet.errors import ConfigError
from maskdet.faces.crops import CropOptions, crop_face, eye_line_deg

NO_POINTS = np.zeros((5, 2), np.float32)


def numbered(width, height):
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, x + y], axis=-1).astype(np.uint8))


@given(st.integers(-20, 70), st.integers(-20, 50))
def test_at_full_size_pixels_are_copied_and_the_edge_is_repeated(left, top):
    box = np.array([left, top, left + 16, top + 16], np.float32)
    crop = crop_face(numbered(60, 40), box, NO_POINTS, 16, 16, CropOptions(margin=0))
    for row in range(16):
        for column in range(16):
            x, y = min(max(left + column, 0), 59), min(max(top + row, 0), 39)
            assert crop[row, column].tolist() == [x, y, x + y]


def test_the_margin_is_a_part_of_the_longer_side():
    box = np.array([20, 12, 28, 28], np.float32)  # 8 x 16, its centre at 24, 20
    crop = crop_face(numbered(60, 40), box, NO_POINTS, 32, 32, CropOptions(margin=0.5))
    assert crop[0, 0].tolist() == [8, 4, 12] and crop[31, 31].tolist() == [39, 35, 74]


def test_grey_beyond_the_image():
    box = np.array([-8, 0, 8, 16], np.float32)
    crop = crop_face(numbered(60, 40), box, NO_POINTS, 16, 16, CropOptions(margin=0, outside="grey"))
    assert (crop[:, :8] == 127).all() and crop[3, 8].tolist() == [0, 3, 3]


@settings(deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(0, 1e4), st.booleans())
def test_any_box_gives_a_crop(left, top, side, align):
    box = np.array([left, top, left + side, top + side], np.float32)
    assert crop_face(numbered(30, 20), box, NO_POINTS, 8, 12, CropOptions(align=align)).shape == (8, 12, 3)


@pytest.mark.parametrize("slope", [-30.0, 0.0, 45.0])
def test_alignment_turns_the_eyes_level(slope):
    image = Image.new("RGB", (200, 200))
    direction = np.array([np.cos(np.radians(slope)), np.sin(np.radians(slope))])
    points = NO_POINTS.copy()
    points[:2] = 100 + np.array([[-30], [30]]) * direction
    for x, y in points[:2]:
        image.paste((255, 255, 255), (round(x) - 4, round(y) - 4, round(x) + 4, round(y) + 4))
    box = np.array([50, 50, 150, 150], np.float32)
    crop = crop_face(image, box, points, 100, 100, CropOptions(margin=0, align=True))[..., 0].astype(float)
    halves = [crop[:, :50].sum(axis=1), crop[:, 50:].sum(axis=1)]
    rows = [float(np.sum(half * np.arange(100)) / half.sum()) for half in halves]
    assert eye_line_deg(points) == pytest.approx(slope, abs=0.1)
    assert rows[0] == pytest.approx(rows[1], abs=1.5)


def test_a_margin_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigError, match="margin"):
        CropOptions(margin=-0.5)
