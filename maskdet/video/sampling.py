"""Which frames of a video are used: a grid in time, and segments that are divided among workers.

Times are whole microseconds since the video stream's start, rounded up from the file's own time base, so that a frame
at exactly k / rate seconds is never mistaken for an earlier one.

The first frame shown in each cell of the grid, from k / rate to (k + 1) / rate, is sampled; a cell in which no frame
begins has none. The grid counts from the video's start, and segments begin at its points, so where a video is cut does
not change which frames are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

FramesMode = Literal["sampled", "keyframes", "all"]

MICROSECONDS = 1_000_000
OPEN_END = -1
"""End of a segment that goes on until there are no more frames."""

# Rather than more segments than this, longer ones are made: a header's length cannot be trusted.
MOST_SEGMENTS = 10_000


class Segment(NamedTuple):
    """A part of a video, and which of its frames are used. It is part of a reference's identity."""

    start_us: int
    """Its first microsecond."""
    end_us: int
    """The first microsecond after it, or :data:`OPEN_END`."""
    frames: str
    """A :data:`FramesMode`."""
    rate: tuple[int, int]
    """Frames per second, as numerator and denominator."""
    duration_us: int = 0
    """How long the part of the video to be read should be; 0 if the file does not say."""
    decoder: str = ""
    """Name and version of the decoder: another one gives other pixels."""

    @property
    def grid(self) -> Grid:
        """The grid that its frames are sampled by."""
        return Grid(*self.rate)

    def holds(self, time_us: int) -> bool:
        """Whether it contains a time."""
        return self.start_us <= time_us and (self.end_us == OPEN_END or time_us < self.end_us)


UNCUT = Segment(0, OPEN_END, "", (0, 1))
"""Of a video that has been listed and not been opened yet."""


def unreadable() -> Segment:
    """The empty segment of a video that cannot be opened."""
    return Segment(0, 0, "", (0, 1))


class Grid(NamedTuple):
    """Evenly spaced points in time."""

    numerator: int
    denominator: int

    @classmethod
    def of(cls, frames_per_second: float) -> Grid:
        """The grid of a rate as it was written: 29.97 is 2997 / 100."""
        return cls(*Fraction(str(frames_per_second)).as_integer_ratio())

    def cell(self, time_us: int) -> int:
        """The number of the cell that a time lies in."""
        return time_us * self.numerator // (MICROSECONDS * self.denominator)

    def point_us(self, number: int) -> int:
        """The first microsecond of a cell."""
        return -(-number * MICROSECONDS * self.denominator // self.numerator)

    def points_before(self, time_us: int) -> int:
        """How many points come before a time."""
        return -(-time_us * self.numerator // (MICROSECONDS * self.denominator))


def microseconds(pts: int, time_base: Fraction) -> int:
    """A presentation time in whole microseconds, rounded up."""
    exact = pts * time_base * MICROSECONDS
    return -(-exact.numerator // exact.denominator)


def cut(
    duration_us: int, grid: Grid, frames: FramesMode, segment_us: int, at_us: Sequence[int] = (), decoder: str = ""
) -> list[Segment]:
    """Cut a video into segments that begin at points of its grid.

    Args:
        duration_us: how long it is; 0 if that is unknown, which gives one segment.
        grid: of the frames to sample.
        frames: which frames are looked at.
        segment_us: how long a segment should be.
        at_us: times at which to cut in any case, such as midnight.
        decoder: its name and version.

    Returns:
        Segments that cover the video without a gap; the last has an open end.
    """
    points = max(1, grid.points_before(max(segment_us, -(-duration_us // MOST_SEGMENTS))))
    last = grid.points_before(duration_us)
    cuts = {*range(0, max(last, 1), points), *(point for at in at_us if 0 < (point := grid.points_before(at)) < last)}
    starts = [grid.point_us(number) for number in sorted(cuts)]
    rate = (grid.numerator, grid.denominator)
    return [
        Segment(start, end, frames, rate, duration_us, decoder)
        for start, end in zip(starts, [*starts[1:], OPEN_END], strict=True)
    ]
