"""What the detector is refined on: scenes, and mosaics of photographs whose faces the published network found.

Lesson ``i`` is a function of seed and ``i``. Mosaics keep the detector honest about real pictures: heads with hair,
shoulders and hands, small and large, at the place where the published network saw a face when the photograph was large.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from maskdet.errors import SourceError
from maskdet.faces.boxes import Floats
from maskdet.faces.decoding import STRIDE_PX
from maskdet.images.preprocessing import ImageLimits, open_upright
from tools.scenes.backgrounds import draw_background
from tools.scenes.scenes import FaceSource, SceneOptions, make_scene

SIDE_PX = 256
_CELLS = SIDE_PX // STRIDE_PX
_SCENES = SceneOptions(sides_px=(SIDE_PX, SIDE_PX), sizes_px=(11.0, 140.0), faces=(1, 6), faceless=0.12)
_SCENE_SHARE = 0.55
_SMALLEST_TAUGHT_PX = 9.0  # smaller faces are neither asked for nor held against the network
_SMALLEST_DRAWN_PX = 4.0
_PHOTOGRAPHS_TAUGHT = 0.5

Box = tuple[float, float, float, float]


class LabelledPhotograph(NamedTuple):
    """A photograph and the boxes of its faces, float32 ``(faces, 4)``, the surest first."""

    path: Path
    boxes: Floats


class Lesson(NamedTuple):
    """A canvas and what the network should say of it; maps have a cell every 4 pixels."""

    pixels: NDArray[np.uint8]
    """``(256, 256, 3)``."""
    score: Floats
    """``(64, 64)``: 1 at a face's centre, falling off around it."""
    centres: Floats
    """``(64, 64)``: 1 in the cell of a face's centre."""
    shape: Floats
    """``(64, 64, 4)``: at centres, logarithm of height and width, and the offset down and right, in cells."""
    counts: Floats
    """``(64, 64)``: 0 where the network may say what it likes."""


@dataclass(frozen=True)
class LessonSources:
    """What lessons are made of."""

    crops: tuple[FaceSource, ...]
    photographs: tuple[Path, ...]
    labelled: tuple[LabelledPhotograph, ...] = ()

    @classmethod
    def find(
        cls, crops: Path, photographs: Path, find_faces: Callable[[Path], Floats | None] | None = None
    ) -> LessonSources:
        """Look through folders in the layout of the data that the project is developed with.

        Args:
            crops: holds ``WithMask`` and ``WithoutMask``; augmented copies, distorted as no camera does, are left out.
            photographs: holds ``with_mask`` and ``without_mask``; the half that :func:`is_taught` names is used.
            find_faces: gives the boxes of a photograph's faces, the surest first, or ``None`` to leave it out.

        Raises:
            SourceError: a folder is missing or empty.
        """
        masked = [FaceSource(path, "mask") for path in _files(crops / "WithMask") if "Augmented" not in path.name]
        unmasked = [FaceSource(path, "no_mask") for path in _files(crops / "WithoutMask")]
        taught = [
            path for name in ("with_mask", "without_mask") for path in _files(photographs / name) if is_taught(path)
        ]
        found = [(path, find_faces(path)) for path in taught] if find_faces else []
        labelled = [LabelledPhotograph(path, boxes) for path, boxes in found if boxes is not None]
        return cls((*masked, *unmasked), tuple(taught), tuple(labelled))


def is_taught(path: Path) -> bool:
    """Whether lessons may use a photograph: half of them, so that others remain to measure on.

    Decided by the hash of its name without numbers, which names a person or a series: none is on both sides.
    """
    stem = path.stem
    series = re.sub(r"( copy.*| ?\(\d+\)|[_-]?\d+)$", "", stem)
    name = series if len(series) >= 4 or "_" in series else stem
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32 < _PHOTOGRAPHS_TAUGHT


def make_lesson(seed: int, index: int, sources: LessonSources) -> Lesson:
    """Make one lesson."""
    rng = np.random.default_rng((seed, index))
    if not sources.labelled or rng.random() < _SCENE_SHARE:
        scene = make_scene(seed, index, sources.crops, sources.photographs, _SCENES)
        image, boxes = scene.image, [face[:4] for face in scene.faces]
    else:
        image, boxes = _mosaic(rng, sources)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        boxes = [(SIDE_PX - right, top, SIDE_PX - left, bottom) for left, top, right, bottom in boxes]
    return Lesson(_degrade(rng, image), *targets(boxes))


def targets(boxes: Sequence[Box]) -> tuple[Floats, Floats, Floats, Floats]:
    """Maps of a lesson, ``score``, ``centres``, ``shape`` and ``counts``, from boxes in pixels.

    Around a centre the score falls off as a normal curve whose width grows with the face, as in CenterNet (Zhou, Wang
    and Krähenbühl, "Objects as Points", 2019); the inverse of :func:`maskdet.faces.decoding.decode`.
    """
    rows, columns = np.mgrid[:_CELLS, :_CELLS]
    score, centres, counts = np.zeros(rows.shape), np.zeros(rows.shape), np.ones(rows.shape)
    shape = np.zeros((*rows.shape, 4))
    for left, top, right, bottom in boxes:
        width, height = right - left, bottom - top
        if min(width, height) < _SMALLEST_DRAWN_PX:
            continue
        x, y = (left + right) / 2 / STRIDE_PX, (top + bottom) / 2 / STRIDE_PX
        column, row = (min(_CELLS - 1, max(0, int(value))) for value in (x, y))
        if max(width, height) < _SMALLEST_TAUGHT_PX:
            counts[np.hypot(columns - column, rows - row) < 2] = 0
            continue
        spread = max(0.35, 0.15 + 0.05 * np.sqrt(width * height) / STRIDE_PX)
        score = np.maximum(score, np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / (2 * spread**2)))
        centres[row, column] = 1
        shape[row, column] = (np.log(height / STRIDE_PX), np.log(width / STRIDE_PX), y - 0.5 - row, x - 0.5 - column)
    return (score.astype(np.float32), centres.astype(np.float32), shape.astype(np.float32), counts.astype(np.float32))


def _mosaic(rng: np.random.Generator, sources: LessonSources) -> tuple[Image.Image, list[Box]]:
    """Photographs side by side on a background, each as large as its surest face is to be."""
    image = draw_background(rng, SIDE_PX, SIDE_PX, sources.photographs)
    boxes: list[Box] = []
    taken: list[Box] = []
    for _ in range(int(rng.integers(1, 6))):
        photograph = sources.labelled[int(rng.integers(len(sources.labelled)))]
        picture, _ = open_upright(photograph.path.read_bytes(), ImageLimits())
        first = photograph.boxes[0]
        scale = np.exp(rng.uniform(np.log(12), np.log(160))) / max(first[2] - first[0], first[3] - first[1])
        scale = min(float(scale), 0.9 * SIDE_PX / max(picture.size), 4.0)
        width, height = (max(4, round(side * scale)) for side in picture.size)
        place = _free_place(rng, width, height, taken)
        if place is None:
            continue
        left, top = place
        image.paste(picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0), place)
        taken.append((left, top, left + width, top + height))
        for box in photograph.boxes * np.array([width / picture.width, height / picture.height] * 2):
            x0, y0, x1, y1 = (float(edge) for edge in box)
            inner = (max(x0, 0) + left, max(y0, 0) + top, min(x1, width) + left, min(y1, height) + top)
            boxes.append(inner)
    return image, boxes


def _free_place(rng: np.random.Generator, width: int, height: int, taken: Sequence[Box]) -> tuple[int, int] | None:
    for _ in range(15):
        left, top = int(rng.integers(SIDE_PX - width + 1)), int(rng.integers(SIDE_PX - height + 1))
        if not any(left < x1 and top < y1 and left + width > x0 and top + height > y0 for x0, y0, x1, y1 in taken):
            return left, top
    return None


def _degrade(rng: np.random.Generator, image: Image.Image) -> NDArray[np.uint8]:
    """Blur, compression, light, colour cast, sometimes no colour at all."""
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))
    if rng.random() < 0.7:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(rng.integers(40, 97)))
        image = Image.open(stream).convert("RGB")
    pixels = (np.asarray(image, np.float32) - 128) * rng.uniform(0.7, 1.25) + 128 + rng.uniform(-30, 30)
    pixels *= rng.normal(1, 0.05, 3)
    if rng.random() < 0.1:
        pixels[:] = pixels.mean(axis=-1, keepdims=True)
    return pixels.clip(0, 255).astype(np.uint8)


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if not files:
        raise SourceError("lessons", "a folder with images", str(folder), "Check --crops and --photographs.")
    return files
