"""Looks: their sides suit the network, parts lie within the image, and every small face lies whole in one of them."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskdet.faces.looks import (
    BORDER_PX,
    FIRST_LONGEST_PX,
    FIRST_PIXELS,
    MIRRORED_BORDER_PX,
    MIRRORED_PX,
    OVERVIEW_PX,
    finer_looks,
    finer_scale,
    finest_scale,
    first_scale,
    mirrored_overview,
    overview,
    whole_look,
)

sides = st.integers(8, 9000)


@given(sides, sides)
def test_the_first_look_costs_the_same_whatever_the_image(width, height):
    look = whole_look(width, height, first_scale(width, height))
    assert look.across % 32 == look.down % 32 == 0
    # Each side is changed by half a step at most, unless it is shorter than that.
    scale = first_scale(width, height)
    assert abs(look.across - max(32, width * scale)) <= 16 and abs(look.down - max(32, height * scale)) <= 16
    assert look.across * look.down <= FIRST_PIXELS + 16 * (look.across + look.down)
    assert max(look.across, look.down) <= FIRST_LONGEST_PX
    assert (look.left, look.top, look.width, look.height) == (0, 0, width, height)


def test_known_first_looks():
    assert whole_look(4000, 3000, first_scale(4000, 3000))[4:7] == (512, 384, 0)
    assert whole_look(400, 300, first_scale(400, 300))[4:7] == (384, 288, 0)  # 12.5, 9.4 steps: half is rounded down
    assert whole_look(56, 56, first_scale(56, 56))[4:7] == (224, 224, 0)  # four times enlarged


@given(sides, sides)
def test_the_overview_is_small_and_has_its_border(width, height):
    look = overview(width, height)
    assert look.border == BORDER_PX
    assert (look.across + 2 * BORDER_PX) % 32 == (look.down + 2 * BORDER_PX) % 32 == 0
    assert OVERVIEW_PX <= max(look.across, look.down) < OVERVIEW_PX + 32


@given(sides, sides)
def test_the_mirrored_overview_is_larger_and_has_its_border(width, height):
    look = mirrored_overview(width, height)
    assert (look.border, look.mirrored) == (MIRRORED_BORDER_PX, True)
    assert (look.across + 2 * MIRRORED_BORDER_PX) % 32 == (look.down + 2 * MIRRORED_BORDER_PX) % 32 == 0
    assert MIRRORED_PX <= max(look.across, look.down) < MIRRORED_PX + 32


def test_finer_looks_end_where_they_show_nothing_smaller():
    # 36 pixels of the canvas to the smallest face: 2.25 pixels of the canvas to one of the image.
    assert finer_scale(0.25, 16) == 0.75
    assert finer_scale(0.75, 16) == 2.25
    assert finer_scale(1.8, 16) is None
    assert finer_scale(0.25, 144) is None
    assert finest_scale(4000, 3000, 16, 0) == 0.128
    assert math.isclose(finest_scale(4000, 3000, 16, 1), 0.384)
    assert finest_scale(4000, 3000, 16, 8) == 2.25


@given(
    st.integers(300, 5000),
    st.integers(300, 5000),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=25),
)
def test_every_small_face_is_whole_in_a_look(width, height, places):
    scale = first_scale(width, height)
    finer = finer_scale(scale, 8)
    side = 27 / scale  # the largest face that counts as small
    boxes = np.array([[u * (width - s * side), v * (height - s * side)] for u, v, s in places])
    boxes = np.concatenate([boxes, boxes + np.array([[s * side] for _, _, s in places])], axis=1)
    looks = finer_looks(width, height, boxes.astype(np.float32), scale, finer)
    for look in looks:
        assert look.across % 32 == look.down % 32 == 0
        assert max(look.across, look.down) <= 1024
        assert 0 <= look.left < look.left + look.width <= width
        assert 0 <= look.top < look.top + look.height <= height
    for left, top, right, bottom in boxes:
        assert any(
            look.left <= left + 1 and look.top <= top + 1
            and right <= look.left + look.width + 1 and bottom <= look.top + look.height + 1
            for look in looks
        )  # fmt: skip


def test_near_faces_share_a_look_and_distant_ones_do_not():
    near = np.array([[100, 100, 120, 120], [150, 110, 170, 130]], np.float32)
    far = np.array([[100, 100, 120, 120], [1500, 1000, 1520, 1020]], np.float32)
    assert len(finer_looks(1600, 1200, near, 0.32, 0.96)) == 1
    assert len(finer_looks(1600, 1200, far, 0.32, 0.96)) == 2
