"""What canvases promise: every face is whole in one that looks for its size, and sides suit the network."""

import math

from hypothesis import given
from hypothesis import strategies as st

from maskdet.faces.tiling import MAX_TILE_PX, MIN_NETWORK_FACE_PX, plan_levels

sides = st.integers(8, 9000)


@given(sides, sides, st.integers(4, 200))
def test_sides_are_multiples_of_32_and_bounded(width, height, min_face_px):
    for level in plan_levels(width, height, min_face_px):
        for tile in level.tiles:
            assert tile.width % 32 == tile.height % 32 == 0
            assert 0 < max(tile.width, tile.height) <= MAX_TILE_PX + 64


@given(sides, sides, st.integers(4, 200))
def test_tiles_cover_their_level(width, height, min_face_px):
    for level in plan_levels(width, height, min_face_px):
        assert min(tile.left for tile in level.tiles) == min(tile.top for tile in level.tiles) == -level.border
        assert max(tile.left + tile.width for tile in level.tiles) == level.width + level.border
        assert max(tile.top + tile.height for tile in level.tiles) == level.height + level.border


@given(st.integers(100, 6000), st.integers(100, 6000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_every_face_is_whole_in_a_canvas_that_looks_for_its_size(width, height, u, v, size_share):
    side = 20 * (0.9 * min(width, height) / 20) ** size_share
    left, top = u * (width - side), v * (height - side)
    seen = False
    for level in plan_levels(width, height, 16):
        x, y = level.width / width, level.height / height
        low, high = level.faces_px
        if not low <= side * max(x, y) <= high or side * min(x, y) < MIN_NETWORK_FACE_PX * 0.99:
            continue
        seen |= any(
            tile.left <= left * x and (left + side) * x <= tile.left + tile.width + 1e-6
            and tile.top <= top * y and (top + side) * y <= tile.top + tile.height + 1e-6
            for tile in level.tiles
        )  # fmt: skip
    assert seen


def test_a_larger_smallest_face_costs_less():
    areas = [
        sum(tile.width * tile.height for level in plan_levels(4000, 3000, face) for tile in level.tiles)
        for face in (16, 32, 64)
    ]
    assert areas[0] > 3 * areas[1] > 9 * areas[2]


def test_proportions_are_kept_up_to_rounding():
    for level in plan_levels(1920, 1080, 16)[:-1]:
        assert math.isclose(level.width / level.height, 1920 / 1080, rel_tol=0.15)
