"""An evaluation from predictions to files: ``metrics.json``, ``metrics.parquet``, ``mistakes.parquet``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from maskdet import storage
from maskdet.evaluation import baselines, calibration, metrics, slices
from maskdet.evaluation.classes import ClassFigures, measure_classes
from maskdet.evaluation.detection_matching import AnnotatedRun
from maskdet.evaluation.detection_metrics import PrecisionRecall
from maskdet.evaluation.faces import FaceFigures, measure_faces
from maskdet.evaluation.image_statistics import Looks, look_at
from maskdet.evaluation.intervals import Bootstrap, Estimate, estimate_all, mean_of, wilson_estimate
from maskdet.evaluation.metrics import MASK, NO_MASK, UNCERTAIN, Tally
from maskdet.evaluation.mistakes import face_mistakes, label_mistakes
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.evaluation.slice_figures import SliceFigure, figures_of_three, slice_figures, weakest
from maskdet.evaluation.tables import METRICS_SCHEMA, SCHEMA_VERSION
from maskdet.evaluation.truth import Labelled, group_names
from maskdet.images.preprocessing import ImageLimits
from maskdet.labels import CODES, INCORRECT, TWO_CLASSES
from maskdet.model.training_images import Hashes, were_trained_on
from maskdet.tables.layout import write_table
from maskdet.tables.runs import RunRecord

METRICS_JSON = "metrics.json"
METRICS_TABLE = "metrics.parquet"
MISTAKES_TABLE = "mistakes.parquet"
DETECTION = "detection"
"""Name of the slice of ``metrics.parquet`` that says how well faces were found."""
_MAX_POINTS = 200
_LABEL_NAMES = {MASK: "mask", NO_MASK: "no_mask", UNCERTAIN: "uncertain"}


class TrainedOn(NamedTuple):
    """Evaluated images on which the model was trained: figures on them say little about others."""

    images: int
    of: int
    """How many different image files were evaluated."""


class ThresholdRow(NamedTuple):
    """The result of deciding at one threshold: ``mask`` from there on, ``no_mask`` below, nothing uncertain."""

    threshold: float
    sensitivity: Estimate
    specificity: Estimate
    balanced_accuracy: Estimate
    precision: Estimate


@dataclass(frozen=True)
class Evaluation:
    """Everything that an evaluation finds about a model on labelled images.

    Attributes:
        run: the scoring run.
        labelled: scored images with their truth.
        tally: of all of them.
        by_slice: slice name → estimates; the first is the whole data.
        slice_figures: each slice by the figure that slices are compared by, in the same order.
        confusion: truth → label → images, for two classes.
        thresholds: the threshold table.
        temperature: temperature scaling on held-out halves, where it can be fitted.
        band: a decision band on held-out halves, likewise.
        baselines: the model beside the shortcuts; empty unless asked for.
        mistakes: one row per image, or annotated face, with a wrong label, worst first; then missed faces and
            detections that are not faces.
        faces: how well faces were found, where the truth is about faces; all of the above is then about found faces.
        classes: figures for three classes, where the model or the truth has them. Everything else, except the mistakes,
            is about images with a correctly worn mask or none, and whether the model says that there is a mask.
        trained_on: how many of the images the model was trained on; ``None`` where its bundle does not say.
    """

    run: RunRecord
    labelled: Labelled
    tally: Tally
    by_slice: dict[str, list[Estimate]]
    slice_figures: list[SliceFigure]
    confusion: dict[str, dict[str, int]]
    thresholds: list[ThresholdRow]
    temperature: calibration.TemperatureFit | None
    band: calibration.Band | None
    baselines: list[baselines.Row]
    mistakes: pa.Table
    faces: FaceFigures | None = None
    classes: ClassFigures | None = None
    trained_on: TrainedOn | None = None

    @property
    def overall(self) -> dict[str, Estimate]:
        """Metrics of all images, by name."""
        return {estimate.metric: estimate for estimate in self.by_slice[slices.ALL]}


def evaluate(
    labelled: Labelled,
    run: RunRecord,
    settings: EvaluateSettings,
    annotated: AnnotatedRun | None = None,
    training_images: Hashes | None = None,
) -> Evaluation:
    """Measure a model on labelled images, or a detector and a model on annotated faces.

    Args:
        labelled: scored images, or annotated faces that were found, with their truth.
        run: the scoring run.
        settings: the evaluation's.
        annotated: every annotated face and every detection, where the truth is about faces.
        training_images: the model's; see :mod:`maskdet.model.training_images`.
    """
    every, labelled = labelled, labelled.without_incorrect()
    of_two = every.classes != CODES[INCORRECT]
    intervals, rows = settings.intervals, labelled.rows
    bootstrap = Bootstrap(intervals.confidence, intervals.resamples, intervals.seed)
    sample = labelled.sample(intervals.group_column)
    looks = _looks(every, settings) if settings.slices.pixels or settings.baselines else None
    pieces = slices.cut(every.rows, settings.slices, looks if settings.slices.pixels else None)
    fit = baselines.halves(group_names(rows, intervals.group_column))
    shortcuts = []
    if looks is not None and settings.baselines:
        shortcuts = baselines.compare(sample, rows, looks.thumbnails[of_two], fit, intervals.confidence)
    class_names = run.model.get("classes", TWO_CLASSES)
    of_three = INCORRECT in class_names or every.counts[INCORRECT] > 0
    tally = Tally.of(sample)
    by_slice = {piece.name: estimate_all(sample.select(piece.keep[of_two]), bootstrap) for piece in pieces}
    faces = every.faces(intervals.group_column)
    of_three_by_slice = figures_of_three(faces, pieces, bootstrap) if of_three else None
    return Evaluation(
        run=run,
        labelled=every,
        tally=tally,
        by_slice=by_slice,
        slice_figures=slice_figures(faces, pieces, by_slice, of_three_by_slice),
        confusion=confusion_of(tally),
        thresholds=[threshold_row(tally, at, intervals.confidence) for at in settings.thresholds],
        temperature=calibration.measure_temperature(sample.select(fit), sample.select(~fit)),
        band=calibration.measure_band(sample.select(fit), sample.select(~fit), settings.calibration.max_error),
        baselines=shortcuts,
        mistakes=pa.concat_tables([label_mistakes(every), *(face_mistakes(annotated) if annotated else [])]),
        faces=None if annotated is None else measure_faces(annotated, by_slice[slices.ALL], bootstrap, class_names),
        classes=measure_classes(faces, bootstrap) if of_three else None,
        trained_on=None if training_images is None else count_trained_on(every, training_images),
    )


def _looks(labelled: Labelled, settings: EvaluateSettings) -> Looks:
    limits = ImageLimits.of(settings.imaging, settings.scoring.decoder_seconds)
    return look_at(labelled.rows["image_uri"].to_pylist(), limits)


def count_trained_on(labelled: Labelled, training_images: Hashes) -> TrainedOn:
    """How many of some rows' image files a model was trained on."""
    digests = sorted(set(labelled.rows["content_sha256"].to_pylist()))
    return TrainedOn(int(were_trained_on(digests, training_images).sum()), len(digests))


def confusion_of(tally: Tally) -> dict[str, dict[str, int]]:
    """Truth → label → images; there are three labels, since *uncertain* is one."""
    table: dict[str, dict[str, int]] = {"mask": {}, "no_mask": {}}
    for label, name in _LABEL_NAMES.items():
        masked, unmasked = tally.counted(label)
        table["mask"][name], table["no_mask"][name] = int(masked), int(unmasked)
    return table


def threshold_row(tally: Tally, threshold: float, confidence: float) -> ThresholdRow:
    """One row of the threshold table, with Wilson's intervals."""
    decided = metrics.at_threshold(tally, threshold)

    def estimate(name: str, proportion: metrics.Proportion) -> Estimate:
        right, total = proportion(decided)
        return wilson_estimate(name, float(right), float(total), confidence)

    sensitivity = estimate("sensitivity", metrics.sensitivity)
    specificity = estimate("specificity", metrics.specificity)
    interval, count = mean_of((sensitivity, specificity)), round(float(metrics.sum_of(_totals(tally))))
    value = None if interval is None else float(metrics.balanced_accuracy(decided))
    low, high = interval or (None, None)
    balanced = Estimate("balanced_accuracy", value, low, high, "wilson, square-and-add", count)
    return ThresholdRow(threshold, sensitivity, specificity, balanced, estimate("precision", metrics.precision))


def metrics_table(evaluation: Evaluation, confidence: float) -> pa.Table:
    """One row per metric and slice, then the threshold table as ``sensitivity@0.5`` and so on.

    How well faces were found is the slice :data:`DETECTION`.
    """
    rows: list[tuple[str, Estimate]] = []
    for name, estimates in evaluation.by_slice.items():
        rows += [(name, estimate) for estimate in estimates]
    if evaluation.classes is not None:
        rows += [(one.name, one.balanced) for one in evaluation.slice_figures]
    for row in evaluation.thresholds:
        rows += [(slices.ALL, replace(estimate, metric=f"{estimate.metric}@{row.threshold:g}")) for estimate in row[1:]]
    if evaluation.classes is not None:
        rows += [(slices.ALL, estimate) for estimate in evaluation.classes.estimates]
    if evaluation.faces is not None:
        rows += [(DETECTION, estimate) for estimate in evaluation.faces.estimates]
    columns: list[Sequence[Any]] = [[name for name, _ in rows]]
    columns += [list(column) for column in zip(*(astuple(estimate) for _, estimate in rows), strict=True)]
    columns.append([confidence] * len(rows))
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, METRICS_SCHEMA, strict=True)],
        schema=METRICS_SCHEMA,
    )


def as_json(evaluation: Evaluation, settings: EvaluateSettings) -> dict[str, Any]:
    """The content of ``metrics.json``; figures that the data do not define are null."""
    run, labelled = evaluation.run, evaluation.labelled
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.run_id,
        "model": run.model,
        "input": list(settings.input),
        "images": {**run.images.model_dump(), "evaluated": len(labelled.classes)},
        "trained_on": evaluation.trained_on and evaluation.trained_on._asdict(),
        "truth": {
            **labelled.counts,
            "examples_unknown": list(labelled.unknown),
            "names_unknown": dict(labelled.unknown_names),
        },
        "intervals": settings.intervals.model_dump(mode="json"),
        "confusion": evaluation.confusion,
        "metrics": _by_metric(evaluation.by_slice[slices.ALL]),
        "classes": evaluation.classes and _classes(evaluation.classes),
        "thresholds": [{"threshold": row.threshold, **_by_metric(row[1:])} for row in evaluation.thresholds],
        "slices": _slices(evaluation),
        "weakest_slice": None if (least := weakest(evaluation.slice_figures)) is None else least.name,
        "temperature": evaluation.temperature and evaluation.temperature._asdict(),
        "band": evaluation.band and evaluation.band._asdict(),
        "baselines": [{"name": row.name, **_by_metric(row[1:])} for row in evaluation.baselines],
        "detection": evaluation.faces and _detection(evaluation.faces),
    }


def _slices(evaluation: Evaluation) -> dict[str, Any]:
    """Slice → metrics, with the mean recall of three classes where there are three, and the classes that it lacks."""
    found = {one.name: one for one in evaluation.slice_figures if one.name != slices.ALL}
    return {
        name: {
            **_by_metric([*evaluation.by_slice[name], *([one.balanced] if evaluation.classes else [])]),
            "lacking": list(one.lacking),
        }
        for name, one in found.items()
    }


def write_results(root: str, evaluation: Evaluation, settings: EvaluateSettings, page: str, page_name: str) -> None:
    """Write everything, each file atomically, ``metrics.json`` last: where it exists, the rest is from the same run.

    Raises:
        StorageError: the output cannot be written.
    """
    storage.delete([storage.join(root, METRICS_JSON)])
    rows = settings.tables.row_group_rows
    write_table(storage.join(root, METRICS_TABLE), metrics_table(evaluation, settings.intervals.confidence), rows)
    if evaluation.mistakes.num_rows:
        write_table(storage.join(root, MISTAKES_TABLE), evaluation.mistakes, rows)
    else:  # never write an empty table
        storage.delete([storage.join(root, MISTAKES_TABLE)])
    storage.write_bytes(storage.join(root, page_name), page.encode())
    text = json.dumps(as_json(evaluation, settings), indent=2, ensure_ascii=False, allow_nan=False)
    storage.write_bytes(storage.join(root, METRICS_JSON), f"{text}\n".encode())


def _classes(classes: ClassFigures) -> dict[str, Any]:
    return {"confusion": classes.confusion, "metrics": _by_metric(classes.estimates)}


def _detection(faces: FaceFigures) -> dict[str, Any]:
    return {
        "counts": dict(faces.counts),
        "examples": {name: list(examples) for name, examples in faces.examples.items()},
        "metrics": _by_metric(faces.estimates),
        "precision_recall": _curve_points(faces.curve),
    }


def _curve_points(curve: PrecisionRecall | None) -> list[dict[str, float]]:
    """Points of the curve, evenly thinned to :data:`_MAX_POINTS`; the first and the last stay."""
    if curve is None or not len(curve.scores):
        return []
    kept = np.unique(np.linspace(0, len(curve.scores) - 1, min(len(curve.scores), _MAX_POINTS)).astype(int))
    rows = zip(*(column[kept].tolist() for column in curve), strict=True)
    return [dict(zip(("score", "recall", "precision"), row, strict=True)) for row in rows]


def _by_metric(estimates: Sequence[Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for estimate in estimates:
        fields = asdict(estimate)
        found[fields.pop("metric")] = fields
    return found


def _totals(tally: Tally) -> tuple[metrics.Floats, metrics.Floats]:
    return tally.masked_total, tally.unmasked_total
