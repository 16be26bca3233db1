"""From labelled folders to arrays: what a model is trained and measured on.

Classes are numbered as :data:`maskdet.labels.CODES` says. Images are decoded by
:func:`maskdet.images.preprocessing.prepare_image`, as scoring decodes them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet import labels, storage
from maskdet.errors import SourceError
from maskdet.labels import CODES, TWO_CLASSES, ClassNames
from maskdet.preparation.grouping import in_hash_band
from maskdet.preparation.manifest import read_split
from maskdet.preparation.settings import DATA_VARIABLE, DEFAULT_DATA_FOLDER
from maskdet.training.reading import ViewMaker, read_views
from maskdet.training.recipe import DataSource

NO_MASK, MASK, INCORRECT = (CODES[name] for name in (labels.NO_MASK, labels.MASK, labels.INCORRECT))

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_log = logging.getLogger(__name__)


class LabelledImage(NamedTuple):
    """An image file and its class."""

    path: str
    """Its name in the fingerprint: '/'-separated, relative to the data folder if it is in there."""
    uri: str
    label: int
    """A code of :data:`maskdet.labels.CODES`: 1 for "mask", 0 for "no mask", 2 for "incorrect"."""
    repeats: int


@dataclass(frozen=True)
class LabelledArrays:
    """Decoded images with their labels; row i of each array belongs to ``images[i]``."""

    images: tuple[LabelledImage, ...]
    pixels: NDArray[np.uint8]
    """RGB ``(images, copies, height, width, 3)``; one copy unless the images were augmented."""
    labels: NDArray[np.uint8]
    content_sha256: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    """Path and reason of every image that was left out."""

    def selected(self, keep: NDArray[np.bool_]) -> LabelledArrays:
        """The images whose entry in ``keep``, ``(images,)``, is true."""
        return LabelledArrays(
            images=tuple(compress(self.images, keep)),
            pixels=self.pixels[keep],
            labels=self.labels[keep],
            content_sha256=tuple(compress(self.content_sha256, keep)),
            unreadable=self.unreadable,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sorted (path, content SHA-256, label) of every image."""
        triples = zip(self.images, self.content_sha256, strict=True)
        return fingerprint((image.path, digest, image.label) for image, digest in triples)


def data_folder() -> str:
    """The folder to which data sources are relative: the environment variable ``MASKDET_DATA``, or ``data``."""
    return os.environ.get(DATA_VARIABLE) or str(Path(DEFAULT_DATA_FOLDER).absolute())


def fingerprint(triples: Iterable[tuple[str, str, int]]) -> str:
    """SHA-256, in hexadecimal, over the sorted ``path TAB content-SHA-256 TAB label LF`` lines in UTF-8."""
    lines = sorted(f"{path}\t{digest}\t{label}\n" for path, digest, label in triples)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def network_targets(codes: NDArray[np.uint8], class_names: ClassNames) -> NDArray[np.float32]:
    """What a network should say of images.

    Args:
        codes: of each image's class, ``(images,)``.
        class_names: what the network tells apart.

    Returns:
        For two classes, 1 for a mask and 0 for none, ``(images, 1)``; for three, 1 in the class's column,
        ``(images, classes)``.
    """
    if class_names == TWO_CLASSES:
        return codes[:, np.newaxis].astype(np.float32)
    columns = np.array([CODES[name] for name in class_names])
    rows: NDArray[np.float32] = (codes[:, np.newaxis] == columns).astype(np.float32)
    return rows


def list_labelled(
    sources: Sequence[DataSource], root: str, class_names: ClassNames = TWO_CLASSES
) -> list[LabelledImage]:
    """Find the images of labelled sources, sorted by path.

    Args:
        sources: a folder or glob for each class.
        root: what relative folders and globs start from.
        class_names: which classes to list.

    Raises:
        SourceError: a class of a source has no images, or one file has both labels.
        StorageError: a folder cannot be listed.
    """
    images = []
    for source in sources:
        if source.manifest:
            images += _list_split(source, root, class_names)
            continue
        for name in class_names:
            if place := getattr(source, name):
                images += _list_class(source, name, place, root)
    _check_labels(images)
    return sorted(images)


def list_images(place: str, root: str) -> list[str]:
    """The images of a folder or glob, by their extensions.

    Args:
        place: absolute, a URI, or relative to the root.
        root: a folder.

    Raises:
        StorageError: the folder cannot be listed.
    """
    location = _location(place, root)
    found = storage.list_matching(location) if storage.has_glob(location) else storage.list_folder(location)
    return [file.uri for file in found if file.uri.lower().endswith(_IMAGE_SUFFIXES)]


def _location(place: str, root: str) -> str:
    return place if not storage.is_local(place) or os.path.isabs(place) else storage.join(root, place)


def _list_class(source: DataSource, class_name: str, place: str, root: str) -> list[LabelledImage]:
    pattern = re.compile(source.group_pattern)
    prefix = storage.normalize(root) + "/"
    images = []
    for uri in list_images(place, root):
        name = uri.rsplit("/", 1)[-1]
        match = pattern.search(name)
        if in_hash_band(match[1] if match and match[1] is not None else name, source.hash_band):
            images.append(LabelledImage(uri.removeprefix(prefix), uri, CODES[class_name], source.repeats))
    if not images:
        raise SourceError(
            f"training data of class {class_name}",
            f"images ({', '.join(_IMAGE_SUFFIXES)}) in hash band {list(source.hash_band)}",
            f"none under {_location(place, root)}",
            f"Correct the recipe's data, or set {DATA_VARIABLE} to the folder that holds it.",
        )
    return images


def _list_split(source: DataSource, root: str, class_names: ClassNames) -> list[LabelledImage]:
    rows = read_split(
        source.manifest,
        source.split,
        source.sources or None,
        official_splits=source.official_splits,
        drop_suspicious=True,
        drop_flat=True,
    )
    prefix = storage.normalize(root) + "/"
    if others := sum(label not in class_names for _, label, _ in rows):
        _log.info("left out %d of %d images of %s: of none of the recipe's classes", others, len(rows), source.manifest)
    return [
        LabelledImage(uri.removeprefix(prefix), uri, CODES[label], source.repeats)
        for uri, label, group in rows
        if label in class_names and in_hash_band(group, source.hash_band)
    ]


def _check_labels(images: Sequence[LabelledImage]) -> None:
    label_by_uri: dict[str, int] = {}
    for image in images:
        if label_by_uri.setdefault(image.uri, image.label) != image.label:
            raise SourceError("label", "one class per file", f"several for {image.path}", "Make the folders disjoint.")


def decode(
    images: Sequence[LabelledImage],
    height: int,
    width: int,
    *,
    copies: int = 1,
    make_views: ViewMaker | None = None,
    stop_on_unreadable: bool = False,
    required: Sequence[str] = TWO_CLASSES,
) -> LabelledArrays:
    """Read and decode images into one array; an unreadable image is logged with its path, counted and left out.

    Args:
        images: what to read.
        height: rows of each decoded image.
        width: columns of each decoded image.
        copies: views that ``make_views`` gives of each image.
        make_views: replaces plain decoding; must depend on its arguments alone, and is pickled if there are many views.
        stop_on_unreadable: refuse unreadable images instead of leaving them out.
        required: classes of which an image must be readable.

    Raises:
        SourceError: one of these classes has no readable image, or an unreadable image is refused.
    """
    pixels = np.empty((len(images), copies, height, width, 3), np.uint8)
    digests, problems = [""] * len(images), [""] * len(images)
    for row, read in enumerate(read_views([image.uri for image in images], height, width, copies, make_views)):
        digests[row], problems[row] = read.content_sha256, read.problem
        if read.views is not None:
            pixels[row] = read.views
    unreadable = tuple((image.path, problem) for image, problem in zip(images, problems, strict=True) if problem)
    _report_unreadable(unreadable, stop=stop_on_unreadable)
    kept = [row for row, problem in enumerate(problems) if not problem]
    codes = np.array([images[i].label for i in kept], np.uint8)
    _check_classes(codes, len(unreadable), required)
    return LabelledArrays(
        images=tuple(images[i] for i in kept),
        pixels=pixels[kept] if unreadable else pixels,
        labels=codes,
        content_sha256=tuple(digests[row] for row in kept),
        unreadable=unreadable,
    )


def _report_unreadable(unreadable: Sequence[tuple[str, str]], *, stop: bool) -> None:
    for path, problem in unreadable:
        _log.warning("%s: %s: %s", "unreadable" if stop else "left out, unreadable", path, problem)
    if stop and unreadable:
        path, problem = unreadable[0]
        raise SourceError(
            "training images",
            "readable ones alone",
            f"{len(unreadable)} unreadable, the first {path}: {problem}",
            "Mend or remove the files that the warnings name, or set on_unreadable to skip.",
        )


def _check_classes(codes: NDArray[np.uint8], unreadable: int, required: Sequence[str]) -> None:
    counts = {name: int(np.sum(codes == CODES[name])) for name in required}
    if min(counts.values()) == 0:
        raise SourceError(
            "readable images",
            "some of each class",
            f"{counts} with {unreadable} unreadable",
            "Check the files that the warnings name.",
        )
