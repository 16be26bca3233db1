"""Some images of a folder or list as a model sees them, with their true classes: an import is checked on them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskdet import storage
from maskdet.config import FacesMode, SourceSettings
from maskdet.cores import available_cores
from maskdet.errors import ImageFault, SourceError, StorageError
from maskdet.evaluation.settings import TruthSettings
from maskdet.evaluation.truth import class_of_folders, class_of_value, top_of
from maskdet.faces.detection import make_viewer
from maskdet.faces.extraction import FaceView, StageClock, Viewer
from maskdet.images.codecs import load_codecs, resolve_codecs
from maskdet.images.preprocessing import ImageLimits
from maskdet.inputs.listing import ListTask, check_input, input_tasks, list_images
from maskdet.labels import Codes, codes_of
from maskdet.model.manifest import InputSpec
from maskdet.resolved import ResolvedFaces


@dataclass(frozen=True)
class Views:
    """Images as a model sees them.

    Attributes:
        pixels: uint8 RGB ``(images, height, width, 3)``.
        classes: codes of their true classes, ``(images,)``; all −1 for images without truth.
        without_face: images in which no face was found.
        failed: images that could not be read or decoded.
    """

    pixels: NDArray[np.uint8]
    classes: Codes
    without_face: int
    failed: int


def labelled_views(
    location: str,
    spec: InputSpec,
    mode: FacesMode,
    *,
    classes: Sequence[str],
    most_of_a_class: int,
    truth: TruthSettings,
) -> Views:
    """Choose and read labelled images, the same ones each time.

    Args:
        location: a folder whose folders name classes, or an image list with the column of the truth.
        spec: what the model takes.
        mode: whether images are faces or contain faces, of which the largest counts.
        classes: those that the model knows; others are left out.
        most_of_a_class: most images of each class.
        truth: names of classes, and the column of a list.

    Raises:
        SourceError: there are no images, or none of ``mask`` or of ``no_mask``.
        StorageError: the location cannot be listed.
    """
    by_class: dict[str, list[str]] = defaultdict(list)
    for uri, name in _labelled_uris(location, truth):
        if name is not None and name in classes:
            by_class[name].append(uri)
    if not {"mask", "no_mask"} <= by_class.keys():
        found = {name: len(uris) for name, uris in sorted(by_class.items())}
        names = f"{', '.join(truth.mask)} and {', '.join(truth.no_mask)}"
        remedy = f"Put the images into folders named so, or name them in a list with the column {truth.column!r}."
        raise SourceError(f"labelled images in {location}", f"some of each: {names}", found or "none", remedy)
    chosen = [(uri, name) for name, uris in sorted(by_class.items()) for uri in _spread(uris, most_of_a_class)]
    return _view(chosen, spec, mode)


def unlabelled_views(location: str, spec: InputSpec, mode: FacesMode, most: int) -> Views:
    """Choose and read images of a folder, glob or list, the same ones each time.

    Args:
        location: of the images.
        spec: what the model takes.
        mode: whether images are faces or contain faces, of which the largest counts.
        most: most images.

    Raises:
        SourceError: there are none, or none of them shows a face.
        StorageError: the location cannot be listed.
    """
    uris = [uri for task in _tasks(location) for uri, _ in _refs(task, SourceSettings())]
    views = _view([(uri, None) for uri in _spread(uris, most)], spec, mode)
    if not len(views.pixels):
        received = f"{len(uris)} images, {views.failed} not readable, {views.without_face} without a face"
        raise SourceError(f"images in {location}", "some that show a face", received, "Name another folder.")
    return views


def _labelled_uris(location: str, truth: TruthSettings) -> Iterable[tuple[str, str | None]]:
    for task in _tasks(location):
        if task.kind == "image_list":
            keyed = SourceSettings().model_copy(update={"keys": (truth.column,)})
            for uri, (value,) in _refs(task, keyed):
                yield uri, class_of_value(value, truth)
        else:
            for uri, _ in _refs(task, SourceSettings()):
                yield uri, class_of_folders(uri, truth, [top_of(task)])


def _tasks(location: str) -> list[ListTask]:
    return input_tasks([location], SourceSettings())


def _refs(task: ListTask, source: SourceSettings) -> Iterable[tuple[str, tuple[str | None, ...]]]:
    check_input(task, source)
    for batch in list_images(task, source):
        yield from ((ref.uri, ref.keys) for ref in batch.refs if ref.problem is None)


def _spread(uris: Iterable[str], most: int) -> list[str]:
    """Choose some of them, regardless of their order and names."""
    return sorted(set(uris), key=lambda uri: hashlib.sha256(uri.encode("utf-8", "surrogateescape")).digest())[:most]


def _view(images: Sequence[tuple[str, str | None]], spec: InputSpec, mode: FacesMode) -> Views:
    threads = available_cores()
    codecs = load_codecs(resolve_codecs("auto"))
    faces = ResolvedFaces(mode=mode)
    viewer = make_viewer(faces, spec, ImageLimits(), jpeg_draft=True, threads=threads, codecs=codecs)
    with ThreadPoolExecutor(threads) as pool:
        seen = list(pool.map(lambda image: _largest_face(image[0], viewer), images))
    kept = [(face, name) for face, (_, name) in zip(seen, images, strict=True) if isinstance(face, FaceView)]
    none = np.zeros((0, spec.height, spec.width, 3), np.uint8)
    pixels = np.stack([face.pixels for face, _ in kept]) if kept else none
    classes = codes_of(name or "uncertain" for _, name in kept)
    return Views(pixels, classes, seen.count(None), sum(isinstance(face, Exception) for face in seen))


def _largest_face(uri: str, viewer: Viewer) -> FaceView | Exception | None:
    clock = StageClock()
    clock.start()
    try:
        faces = viewer(storage.read_bytes(uri), clock).faces
    except (ImageFault, StorageError) as fault:
        return fault
    return max(faces, key=lambda face: face.box.width * face.box.height if face.box else 0.0, default=None)
