"""Find the faces of labelled images and make new images from them; images, settings and seed decide the result."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskdet import storage
from maskdet.cores import available_cores
from maskdet.demo.drawing import Pose
from maskdet.errors import ImageFault, SourceError
from maskdet.images.preprocessing import ImageLimits, open_upright
from tools.augmentation.detected_crops import Detect, crop_found, shrink
from tools.augmentation.face_swap import Donor, draw_bust, replace_face
from tools.augmentation.geometry import Points, head_pose
from tools.augmentation.masks import put_mask_on
from tools.augmentation.occlusions import cover_face
from tools.augmentation.settings import ComposeSettings

_MIN_SCENE_SIDE_PX = 100
_BUST_SIDES_PX = (160, 400)
_JPEG_QUALITY = 93
_TRIES = 20


class Portrait(NamedTuple):
    """A labelled image with one usable face."""

    uri: str
    label: str
    group: str
    landmarks: Points
    pose: Pose
    is_scene: bool
    """Whether it shows more than a face."""


class Composite(NamedTuple):
    """An image that was made."""

    kind: str
    label: str
    group: str
    """Group of the face that it shows."""
    data: bytes
    """JPEG file."""


def find_portraits(images: Sequence[tuple[str, str, str]], detect: Detect, settings: ComposeSettings) -> list[Portrait]:
    """The images that show one face whose eyes and mouth are found, in their order.

    Args:
        images: URI, label and group of each.
        detect: finds faces; called from several threads.
        settings: least score of a face, and sizes.
    """

    def look(image: tuple[str, str, str]) -> Portrait | None:
        uri, label, group = image
        try:
            picture = load(uri, settings.max_side_px)
        except ImageFault:
            return None
        found = detect(np.asarray(picture))
        boxes, scores, landmarks = found.boxes, found.scores, found.landmarks
        if len(scores) == 0 or scores[0] < settings.min_score or np.sum(scores >= settings.min_score) > 1:
            return None
        points = landmarks[0].astype(np.float64)
        pose = head_pose(points, picture.width)
        face_height = float(boxes[0, 3] - boxes[0, 1]) / picture.height
        is_scene = face_height < settings.max_scene_face and min(picture.size) >= _MIN_SCENE_SIDE_PX
        return None if pose is None else Portrait(uri, label, group, points, pose, is_scene)

    with ThreadPoolExecutor(available_cores()) as pool:
        return [portrait for portrait in pool.map(look, images) if portrait is not None]


def compose(portraits: Sequence[Portrait], detect: Detect, settings: ComposeSettings) -> Iterator[Composite]:
    """Make every composite, in the order of the kinds.

    Args:
        portraits: images with one face.
        detect: finds faces for the crops that are cut as scoring cuts them; called from several threads.
        settings: kinds, numbers, seed.

    Raises:
        SourceError: there is no image from which a requested kind can be made.
    """
    makers = _Makers(portraits, detect, settings)
    plan = [(kind, number) for kind, count in settings.kinds.model_dump().items() for number in range(count)]
    with ThreadPoolExecutor(available_cores()) as pool:
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
    """Makes every kind of composite from the same images."""

    def __init__(self, portraits: Sequence[Portrait], detect: Detect, settings: ComposeSettings) -> None:
        self._detect, self._settings = detect, settings
        self._all = portraits
        self._by_label = {label: [p for p in portraits if p.label == label] for label in ("mask", "no_mask")}
        self._scenes = [portrait for portrait in portraits if portrait.is_scene]

    def make(self, kind: str, number: int) -> Composite:
        rng = np.random.default_rng([self._settings.seed, number, *kind.encode()])
        label = "mask" if kind == "drawn_mask" or kind.endswith("_masked") else "no_mask"
        if kind.startswith("detected"):
            portrait, image = self._found_again(kind, label, rng)
        else:
            portrait = self._pick(self._by_label["no_mask" if kind == "drawn_mask" else label], kind, rng)
            image = self._changed(kind, self._donor(portrait), rng)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        return Composite(kind, label, portrait.group, encoded.getvalue())

    def _changed(self, kind: str, donor: Donor, rng: np.random.Generator) -> Image.Image:
        if kind == "drawn_mask":
            return put_mask_on(donor.image, donor.pose, rng)
        if kind == "covered":
            return cover_face(donor.image, donor.pose, rng)
        if kind.startswith("swapped"):
            scene = self._pick(self._scenes, kind, rng)
            return replace_face(self._load(scene), scene.landmarks, donor, rng)
        surroundings = self._load(self._pick(self._all, kind, rng)) if rng.random() < 0.6 else None
        return draw_bust(surroundings, donor, int(rng.integers(*_BUST_SIDES_PX)), rng)

    def _found_again(self, kind: str, label: str, rng: np.random.Generator) -> tuple[Portrait, Image.Image]:
        """A portrait, and its face as the detector finds it in the image or in a scene that it was put into."""
        for _ in range(_TRIES):
            portrait = self._pick(self._by_label[label], kind, rng)
            staged, place = self._staged(self._donor(portrait), rng)
            smaller, factor = shrink(staged, rng)
            expected = None if place is None else place * factor
            crop = crop_found(smaller, expected, self._detect, self._settings.min_score)
            if crop is not None:
                return portrait, crop
        raise SourceError(
            f"faces for {kind}", "some that the detector finds again", f"none of {_TRIES}", f"Set kinds.{kind}=0."
        )

    def _staged(self, donor: Donor, rng: np.random.Generator) -> tuple[Image.Image, Points | None]:
        """An image in which the detector is to find the face, and the middle of the face's features where known."""
        stage = rng.random()
        if stage < 0.5:
            return donor.image, donor.landmarks.mean(axis=0)
        if stage < 0.75 and self._scenes:
            scene = self._scenes[int(rng.integers(len(self._scenes)))]
            return replace_face(self._load(scene), scene.landmarks, donor, rng), scene.landmarks.mean(axis=0)
        # No photograph as background: it might hold a face of the other class, and the detector might find that one.
        return draw_bust(None, donor, int(rng.integers(*_BUST_SIDES_PX)), rng), None

    def _donor(self, portrait: Portrait) -> Donor:
        return Donor(self._load(portrait), portrait.landmarks, portrait.pose)

    def _load(self, portrait: Portrait) -> Image.Image:
        return load(portrait.uri, self._settings.max_side_px)

    def _pick(self, portraits: Sequence[Portrait], kind: str, rng: np.random.Generator) -> Portrait:
        if not portraits:
            raise SourceError(
                f"images for {kind}", "some with a face of the kind that it needs", "none", f"Set kinds.{kind}=0."
            )
        return portraits[int(rng.integers(len(portraits)))]
