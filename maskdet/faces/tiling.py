"""Which canvases of an image the network sees: its scales, and the tiles of the scales too large for one canvas.

The network finds faces from about 12 pixels up to some 130, and its cost is the canvas's area. So an image is seen at
the scale at which the smallest face asked for is just found, then at a quarter of the scale before, for larger faces,
and last as a whole of :data:`OVERVIEW_PX` with a border. Tiles overlap by :data:`OVERLAP_PX`: a face up to that size
is whole in one of them, a larger one is found at the next scale, where it still has a quarter of its size. What a
tile's inner edge cuts is dropped.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MIN_NETWORK_FACE_PX = 16
"""Longer side of the smallest face that the network is relied on to find, in pixels of its canvas."""
OVERLAP_PX = 96
MAX_TILE_PX = 1280
OVERVIEW_PX = 112
"""Longer side of an image at its last scale; smaller images are enlarged to it."""
BORDER_PX = 32
"""Grey around the last scale: without it, faces that fill an image are missed twice as often."""

_STEP_PX = 32  # the network halves its canvas five times
_COARSE_STEP_PX = 64  # for sides from here on, so that fewer sizes of canvas have to be prepared
_COARSE_FROM_PX = 320
_NEXT_SCALE = 4
# Faces between these two are looked for at two scales; the first stays below the overlap, the second is well found at
# the next scale. Without the limits false detections doubled (.19 for .093 a scene).
_SURELY_WHOLE_PX = 80.0
_MOST_FACE_PX = 192.0
_OVERVIEW_TOLERANCE = 1.25  # a scale so close to the overview's stands for it


class Tile(NamedTuple):
    """A part of an image at some scale, in pixels of that scale."""

    left: int
    top: int
    width: int
    height: int


class Level(NamedTuple):
    """An image at one scale, in pixels of that scale."""

    width: int
    height: int
    tiles: tuple[Tile, ...]
    border: int = 0
    """Grey pixels on every side of its only tile."""
    faces_px: tuple[float, float] = (0.0, math.inf)
    """Longer sides of the faces to look for: what another scale shows better is left to it."""


def plan_levels(width: int, height: int, min_face_px: float) -> tuple[Level, ...]:
    """Decide what of an image the network sees.

    The result depends on the three numbers alone, so that an image gives the same faces wherever it is scored.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        min_face_px: longer side of the smallest face to find, in pixels of the image.

    Returns:
        Levels from fine to coarse, at least one. A level has the image's proportions up to the rounding of its sides.
    """
    longer = max(width, height)
    scale = max(min(1.0, MIN_NETWORK_FACE_PX / min_face_px), OVERVIEW_PX / longer)
    levels, least = [], 0.0
    while scale * longer > _OVERVIEW_TOLERANCE * OVERVIEW_PX:
        levels.append(_level(width * scale, height * scale)._replace(faces_px=(least, _MOST_FACE_PX)))
        finer, scale = scale, max(scale / _NEXT_SCALE, OVERVIEW_PX / longer)
        least = _SURELY_WHOLE_PX * scale / finer
    return (*levels, _overview(width * scale, height * scale)._replace(faces_px=(least, math.inf)))


def _overview(width: float, height: float) -> Level:
    """The whole image within a border, on a canvas of its own."""
    inner = [_round_up(side + 2 * BORDER_PX) - 2 * BORDER_PX for side in (width, height)]
    canvas = Tile(-BORDER_PX, -BORDER_PX, inner[0] + 2 * BORDER_PX, inner[1] + 2 * BORDER_PX)
    return Level(inner[0], inner[1], (canvas,), BORDER_PX)


def _level(width: float, height: float) -> Level:
    columns, full_width = _split(width)
    rows, full_height = _split(height)
    tiles = [Tile(left, top, tile_width, tile_height) for top, tile_height in rows for left, tile_width in columns]
    return Level(full_width, full_height, tuple(tiles))


def _split(length: float) -> tuple[list[tuple[int, int]], int]:
    """Start and length of the tiles along one side, all of one length, and the side they cover together."""
    count = max(1, math.ceil((length - OVERLAP_PX) / (MAX_TILE_PX - OVERLAP_PX)))
    tile = _round_up((length + (count - 1) * OVERLAP_PX) / count)
    pitch = tile - OVERLAP_PX
    return [(index * pitch, tile) for index in range(count)], pitch * (count - 1) + tile


def _round_up(length: float) -> int:
    step = _STEP_PX if length <= _COARSE_FROM_PX else _COARSE_STEP_PX
    return max(1, math.ceil(length / step)) * step
