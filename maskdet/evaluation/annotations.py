"""Annotated faces: VOC XML, COCO JSON and Parquet manifests to one form.

Boxes are edges in pixels of the upright image, as the files give them: VOC's and COCO's habits differ by up to a pixel,
which is less than annotators agree on.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from maskdet import storage
from maskdet.errors import SourceError
from maskdet.faces.boxes import Floats

IGNORED = "ignored"
"""What a class may mean beside ``mask`` and ``no_mask``: its boxes are neither asked for nor counted as false."""

LABELS: Mapping[str, str | None] = {
    **dict.fromkeys(("mask", "with_mask", "masked", "face_mask"), "mask"),
    **dict.fromkeys(("no_mask", "without_mask", "unmasked"), "no_mask"),
    **dict.fromkeys(("face", "head", "person"), None),
}
"""Class names in annotation files, compared as :func:`plain_name` has it; ``None``: a face, no more is said."""

PARQUET_COLUMNS = ("uri", "left_px", "top_px", "right_px", "bottom_px")
"""One row a face; ``label`` and the boolean ``ignored`` are optional. An image without faces has null edges."""

_MAX_BYTES = 512 * 1024 * 1024
_MAX_XML_DEPTH = 50


@dataclass(frozen=True)
class AnnotatedImage:
    """The faces of one image.

    Attributes:
        name: the image's file name or URI, as the annotation gives it.
        boxes: float32 ``(faces, 4)``: left, top, right, bottom in pixels.
        labels: ``mask``, ``no_mask`` or ``None`` for each face.
        ignored: bool ``(faces,)``: marked as difficult, as a crowd or to be ignored, or of a class that means
            :data:`IGNORED`; neither asked for nor counted as false.
    """

    name: str
    boxes: Floats
    labels: tuple[str | None, ...]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class _Face:
    box: tuple[float, float, float, float]
    label: str | None
    ignored: bool = False


def plain_name(text: str) -> str:
    """A name as it is compared: without regard to case, ``-``, ``_`` and spaces."""
    return "".join(character for character in text.casefold() if character not in "-_ ")


def read_voc(uris: Sequence[str], labels: Mapping[str, str | None] = LABELS) -> list[AnnotatedImage]:
    """Read VOC files, one an image.

    Args:
        uris: XML files.
        labels: what class names mean; see :data:`LABELS`.

    Raises:
        SourceError: a file is no VOC annotation, holds an entity or a document type, or an unknown class.
        StorageError: a file cannot be read.
    """
    plain = _plain_keys(labels)
    return [_voc_image(uri, _parse_xml(uri, _read(uri)), plain) for uri in uris]


def read_coco(uri: str, labels: Mapping[str, str | None] = LABELS) -> list[AnnotatedImage]:
    """Read a COCO file.

    Raises:
        SourceError: the file is no COCO annotation, or holds an unknown class.
        StorageError: the file cannot be read.
    """
    plain = _plain_keys(labels)
    try:
        content = json.loads(_read(uri))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"annotations {uri}: not JSON: {str(error)[:200]}") from error
    try:
        categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        names = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        faces: dict[Any, list[_Face]] = {number: [] for number in names}
        for entry in content["annotations"]:
            left, top, width, height = (float(value) for value in entry["bbox"])
            box = _box(uri, (left, top, left + width, top + height))
            marked = bool(entry.get("iscrowd", 0) or entry.get("ignore", 0))
            faces[entry["image_id"]].append(_face(uri, box, categories[entry["category_id"]], plain, marked))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(
            f"annotations {uri}",
            "COCO: images, annotations with image_id, category_id and bbox, and categories",
            f"{type(error).__name__}: {error}",
            "Correct the file.",
        ) from error
    return [_image(names[number], found) for number, found in faces.items()]


def read_parquet(uri: str, labels: Mapping[str, str | None] = LABELS) -> list[AnnotatedImage]:
    """Read a Parquet manifest with the columns :data:`PARQUET_COLUMNS`, one row a face.

    ``label`` and ``ignored`` may be there too.

    Raises:
        SourceError: the file is not Parquet, lacks a column, or holds an unknown class.
        StorageError: the file cannot be read.
    """
    try:
        table = pq.read_table(io.BytesIO(_read(uri)))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"annotations {uri}: not Parquet: {error}") from error
    missing = [name for name in PARQUET_COLUMNS if name not in table.column_names]
    if missing:
        raise SourceError(f"annotations {uri}", f"columns {list(PARQUET_COLUMNS)}", table.column_names, "Add them.")
    faces: dict[str, list[_Face]] = {}
    plain = _plain_keys(labels)
    for row in table.to_pylist():
        found = faces.setdefault(str(row["uri"]), [])
        edges = [row[name] for name in PARQUET_COLUMNS[1:]]
        if edges == [None] * 4:
            continue
        if not all(isinstance(edge, int | float) for edge in edges):
            raise SourceError(f"annotations {uri}: {row['uri']}", "four edges in pixels, or none", edges, "Correct it.")
        box = _box(uri, (edges[0], edges[1], edges[2], edges[3]))
        found.append(_face(uri, box, row.get("label"), plain, bool(row.get("ignored"))))
    return [_image(name, found) for name, found in faces.items()]


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


def _voc_image(uri: str, root: ElementTree.Element, labels: Mapping[str, str | None]) -> AnnotatedImage:
    name = root.findtext("filename")
    if root.tag != "annotation" or not name:
        raise SourceError(f"annotations {uri}", "VOC: <annotation> with <filename>", f"<{root.tag}>", "Correct it.")
    faces = []
    for entry in root.iterfind("object"):
        texts = [entry.findtext(f"bndbox/{edge}") or "" for edge in ("xmin", "ymin", "xmax", "ymax")]
        try:
            left, top, right, bottom = (float(text) for text in texts)
        except ValueError as error:
            raise SourceError(f"annotations {uri}: bndbox", "four numbers", texts, "Correct the file.") from error
        marked = any((entry.findtext(mark) or "0").strip() == "1" for mark in ("difficult", "ignore"))
        faces.append(_face(uri, _box(uri, (left, top, right, bottom)), entry.findtext("name") or "", labels, marked))
    return _image(name, faces)


def _parse_xml(uri: str, data: bytes) -> ElementTree.Element:
    """Parse XML without document types: these bring entities, which can be made to expand without end or read files."""
    builder = ElementTree.TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_XML_DEPTH:
            raise SourceError(f"annotations {uri}", f"at most {_MAX_XML_DEPTH} nested elements", "more", "Correct it.")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise SourceError(f"annotations {uri}", "XML without a document type", "<!DOCTYPE", "Remove the declaration.")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise SourceError(f"annotations {uri}: not XML: {error}") from error
    return builder.close()


def _read(uri: str) -> bytes:
    data = storage.read_bytes(storage.normalize(uri))
    if len(data) > _MAX_BYTES:
        raise SourceError(f"annotations {uri}", f"at most {_MAX_BYTES} bytes", len(data), "Split the file.")
    return data


def _plain_keys(labels: Mapping[str, str | None]) -> dict[str, str | None]:
    return {plain_name(name): meaning for name, meaning in labels.items()}


def _face(
    uri: str, box: tuple[float, float, float, float], name: object, labels: Mapping[str, str | None], marked: bool
) -> _Face:
    """A face of a class, by plain names; without a class (a manifest's null) no more is said than that it is one."""
    if name is None:
        return _Face(box, None, marked)
    plain = plain_name(str(name).strip())
    if plain not in labels:
        expected = f"one of the classes {', '.join(labels)}"
        raise SourceError(f"annotations {uri}", expected, name, "Rename the class, or say what it means.")
    meaning = labels[plain]
    return _Face(box, None if meaning == IGNORED else meaning, marked or meaning == IGNORED)


def _box(uri: str, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    if not (np.isfinite(box).all() and left < right and top < bottom):
        raise SourceError(f"annotations {uri}: box", "finite, left < right and top < bottom", box, "Correct the file.")
    return box


def _image(name: str, faces: Iterable[_Face]) -> AnnotatedImage:
    found = list(faces)
    boxes = np.array([face.box for face in found], np.float32).reshape(-1, 4)
    ignored = np.array([face.ignored for face in found], bool)
    return AnnotatedImage(name, boxes, tuple(face.label for face in found), ignored)
