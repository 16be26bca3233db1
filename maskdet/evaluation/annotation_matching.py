"""Find the image of each annotation.

Names in annotations go stale: files are renamed or converted after they were annotated, folders move, tools write the
annotator's own path. So a name is first compared exactly, then without regard to ``%20``, case and the kind of slash,
then by the file name alone, then without its extension. A file about one image (VOC, YOLO) is named after that image;
its name counts where the name inside belongs to no image, or to one with an annotation file of its own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from maskdet import storage
from maskdet.errors import SourceError
from maskdet.evaluation.annotations import AnnotatedImage, read_coco, read_parquet, read_voc
from maskdet.evaluation.settings import TruthSettings
from maskdet.evaluation.yolo_labels import is_label_file, read_yolo

# Folders that separate images from annotations, and so do not say which image an annotation belongs to.
_KINDS = frozenset({"annotations", "images", "img", "jpegimages", "labels", "xml", "xmls"})


class Annotation(NamedTuple):
    """An annotated image, and the file from which it was read."""

    file: str
    image: AnnotatedImage
    alone: bool = False
    """Whether the file is about that image alone, and so is named after it."""


class Located(NamedTuple):
    """The image of each annotation."""

    truths: dict[str, AnnotatedImage]
    """URI of the image → its annotation."""
    unlisted: list[str]
    """Names of annotations without an image, sorted."""
    by_file: list[str]
    """Annotation files that were matched by their own names, because the names inside fit no image; sorted."""


def read_annotations(truth: TruthSettings) -> list[Annotation]:
    """Read ``truth.boxes``: COCO if the name ends in ``.json``, a table in ``.parquet``, else VOC or YOLO.

    Raises:
        SourceError: a file has another form or names an unknown class, or there is no file.
        StorageError: a file cannot be read.
    """
    assert truth.boxes is not None
    uri = storage.normalize(truth.boxes)
    ending = uri.rpartition(".")[2].lower()
    if ending in ("json", "parquet"):
        read = read_coco if ending == "json" else read_parquet
        return [Annotation(uri, image) for image in read(uri, truth.classes)]
    listed = sorted([uri] if ending in ("xml", "txt") else [file.uri for file in storage.list_folder(uri)])
    files = [file for file in listed if file.lower().endswith(".xml")]
    if files:
        images = zip(files, read_voc(files, truth.classes), strict=True)
        return [Annotation(file, image, alone=True) for file, image in images]
    files = [file for file in listed if is_label_file(file)]
    if files:
        folder = storage.parent(uri) if ending == "txt" else uri
        found = read_yolo(folder, files, truth.classes)
        return [Annotation(file, image, alone=True) for file, image in found.items()]
    expected = "a COCO file (.json), a table (.parquet), a VOC file (.xml), a YOLO file (.txt), or a folder of either"
    raise SourceError("truth.boxes", expected, truth.boxes, "Check the path.")


def locate(annotations: Iterable[Annotation], uris: Iterable[str]) -> Located:
    """Find the image of each annotation.

    Args:
        annotations: of some images.
        uris: of the run's images.

    Raises:
        SourceError: a name fits several images, or an image has two annotations.
    """
    images, given = _Images(uris), list(annotations)
    own = [images.of_file(one.file) if one.alone else None for one in given]
    named = _by_name(given, own, images)
    found, files = Located({}, [], []), dict[str, str]()
    for number, (annotation, by_file) in enumerate(zip(given, own, strict=True)):
        uri = named.get(number, by_file)
        if uri is None:
            found.unlisted.append(annotation.image.name or annotation.file.rpartition("/")[2])
            continue
        if uri in files:
            received = f"two of {uri}, in {' and '.join(dict.fromkeys((files[uri], annotation.file)))}"
            raise SourceError("truth.boxes", "one annotation an image", received, "Leave one out.")
        files[uri], found.truths[uri] = annotation.file, annotation.image
        if annotation.image.name and number not in named:
            found.by_file.append(annotation.file)
    found.unlisted.sort()
    found.by_file.sort()
    return found


def _by_name(given: Sequence[Annotation], own: Sequence[str | None], images: _Images) -> dict[int, str]:
    """Annotation → the image that its name means, for names that fit a single image and can be trusted."""
    owners = {uri: number for number, uri in enumerate(own) if uri is not None}
    named: dict[int, str] = {}
    for looseness in range(_Images.WAYS):
        taken = set(named.values())
        folders_count = any("/" in given[number].image.name for number in named)
        for number, one in enumerate(given):
            if number in named or not one.image.name:
                continue
            if looseness >= _Images.WITHOUT_FOLDERS and folders_count and "/" in _plain(one.image.name):
                continue  # folders of other names in it are right, so this name means an image that is not listed
            fits = images.of_name(one, looseness)
            if len(fits) > 1 and own[number] is None:
                remedy = "Name images in the annotations with as many folders as tell them apart."
                raise SourceError(f"truth.boxes: {one.image.name}", "one image of that name", fits[:3], remedy)
            believed = len(fits) == 1 and (own[number] is None or owners.get(fits[0], number) == number)
            if believed and (looseness == 0 or fits[0] not in taken):
                named[number] = fits[0]
    return named


class _Images:
    """A run's images by the names that they may have in annotations."""

    WAYS = 4
    """Ways of comparing names, from strict to loose: exact, plain, without folders, without extensions."""
    WITHOUT_FOLDERS = 2

    def __init__(self, uris: Iterable[str]) -> None:
        self._uris = frozenset(uris)
        self._exact = _index(self._uris, _last)
        self._plain = _index(self._uris, lambda uri: _last(_plain(uri)))
        self._stems = _index(self._uris, lambda uri: _stem(_last(_plain(uri))))

    def of_name(self, annotation: Annotation, looseness: int) -> list[str]:
        """Images that an annotation's name may mean."""
        name = annotation.image.name.removeprefix("./")
        plain = _plain(name).removeprefix("./")
        alike = self._plain.get(_last(plain), ())
        if looseness == 0:
            beside = (storage.join(storage.parent(annotation.file), name), name)
            if exact := [uri for uri in beside if uri in self._uris]:
                return exact[:1]
            fits: Sequence[str] = [uri for uri in self._exact.get(_last(name), ()) if uri.endswith(f"/{name}")]
        elif looseness == 1:
            fits = [uri for uri in alike if _plain(uri).endswith(f"/{plain}")]
        else:
            fits = alike if looseness == self.WITHOUT_FOLDERS else self._stems.get(_stem(_last(plain)), ())
        return _nearest(annotation.file, fits)

    def of_file(self, file: str) -> str | None:
        """The image named like an annotation file, without extensions; of several, the one whose folders agree."""
        fits = _nearest(file, self._stems.get(_stem(_last(_plain(file))), ()))
        return fits[0] if len(fits) == 1 else None


def _index(uris: Iterable[str], key: Callable[[str], str]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for uri in sorted(uris):
        found[key(uri)].append(uri)
    return found


def _nearest(file: str, fits: Sequence[str]) -> list[str]:
    """Of several images, those that share most folders with an annotation's file, counted from the file up."""
    if len(fits) < 2:
        return list(fits)
    shared = [_shared_folders(file, uri) for uri in fits]
    return [uri for uri, count in zip(fits, shared, strict=True) if count == max(shared)]


def _shared_folders(file: str, uri: str) -> int:
    ones, others = (
        [part for part in reversed(_plain(path).split("/")[:-1]) if part not in _KINDS] for path in (file, uri)
    )
    count = 0
    for one, other in zip(ones, others, strict=False):
        if one != other:
            break
        count += 1
    return count


def _plain(name: str) -> str:
    """A path for loose comparison: ``%20`` is a space, a backslash is a slash, and case does not matter."""
    return re.sub(r"\s+", " ", unquote(name).replace("\\", "/")).casefold()


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(name: str) -> str:
    stem, dot, _ = name.rpartition(".")
    return stem if dot else name
