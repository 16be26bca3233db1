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
from maskdet.evaluation.intervals import DESCRIPTIONS, Bootstrap, Estimate, estimate_all, mean_of_two, wilson_estimate
from maskdet.evaluation.metrics import MASK, NO_MASK, UNCERTAIN, Sample, Tally
from maskdet.evaluation.pixels import look_at
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.evaluation.truth import Labelled, group_names
from maskdet.imaging import ImageLimits
from maskdet.layout import write_table
from maskdet.runs import RunManifest

METRICS_JSON = "metrics.json"
METRICS_TABLE = "metrics.parquet"
MISTAKES_TABLE = "mistakes.parquet"
SCHEMA_VERSION = 1
_LABEL_NAMES = {MASK: "mask", NO_MASK: "no_mask", UNCERTAIN: "uncertain"}


class ThresholdRow(NamedTuple):
    """What deciding at one threshold gives: ``mask`` from there on, ``no_mask`` below, nothing uncertain."""

    threshold: float
    sensitivity: Estimate
    specificity: Estimate
    balanced_accuracy: Estimate
    precision: Estimate


@dataclass(frozen=True)
class Evaluation:
    """Everything that is known of a model on labelled images.

    Attributes:
        run: the scoring run.
        labelled: scored images with their truth.
        tally: of all of them.
        by_slice: slice name → estimates; the first is the whole data.
        confusion: truth → label → images.
        thresholds: the threshold table.
        temperature: temperature scaling on held-out halves, where it can be fitted.
        band: a decision band on held-out halves, likewise.
        baselines: the model beside the shortcuts; empty unless asked for.
        mistakes: one row an image not labelled right, the worst first.
    """

    run: RunManifest
    labelled: Labelled
    tally: Tally
    by_slice: dict[str, list[Estimate]]
    confusion: dict[str, dict[str, int]]
    thresholds: list[ThresholdRow]
    temperature: calibration.TemperatureFit | None
    band: calibration.Band | None
    baselines: list[baselines.Row]
    mistakes: pa.Table

    @property
    def overall(self) -> dict[str, Estimate]:
        """Metrics of all images, by name."""
        return {estimate.metric: estimate for estimate in self.by_slice[slices.ALL]}


def evaluate(labelled: Labelled, run: RunManifest, settings: EvaluateSettings) -> Evaluation:
    """Measure a model on labelled images.

    Args:
        labelled: scored images with their truth.
        run: the scoring run.
        settings: the evaluation's.
    """
    intervals, rows = settings.intervals, labelled.rows
    bootstrap = Bootstrap(intervals.confidence, intervals.resamples, intervals.seed)
    sample = labelled.sample(intervals.group_column)
    looks = None
    if settings.slices.pixels or settings.baselines:
        limits = ImageLimits(settings.imaging.max_bytes, settings.imaging.max_pixels, settings.imaging.min_side_px)
        looks = look_at(rows["image_uri"].to_pylist(), limits)
    pieces = slices.cut(rows, settings.slices, looks if settings.slices.pixels else None)
    fit = baselines.halves(group_names(rows, intervals.group_column))
    shortcuts = []
    if looks is not None and settings.baselines:
        shortcuts = baselines.compare(sample, rows, looks.thumbnails, fit, intervals.confidence)
    tally = Tally.of(sample)
    return Evaluation(
        run=run,
        labelled=labelled,
        tally=tally,
        by_slice={piece.name: estimate_all(sample.select(piece.keep), bootstrap) for piece in pieces},
        confusion=confusion_of(tally),
        thresholds=[threshold_row(tally, at, intervals.confidence) for at in settings.thresholds],
        temperature=calibration.measure_temperature(sample.select(fit), sample.select(~fit)),
        band=calibration.measure_band(sample.select(fit), sample.select(~fit), settings.calibration.max_error),
        baselines=shortcuts,
        mistakes=mistakes_of(labelled, sample),
    )


def confusion_of(tally: Tally) -> dict[str, dict[str, int]]:
    """Truth → label → images; of three labels, since *uncertain* is one."""
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
    interval, count = mean_of_two(sensitivity, specificity), round(float(metrics.sum_of(_totals(tally))))
    value = None if interval is None else float(metrics.balanced_accuracy(decided))
    low, high = interval or (None, None)
    balanced = Estimate("balanced_accuracy", value, low, high, "wilson, square-and-add", count)
    return ThresholdRow(threshold, sensitivity, specificity, balanced, estimate("precision", metrics.precision))


def mistakes_of(labelled: Labelled, sample: Sample) -> pa.Table:
    """Images labelled wrong or uncertain, the largest error of the probability first."""
    wanted = np.where(sample.truth, MASK, NO_MASK)
    error = np.where(sample.truth, 1 - sample.probabilities, sample.probabilities)
    wrong = np.flatnonzero(sample.labels != wanted)
    order = wrong[np.argsort(-error[wrong], kind="stable")]
    rows = labelled.rows.take(pa.array(order, pa.int64()))
    return pa.table(
        [
            rows["image_uri"].combine_chunks(),
            pa.array([("no_mask", "mask")[int(sample.truth[row])] for row in order], pa.string()),
            *(rows[name].combine_chunks() for name in ("label", "probability_mask")),
            pa.array(error[order], pa.float64()),
            *(rows[name].combine_chunks() for name in ("width_px", "height_px", "content_sha256", "model_id")),
        ],
        schema=_MISTAKES_SCHEMA,
    )


def metrics_table(evaluation: Evaluation, confidence: float) -> pa.Table:
    """One row a metric and slice, then the threshold table as ``sensitivity@0.5`` and so on."""
    rows: list[tuple[str, Estimate]] = []
    for name, estimates in evaluation.by_slice.items():
        rows += [(name, estimate) for estimate in estimates]
    for row in evaluation.thresholds:
        rows += [(slices.ALL, replace(estimate, metric=f"{estimate.metric}@{row.threshold:g}")) for estimate in row[1:]]
    columns: list[Sequence[Any]] = [[name for name, _ in rows]]
    columns += [list(column) for column in zip(*(astuple(estimate) for _, estimate in rows), strict=True)]
    columns.append([confidence] * len(rows))
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, _METRICS_SCHEMA, strict=True)],
        schema=_METRICS_SCHEMA,
    )


def as_json(evaluation: Evaluation, settings: EvaluateSettings) -> dict[str, Any]:
    """The content of ``metrics.json``; figures that the data do not define are null."""
    run, labelled = evaluation.run, evaluation.labelled
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.run_id,
        "model": run.model,
        "input": list(settings.input),
        "images": {**run.images.model_dump(), "evaluated": len(labelled.truth)},
        "truth": {**labelled.counts, "examples_unknown": list(labelled.unknown)},
        "intervals": settings.intervals.model_dump(mode="json"),
        "confusion": evaluation.confusion,
        "metrics": _by_metric(evaluation.by_slice[slices.ALL]),
        "thresholds": [{"threshold": row.threshold, **_by_metric(row[1:])} for row in evaluation.thresholds],
        "slices": {name: _by_metric(found) for name, found in evaluation.by_slice.items() if name != slices.ALL},
        "temperature": evaluation.temperature and evaluation.temperature._asdict(),
        "band": evaluation.band and evaluation.band._asdict(),
        "baselines": [{"name": row.name, **_by_metric(row[1:])} for row in evaluation.baselines],
    }


def write_results(root: str, evaluation: Evaluation, settings: EvaluateSettings, page: str, page_name: str) -> None:
    """Write everything, each file atomically; ``metrics.json`` last, so that where it is, the rest is of its run.

    Raises:
        StorageError: the output cannot be written.
    """
    storage.delete([storage.join(root, METRICS_JSON)])
    rows = settings.tables.row_group_rows
    write_table(storage.join(root, METRICS_TABLE), metrics_table(evaluation, settings.intervals.confidence), rows)
    if evaluation.mistakes.num_rows:
        write_table(storage.join(root, MISTAKES_TABLE), evaluation.mistakes, rows)
    else:  # no table is ever empty
        storage.delete([storage.join(root, MISTAKES_TABLE)])
    storage.write_bytes(storage.join(root, page_name), page.encode())
    text = json.dumps(as_json(evaluation, settings), indent=2, ensure_ascii=False, allow_nan=False)
    storage.write_bytes(storage.join(root, METRICS_JSON), f"{text}\n".encode())


def _by_metric(estimates: Sequence[Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for estimate in estimates:
        fields = asdict(estimate)
        found[fields.pop("metric")] = fields
    return found


def _totals(tally: Tally) -> tuple[metrics.Floats, metrics.Floats]:
    return tally.masked_total, tally.unmasked_total


def table_schema(table: str, columns: Sequence[tuple[str, pa.DataType, str, bool]]) -> pa.Schema:
    """The schema of a table, with name, type, description and nullability of each column."""
    fields = [pa.field(name, kind, nullable, {"description": text}) for name, kind, text, nullable in columns]
    return pa.schema(fields, {"maskdet.table": table, "maskdet.schema_version": str(SCHEMA_VERSION)})


_METRICS_SCHEMA = table_schema(
    "metrics",
    [
        ("slice", pa.string(), "all, or a part of the data such as site=north", False),
        ("metric", pa.string(), "; ".join(f"{name}: {text}" for name, text in DESCRIPTIONS.items()), False),
        ("value", pa.float64(), "the metric; null where the slice does not define it", True),
        ("low", pa.float64(), "lower end of its confidence interval", True),
        ("high", pa.float64(), "upper end of its confidence interval", True),
        ("method", pa.string(), "how the interval was made", False),
        ("count", pa.int64(), "faces that the metric is about", False),
        ("confidence", pa.float64(), "nominal coverage of the interval, 0 to 1", False),
    ],
)
_MISTAKES_SCHEMA = table_schema(
    "mistakes",
    [
        ("image_uri", pa.string(), "where the image was read from", False),
        ("truth", pa.string(), "mask or no_mask", False),
        ("label", pa.string(), "what the model said: mask, no_mask or uncertain", False),
        ("probability_mask", pa.float32(), "probability that the face wears a mask, 0 to 1", False),
        ("error", pa.float64(), "distance of the probability from the truth, 0 to 1", False),
        ("width_px", pa.int32(), "width of the upright image, in pixels", False),
        ("height_px", pa.int32(), "height of the upright image, in pixels", False),
        ("content_sha256", pa.string(), "SHA-256 of the image file's bytes, in hexadecimal", False),
        ("model_id", pa.string(), "name and fingerprint of the model bundle", False),
    ],
)
