"""Which canvases of an image the network sees: the whole image first, then only what promises small faces, finer.

The network's cost is the area of its canvases, and most of what a photograph costs at full size buys its smallest
faces. So an image is looked at

1. as a whole, on a canvas of about :data:`FIRST_PIXELS`, whatever its size;
2. finer, in the regions around what the first look took for a small face, however unsure it was;
3. where no face is sure by then, as a whole of :data:`OVERVIEW_PX` within a border, for faces that fill the image or
   are cut by its edges: portraits and crops, of which the first look misses one in eight;
4. where no face was found at all, as a whole of :data:`MIRRORED_PX` with left and right exchanged, which finds one in
   ten of the portraits that are left.

Every look follows from the image's size and from what was seen before in the same image, so its faces are the same
wherever it is scored. Figures for the numbers below: docs/decisions/044-detector.md to 046.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.faces.boxes import Floats

FIRST_PIXELS = 512 * 384
"""Area of the first look's canvas; smaller images are not enlarged to it."""
FIRST_LONGEST_PX = 1280
"""Longest side of the first look: of panoramas and strips."""
ENLARGED_TO_PX = 224
"""Longer side to which the first look enlarges smaller images."""
OVERVIEW_PX = 64
BORDER_PX = 32
"""Grey around the overview."""
MIRRORED_PX = 112
MIRRORED_BORDER_PX = 8
SMALL_PX = 28
"""Longer side, in pixels of the canvas, below which a face is looked at again, finer."""
FINE_FACE_PX = 36
"""Size at which the finest look shows the smallest face asked for, in pixels of its canvas."""
FINER_BY = 3.0
"""Most that a look is finer than the one before: what is smaller than a third of a face that the network knows leaves
no trace."""
PAD_PX = 24
"""Surroundings of a small face that a finer look takes in, in pixels of the look before."""

_STEP_PX = 32  # of sides of canvases, as the network asks

LOOKS = {
    "first": [FIRST_PIXELS, FIRST_LONGEST_PX, ENLARGED_TO_PX],
    "overview": [OVERVIEW_PX, BORDER_PX],
    "mirrored": [MIRRORED_PX, MIRRORED_BORDER_PX],
    "finer": [SMALL_PX, FINE_FACE_PX, FINER_BY, PAD_PX],
    "step": [_STEP_PX],
}
"""All of the above; part of a run's fingerprint."""

_LEAST_FINER = 1.3  # less is not worth a look
_LARGEST_PART_PX = 896  # of the canvas: what a thread's memory is sized by
_LOOK_PIXELS = 128 * 128  # what a look costs beside its area, as area


class Look(NamedTuple):
    """A part of an image on a canvas."""

    left: int
    """Of the part, in pixels of the image; so are the next three."""
    top: int
    width: int
    height: int
    across: int
    """Width of the part on the canvas, in its pixels; without borders, so is the next."""
    down: int
    border: int = 0
    """Grey pixels on every side."""
    mirrored: bool = False
    """Left and right are exchanged."""

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the canvas to a pixel of the image, across and down."""
        return self.across / self.width, self.down / self.height


def first_scale(width: int, height: int) -> float:
    """Pixels of the first look's canvas to a pixel of the image, before its sides are rounded."""
    longer = max(width, height)
    if longer <= ENLARGED_TO_PX:
        return ENLARGED_TO_PX / longer
    return min(1.0, math.sqrt(FIRST_PIXELS / (width * height)), FIRST_LONGEST_PX / longer)


def whole_look(width: int, height: int, scale: float) -> Look:
    """The whole image on one canvas, whose sides are the nearest that the network takes."""
    return Look(0, 0, width, height, _nearest(width * scale), _nearest(height * scale))


def overview(width: int, height: int) -> Look:
    """The whole image, small, within a border."""
    return _bordered(width, height, OVERVIEW_PX, BORDER_PX)


def mirrored_overview(width: int, height: int) -> Look:
    """The whole image, larger, within a narrow border, left and right exchanged."""
    return _bordered(width, height, MIRRORED_PX, MIRRORED_BORDER_PX)._replace(mirrored=True)


def _bordered(width: int, height: int, longer_px: int, border_px: int) -> Look:
    scale = longer_px / max(width, height)
    across, down = (_round_up(side * scale + 2 * border_px) - 2 * border_px for side in (width, height))
    return Look(0, 0, width, height, max(across, 1), max(down, 1), border_px)


def finer_scale(scale: float, min_face_px: float) -> float | None:
    """The scale of the next look; ``None`` if it would show no smaller faces.

    Args:
        scale: of the look before.
        min_face_px: longer side of the smallest face to find, in pixels of the image.
    """
    finer = min(FINER_BY * scale, FINE_FACE_PX / min_face_px)
    return finer if finer >= _LEAST_FINER * scale else None


def finest_scale(width: int, height: int, min_face_px: float, finer_looks: int) -> float:
    """The finest scale at which any part of an image may be seen, with so many finer looks at most."""
    scale = first_scale(width, height)
    for _ in range(finer_looks):
        finer = finer_scale(scale, min_face_px)
        if finer is None:
            break
        scale = finer
    return scale


def finer_looks(width: int, height: int, small: Floats, scale: float, finer: float) -> list[Look]:
    """Looks that take in some boxes and their surroundings.

    Regions are joined where one canvas costs less than two.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        small: float32 ``(n, 4)``: boxes in pixels of the image.
        scale: at which they were seen.
        finer: the scale of the looks.
    """
    size = np.array([width, height, width, height], np.float64)
    pad = np.array([-1, -1, 1, 1]) * (PAD_PX / scale)
    regions = _joined(np.clip(small.astype(np.float64) + pad, 0, size), _LOOK_PIXELS / finer**2)
    parts = [part for region in regions for part in _split(region, _LARGEST_PART_PX / finer, 2 * PAD_PX / scale)]
    return [_part_look(width, height, part, finer) for part in parts]


def _joined(regions: NDArray[np.float64], constant: float) -> NDArray[np.float64]:
    """Regions ``(n, 4)``, the pair whose union saves most joined first, until none saves."""
    regions, left = regions.copy(), np.ones(len(regions), bool)
    more = _cost_of_joining(regions, regions, constant)
    np.fill_diagonal(more, np.inf)
    while True:
        one, other = divmod(int(np.argmin(more)), len(regions))
        if more[one, other] > 0:
            return regions[left]
        regions[one, :2] = np.minimum(regions[one, :2], regions[other, :2])
        regions[one, 2:] = np.maximum(regions[one, 2:], regions[other, 2:])
        left[other] = False
        more[other] = more[:, other] = np.inf
        (costs,) = _cost_of_joining(regions[one : one + 1], regions, constant)
        costs[~left] = costs[one] = np.inf
        more[one] = more[:, one] = costs


def _cost_of_joining(ones: NDArray[np.float64], others: NDArray[np.float64], constant: float) -> NDArray[np.float64]:
    """How much larger the union of two regions is than both, a look's constant included, ``(n, m)``."""
    a, b = ones[:, np.newaxis], others[np.newaxis]
    union = (np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])).prod(axis=-1)
    more: NDArray[np.float64] = union - _areas(b) - _areas(a) - constant
    return more


def _areas(regions: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (regions[..., 2:] - regions[..., :2]).prod(axis=-1)
    return areas


def _split(region: NDArray[np.float64], largest: float, overlap: float) -> list[tuple[float, float, float, float]]:
    """A region as parts of at most so long a side, which overlap so that every small face is whole in one."""
    left, top, right, bottom = (float(edge) for edge in region)
    return [
        (x, y, x + across, y + down)
        for y, down in _parts(top, bottom - top, largest, overlap)
        for x, across in _parts(left, right - left, largest, overlap)
    ]


def _parts(start: float, length: float, largest: float, overlap: float) -> list[tuple[float, float]]:
    count = max(1, math.ceil((length - overlap) / (largest - overlap)))
    part = (length + (count - 1) * overlap) / count
    return [(start + index * (part - overlap), part) for index in range(count)]


def _part_look(width: int, height: int, part: tuple[float, float, float, float], scale: float) -> Look:
    """A part of an image, grown to fill its canvas where the image goes on."""
    left, top, right, bottom = part
    across, down = _round_up((right - left) * scale), _round_up((bottom - top) * scale)
    wide, high = min(width, round(across / scale)), min(height, round(down / scale))
    x = round(min(max(0.0, (left + right - wide) / 2), width - wide))
    y = round(min(max(0.0, (top + bottom - high) / 2), height - high))
    return Look(x, y, max(wide, 1), max(high, 1), across, down)


def _round_up(length: float) -> int:
    return max(1, math.ceil(length / _STEP_PX - 1e-6)) * _STEP_PX


def _nearest(length: float) -> int:
    """The nearest multiple of the step; of two as near, the smaller."""
    return max(1, math.ceil(length / _STEP_PX - 0.5)) * _STEP_PX
