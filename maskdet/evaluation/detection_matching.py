"""Annotated faces joined with what a run found: whose image each annotation is, which face each detection is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskdet import storage
from maskdet.errors import SourceError
from maskdet.evaluation.annotations import AnnotatedImage, read_coco, read_parquet, read_voc
from maskdet.evaluation.detection_metrics import FoundFaces, match_faces
from maskdet.evaluation.metrics import Bools
from maskdet.evaluation.settings import EvaluateSettings, TruthSettings
from maskdet.evaluation.truth import Labelled, RunTables, group_names

Rows = NDArray[np.int64]
_EXAMPLES = 20


class Annotation(NamedTuple):
    """An annotated image, and the folder of the file that names it."""

    folder: str
    image: AnnotatedImage


@dataclass(frozen=True)
class SeenImage:
    """An image, its faces, and what was found in it.

    Attributes:
        uri: the image's.
        group: images of the same name belong together.
        width_px: of the upright image.
        height_px: of the upright image.
        content_sha256: of the file.
        truth: its faces; those too small to be scored are marked as ignored.
        found: the detections.
        rows: row of each detection in the predictions, int64 ``(detections,)``.
        match: face of each detection, as :func:`maskdet.evaluation.detection_metrics.match_faces` says.
    """

    uri: str
    group: str
    width_px: int
    height_px: int
    content_sha256: str
    truth: AnnotatedImage
    found: FoundFaces
    rows: Rows
    match: Rows

    @property
    def wanted(self) -> Bools:
        """Which faces were to be found, ``(faces,)``."""
        return ~self.truth.ignored

    @property
    def was_found(self) -> Bools:
        """Which faces were found, ``(faces,)``."""
        return np.isin(np.arange(len(self.truth.boxes)), self.match)


@dataclass(frozen=True)
class AnnotatedRun:
    """Every image of a run whose faces are known.

    Attributes:
        images: sorted by URI.
        predictions: the run's, all of them.
        counts: images and faces by what became of them.
        examples: some of the images that annotations name and the run does not, and the reverse.
        model_id: the run's model.
        failed: labels of the annotated faces of images that failed.
    """

    images: tuple[SeenImage, ...]
    predictions: pa.Table
    counts: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]
    model_id: str
    failed: tuple[str | None, ...] = ()

    def labelled(self) -> Labelled:
        """The faces that were found and whose annotation names a class, with their truth."""
        pairs = [
            (int(row), image.truth.labels[face], image.uri)
            for image in self.images
            for row, face in zip(image.rows, image.match, strict=True)
            if face >= 0
        ]
        known = [(row, label == "mask") for row, label, _ in pairs if label is not None]
        unknown = tuple(dict.fromkeys(uri for _, label, uri in pairs if label is None))
        counts = _by_class([label for _, label, _ in pairs])
        counts |= {f"failed_{name}": count for name, count in _by_class(self.failed).items()}
        rows = self.predictions.take(pa.array([row for row, _ in known], pa.int64()))
        truth = np.array([masked for _, masked in known], np.bool_)
        return Labelled(rows, truth, counts, unknown[:_EXAMPLES], of_faces=True)


def read_annotations(truth: TruthSettings) -> list[Annotation]:
    """Read ``truth.boxes``: COCO if the name ends in ``.json``, a manifest in ``.parquet``, else VOC.

    Raises:
        SourceError: a file is of another form, names an unknown class, or there is none.
        StorageError: a file cannot be read.
    """
    assert truth.boxes is not None
    uri = storage.normalize(truth.boxes)
    ending = uri.rpartition(".")[2].lower()
    if ending in ("json", "parquet"):
        read = read_coco if ending == "json" else read_parquet
        return [Annotation(storage.parent(uri), image) for image in read(uri, truth.classes)]
    listed = [uri] if ending == "xml" else [file.uri for file in storage.list_folder(uri)]
    files = sorted(file for file in listed if file.lower().endswith(".xml"))
    if not files:
        expected = "a COCO file (.json), a VOC file (.xml) or folder of such, or a manifest (.parquet)"
        raise SourceError("truth.boxes", expected, truth.boxes, "Check the path.")
    return [
        Annotation(storage.parent(file), image)
        for file, image in zip(files, read_voc(files, truth.classes), strict=True)
    ]


def join_annotations(
    annotations: Sequence[Annotation], tables: RunTables, settings: EvaluateSettings, model_id: str
) -> AnnotatedRun:
    """Match a run's detections with the annotated faces.

    Args:
        annotations: of some images.
        tables: the run's.
        settings: the evaluation's.
        model_id: the run's model.

    Raises:
        SourceError: an annotation could be of several images, an image has two, or no annotated image was scored.
    """
    seen = {uri: row for table in (tables.predictions, tables.no_face) for uri, row in _first_rows(table, settings)}
    failed = sorted(set(tables.failures["image_uri"].to_pylist()) - set(seen))
    truths, unlisted = locate(annotations, [*seen, *failed])
    if not any(uri in truths for uri in seen):
        expected = "annotations of the images of --input, by URI or the end of their path"
        raise SourceError(f"truth.boxes {settings.truth.boxes}", expected, unlisted[:3], "Check names and folders.")
    unannotated = sorted(set(seen) - set(truths))
    nothing = AnnotatedImage("", np.empty((0, 4), np.float32), (), np.empty(0, np.bool_))
    if settings.truth.unannotated == "faceless":
        truths |= dict.fromkeys(unannotated, nothing)
    found = _detections(tables.predictions)
    none_found = (FoundFaces(nothing.boxes, np.empty(0, np.float32), ()), np.empty(0, np.int64))
    images = []
    for uri in sorted(set(truths) & set(seen)):
        truth = _without_small(truths[uri], settings.faces.min_face_px)
        faces, rows = found.get(uri, none_found)
        match = match_faces(faces, truth.boxes, truth.ignored)
        images.append(SeenImage(uri, *seen[uri], truth, faces, rows, match))
    lost = [face for uri in failed if uri in truths for face in truths[uri].labels]
    counts = {
        "images": len(images),
        "images_unannotated": len(unannotated),
        "images_failed": sum(uri in truths for uri in failed),
        "annotations_unlisted": len(unlisted),
        "faces": sum(int(image.wanted.sum()) for image in images),
        "faces_too_small": sum(int((image.truth.ignored & ~truths[image.uri].ignored).sum()) for image in images),
        "faces_ignored": sum(int(truths[image.uri].ignored.sum()) for image in images),
        "faces_failed": len(lost),
    }
    examples = {
        "annotations_unlisted": tuple(unlisted[:_EXAMPLES]),
        "images_unannotated": tuple(unannotated[:_EXAMPLES]),
    }
    return AnnotatedRun(tuple(images), tables.predictions, counts, examples, model_id, tuple(lost))


def locate(annotations: Iterable[Annotation], uris: Iterable[str]) -> tuple[dict[str, AnnotatedImage], list[str]]:
    """Which image each annotation is of: the one beside its file, or of its URI, or the only one whose path ends so.

    Args:
        annotations: of some images.
        uris: of the run's images.

    Returns:
        URI → annotation, and the names of annotations of which there is no image, sorted.

    Raises:
        SourceError: a name fits several images, or two annotations are of one.
    """
    known, by_name = set(uris), defaultdict(list)
    for uri in known:
        by_name[uri.rpartition("/")[2]].append(uri)
    truths: dict[str, AnnotatedImage] = {}
    unlisted = []
    for folder, image in annotations:
        name = image.name.removeprefix("./")
        fits = [uri for uri in (storage.join(folder, name), name) if uri in known]
        fits = fits or sorted(uri for uri in by_name[name.rpartition("/")[2]] if uri.endswith(f"/{name}"))
        if not fits:
            unlisted.append(image.name)
            continue
        if len(fits) > 1 and not fits[0].startswith(f"{folder}/"):
            remedy = "Name images in the annotations with as many folders as tell them apart."
            raise SourceError(f"truth.boxes: {image.name}", "one image of that name", fits[:3], remedy)
        if fits[0] in truths:
            raise SourceError("truth.boxes", "one annotation an image", f"two of {fits[0]}", "Leave one out.")
        truths[fits[0]] = image
    return truths, sorted(unlisted)


def _first_rows(table: pa.Table, settings: EvaluateSettings) -> Iterable[tuple[str, tuple[str, int, int, str]]]:
    groups = group_names(table, settings.intervals.group_column)
    columns = (table[name].to_pylist() for name in ("image_uri", "width_px", "height_px", "content_sha256"))
    return ((uri, (group, *rest)) for group, uri, *rest in zip(groups, *columns, strict=True))


def _detections(predictions: pa.Table) -> dict[str, tuple[FoundFaces, Rows]]:
    """URI → what was found, in the order of the predictions, and the rows that say so."""
    edges = [predictions[f"face_{side}_px"].to_numpy() for side in ("left", "top", "width", "height")]
    left, top, width, height = (np.asarray(edge, np.float32) for edge in edges)
    boxes = np.stack([left, top, left + width, top + height], axis=1)
    scores = np.asarray(predictions["face_score"].to_numpy(), np.float32)
    labels = predictions["label"].to_pylist()
    by_uri: dict[str, list[int]] = defaultdict(list)
    for row, uri in enumerate(predictions["image_uri"].to_pylist()):
        by_uri[uri].append(row)
    return {
        uri: (FoundFaces(boxes[rows], scores[rows], tuple(labels[row] for row in rows)), np.array(rows, np.int64))
        for uri, rows in by_uri.items()
    }


def _without_small(image: AnnotatedImage, min_face_px: int) -> AnnotatedImage:
    """Faces that the run was told not to score are not asked for."""
    sides = (image.boxes[:, 2:] - image.boxes[:, :2]).max(axis=1, initial=0)
    return replace(image, ignored=image.ignored | (sides < min_face_px))


def _by_class(labels: Iterable[str | None]) -> dict[str, int]:
    names = ["truth_unknown" if label is None else label for label in labels]
    return {name: names.count(name) for name in ("mask", "no_mask", "truth_unknown")}
