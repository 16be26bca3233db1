"""The sets of images that a recipe names, decoded: for training, for validation, and for calibrating int8."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskdet import storage
from maskdet.cores import available_cores
from maskdet.training.augment import make_views
from maskdet.training.data import MASK, NO_MASK, LabelledArrays, LabelledImage, decode, list_images, list_labelled
from maskdet.training.reading import ViewMaker, drawn_face_uri, is_drawn
from maskdet.training.recipe import Augmentation, DataSource, Recipe


def load_training(recipe: Recipe, root: str, views: int | None = None) -> LabelledArrays:
    """Decode a recipe's training images, augmented if it says so, and add its drawn faces.

    Args:
        recipe: names the images and says how to augment them.
        root: folder that relative data sources start from.
        views: how many views of each augmented image, the first ones; ``None``: as many as the recipe says.

    Returns:
        Arrays of pixels uint8 ``(images, copies, height, width, 3)``.

    Raises:
        SourceError: images or a class are missing, or an image is unreadable and the recipe says to stop.
    """
    if recipe.augmentation and views is not None:
        recipe = recipe.model_copy(update={"augmentation": recipe.augmentation.model_copy(update={"copies": views})})
    return decode(
        _listed(recipe, recipe.data, root) + _drawn_faces(recipe),
        recipe.height,
        recipe.width,
        copies=recipe.augmentation.copies if recipe.augmentation else 1,
        make_views=_view_maker(recipe, "photos"),
        stop_on_unreadable=recipe.on_unreadable == "stop",
        required=recipe.classes,
    )


def load_plain(recipe: Recipe, sources: Sequence[DataSource], root: str) -> LabelledArrays | None:
    """Decode images as scoring does, without augmentation; ``None`` if there are no sources.

    Raises:
        SourceError: images or a class are missing, or an image is unreadable and the recipe says to stop.
    """
    if not sources:
        return None
    listed = _listed(recipe, sources, root)
    return decode(listed, recipe.height, recipe.width, stop_on_unreadable=recipe.on_unreadable == "stop")


def load_views(recipe: Recipe, sources: Sequence[DataSource], root: str) -> LabelledArrays | None:
    """Decode images into as many random views as training makes of each; ``None`` if there are no sources.

    Raises:
        SourceError: images or a class are missing, or an image is unreadable and the recipe says to stop.
    """
    if not sources:
        return None
    return decode(
        _listed(recipe, sources, root),
        recipe.height,
        recipe.width,
        copies=recipe.augmentation.copies if recipe.augmentation else 1,
        make_views=_view_maker(recipe, "threshold"),
        stop_on_unreadable=recipe.on_unreadable == "stop",
    )


def representative(recipe: Recipe, training: LabelledArrays) -> NDArray[np.uint8]:
    """Training images to measure int8 ranges on: uint8 ``(images, height, width, 3)``."""
    count = min(recipe.representative_images, len(training.labels))
    rows = np.random.default_rng([recipe.seed, 3]).choice(len(training.labels), count, replace=False)
    views: NDArray[np.uint8] = training.pixels[np.sort(rows), 0]
    return views


@dataclass(frozen=True)
class _RandomViews:
    """Views of the image at a position in a list: a function of seed, stream and position in any process."""

    seed: int
    stream_key: int
    height: int
    width: int
    settings: Augmentation

    def __call__(self, data: bytes, index: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng([self.seed, self.stream_key, index])
        return make_views(data, self.height, self.width, self.settings, rng)


def _view_maker(recipe: Recipe, stream: str) -> ViewMaker | None:
    if recipe.augmentation is None:
        return None
    stream_key = int.from_bytes(stream.encode(), "big")
    return _RandomViews(recipe.seed, stream_key, recipe.height, recipe.width, recipe.augmentation)


def _drawn_faces(recipe: Recipe) -> list[LabelledImage]:
    """Faces to be drawn, alternately with and without a mask, listed like files."""
    faces = []
    for index in range(recipe.synthetic_faces):
        label = (NO_MASK, MASK)[index % 2]
        uri = drawn_face_uri(recipe.seed, index, masked=label == MASK)
        faces.append(LabelledImage(f"synthetic/{recipe.seed}/{index}", uri, label, repeats=1))
    return faces


def _listed(recipe: Recipe, sources: Sequence[DataSource], root: str) -> list[LabelledImage]:
    """The images of a recipe's classes, or the first few of each."""
    images, limit = list_labelled(sources, root, recipe.classes), recipe.max_images_per_class
    if limit is None:
        return images
    codes = sorted({image.label for image in images})
    return [image for code in codes for image in [one for one in images if one.label == code][:limit]]


def trained_on(recipe: Recipe, training: LabelledArrays, root: str) -> list[str]:
    """SHA-256 of every image file that a network was trained on, and of the photographs from which some were cut.

    Args:
        recipe: names the photographs.
        training: the images; drawn ones have no file.
        root: folder that relative locations start from.

    Raises:
        SourceError: a folder or glob of photographs holds none.
        StorageError: one cannot be read.
    """
    digests = [
        digest
        for image, digest in zip(training.images, training.content_sha256, strict=True)
        if not is_drawn(image.uri)
    ]
    uris = [uri for place in recipe.photographs for uri in list_images(place, root)]
    with ThreadPoolExecutor(available_cores()) as pool:
        return [*digests, *pool.map(lambda uri: hashlib.sha256(storage.read_bytes(uri)).hexdigest(), uris)]
