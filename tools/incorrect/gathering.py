"""Gather faces and items of k12, wild and scenes, with their parts for training and test."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskdet.evaluation.annotations import read_voc
from maskdet.labels import INCORRECT, MASK
from maskdet.preparation.manifest import COLUMNS, read_images
from tools.incorrect.finding import CenterFace
from tools.incorrect.frame import Floats, usable
from tools.incorrect.sources import SCENE_NAMES, UNCLEAR, Face, Item, about, encoded, relabelled

_SURE, _POSSIBLE = 0.45, 0.3
_LEAST_IOU = 0.35
_LEAST_BOX_PX = 12
_LEAST_FACE_PX = 24
_REACH, _CONTEXT_PX = 2.2, 400


class Known(NamedTuple):
    """A file of k12 or wild."""

    path: str
    label: str
    group: str
    source: str
    official_split: str | None
    split: str
    face: Face | None
    """Its face, where exactly one usable face is found."""
    several: bool
    """Whether more than one face is found."""


class Annotated(NamedTuple):
    """An annotated face of scenes."""

    path: str
    number: int
    label: str
    box: Floats
    """The annotated box, ``(4,)``."""
    found: Face | None
    """The same face as CenterFace finds it, if it does."""
    part: str
    """``fit``, ``tune`` or ``test``."""
    group: str


def read_collections(root: Path, manifest: str, detect: CenterFace) -> list[Known]:
    """Files of k12 and wild with their faces; suspicious and flat ones are left out."""
    known = []
    for row in read_images(manifest, COLUMNS).to_pylist():
        if row["suspicious"] or row["flat"]:
            continue
        path = Path(row["image_uri"]).relative_to(root).as_posix()
        longest_px, border = (192, 0.15) if row["source"] == "k12" else (320, 0.1)
        found = detect(Image.open(root / path).convert("RGB"), longest_px, 0.2, border)
        face, sure = None, int(np.sum(found.scores >= _SURE))
        if sure <= 1 and np.any(found.scores >= _POSSIBLE) and usable(found.landmarks[0].astype(float)):
            landmarks, box = found.landmarks[0].astype(float), found.boxes[0].astype(float)
            face = Face(path, row["label"], row["group_id"], landmarks, box, row["source"])
        known.append(
            Known(
                path, row["label"], row["group_id"], row["source"], row["official_split"], row["split"], face, sure > 1
            )
        )
    return known


def read_scenes(root: Path, parts: Path, detect: CenterFace) -> list[Annotated]:
    """The annotated faces of scenes.

    Args:
        root: the data folder.
        parts: CSV with ``stem``, ``part`` and ``group`` of each photograph.
        detect: finds faces.
    """
    with parts.open(newline="", encoding="utf-8") as lines:
        part_of = {row["stem"]: (row["part"], row["group"]) for row in csv.DictReader(lines)}
    faces = []
    for file in sorted((root / "scenes" / "annotations").glob("*.xml")):
        (image,) = read_voc([str(file)], SCENE_NAMES)
        path = f"scenes/images/{file.stem}.jpg"
        picture = Image.open(root / path).convert("RGB")
        found = detect(picture, max(640, min(1280, 2 * max(picture.size))), 0.15, 0.05)
        part, group = part_of[file.stem]
        for number, (edges, label) in enumerate(zip(image.boxes, image.labels, strict=True)):
            box = edges.astype(np.float64)
            overlaps = np.array([_iou(box, other) for other in found.boxes])
            best = int(overlaps.argmax()) if len(overlaps) else -1
            face = None
            if best >= 0 and overlaps[best] > _LEAST_IOU:
                landmarks = found.landmarks[best].astype(float)
                face = Face(path, str(label), group, landmarks, found.boxes[best].astype(float), "scenes")
            faces.append(Annotated(path, number, str(label), box, face, part, group))
    return faces


def scene_faces(faces: list[Annotated], part: str) -> list[Face]:
    """Faces of a part that were found and that pictures can be made from.

    Faces of groups with a mask worn incorrectly are left out.
    """
    kept = set(incorrect_groups(faces))
    return [
        face.found
        for face in faces
        if face.found is not None
        and face.part == part
        and face.group not in kept
        and usable(face.found.landmarks)
        and np.max(face.found.box[2:] - face.found.box[:2]) >= _LEAST_FACE_PX
    ]


def incorrect_groups(faces: list[Annotated]) -> list[str]:
    """Groups with a mask worn incorrectly, in order."""
    return sorted({face.group for face in faces if face.label == INCORRECT})


def items_of_collections(root: Path, known: list[Known], split: str, without: set[str]) -> Iterator[Item]:
    """Items for training from k12's official Train and from wild: faces, and whole pictures."""
    corrected = relabelled()
    for file in known:
        label = corrected.get(file.path, file.label)
        official = file.official_split in (None, "train")
        if file.split != split or not official or file.path in without or label == UNCLEAR:
            continue
        data = (root / file.path).read_bytes()
        box = None if file.face is None else file.face.box
        if file.source == "k12":
            yield Item(data, box, label, "crop", file.group, file.path)
            continue
        picture = Image.open(root / file.path).convert("RGB")
        if box is not None:
            part, _, _, inside = about(picture, box, reach=_REACH, limit_px=_CONTEXT_PX)
            yield Item(encoded(part), inside, label, "wild", file.group, file.path)
        if not file.several or label == MASK:
            picture.thumbnail((_CONTEXT_PX, _CONTEXT_PX), Image.Resampling.BOX)
            yield Item(encoded(picture), None, label, "whole", file.group, file.path)


def items_of_scenes(root: Path, faces: list[Annotated]) -> Iterator[Item]:
    """Two items for each face: by its annotated box and by the box found; ``relabelled.csv`` corrects labels."""
    corrected = relabelled()
    for face in faces:
        name = f"{face.path}#{face.number}"
        label = corrected.get(name, face.label)
        if np.max(face.box[2:] - face.box[:2]) < _LEAST_BOX_PX or label == UNCLEAR:
            continue
        picture = Image.open(root / face.path).convert("RGB")
        boxes = {"annotated": face.box, "found": None if face.found is None else face.found.box}
        for kind, box in boxes.items():
            if box is not None:
                part, _, _, inside = about(picture, box, reach=_REACH, limit_px=_CONTEXT_PX)
                yield Item(encoded(part), inside, label, f"scene_{kind}", face.group, name)


def _iou(one: Floats, other: Floats) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(width * height / (sum(areas) - width * height))
