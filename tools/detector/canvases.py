"""Canvases to fit a detector's network on: parts of real photographs at many scales, and the boxes of their faces.

A canvas is one photograph, or two or four put together, each cut or within a plain border, mirrored or not. The whole
may be dim, tinted, blurred or compressed. Of ``scenes`` only the fit part is used. Needs ``opencv-python-headless``.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.evaluation.detection_metrics import FoundFaces, match_by_centre
from maskdet.images.preprocessing import ImageLimits, open_upright

Pixels = NDArray[np.uint8]
Doubles = NDArray[np.float64]

LONGEST_PX = 900
"""Longer side to which larger photographs are reduced when they are read."""


class Mix(NamedTuple):
    """What canvases are made of."""

    side_px: int
    """Side of a canvas."""
    shares: Mapping[str, float]
    """Share of each kind of photograph; ``plain`` is a grey area without one."""
    web_longer_px: tuple[int, int]
    """Least and greatest longer side to which a photograph of ``web`` or ``large`` is scaled."""
    whole_share: float
    """Share of canvases that are one photograph; the others are two, beside or above each other, or four."""


MANY = Mix(320, {"scenes": 0.55, "web": 0.31, "crops": 0.08, "plain": 0.06}, (56, 640), 0.55)
"""Many faces of every size."""
LARGE = Mix(448, {"scenes": 0.5, "web": 0.36, "large": 0.06, "crops": 0.08}, (80, 700), 0.65)
"""More large faces, complete and with their surroundings."""

_FOUND = (0.45, 0.8)
_ANNOTATED = 0.6
_FOUND_AND_ANNOTATED = 0.75
_SCENES_SCALES = (0.45, 2.4)
_CROP_PX = (28, 150)
_NEAR_FACE_SHARE = 0.5
_EDGE_PX = 2.0
_GREY = 110
_KEPT_PHOTOGRAPHS = 2500


class Boxes(NamedTuple):
    """Faces of a photograph or canvas."""

    boxes: Doubles
    """``(faces, 4)``: left, top, right, bottom in pixels."""
    scores: Doubles
    """``(faces,)``: the least score that a detector should give each."""


class Canvas(NamedTuple):
    """A picture that a network is fitted on, and its faces."""

    pixels: Pixels
    """uint8 RGB ``(height, width, 3)``."""
    faces: Boxes


@dataclass(frozen=True)
class Source:
    """Where canvases come from.

    Attributes:
        folders: photographs by kind: ``scenes``, ``web``, ``large`` and ``crops``, which show only a face each.
        faces: faces of some of the photographs.
        cache: pixels of photographs that have been read.
    """

    folders: Mapping[str, Sequence[Path]]
    faces: Mapping[Path, Boxes]
    cache: dict[Path, Pixels]

    def read(self, path: Path) -> Pixels:
        """A photograph with a longer side of at most :data:`LONGEST_PX`."""
        if path in self.cache:
            return self.cache[path]
        picture, _ = open_upright(path.read_bytes(), ImageLimits())
        longer = max(picture.size)
        if longer > LONGEST_PX:
            picture = picture.resize([max(1, round(side * LONGEST_PX / longer)) for side in picture.size])
        pixels = np.asarray(picture.convert("RGB"))
        if len(self.cache) < _KEPT_PHOTOGRAPHS:
            self.cache[path] = pixels
        return pixels

    def canvas(self, rng: np.random.Generator, mix: Mix) -> Canvas:
        """Draw a square canvas."""
        pixels = np.empty((mix.side_px, mix.side_px, 3), np.uint8)
        boxes, scores = [], []
        for left, top, right, bottom in _cells(rng, mix):
            part, faces = self._cell(rng, mix, right - left, bottom - top)
            pixels[top:bottom, left:right] = part
            boxes.append(faces.boxes + np.array([left, top, left, top]))
            scores.append(faces.scores)
        return Canvas(_photographed(rng, pixels), Boxes(np.concatenate(boxes), np.concatenate(scores)))

    def _cell(self, rng: np.random.Generator, mix: Mix, width: int, height: int) -> Canvas:
        kind = str(rng.choice(list(mix.shares), p=list(mix.shares.values())))
        if kind == "crops":
            return Canvas(self._mosaic(rng, width, height), no_boxes())
        if kind == "plain":
            return Canvas(np.full((height, width, 3), _GREY, np.uint8), no_boxes())
        path = self.folders[kind][int(rng.integers(len(self.folders[kind])))]
        pixels, faces = self.read(path), self.faces.get(path, no_boxes())
        if kind == "scenes":
            scale = np.exp(rng.uniform(*np.log(_SCENES_SCALES)))
        else:
            scale = np.exp(rng.uniform(*np.log(mix.web_longer_px))) / max(pixels.shape[:2])
        aspect = np.exp(rng.normal(0, 0.06))
        return _placed(rng, pixels, faces, (scale * aspect, scale / aspect), (width, height))

    def _mosaic(self, rng: np.random.Generator, width: int, height: int) -> Pixels:
        """Crops side by side; the teacher tells where their faces are."""
        side = int(np.exp(rng.uniform(*np.log(_CROP_PX))))
        mosaic = np.empty((height, width, 3), np.uint8)
        crops = self.folders["crops"]
        for top in range(0, height, side):
            for left in range(0, width, side):
                crop = self.read(crops[int(rng.integers(len(crops)))])
                mirrored = crop[:, ::-1] if rng.random() < 0.5 else crop
                mosaic[top : top + side, left : left + side] = _resized(mirrored, side, side)[
                    : height - top, : width - left
                ]
        return mosaic


def together(found: NDArray[np.float32], scores: NDArray[np.float32], annotated: NDArray[Any]) -> Boxes:
    """Faces that were found or annotated, each once, with the least score that each should have.

    Args:
        found: boxes found, ``(n, 4)``.
        scores: their scores, ``(n,)``.
        annotated: boxes annotated, ``(m, 4)``.
    """
    least = np.clip(scores.astype(np.float64), *_FOUND)
    matches = match_by_centre(FoundFaces(found, scores), annotated)
    matched = matches >= 0
    least[matched] = np.maximum(least[matched], _FOUND_AND_ANNOTATED)
    missed = ~np.isin(np.arange(len(annotated)), matches[matched])
    boxes = np.concatenate([found.astype(np.float64), annotated[missed]])
    return Boxes(boxes, np.concatenate([least, np.full(int(missed.sum()), _ANNOTATED)]))


def no_boxes() -> Boxes:
    """No faces."""
    return Boxes(np.zeros((0, 4)), np.zeros(0))


def _cells(rng: np.random.Generator, mix: Mix) -> list[tuple[int, int, int, int]]:
    """A canvas as one, two or four parts: left, top, right and bottom of each."""
    size = mix.side_px
    across, down = [0, size], [0, size]
    drawn, across_at, down_at = rng.random(), *(int(part * size) for part in rng.uniform(0.3, 0.7, 2))
    if drawn > mix.whole_share:
        beyond = (drawn - mix.whole_share) / (1 - mix.whole_share)
        across = [0, across_at, size] if not 1 / 3 <= beyond < 2 / 3 else across
        down = [0, down_at, size] if beyond >= 1 / 3 else down
    return [
        (left, top, right, bottom)
        for top, bottom in itertools.pairwise(down)
        for left, right in itertools.pairwise(across)
    ]


def _placed(
    rng: np.random.Generator, pixels: Pixels, faces: Boxes, scales: tuple[float, float], size: tuple[int, int]
) -> Canvas:
    """A photograph scaled, cut to a size or put somewhere within it, and mirrored or not."""
    whole = np.array([pixels.shape[1], pixels.shape[0]])
    scaled = np.maximum(8, (whole * scales).astype(int))
    factors = scaled / whole
    shown = np.minimum(scaled, size)
    corner = np.array([rng.integers(room + 1) for room in scaled - shown])
    if len(faces.boxes) and rng.random() < _NEAR_FACE_SHARE:
        box = faces.boxes[rng.integers(len(faces.boxes))]
        centre = (box[:2] + box[2:]) / 2 * factors
        corner = np.clip(centre - rng.uniform(0.15, 0.85, 2) * shown, 0, scaled - shown).astype(int)
    low = (corner / factors).astype(int)
    high = np.maximum(low + 1, np.minimum(whole, np.ceil((corner + shown) / factors).astype(int)))
    part = _resized(pixels[low[1] : high[1], low[0] : high[0]], *shown)
    boxes = (faces.boxes - np.tile(low, 2)) * np.tile(shown / (high - low), 2)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > _EDGE_PX) & (centres < shown - _EDGE_PX)).all(axis=1)
    filled = np.empty((size[1], size[0], 3), np.uint8)
    filled[:] = _GREY if rng.random() < 0.6 else rng.integers(0, 255, 3)
    left, top = (int(rng.integers(room + 1)) for room in size - shown)
    filled[top : top + shown[1], left : left + shown[0]] = part
    boxes = boxes[inside] + [left, top, left, top]
    if rng.random() < 0.5:
        filled, boxes = filled[:, ::-1], boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [size[0], 0, size[0], 0]
    return Canvas(filled, Boxes(boxes, faces.scores[inside]))


def _photographed(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """The picture as if from another camera: blurred, brighter or darker, tinted, noisy, grey or compressed."""
    cv2 = _cv2()
    if rng.random() < 0.25:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.7:
        pixels = _tinted(rng, pixels)
    if rng.random() < 0.06:
        pixels = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., np.newaxis], 3, axis=2)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 90))]
        pixels = cv2.imdecode(cv2.imencode(".jpg", pixels, quality)[1], cv2.IMREAD_COLOR)
    return np.asarray(pixels, np.uint8)


def _tinted(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    gain = np.exp(rng.normal(0, 0.25)) * (rng.uniform(0.25, 0.6) if rng.random() < 0.12 else 1.0)
    tint = np.exp(rng.normal(0, 0.08, 3)) * ([1.3, 0.75, 0.7] if rng.random() < 0.08 else 1.0)
    contrast = np.exp(rng.normal(0, 0.15))
    values = ((pixels.astype(np.float32) - 128) * np.float32(contrast) + 128) * (gain * tint).astype(np.float32)
    if rng.random() < 0.3:
        values += rng.normal(0, rng.uniform(1, 7), values.shape).astype(np.float32)
    tinted: Pixels = np.clip(values, 0, 255).astype(np.uint8)
    return tinted


def _resized(pixels: Pixels, width: int, height: int) -> Pixels:
    cv2 = _cv2()
    kind = cv2.INTER_AREA if width < 0.7 * pixels.shape[1] else cv2.INTER_LINEAR
    resized: Pixels = cv2.resize(pixels, (max(1, int(width)), max(1, int(height))), interpolation=kind)
    return resized


def _cv2() -> Any:
    return importlib.import_module("cv2")
