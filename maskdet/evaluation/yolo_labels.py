"""Annotated faces in YOLO's text files: one file per image, with the image's name, and one line per face.

    class  centre_x  centre_y  width  height        # in shares of the image's width and height, 0 to 1

``class`` is a number; its name is in ``data.yaml`` (``names``, a list or a map) or, one per line, in ``classes.txt``,
``obj.names`` or ``_darknet.labels``, in the folder of the labels or up to two levels above. Shares refer to the upright
image, as tools show it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from maskdet import storage
from maskdet.errors import NotFoundError, SourceError
from maskdet.evaluation.annotations import (
    LABELS,
    AnnotatedImage,
    NamedFace,
    NamedFaces,
    checked_box,
    read_file,
    with_labels,
)

CLASS_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names", "_darknet.labels")
"""Files that may have the names of classes; the first that exists counts."""

_NOTES = ("classes.txt", "readme.", "license.")
# Darknet keeps the paths of a split's images in a file of such a name, which may also be an image's.
_IMAGE_LISTS = ("train.txt", "val.txt", "valid.txt", "test.txt")
_FOLDERS_UP = 2
_FORM = "class, centre x, centre y, width and height in shares of the image"


def is_label_file(uri: str) -> bool:
    """Whether a file's name is that of an image's labels: ``.txt``, but not a list of classes, readme or licence."""
    name = uri.rpartition("/")[2].lower()
    return name.endswith(".txt") and not name.startswith(_NOTES)


def read_yolo(folder: str, uris: Sequence[str], labels: Mapping[str, str | None] = LABELS) -> dict[str, AnnotatedImage]:
    """Read YOLO labels; edges are shares of the image's sides, and the images' names are empty.

    Args:
        folder: of the labels; class names are searched there and above.
        uris: the text files; an empty one is an image without faces, and Darknet's list of image files is skipped.
        labels: what class names mean; see :data:`maskdet.evaluation.annotations.LABELS`.

    Returns:
        Text file → its image.

    Raises:
        SourceError: names of classes are missing, a line is not a label, or classes are unknown.
        StorageError: a file cannot be read.
    """
    texts = {uri: _text(uri, read_file(uri)).splitlines() for uri in uris}
    texts = {uri: lines for uri, lines in texts.items() if not _lists_images(uri, lines)}
    source, names = read_class_names(folder)
    faces = [_faces(uri, lines, source, names) for uri, lines in texts.items()]
    return dict(zip(texts, with_labels(faces, labels), strict=True))


def read_class_names(folder: str) -> tuple[str, dict[int, str]]:
    """The file that names the classes, and its names by number.

    Raises:
        SourceError: there is none, or it is not of that form.
        StorageError: it cannot be read.
    """
    place = folder
    for _ in range(_FOLDERS_UP + 1):
        for name in CLASS_FILES:
            uri = storage.join(place, name)
            try:
                text = _text(uri, read_file(uri))
            except NotFoundError:
                continue
            return uri, _of_yaml(uri, text) if name.endswith(("yaml", "yml")) else _of_lines(text)
        above = storage.parent(place)
        if above == place or ("://" in place and "://" not in above):  # the root of a file system, or a bucket
            break
        place = above
    remedy = f"Write the names, one per line in the order of their numbers, into {storage.join(folder, 'classes.txt')}."
    raise SourceError(f"annotations {folder}", f"one of {', '.join(CLASS_FILES)} there or above", "none", remedy)


def _of_lines(text: str) -> dict[int, str]:
    return {number: line.strip() for number, line in enumerate(text.splitlines()) if line.strip()}


def _of_yaml(uri: str, text: str) -> dict[int, str]:
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise SourceError(f"annotations {uri}: not YAML: {str(error)[:200]}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(number, int) for number in names):
        remedy = "Correct the file."
        raise SourceError(f"annotations {uri}: names", "a list, or a map from numbers to names", names, remedy)
    return {number: str(name) for number, name in names.items()}


def _lists_images(uri: str, lines: Sequence[str]) -> bool:
    """Whether a file of such a name holds paths: one word per line."""
    return uri.rpartition("/")[2].lower() in _IMAGE_LISTS and any(len(line.split()) == 1 for line in lines)


def _faces(uri: str, lines: Sequence[str], source: str, names: Mapping[int, str]) -> NamedFaces:
    faces = [
        _face(f"{uri}: line {number}", line, source, names) for number, line in enumerate(lines, 1) if line.strip()
    ]
    return NamedFaces(uri, "", faces, in_shares=True)


def _face(where: str, line: str, source: str, names: Mapping[int, str]) -> NamedFace:
    words = line.split()
    try:
        number = int(words[0])
        x, y, width, height = (float(word) for word in words[1:])
    except ValueError as error:
        remedy = "Export boxes, not polygons or key points." if len(words) > 5 else "Correct the line."
        raise SourceError(f"annotations {where}", _FORM, line[:200], remedy) from error
    if number not in names:
        known = ", ".join(f"{number} {name}" for number, name in names.items())
        raise SourceError(f"annotations {where}", f"a class of {source} ({known})", number, "Add its name there.")
    box = checked_box(where, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    if max(x, y, width, height) > 1.0 or min(x, y) < 0:
        raise SourceError(f"annotations {where}", f"{_FORM}, 0 to 1", line[:200], "Divide pixels by the image's sides.")
    return NamedFace(box, names[number])


def _text(uri: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"annotations {uri}", "text in UTF-8", data[:40], "Save it as such.") from error
