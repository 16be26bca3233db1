"""Grids and segments: times in whole numbers, and cuts that do not change the frames."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdet.video.sampling import OPEN_END, Grid, cut, microseconds, unreadable

RATES = st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 7.5, 23.976, 29.97, 60.0])


@pytest.mark.parametrize(
    ("pts", "base", "expected"),
    [
        (0, Fraction(1, 90_000), 0),
        (1, Fraction(1, 3), 333_334),
        (2, Fraction(1, 4), 500_000),
        (-1, Fraction(1, 3), -333_333),
    ],
)
def test_times_are_rounded_up(pts, base, expected):
    assert microseconds(pts, base) == expected


def test_a_rate_is_taken_as_it_was_written():
    assert Grid.of(29.97) == (2997, 100)
    assert Grid.of(2) == (2, 1)


@given(RATES, st.integers(0, 10_000))
def test_a_point_lies_in_its_own_cell_and_what_comes_before_it_does_not(rate, number):
    grid = Grid.of(rate)
    point = grid.point_us(number)
    assert grid.cell(point) == number
    assert number == 0 or grid.cell(point - 1) == number - 1
    assert grid.points_before(point) == number or Fraction(number * 1_000_000) / Fraction(str(rate)) < point
    exact = Fraction(number) / Fraction(str(rate)) * 1_000_000
    assert 0 <= point - exact < 1


@given(RATES, st.integers(1, 10**9), st.integers(1, 10**9), st.lists(st.integers(-10, 10**9), max_size=5))
def test_segments_cover_a_video_and_begin_at_points_of_its_grid(rate, duration_us, segment_us, at_us):
    grid = Grid.of(rate)
    segments = cut(duration_us, grid, "sampled", segment_us, at_us)
    assert segments[0].start_us == 0
    assert segments[-1].end_us == OPEN_END
    assert all(one.end_us == other.start_us for one, other in itertools.pairwise(segments))
    assert all(grid.point_us(grid.cell(segment.start_us)) == segment.start_us for segment in segments)
    assert all(segment.start_us < duration_us for segment in segments)
    for at in at_us:
        if at > 0 and grid.point_us(grid.points_before(at)) < duration_us:
            assert grid.point_us(grid.points_before(at)) in {segment.start_us for segment in segments}


def test_an_incredible_length_does_not_make_incredibly_many_segments():
    assert len(cut(10**18, Grid(2, 1), "sampled", 10_000_000)) <= 10_000


def test_without_a_length_there_is_one_segment():
    [segment] = cut(0, Grid(2, 1), "all", 1_000_000)
    assert (segment.start_us, segment.end_us) == (0, OPEN_END)
    assert segment.holds(0)
    assert segment.holds(10**12)
    assert not segment.holds(-1)


def test_what_cannot_be_opened_has_no_time():
    assert not unreadable().holds(0)
