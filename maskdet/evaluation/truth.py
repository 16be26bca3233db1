"""Join predictions with the truth: which class each scored image has, by its folders or by a column.

A labelled image shows one person; where a detector found several faces, the largest represents the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskdet import storage
from maskdet.config import SourceSettings
from maskdet.errors import ConfigError, SourceError
from maskdet.evaluation.annotations import plain_name
from maskdet.evaluation.classes import LabelledFaces
from maskdet.evaluation.metrics import MASK, Bools, Floats, Sample
from maskdet.evaluation.settings import EvaluateSettings, TruthSettings
from maskdet.inputs import image_lists
from maskdet.inputs.listing import ListTask
from maskdet.labels import CODES, INCORRECT, NO_MASK, THREE_CLASSES, Codes, codes_of, worn_probability
from maskdet.labels import MASK as MASK_LABEL
from maskdet.schemas import failures_schema, no_face_schema, predictions_schema
from maskdet.tables.layout import FAILURES, NO_FACE, PREDICTIONS, Layout, read_table

_EXAMPLES = 20
# Answers to the question whether a mask is worn.
_ANSWERS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "on"), MASK_LABEL),
    **dict.fromkeys(("false", "f", "no", "n", "0", "off"), NO_MASK),
}
# An image list's column may be named like one of the predictions': its "label" must not hide the model's.
_LIST_PREFIX = "list."

FACES_FOUND = "faces_found"
"""Column of the joined rows: how many faces were found in a row's image."""


class RunTables(NamedTuple):
    """What a run says about its images, with the columns that the settings name in addition to the tables' own."""

    predictions: pa.Table
    failures: pa.Table
    no_face: pa.Table


@dataclass(frozen=True)
class Labelled:
    """Scored images, or annotated faces that were found, with their truth.

    Attributes:
        rows: one for each, sorted by URI, with the predictions' columns and those that the settings name.
        classes: codes of the true classes, ``(rows,)``.
        counts: images or faces by what became of them: mask, incorrect, no_mask, truth_unknown, failed_mask, ….
        unknown: some of the images whose truth is unknown.
        unknown_names: folders, or values of the column, that do not say the truth → images.
        of_faces: whether rows are faces; if so, those of an image belong together.
    """

    rows: pa.Table
    classes: Codes
    counts: Mapping[str, int]
    unknown: tuple[str, ...]
    of_faces: bool = False
    unknown_names: Mapping[str, int] = field(default_factory=dict)

    @property
    def truth(self) -> Bools:
        """Whether a mask covers nose and mouth, ``(rows,)``."""
        return np.asarray(self.classes == MASK, np.bool_)

    def without_incorrect(self) -> Labelled:
        """The rows whose truth is ``mask`` or ``no_mask``, which metrics of two classes are about."""
        keep = self.classes != CODES[INCORRECT]
        return replace(self, rows=self.rows.filter(pa.array(keep)), classes=self.classes[keep])

    def probabilities(self) -> dict[str, Floats]:
        """Class → the model's probability, ``(rows,)``; without classes that it does not have."""
        named = {name: self.rows[f"probability_{name}"] for name in THREE_CLASSES}
        known = {name: column for name, column in named.items() if column.null_count == 0 and len(column)}
        return {name: column.to_numpy().astype(np.float64) for name, column in known.items()}

    def faces(self, group_column: str | None = None) -> LabelledFaces:
        """The basis for figures of three classes; the argument is that of :meth:`sample`."""
        labels = codes_of(self.rows["label"].to_pylist())
        return LabelledFaces(self.classes, labels, self.probabilities(), self._groups(group_column))

    def sample(self, group_column: str | None = None) -> Sample:
        """The basis for metrics of two classes: whether there is a mask, worn correctly or not.

        With three classes, the probability is p(mask) + p(incorrect), as in the first question of the rule of
        :mod:`maskdet.labels`, and the label ``incorrect`` counts as a mask.

        Args:
            group_column: the column that says which images belong together; an image without a value is a group of its
                own. Default: each image, with its faces, is one.
        """
        labels = codes_of(self.rows["label"].to_pylist())
        labels[labels == CODES[INCORRECT]] = MASK
        mask = self.rows["probability_mask"].to_numpy()
        worn = worn_probability(mask, self.probabilities().get(INCORRECT))
        return Sample(worn, self.truth, labels, self._groups(group_column))

    def _groups(self, group_column: str | None) -> NDArray[np.int64] | None:
        if group_column is None and not self.of_faces:
            return None
        names = group_names(self.rows, group_column)
        return np.unique(names, return_inverse=True)[1].astype(np.int64) if names else None


def check_columns(settings: EvaluateSettings, tasks: Sequence[ListTask]) -> None:
    """Refuse, at launch, columns that neither the template nor every image list has.

    Raises:
        ConfigError: there is no such key, and no image list.
        SourceError: an image list lacks the column.
    """
    wanted = _list_columns(settings)
    listed = [task for task in tasks if task.kind == "image_list"]
    if wanted and len(listed) < len(tasks):
        keys = list(settings.source.key_names)
        remedy = "Name it in source.template, or give image lists alone as the input."
        raise ConfigError(
            "truth.column, intervals.group_column or slices.columns",
            f"a key of the source, {keys}, or an image list's column",
            wanted[0],
            remedy,
        )
    for task in listed:
        image_lists.check_columns(task.uri, _with_columns(settings.source, wanted), task.root)


def read_labelled(layout: Layout, settings: EvaluateSettings, tasks: Sequence[ListTask]) -> Labelled:
    """Join a finished scoring run's predictions with the truth.

    Raises:
        SourceError: no image's truth is known.
        StorageError: tables or image lists cannot be read.
    """
    tables = read_tables(layout, settings, tasks)
    rows, failures = _one_row_an_image(tables.predictions), tables.failures
    tops = [top_of(task) for task in tasks]
    classes, failed = (_classes(table, settings.truth, tops) for table in (rows, failures))
    known = np.array([name is not None for name in classes], np.bool_)
    unknown = rows["image_uri"].filter(pa.array(~known)).to_pylist()
    counts = _counted(classes, "truth_unknown") | {
        f"failed_{name}": count for name, count in _counted(failed, "truth_unknown").items()
    }
    if not known.any() and settings.truth.column is not None:
        values = Counter(column_values(rows, settings.truth.column))
        seen = [value for value, _ in values.most_common(_EXAMPLES)]
        remedy = "Set truth.mask and truth.no_mask to the column's values."
        raise SourceError(
            f"truth.column {settings.truth.column!r}", f"values of {settings.truth.model_dump()}", seen, remedy
        )
    if not known.any():
        seen = unknown[:3] or failures["image_uri"].to_pylist()[:3]
        remedy = "Set truth.mask, truth.incorrect and truth.no_mask to the folders' names, or truth.column to a column."
        raise SourceError("truth", f"images of {settings.truth.model_dump()}", seen, remedy)
    codes = codes_of(name for name in classes if name is not None)
    names = _unknown_names(rows.filter(pa.array(~known)), settings.truth)
    return Labelled(rows.filter(pa.array(known)), codes, counts, tuple(unknown[:_EXAMPLES]), unknown_names=names)


def read_tables(layout: Layout, settings: EvaluateSettings, tasks: Sequence[ListTask]) -> RunTables:
    """The tables of a finished scoring run.

    Raises:
        StorageError: tables or image lists cannot be read.
    """
    columns = _list_values(settings, tasks)
    names = settings.source.key_names
    schemas = {
        PREDICTIONS: predictions_schema(names),
        FAILURES: failures_schema(names),
        NO_FACE: no_face_schema(names),
    }
    return RunTables(*(_with_extra(_read_all(layout, name, schema), columns) for name, schema in schemas.items()))


def class_of_folders(uri: str, truth: TruthSettings, tops: Sequence[str] = ()) -> str | None:
    """The class of the nearest folder above an image that names one.

    Args:
        uri: the image.
        truth: the names.
        tops: the inputs' folders; folders above the one that contains the image say nothing about it.
    """
    above = max((len(top) for top in tops if uri.startswith(f"{top}/")), default=0)
    for folder in reversed(uri[above:].split("/")[:-1]):
        if (found := class_of_name(folder, truth)) is not None:
            return found
    return None


def class_of_value(value: str | None, truth: TruthSettings) -> str | None:
    """``"mask"`` or ``"no_mask"`` by a column's value: a name of the settings, or true, yes, 1 or their opposites.

    A column that is itself named like ``truth.no_mask`` answers the opposite question. Where the settings name answers,
    only theirs count.
    """
    named = class_of_name(value, truth)
    taken = any(plain_name(name) in _ANSWERS for name in (*truth.mask, *truth.incorrect, *truth.no_mask))
    if named is not None or value is None or taken:
        return named
    answer = _ANSWERS.get(plain_name(value))
    opposite = class_of_name(truth.column, truth) == NO_MASK
    return answer if answer is None or not opposite else {MASK_LABEL: NO_MASK, NO_MASK: MASK_LABEL}[answer]


def class_of_name(name: str | None, truth: TruthSettings) -> str | None:
    """The class that a folder's name or a column's value means."""
    if name is None:
        return None
    for label in THREE_CLASSES:
        if plain_name(name) in {plain_name(text) for text in getattr(truth, label)}:
            return label
    return None


def group_names(rows: pa.Table, group_column: str | None) -> list[str]:
    """What each image must stay together with, ``(images,)``: its group, or else files with the same content."""
    contents = [f"content {digest}" for digest in rows["content_sha256"].to_pylist()]
    if group_column is None:
        return contents
    groups = column_values(rows, group_column)
    return [content if group is None else f"group {group}" for group, content in zip(groups, contents, strict=True)]


def column_values(rows: pa.Table, column: str) -> list[str | None]:
    """Values of an image list's column or a template's key, ``(images,)``."""
    name = _LIST_PREFIX + column
    values: list[str | None] = rows[name if name in rows.column_names else column].to_pylist()
    return values


def top_of(task: ListTask) -> str:
    """The folder that contains the folders that name classes; an input's own name may be a class."""
    if task.kind == "folder":
        return storage.parent(task.uri)
    return storage.fixed_part(task.uri) if task.kind == "glob" else image_lists.folder_of(task.uri, task.root)


def _classes(table: pa.Table, truth: TruthSettings, tops: Sequence[str]) -> list[str | None]:
    if truth.column is not None:
        return [class_of_value(value, truth) for value in column_values(table, truth.column)]
    by_folder: dict[str, str | None] = {}
    found = []
    for uri in table["image_uri"].to_pylist():
        folder = storage.parent(uri)
        if folder not in by_folder:
            by_folder[folder] = class_of_folders(uri, truth, tops)
        found.append(by_folder[folder])
    return found


def _counted(classes: Iterable[str | None], unknown: str) -> dict[str, int]:
    counts = Counter(unknown if name is None else name for name in classes)
    return {name: counts[name] for name in (*THREE_CLASSES, unknown)}


def _unknown_names(rows: pa.Table, truth: TruthSettings) -> dict[str, int]:
    """What does not say the truth → images, most frequent first: values of the column, or names of folders."""
    if truth.column is not None:
        names = ["null" if value is None else value for value in column_values(rows, truth.column)]
    else:
        names = [storage.parent(uri).rpartition("/")[2] for uri in rows["image_uri"].to_pylist()]
    return dict(Counter(names).most_common())


def _one_row_an_image(faces: pa.Table) -> pa.Table:
    """The largest face of each image, the first among equal ones, sorted by URI; a whole image is its only face.

    A column :data:`FACES_FOUND` is added.
    """
    widths, heights = (faces[name].to_pylist() for name in ("face_width_px", "face_height_px"))
    best: dict[str, tuple[float, int, int]] = {}
    for row, (uri, index, width, height) in enumerate(
        zip(faces["image_uri"].to_pylist(), faces["face_index"].to_pylist(), widths, heights, strict=True)
    ):
        rank = (-(width or 0.0) * (height or 0.0), index, row)
        best[uri] = min(best.get(uri, rank), rank)
    counts = Counter(faces["image_uri"].to_pylist())
    rows = faces.take(pa.array([best[uri][2] for uri in sorted(best)], pa.int64()))
    return rows.append_column(FACES_FOUND, pa.array([counts[uri] for uri in sorted(best)], pa.int32()))


def _read_all(layout: Layout, name: str, schema: pa.Schema) -> pa.Table:
    files = sorted(f.uri for f in storage.list_folder(layout.folder(name)) if f.uri.endswith(".parquet"))
    tables = [read_table(uri).replace_schema_metadata(None) for uri in files]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _list_columns(settings: EvaluateSettings) -> list[str]:
    return [name for name in settings.extra_columns if name not in settings.source.key_names]


def _with_columns(source: SourceSettings, columns: Sequence[str]) -> SourceSettings:
    """The same source with other columns as keys; not validated, so that a column may be called ``label``."""
    return source.model_copy(update={"keys": tuple(columns), "template": None})


def _list_values(settings: EvaluateSettings, tasks: Sequence[ListTask]) -> dict[str, dict[str, str | None]]:
    """Column → URI → value. An image in two rows that differ has no value: the data do not say which is right."""
    wanted = _list_columns(settings)
    values: dict[str, dict[str, str | None]] = {name: {} for name in wanted}
    if not wanted:
        return values
    source = _with_columns(settings.source, wanted)
    for task in tasks:
        for row in image_lists.read_rows(task.uri, task.part, source, task.root):
            for name, value in zip(wanted, row.keys, strict=True):
                if values[name].setdefault(row.uri, value) != value:
                    values[name][row.uri] = None
    return values


def _with_extra(table: pa.Table, columns: Mapping[str, Mapping[str, str | None]]) -> pa.Table:
    uris = table["image_uri"].to_pylist()
    for name, by_uri in columns.items():
        column = pa.array([by_uri.get(uri) for uri in uris], pa.string())
        table = table.append_column(_LIST_PREFIX + name, column)
    return table
