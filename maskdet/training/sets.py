"""The sets of images that a recipe names, decoded: those to train on, to validate on, and to calibrate int8 with."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskdet.drawing import draw_face
from maskdet.imaging import prepare_image
from maskdet.training.augment import make_views
from maskdet.training.data import MASK, NO_MASK, LabelledArrays, LabelledImage, ViewMaker, decode, list_labelled
from maskdet.training.recipe import DataSource, Recipe

_SYNTHETIC_SIDES_PX = (64, 224)


def load_training(recipe: Recipe, root: str) -> LabelledArrays:
    """Decode a recipe's training images, augmented if it says so, and add its drawn faces.

    Returns:
        Arrays of pixels uint8 ``(images, copies, height, width, 3)``.

    Raises:
        SourceError: images are missing, or a class is, or an image is unreadable and the recipe says to stop.
    """
    copies = recipe.augmentation.copies if recipe.augmentation else 1
    arrays = decode(
        _first_of_each_class(list_labelled(recipe.data, root), recipe.max_images_per_class),
        recipe.height,
        recipe.width,
        copies=copies,
        make_views=_view_maker(recipe, "photos"),
        stop_on_unreadable=recipe.on_unreadable == "stop",
    )
    if recipe.synthetic_faces == 0:
        return arrays
    return arrays.joined_with(_draw_faces(recipe, copies))


def load_plain(recipe: Recipe, sources: Sequence[DataSource], root: str) -> LabelledArrays | None:
    """Decode images as scoring does, without augmentation; ``None`` if there are no sources.

    Raises:
        SourceError: images are missing, or a class is, or an image is unreadable and the recipe says to stop.
    """
    if not sources:
        return None
    listed = _first_of_each_class(list_labelled(sources, root), recipe.max_images_per_class)
    return decode(listed, recipe.height, recipe.width, stop_on_unreadable=recipe.on_unreadable == "stop")


def load_views(recipe: Recipe, sources: Sequence[DataSource], root: str) -> LabelledArrays | None:
    """Decode images in as many random views as training makes of each; ``None`` if there are no sources.

    Raises:
        SourceError: images are missing, or a class is, or an image is unreadable and the recipe says to stop.
    """
    if not sources:
        return None
    return decode(
        _first_of_each_class(list_labelled(sources, root), recipe.max_images_per_class),
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


def _view_maker(recipe: Recipe, stream: str) -> ViewMaker | None:
    settings = recipe.augmentation
    if settings is None:
        return None
    stream_key = int.from_bytes(stream.encode(), "big")

    def views_of(data: bytes, index: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng([recipe.seed, stream_key, index])
        return make_views(data, recipe.height, recipe.width, settings, rng)

    return views_of


def _draw_faces(recipe: Recipe, copies: int) -> LabelledArrays:
    """Drawn faces, masked and not in turn, as if read from files."""
    make = _view_maker(recipe, "drawn") or (
        lambda data, _index: prepare_image(data, recipe.height, recipe.width).pixels[np.newaxis]
    )
    images: list[LabelledImage] = []
    digests: list[str] = []
    pixels = np.empty((recipe.synthetic_faces, copies, recipe.height, recipe.width, 3), np.uint8)
    for index in range(recipe.synthetic_faces):
        label = (NO_MASK, MASK)[index % 2]
        rng = np.random.default_rng([recipe.seed, 2, index])
        encoded = io.BytesIO()
        draw_face(rng, int(rng.integers(*_SYNTHETIC_SIDES_PX)), masked=label == MASK).save(encoded, "BMP")
        pixels[index] = make(encoded.getvalue(), index)
        images.append(LabelledImage(f"synthetic/{recipe.seed}/{index}", "", label, 1))
        digests.append(hashlib.sha256(encoded.getvalue()).hexdigest())
    labels = np.array([image.label for image in images], np.uint8)
    return LabelledArrays(tuple(images), pixels, labels, tuple(digests), ())


def _first_of_each_class(images: list[LabelledImage], limit: int | None) -> list[LabelledImage]:
    if limit is None:
        return images
    return [image for label in (NO_MASK, MASK) for image in [i for i in images if i.label == label][:limit]]
