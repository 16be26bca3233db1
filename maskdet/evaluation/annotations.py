"""Annotated faces from VOC XML, COCO JSON and Parquet tables, in one form; :mod:`yolo_labels` reads YOLO's text files.

Boxes are edges in pixels of the upright image, as in the files: VOC's and COCO's conventions differ by up to a pixel,
less than annotators do.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from defusedxml import DefusedXmlException, ElementTree
from numpy.typing import NDArray

from maskdet import storage
from maskdet.errors import SourceError
from maskdet.faces.boxes import Floats

IGNORED = "ignored"
"""A meaning of a class besides those of :mod:`maskdet.labels`: its boxes are neither expected nor counted as false."""

LABELS: Mapping[str, str | None] = {
    **dict.fromkeys(("mask", "with_mask", "masked", "face_mask"), "mask"),
    **dict.fromkeys(("no_mask", "without_mask", "unmasked"), "no_mask"),
    **dict.fromkeys(("face", "head", "person"), None),
}
"""Class names in annotation files, compared as :func:`plain_name` has it; ``None``: a face of unknown class."""

PARQUET_COLUMNS = ("uri", "left_px", "top_px", "right_px", "bottom_px")
"""One row per face; ``label`` and the boolean ``ignored`` are optional. An image without faces has null edges."""

Edges = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_MAX_BYTES = 512 * 1024 * 1024
_COCO_KEYS = {"images": ("id", "file_name"), "categories": ("id", "name"), "annotations": ("image_id", "category_id")}


@dataclass(frozen=True)
class AnnotatedImage:
    """The faces of one image.

    Attributes:
        name: the image's file name or URI, as the annotation gives it; empty where only the annotation file's own name
            says which image it is.
        boxes: float32 ``(faces, 4)``: left, top, right, bottom in pixels, or in shares of the image's sides.
        labels: ``mask``, ``incorrect``, ``no_mask`` or ``None`` for each face.
        ignored: bool ``(faces,)``: marked as difficult, as a crowd or to be ignored, or of a class that means
            :data:`IGNORED`; neither expected nor counted as false.
        in_shares: whether edges are shares of the image's width and height, 0 to 1.
    """

    name: str
    boxes: Floats
    labels: tuple[str | None, ...]
    ignored: NDArray[np.bool_]
    in_shares: bool = False

    def in_pixels(self, width_px: int, height_px: int) -> AnnotatedImage:
        """The same faces with edges in pixels of an image of some size."""
        if not self.in_shares:
            return self
        sides = np.array([width_px, height_px, width_px, height_px], np.float32)
        return replace(self, boxes=self.boxes * sides, in_shares=False)


class NamedFace(NamedTuple):
    """A face as in a file, with its class by name."""

    box: Edges
    name: str | None
    """``None`` where the file only says that it is a face."""
    marked: bool = False
    """Whether it is marked as difficult, as a crowd or to be ignored."""


class NamedFaces(NamedTuple):
    """The faces of an image as in a file."""

    file: str
    image: str
    faces: Sequence[NamedFace]
    in_shares: bool = False


def plain_name(text: str) -> str:
    """A name for comparison: without regard to case, ``-``, ``_`` and spaces."""
    return "".join(character for character in text.casefold() if character not in "-_ ")


def read_voc(uris: Sequence[str], labels: Mapping[str, str | None] = LABELS) -> list[AnnotatedImage]:
    """Read VOC files, one per image.

    Args:
        uris: XML files.
        labels: what class names mean; see :data:`LABELS`.

    Raises:
        SourceError: a file is not a VOC annotation, has an entity or a document type, or classes are unknown.
        StorageError: a file cannot be read.
    """
    return with_labels([_voc_faces(uri, _parse_xml(uri, read_file(uri))) for uri in uris], labels)


def read_coco(uri: str, labels: Mapping[str, str | None] = LABELS) -> list[AnnotatedImage]:
    """Read a COCO file.

    Raises:
        SourceError: the file is not a COCO annotation, or classes are unknown.
        StorageError: the file cannot be read.
    """
    try:
        content = json.loads(read_file(uri))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"annotations {uri}: not JSON: {str(error)[:200]}") from error
    images, categories, annotations = (_coco_entries(uri, content, part) for part in _COCO_KEYS)
    classes = {entry["id"]: str(entry["name"]) for entry in categories}
    faces: dict[Any, list[NamedFace]] = {entry["id"]: [] for entry in images}
    for number, entry in enumerate(annotations):
        where = f"{uri}: annotations[{number}]"
        for key, known in (("image_id", faces), ("category_id", classes)):
            if entry[key] not in known:
                raise SourceError(f"annotations {where}: {key}", "an id of the file", entry[key], "Correct the file.")
        left, top, width, height = _numbers(f"{where}: bbox", "left, top, width and height", entry.get("bbox"))
        box = checked_box(where, (left, top, left + width, top + height))
        marked = bool(entry.get("iscrowd", 0) or entry.get("ignore", 0))
        faces[entry["image_id"]].append(NamedFace(box, classes[entry["category_id"]], marked))
    return with_labels([NamedFaces(uri, str(one["file_name"]), faces[one["id"]]) for one in images], labels)


def read_parquet(uri: str, labels: Mapping[str, str | None] = LABELS) -> list[AnnotatedImage]:
    """Read a Parquet table with the columns :data:`PARQUET_COLUMNS`, one row per face.

    ``label`` and ``ignored`` are optional.

    Raises:
        SourceError: the file is not Parquet, lacks a column, or classes are unknown.
        StorageError: the file cannot be read.
    """
    try:
        table = pq.read_table(io.BytesIO(read_file(uri)))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"annotations {uri}: not Parquet: {error}") from error
    missing = [name for name in PARQUET_COLUMNS if name not in table.column_names]
    if missing:
        raise SourceError(f"annotations {uri}", f"columns {list(PARQUET_COLUMNS)}", table.column_names, "Add them.")
    faces: dict[str, list[NamedFace]] = {}
    for number, row in enumerate(table.to_pylist()):
        found = faces.setdefault(str(row["uri"]), [])
        edges = [row[name] for name in PARQUET_COLUMNS[1:]]
        if edges == [None] * 4:
            continue
        where = f"{uri}: row {number}, {row['uri']}"
        box = checked_box(where, _numbers(where, "four edges in pixels, or none", edges))
        name = row.get("label")
        found.append(NamedFace(box, None if name is None else str(name), bool(row.get("ignored"))))
    return with_labels([NamedFaces(uri, name, found) for name, found in faces.items()], labels)


def write_parquet(uri: str, images: Sequence[AnnotatedImage]) -> None:
    """Write annotations in the form that :func:`read_parquet` reads.

    Raises:
        StorageError: the file cannot be written.
    """
    rows: list[dict[str, object]] = []
    for image in images:
        for box, label, ignored in zip(image.boxes.tolist(), image.labels, image.ignored.tolist(), strict=True):
            edges = dict(zip(PARQUET_COLUMNS, (image.name, *box), strict=True))
            rows.append({**edges, "label": label, "ignored": ignored})
        if not len(image.boxes):
            rows.append({"uri": image.name})
    schema = pa.schema(
        [(name, pa.string() if name == "uri" else pa.float32()) for name in PARQUET_COLUMNS]
        + [("label", pa.string()), ("ignored", pa.bool_())]
    )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink, compression="zstd")
    storage.write_bytes(storage.normalize(uri), sink.getvalue().to_pybytes())


def with_labels(images: Sequence[NamedFaces], labels: Mapping[str, str | None]) -> list[AnnotatedImage]:
    """Resolve the names of classes for all images at once, so that an error can list every unknown class.

    Args:
        images: as in files.
        labels: what class names mean; see :data:`LABELS`.

    Raises:
        SourceError: some classes are unknown.
    """
    meanings = {plain_name(name): meaning for name, meaning in labels.items()}
    unknown: Counter[str] = Counter()
    where = ""
    for image in images:
        strange = [face.name for face in image.faces if face.name is not None and plain_name(face.name) not in meanings]
        unknown.update(strange)
        where = where or (image.file if strange else "")
    if unknown:
        raise _unknown_classes(where, unknown, labels)
    return [_annotated(image, meanings) for image in images]


def checked_box(where: str, box: Edges) -> Edges:
    """The box, if it is one.

    Raises:
        SourceError: an edge is not finite, or the box is empty.
    """
    left, top, right, bottom = box
    if not (np.isfinite(box).all() and left < right and top < bottom):
        raise SourceError(
            f"annotations {where}: box", "finite, left < right and top < bottom", box, "Correct the file."
        )
    return box


def read_file(uri: str) -> bytes:
    """Bytes of an annotation file.

    Raises:
        SourceError: it is too large.
        StorageError: it cannot be read.
    """
    data = storage.read_bytes(storage.normalize(uri))
    if len(data) > _MAX_BYTES:
        raise SourceError(f"annotations {uri}", f"at most {_MAX_BYTES} bytes", len(data), "Split the file.")
    return data


def _annotated(image: NamedFaces, meanings: Mapping[str, str | None]) -> AnnotatedImage:
    means = [None if face.name is None else meanings[plain_name(face.name)] for face in image.faces]
    ignored = [face.marked or meaning == IGNORED for face, meaning in zip(image.faces, means, strict=True)]
    boxes = np.array([face.box for face in image.faces], np.float32).reshape(-1, 4)
    labels = tuple(None if meaning == IGNORED else meaning for meaning in means)
    return AnnotatedImage(image.image, boxes, labels, np.array(ignored, np.bool_), image.in_shares)


def _unknown_classes(file: str, unknown: Mapping[str, int], labels: Mapping[str, str | None]) -> SourceError:
    often = sorted(unknown.items(), key=lambda one: -one[1])
    counts = ", ".join(f"{name!r} ({count:,} box{'es' if count > 1 else ''})" for name, count in often)
    ignored = [name for name, meaning in labels.items() if meaning == IGNORED]
    example = ", ".join([*ignored, *sorted(unknown)])
    return SourceError(
        f"annotations {file}: unknown classes {counts}; known are {', '.join(labels)}. Name each in one of the "
        f"settings truth.mask, truth.incorrect, truth.no_mask, truth.face (a face, no more is said) and truth.ignore, "
        f"for example --set 'truth.ignore=[{example}]'"
    )


def _voc_faces(uri: str, root: Element) -> NamedFaces:
    if root.tag != "annotation":
        raise SourceError(f"annotations {uri}", "VOC: <annotation>", f"<{root.tag}>", "Correct the file.")
    faces = []
    for number, entry in enumerate(root.iterfind("object"), 1):
        where = f"{uri}: object {number}"
        name = (entry.findtext("name") or "").strip()
        if not name:
            raise SourceError(f"annotations {where}", "<name>, the face's class", name, "Correct the file.")
        texts = [entry.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
        box = checked_box(where, _numbers(f"{where}: bndbox", "xmin, ymin, xmax and ymax", texts))
        marked = any((entry.findtext(mark) or "0").strip() == "1" for mark in ("difficult", "ignore"))
        faces.append(NamedFace(box, name, marked))
    return NamedFaces(uri, (root.findtext("filename") or "").strip(), faces)


def _parse_xml(uri: str, data: bytes) -> Element:
    """Parse XML without document types: those may define entities that expand without end or read files."""
    try:
        root: Element = ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        remedy = "Remove the declaration."
        raise SourceError(f"annotations {uri}", "XML without a document type", "<!DOCTYPE", remedy) from error
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise SourceError(f"annotations {uri}: not XML: {error}") from error
    return root


def _coco_entries(uri: str, content: Any, part: str) -> list[dict[str, Any]]:
    """The list of that name, whose entries have the keys that every reader needs."""
    entries = content.get(part) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        form = "COCO: an object with the lists images, annotations and categories"
        received = f"{part}: {str(entries)[:80]}" if isinstance(content, dict) else type(content).__name__
        raise SourceError(f"annotations {uri}", form, received, "Correct the file.")
    keys = _COCO_KEYS[part]
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or any(isinstance(entry.get(key), list | dict | None) for key in keys):
            where, received = f"annotations {uri}: {part}[{number}]", str(entry)[:200]
            raise SourceError(where, f"an object with {' and '.join(keys)}", received, "Correct the file.")
    return entries


def _numbers(where: str, what: str, values: Any) -> Edges:
    try:
        first, second, third, fourth = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise SourceError(f"annotations {where}", f"four numbers: {what}", values, "Correct the file.") from error
    return first, second, third, fourth
