"""Count a shard's rows in every group of every level."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskdet.compliance.corrections import Corrections
from maskdet.compliance.state import FIXED_POINT, HISTOGRAM_BINS, Counts, GroupKey, Merger, Scores, State, Tally
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import CODES, INCORRECT, MASK, NO_MASK, UNCERTAIN, Codes, codes_of

Integers = NDArray[np.int64]

_PROBABILITIES = ("probability_mask", "probability_incorrect")


@dataclass(frozen=True)
class Grouping:
    """How rows are counted.

    Attributes:
        levels: level name → key names.
        cluster: names of the keys whose values all faces of a cluster share; empty: clusters are not counted.
        time_zone: IANA name; used for dates, hours, weeks … of levels and clusters. Default: the rule's.
        corrections: labels that people gave.
        model: id of the run's model, to tell faces of others; empty: they are not told.
    """

    levels: Mapping[str, Sequence[str]]
    cluster: tuple[str, ...] = ()
    time_zone: str | None = None
    corrections: Corrections = field(default_factory=Corrections)
    model: str = ""

    @property
    def prediction_columns(self) -> tuple[str, ...]:
        """Columns of the predictions that are needed, in addition to keys and capture times."""
        identity = ("image_uri", "content_sha256", "frame_time_us") if self.corrections else ()
        model = ("model_id",) if self.model else ()
        return (*identity, *model, "face_index", "label", *_PROBABILITIES)


def count_groups(
    predictions: pa.Table,
    failures: pa.Table,
    no_face: pa.Table,
    partition: Sequence[str | None],
    rule: KeyRule,
    grouping: Grouping,
) -> dict[GroupKey, State]:
    """Count one shard's rows in every group of every level.

    Args:
        predictions: ``captured_at``, the key columns and :attr:`Grouping.prediction_columns`.
        failures: at least ``captured_at``, the key columns and, for frames of videos, ``frames``.
        no_face: the same for images without a face.
        partition: the shard's values of the partition keys.
        rule: the run's keys.
        grouping: what to count.
    """
    total: dict[GroupKey, Merger] = {}
    for table, outcome in ((predictions, ""), (failures, "images_failed"), (no_face, "images_no_face")):
        if table.num_rows == 0:
            continue
        keys = RowKeys(table, partition, rule, grouping.time_zone or rule.timezone)
        faces = None if outcome else _Faces.of(table, keys, grouping)
        for level, names in grouping.levels.items():
            groups, values = keys.group(names)
            states = (
                faces.states(groups, len(values)) if faces else _of_images(groups, len(values), outcome, _images(table))
            )
            spans = keys.spans(groups, len(values))
            for group, state, span in zip(values, states, spans, strict=True):
                total.setdefault(GroupKey(level, group), Merger()).add(
                    replace(state, first_ms=span[0], last_ms=span[1])
                )
    return {key: merger.state() for key, merger in total.items()}


class RowKeys:
    """The keys of a table's rows, each read or derived once."""

    def __init__(self, table: pa.Table, partition: Sequence[str | None], rule: KeyRule, time_zone: str) -> None:
        self._table, self._partition, self._rule = table, partition, rule
        self._local = rule if time_zone == rule.timezone else replace(rule, timezone=time_zone)
        self._encoded: dict[str, tuple[Integers, list[str | None]]] = {}
        times = pc.cast(table["captured_at"], pa.int64()).combine_chunks()
        self._dated = np.asarray(times.is_valid())
        self._times: Integers = np.asarray(times.fill_null(0))

    def group(self, names: Sequence[str]) -> tuple[Integers, list[tuple[str | None, ...]]]:
        """The group of each row, ``(rows,)``, as a number for each combination of key values, and those values."""
        numbers = np.zeros(len(self._times), np.int64)
        encoded = [self._encode(name) for name in names]
        for codes, values in encoded:
            _, numbers = np.unique(numbers * (len(values) + 1) + codes, return_inverse=True)
        groups, first = np.unique(numbers, return_index=True)
        found = [tuple(values[codes[row]] for codes, values in encoded) for row in first.tolist()]
        assert len(found) == len(groups)
        return numbers.astype(np.int64), found

    def spans(self, groups: Integers, count: int) -> list[tuple[int | None, int | None]]:
        """Earliest and latest capture time of each group."""
        limits = np.iinfo(np.int64)
        first, last = np.full(count, limits.max), np.full(count, limits.min)
        np.minimum.at(first, groups[self._dated], self._times[self._dated])
        np.maximum.at(last, groups[self._dated], self._times[self._dated])
        pairs = zip(first.tolist(), last.tolist(), strict=True)
        return [(low, high) if low <= high else (None, None) for low, high in pairs]

    def _encode(self, name: str) -> tuple[Integers, list[str | None]]:
        """A key's values, numbered: the number of each row's, ``(rows,)``, and all of them."""
        if name not in self._encoded:
            self._encoded[name] = self._read(name)
        return self._encoded[name]

    def _read(self, name: str) -> tuple[Integers, list[str | None]]:
        rule, rows = self._rule, len(self._times)
        if name in rule.key_names and name not in rule.partition_by:
            column = self._table[name].combine_chunks().dictionary_encode(null_encoding="encode")
            return np.asarray(column.indices).astype(np.int64), column.dictionary.to_pylist()
        if name in rule.key_names or (name in rule.partition_by and self._local is rule):
            return np.zeros(rows, np.int64), [self._partition[rule.partition_by.index(name)]]
        return self._local.derive_all(self._times, self._dated, name)


@dataclass(frozen=True)
class _Faces:
    """What each face adds to the counts.

    Attributes:
        counted: one column for each field of :class:`Counts`, ``(faces, fields)``.
        tallies: one for each field of :class:`Tally`, ``(faces, fields)``.
        scores: probability and its square in fixed point, ``(faces, 2)``.
        bins: of the histogram, ``(faces,)``.
        clusters: the cluster of each face, ``(faces,)``; ``None`` where clusters are not counted.
        names: of the clusters.
    """

    counted: Integers
    tallies: Integers
    scores: Integers
    bins: Integers
    clusters: Integers | None
    names: list[str]

    @classmethod
    def of(cls, table: pa.Table, keys: RowKeys, grouping: Grouping) -> _Faces:
        said = codes_of(table["label"].to_pylist())
        codes, corrected = said, np.zeros(len(said), bool)
        if grouping.corrections:
            codes, corrected = grouping.corrections.apply(table, said)
        worn = _worn(table)
        clusters, values = keys.group(grouping.cluster) if grouping.cluster else (None, [])
        return cls(
            counted=_counted(np.asarray(table["face_index"]) == 0, codes, corrected),
            tallies=np.stack([*_tally(codes), *_tally(said), _others(table, said, grouping)], axis=1).astype(np.int64),
            scores=np.rint(np.stack([worn, worn**2], axis=1) * FIXED_POINT).astype(np.int64),
            bins=np.minimum((worn * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1),
            clusters=clusters,
            names=[json.dumps(value, ensure_ascii=True) for value in values],
        )

    def states(self, groups: Integers, count: int) -> list[State]:
        """The state of each group, without capture times.

        Args:
            groups: the group of each face, ``(faces,)``.
            count: how many groups there are.
        """
        counted, scores = _sums(groups, count, self.counted), _sums(groups, count, self.scores)
        histogram = np.zeros((count, HISTOGRAM_BINS), np.int64)
        np.add.at(histogram, (groups, self.bins), 1)
        faces = np.bincount(groups, minlength=count).tolist()
        clusters = self._clusters(groups, count)
        return [
            State(
                Counts(*counted[group].tolist()),
                Scores(faces[group], total, squares, tuple(histogram[group].tolist())),
                clusters[group],
            )
            for group, (total, squares) in enumerate(scores.tolist())
        ]

    def _clusters(self, groups: Integers, count: int) -> list[dict[str, Tally]]:
        found: list[dict[str, Tally]] = [{} for _ in range(count)]
        # Without clusters, all faces form one, which holds the model's own labels and gives no interval.
        clusters = np.zeros(len(groups), np.int64) if self.clusters is None else self.clusters
        names = self.names or [""]
        pairs, place = np.unique(groups * len(names) + clusters, return_inverse=True)
        for pair, tally in zip(pairs.tolist(), _sums(place, len(pairs), self.tallies).tolist(), strict=True):
            found[pair // len(names)][names[pair % len(names)]] = Tally(*tally)
        return found


def _images(table: pa.Table) -> Integers:
    """How many images each row stands for, ``(rows,)``: a lost stretch of a video stands for all of its frames."""
    # for images without a face, and in tables of an earlier version, which knew no videos
    if "frames" not in table.column_names:
        return np.ones(table.num_rows, np.int64)
    return np.asarray(pc.fill_null(table["frames"], 1)).astype(np.int64)


def _of_images(groups: Integers, count: int, outcome: str, images: Integers) -> list[State]:
    """States of images without faces, all of which ended in the same way."""
    counts = _sums(groups, count, images[:, None])[:, 0].tolist()
    return [State(Counts(**{outcome: count})) for count in counts]


def _counted(first: NDArray[np.bool_], codes: Codes, corrected: NDArray[np.bool_]) -> Integers:
    # An image is counted with its first face.
    labels = [codes == CODES[name] for name in (MASK, NO_MASK, UNCERTAIN, INCORRECT)]
    none = np.zeros(len(codes), bool)
    return np.stack([first, none, none, *labels, corrected], axis=1).astype(np.int64)


def _tally(codes: Codes) -> list[NDArray[np.bool_]]:
    return [codes >= 0, (codes == CODES[MASK]) | (codes == CODES[INCORRECT]), codes == CODES[MASK]]


def _others(table: pa.Table, codes: Codes, grouping: Grouping) -> NDArray[np.bool_]:
    """Faces that another model than the run's labelled with a class."""
    if not grouping.model:
        return np.zeros(len(codes), bool)
    others = np.asarray(pc.fill_null(pc.not_equal(table["model_id"], grouping.model), True)).astype(bool)
    labelled: NDArray[np.bool_] = (codes >= 0) & others
    return labelled


def _worn(table: pa.Table) -> NDArray[np.float64]:
    """Probability that there is a mask, ``(faces,)``; NaN counts as 0."""
    mask, incorrect = (np.asarray(pc.fill_null(table[name], 0.0)).astype(np.float64) for name in _PROBABILITIES)
    return np.clip(np.nan_to_num(mask + incorrect), 0.0, 1.0)


def _sums(places: Integers, count: int, rows: Integers) -> Integers:
    """Sums of rows by group, ``(count, columns)``, in integers, so that they are exact in any order."""
    total = np.zeros((count, rows.shape[1]), np.int64)
    np.add.at(total, places, rows)
    return total
