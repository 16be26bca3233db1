"""Join annotated faces with what a run found: which face each detection is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskdet.errors import SourceError
from maskdet.evaluation.annotation_matching import Annotation, Located, locate
from maskdet.evaluation.annotations import AnnotatedImage
from maskdet.evaluation.detection_metrics import FoundFaces, match_by_centre, match_by_overlap
from maskdet.evaluation.metrics import Bools
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.evaluation.truth import Labelled, RunTables, group_names
from maskdet.labels import THREE_CLASSES, codes_of

Rows = NDArray[np.int64]
_EXAMPLES = 20


@dataclass(frozen=True)
class SeenImage:
    """An image, its faces, and what was found in it.

    Attributes:
        uri: the image's.
        group: images with the same group belong together.
        width_px: of the upright image.
        height_px: of the upright image.
        content_sha256: of the file.
        truth: its faces; those too small to be scored are marked as ignored.
        found: the detections.
        rows: row of each detection in the predictions, int64 ``(detections,)``.
        match: face of each detection, by :func:`maskdet.evaluation.detection_metrics.match_by_centre`; this is what
            "found" means unless stated otherwise.
        overlapping: the same by :func:`maskdet.evaluation.detection_metrics.match_by_overlap`.
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
    overlapping: Rows

    @property
    def wanted(self) -> Bools:
        """Which faces were expected to be found, ``(faces,)``."""
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
        examples: some of the images that only the annotations or only the run have, and some of the annotation files
            matched by their own names.
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
        known = [(row, label) for row, label, _ in pairs if label is not None]
        unknown = tuple(dict.fromkeys(uri for _, label, uri in pairs if label is None))
        counts = _by_class([label for _, label, _ in pairs])
        counts |= {f"failed_{name}": count for name, count in _by_class(self.failed).items()}
        rows = self.predictions.take(pa.array([row for row, _ in known], pa.int64()))
        classes = codes_of(label for _, label in known)
        return Labelled(rows, classes, counts, unknown[:_EXAMPLES], of_faces=True)


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
        SourceError: an annotation fits several images, an image has two, or no annotated image was scored.
    """
    seen = {uri: row for table in (tables.predictions, tables.no_face) for uri, row in _first_rows(table, settings)}
    failed = sorted(set(tables.failures["image_uri"].to_pylist()) - set(seen))
    located = locate(annotations, [*seen, *failed])
    truths = dict(located.truths)
    if not any(uri in truths for uri in seen):
        expected = "annotations of the images of --input, by URI or the end of their path"
        raise SourceError(
            f"truth.boxes {settings.truth.boxes}", expected, located.unlisted[:3], "Check names and folders."
        )
    unannotated = sorted(set(seen) - set(truths))
    nothing = AnnotatedImage("", np.empty((0, 4), np.float32), (), np.empty(0, np.bool_))
    if settings.truth.unannotated == "faceless":
        truths |= dict.fromkeys(unannotated, nothing)
    found = _detections(tables.predictions)
    none_found = (FoundFaces(nothing.boxes, np.empty(0, np.float32), ()), np.empty(0, np.int64))
    images = []
    for uri in sorted(set(truths) & set(seen)):
        _, width, height, _ = seen[uri]
        truth = _without_small(truths[uri].in_pixels(width, height), settings.faces.min_face_px)
        faces, rows = found.get(uri, none_found)
        match, overlapping = (
            matching(faces, truth.boxes, truth.ignored) for matching in (match_by_centre, match_by_overlap)
        )
        images.append(SeenImage(uri, *seen[uri], truth, faces, rows, match, overlapping))
    lost = tuple(face for uri in failed if uri in truths for face in truths[uri].labels)
    counts = _counts(images, truths, located) | {
        "images_unannotated": len(unannotated),
        "images_failed": sum(uri in truths for uri in failed),
        "faces_failed": len(lost),
    }
    examples = {
        "annotations_unlisted": tuple(located.unlisted[:_EXAMPLES]),
        "annotations_by_file": tuple(located.by_file[:_EXAMPLES]),
        "images_unannotated": tuple(unannotated[:_EXAMPLES]),
    }
    return AnnotatedRun(tuple(images), tables.predictions, counts, examples, model_id, lost)


def _counts(images: Sequence[SeenImage], truths: Mapping[str, AnnotatedImage], located: Located) -> dict[str, int]:
    marked = {image.uri: truths[image.uri].ignored for image in images}
    return {
        "images": len(images),
        "annotations_unlisted": len(located.unlisted),
        "annotations_by_file": len(located.by_file),
        "faces": sum(int(image.wanted.sum()) for image in images),
        "faces_too_small": sum(int((image.truth.ignored & ~marked[image.uri]).sum()) for image in images),
        "faces_ignored": sum(int(ignored.sum()) for ignored in marked.values()),
    }


def _first_rows(table: pa.Table, settings: EvaluateSettings) -> Iterable[tuple[str, tuple[str, int, int, str]]]:
    groups = group_names(table, settings.intervals.group_column)
    columns = (table[name].to_pylist() for name in ("image_uri", "width_px", "height_px", "content_sha256"))
    return ((uri, (group, *rest)) for group, uri, *rest in zip(groups, *columns, strict=True))


def _detections(predictions: pa.Table) -> dict[str, tuple[FoundFaces, Rows]]:
    """URI → the detections, in the order of the predictions, and their rows."""
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
    """Mark faces that the run was told not to score as not expected."""
    sides = (image.boxes[:, 2:] - image.boxes[:, :2]).max(axis=1, initial=0)
    return replace(image, ignored=image.ignored | (sides < min_face_px))


def _by_class(labels: Iterable[str | None]) -> dict[str, int]:
    names = ["truth_unknown" if label is None else label for label in labels]
    return {name: names.count(name) for name in (*THREE_CLASSES, "truth_unknown")}
