"""Joins a comparison's evaluations into JSON and Parquet: a row per model and data set, and a row per shortcut."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from maskdet import storage
from maskdet.evaluation.intervals import DESCRIPTIONS, Estimate
from maskdet.evaluation.results import METRICS_JSON
from maskdet.labels import INCORRECT, MASK, NO_MASK, TWO_CLASSES
from maskdet.schemas import column, table_schema
from maskdet.tables.layout import write_table
from tools.comparison.cases import EVALUATE_CONFIG, Case, Relation
from tools.comparison.robustness import ViewRow
from tools.comparison.settings import CompareSettings

COMPARE_JSON = "compare.json"
COMPARE_TABLE = "compare.parquet"
COMPARE_TEXT = "compare.md"
ROBUSTNESS_TABLE = "robustness.parquet"
SCHEMA_VERSION = 1
METRICS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "roc_auc", "ece")
_COUNTS = (
    *("masked", "masked_right", "masked_as_incorrect"),
    *("unmasked", "unmasked_right", "unmasked_as_mask", "unmasked_as_incorrect"),
    *("uncertain", "failed"),
)
_WORDS = {"masked": MASK, "unmasked": NO_MASK}


@dataclass(frozen=True)
class CompareRow:
    """A model, or a shortcut that does not look at faces, on a data set.

    Attributes:
        data: name of the data set.
        title: what tables call it.
        model: name of the model or of the shortcut.
        model_id: id of the bundle; empty for a shortcut.
        relation: how the data relates to the model's training; ``None`` for a shortcut, which is fitted on half of it.
        counts: counts of images by truth and outcome; empty for a shortcut, or without an evaluation.
        figures: metric → estimate.
        command: the command that makes this row again.
        note: why there are no figures.
    """

    data: str
    title: str
    model: str
    model_id: str = ""
    relation: Relation | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, Estimate] = field(default_factory=dict)
    command: str = ""
    note: str = ""

    @property
    def images(self) -> int | None:
        """Number of images that the figures are based on."""
        return self.figures["accuracy"].count if self.figures else None


@dataclass(frozen=True)
class Robustness:
    """Models on views of faces.

    Attributes:
        titles: titles of the data sets that were pooled.
        images: how many images there are.
        trained: model → how many of them it was trained on.
        rows: model → one row per view.
        notes: model → why it has no rows.
    """

    titles: tuple[str, ...]
    images: int
    trained: Mapping[str, int]
    rows: Mapping[str, Sequence[ViewRow]]
    notes: Mapping[str, str] = field(default_factory=dict)


def join_rows(settings: CompareSettings, cases: Sequence[Case]) -> list[CompareRow]:
    """Read the evaluations' results: a row per case and, after the cases of each data set, its shortcuts.

    Args:
        settings: the comparison's settings.
        cases: the cases, data set by data set; those that can be evaluated here have been.

    Raises:
        StorageError: a result cannot be read.
    """
    rows: list[CompareRow] = []
    for name, data in settings.data.items():
        shortcuts: list[CompareRow] = []
        for case in (case for case in cases if case.data == name):
            found = None
            if case.settings is not None:
                found = json.loads(storage.read_bytes(storage.join(case.settings.output, METRICS_JSON)))
            rows.append(_row(settings, case, data.title, found))
            if found is not None and not shortcuts:  # they do not depend on the model, so any evaluation's will do
                shortcuts = _shortcuts(rows[-1], found)
        rows += shortcuts
    return rows


def row_command(output: str, model: str, data: str) -> str:
    """The command that makes one row of a comparison again."""
    return f"maskdet evaluate --config {storage.join(output, model, data, EVALUATE_CONFIG)}"


def _row(settings: CompareSettings, case: Case, title: str, found: Mapping[str, Any] | None) -> CompareRow:
    if found is None:
        return CompareRow(case.data, title, case.model, relation=case.relation, note=case.note)
    truth, confusion = found["truth"], found["confusion"]
    counts = {
        "masked": truth["mask"],
        "masked_right": confusion["mask"]["mask"],
        **_called_incorrect(found),
        "unmasked": truth["no_mask"],
        "unmasked_right": confusion["no_mask"]["no_mask"],
        "unmasked_as_mask": confusion["no_mask"]["mask"],
        "uncertain": confusion["mask"]["uncertain"] + confusion["no_mask"]["uncertain"],
        "failed": found["images"]["failed"],
    }
    return CompareRow(
        data=case.data,
        title=title,
        model=case.model,
        model_id=found["model"]["id"],
        relation=case.relation,
        counts=counts,
        figures={name: Estimate(name, **found["metrics"][name]) for name in METRICS},
        command=row_command(settings.output, case.model, case.data),
    )


def _called_incorrect(found: Mapping[str, Any]) -> dict[str, int]:
    """Counts of masked and unmasked images labelled ``incorrect``; empty for a model of two classes."""
    if INCORRECT not in found["model"].get("classes", TWO_CLASSES):
        return {}
    confusion = found["classes"]["confusion"]
    return {f"{word}_as_incorrect": confusion[truth][INCORRECT] for word, truth in _WORDS.items()}


def _shortcuts(row: CompareRow, found: Mapping[str, Any]) -> list[CompareRow]:
    return [
        CompareRow(
            row.data,
            row.title,
            shortcut["name"],
            figures={name: Estimate(name, **shortcut[name]) for name in ("accuracy", "balanced_accuracy")},
            command=row.command,
        )
        for shortcut in found["baselines"]
        if shortcut["name"] != "model"
    ]


def write_comparison(
    settings: CompareSettings, rows: Sequence[CompareRow], robustness: Robustness | None, text: str
) -> None:
    """Write tables, text and JSON, each atomically; the JSON last, so where it exists, the rest is of the same run.

    Raises:
        StorageError: the output cannot be written.
    """
    root = storage.normalize(settings.output)
    storage.delete([storage.join(root, name) for name in (COMPARE_JSON, ROBUSTNESS_TABLE)])
    write_table(storage.join(root, COMPARE_TABLE), compare_table(rows, settings.confidence), len(rows))
    views = [] if robustness is None else _view_records(robustness)
    if views:
        table = pa.Table.from_pylist(views, schema=_ROBUSTNESS_SCHEMA)
        write_table(storage.join(root, ROBUSTNESS_TABLE), table, len(views))
    storage.write_bytes(storage.join(root, COMPARE_TEXT), text.encode())
    content = {
        "schema_version": SCHEMA_VERSION,
        "confidence": settings.confidence,
        "rows": [_record(row) for row in rows],
        "robustness": None if robustness is None else {**asdict(robustness), "rows": views},
    }
    encoded = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    storage.write_bytes(storage.join(root, COMPARE_JSON), f"{encoded}\n".encode())


def compare_table(rows: Sequence[CompareRow], confidence: float) -> pa.Table:
    """One row per data set and model or shortcut; null where there is no such figure."""
    records = [_record(row) | {"confidence": confidence} for row in rows]
    return pa.Table.from_pylist(records, schema=_COMPARE_SCHEMA)


def _record(row: CompareRow) -> dict[str, Any]:
    relation = row.relation
    record: dict[str, Any] = {
        "data": row.data,
        "title": row.title,
        "model": row.model,
        "model_id": row.model_id or None,
        "relation": relation and relation.kind.value,
        "images_selected": relation and relation.images,
        "images_trained": relation and relation.trained,
        "images_shared": relation and relation.shared,
        "images": row.images,
        **{name: row.counts.get(name) for name in _COUNTS},
    }
    for name in METRICS:
        one = row.figures.get(name)
        record |= {name: one and one.value, f"{name}_low": one and one.low, f"{name}_high": one and one.high}
    return record | {"command": row.command or None, "note": row.note or None}


def _view_records(robustness: Robustness) -> list[dict[str, Any]]:
    records = []
    for model, rows in robustness.rows.items():
        for row in rows:
            record = {"model": model, **row._asdict()}
            for name in ("accuracy", "balanced_accuracy"):
                one: Estimate = record[name]
                record |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
            records.append(record)
    return records


_COUNT_TEXTS = {
    "masked": "masked images evaluated",
    "masked_right": "of these, labelled mask or incorrect",
    "masked_as_incorrect": "of the latter, labelled incorrect; null for a model of two classes",
    "unmasked": "unmasked images evaluated",
    "unmasked_right": "of these, labelled no_mask",
    "unmasked_as_mask": "of these, labelled mask or incorrect",
    "unmasked_as_incorrect": "of the latter, labelled incorrect; null for a model of two classes",
    "uncertain": "images labelled uncertain, which is wrong for either class",
    "failed": "images that could not be scored",
}


def _figures(name: str, text: str) -> list[pa.Field]:
    texts = {name: text, **{f"{name}_{end}": f"{word} end of its interval" for end, word in _ENDS.items()}}
    return [column(key, pa.float64(), words, nullable=True) for key, words in texts.items()]


_ENDS = {"low": "lower", "high": "upper"}
_COMPARE_SCHEMA = table_schema(
    "compare",
    [
        column("data", pa.string(), "name of the data set"),
        column("title", pa.string(), "what the data set is"),
        column("model", pa.string(), "name of the model, or of the shortcut, which does not look at faces"),
        column("model_id", pa.string(), "name and fingerprint of the model bundle; null for a shortcut", nullable=True),
        column(
            "relation",
            pa.string(),
            "how the data relates to training: trained, shared, same_source, disjoint or external",
            nullable=True,
        ),
        column(
            "images_selected", pa.int64(), "images of the data set for this model, failed ones included", nullable=True
        ),
        column("images_trained", pa.int64(), "of these, images that the model was trained on", nullable=True),
        column("images_shared", pa.int64(), "of these, images of groups that the model was trained on", nullable=True),
        column(
            "images",
            pa.int64(),
            "images that the figures are based on; for a shortcut, the half that it was not fitted on",
            nullable=True,
        ),
        *(column(name, pa.int64(), text, nullable=True) for name, text in _COUNT_TEXTS.items()),
        *(field for name in METRICS for field in _figures(name, DESCRIPTIONS[name])),
        column("command", pa.string(), "the command that makes this row again", nullable=True),
        column("note", pa.string(), "why there are no figures", nullable=True),
        column("confidence", pa.float64(), "nominal coverage of the intervals, 0 to 1"),
    ],
)
_ROBUSTNESS_SCHEMA = table_schema(
    "robustness",
    [
        column("model", pa.string(), "name of the model"),
        column("view", pa.string(), "how the faces were shown"),
        *(
            column(name, pa.int64(), _COUNT_TEXTS[name], nullable=name.endswith("incorrect"))
            for name in ViewRow._fields
            if name in _COUNT_TEXTS
        ),
        *(field for name in ("accuracy", "balanced_accuracy") for field in _figures(name, DESCRIPTIONS[name])),
        column("accuracy_change", pa.float64(), "accuracy minus that on the plain images, in percentage points"),
        column("balanced_change", pa.float64(), "balanced accuracy minus that on the plain images, likewise"),
    ],
)
