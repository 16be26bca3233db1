"""Find the faces of labelled images and make new images of them: a function of images, settings and seed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdet import storage
from maskdet.composites.busts import Donor, draw_bust, replace_face
from maskdet.composites.covers import cover_face, put_mask_on
from maskdet.composites.geometry import Points, head_pose
from maskdet.composites.settings import ComposeSettings
from maskdet.detection.decoding import Detections
from maskdet.drawing import Pose
from maskdet.errors import ImageFault, SourceError
from maskdet.imaging import ImageLimits, open_upright

_MIN_SCENE_SIDE_PX = 100
_BUST_SIDES_PX = (160, 400)
_JPEG_QUALITY = 93


Detect = Callable[[NDArray[np.uint8]], Detections]
"""Upright RGB uint8 ``(height, width, 3)`` to faces, the surest first."""


class Portrait(NamedTuple):
    """A labelled image with one face that can be used."""

    uri: str
    label: str
    group: str
    landmarks: Points
    pose: Pose
    is_scene: bool
    """Whether it shows more than a face."""


class Composite(NamedTuple):
    """An image made."""

    kind: str
    label: str
    group: str
    """Of the face that it shows."""
    data: bytes
    """JPEG file."""


def find_portraits(images: Sequence[tuple[str, str, str]], detect: Detect, settings: ComposeSettings) -> list[Portrait]:
    """The images that show one face whose eyes and mouth are found, in their order.

    Args:
        images: URI, label and group of each.
        detect: finds faces; called from several threads.
        settings: how sure a face must be.
    """

    def look(image: tuple[str, str, str]) -> Portrait | None:
        uri, label, group = image
        try:
            picture = load(uri, settings.max_side_px)
        except ImageFault:
            return None
        boxes, scores, landmarks = detect(np.asarray(picture))
        if len(scores) == 0 or scores[0] < settings.min_score or np.sum(scores >= settings.min_score) > 1:
            return None
        points = landmarks[0].astype(np.float64)
        pose = head_pose(points, picture.width)
        face_height = float(boxes[0, 3] - boxes[0, 1]) / picture.height
        is_scene = face_height < settings.max_scene_face and min(picture.size) >= _MIN_SCENE_SIDE_PX
        return None if pose is None else Portrait(uri, label, group, points, pose, is_scene)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return [portrait for portrait in pool.map(look, images) if portrait is not None]


def compose(portraits: Sequence[Portrait], settings: ComposeSettings) -> Iterator[Composite]:
    """Make every composite, in the order of the kinds.

    Raises:
        SourceError: there is no image that a kind asked for can be made of.
    """
    makers = _Makers(portraits, settings)
    plan = [(kind, number) for kind, count in settings.kinds.model_dump().items() for number in range(count)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(lambda item: makers.make(*item), plan)


def load(uri: str, max_side_px: int) -> Image.Image:
    """Read an image, upright and RGB, shrunk to a longer side of at most ``max_side_px``.

    Raises:
        ImageFault: it cannot be decoded.
        StorageError: it cannot be read.
    """
    image, _ = open_upright(storage.read_bytes(uri), ImageLimits(), at_least=(max_side_px, max_side_px))
    factor = max_side_px / max(image.size)
    if factor >= 1.0:
        return image
    return image.resize(
        (max(1, round(image.width * factor)), max(1, round(image.height * factor))), Image.Resampling.BOX
    )


class _Makers:
    """Every kind's recipe, over the same images."""

    def __init__(self, portraits: Sequence[Portrait], settings: ComposeSettings) -> None:
        self._settings = settings
        self._all = portraits
        self._by_label = {label: [p for p in portraits if p.label == label] for label in ("mask", "no_mask")}
        self._scenes = [portrait for portrait in portraits if portrait.is_scene]

    def make(self, kind: str, number: int) -> Composite:
        rng = np.random.default_rng([self._settings.seed, number, *kind.encode()])
        label = "mask" if kind in ("drawn_mask", "swapped_masked", "bust_masked") else "no_mask"
        portrait = self._pick(self._by_label["no_mask" if kind == "drawn_mask" else label], kind, rng)
        donor = Donor(self._load(portrait), portrait.landmarks, portrait.pose)
        if kind == "drawn_mask":
            image = put_mask_on(donor.image, donor.pose, rng)
        elif kind == "covered":
            image = cover_face(donor.image, donor.pose, rng)
        elif kind.startswith("swapped"):
            scene = self._pick(self._scenes, kind, rng)
            image = replace_face(self._load(scene), scene.landmarks, donor, rng)
        else:
            surroundings = self._load(self._pick(self._all, kind, rng)) if rng.random() < 0.6 else None
            image = draw_bust(surroundings, donor, int(rng.integers(*_BUST_SIDES_PX)), rng)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        return Composite(kind, label, portrait.group, encoded.getvalue())

    def _load(self, portrait: Portrait) -> Image.Image:
        return load(portrait.uri, self._settings.max_side_px)

    def _pick(self, portraits: Sequence[Portrait], kind: str, rng: np.random.Generator) -> Portrait:
        if not portraits:
            raise SourceError(
                f"images for {kind}", "some with a face of the kind that it needs", "none", f"Set kinds.{kind}=0."
            )
        return portraits[int(rng.integers(len(portraits)))]
