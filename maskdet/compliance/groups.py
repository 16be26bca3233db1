"""Compliance: mergeable counts, and the rates and intervals they give.

Counts of shards add up, in any order and grouping, to the counts of a run; rates are computed once, from the sums.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from maskdet.compliance.intervals import wilson_interval
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import INCORRECT, LABELS, TWO_CLASSES, ClassNames
from maskdet.schemas import compliance_schema, key_value


class GroupKey(NamedTuple):
    """A group of a level: one value for each of the level's keys."""

    level: str
    values: tuple[str | None, ...]

    def encode(self) -> str:
        """A string that orders and compares as the key does, on every runner."""
        return json.dumps(self, ensure_ascii=True)

    @classmethod
    def decode(cls, text: str) -> GroupKey:
        """The key that :meth:`encode` made a string of."""
        level, values = json.loads(text)
        return cls(level, tuple(values))


class Counts(NamedTuple):
    """What is counted in a group."""

    images_scored: int = 0
    images_no_face: int = 0
    images_failed: int = 0
    faces_mask: int = 0
    faces_no_mask: int = 0
    faces_uncertain: int = 0
    faces_incorrect: int = 0

    @property
    def images_listed(self) -> int:
        """Images of the group, however they ended."""
        return self.images_scored + self.images_no_face + self.images_failed

    @property
    def faces(self) -> int:
        """Faces scored."""
        return self.faces_labelled + self.faces_uncertain

    @property
    def faces_labelled(self) -> int:
        """Faces of which the label is a class: those that rates are shares of."""
        return self.faces_mask + self.faces_incorrect + self.faces_no_mask

    @property
    def faces_any_mask(self) -> int:
        """Faces with a mask, worn correctly or not."""
        return self.faces_mask + self.faces_incorrect


def merge_counts(counts: Iterable[Counts]) -> Counts:
    """Add up counts."""
    return Counts(*(sum(column) for column in zip(Counts(), *counts, strict=True)))


def count_groups(
    predictions: pa.Table,
    failures: pa.Table,
    no_face: pa.Table,
    partition: Sequence[str | None],
    rule: KeyRule,
    levels: Mapping[str, Sequence[str]],
) -> dict[GroupKey, Counts]:
    """Count one shard's rows in every group of every level.

    Args:
        predictions: at least ``face_index``, ``label``, ``captured_at`` and the key columns.
        failures: at least ``captured_at``, ``frames`` and the key columns.
        no_face: the same of images without a face.
        partition: the shard's values of the partition keys.
        rule: the run's keys.
        levels: level name → key names.
    """
    total: dict[GroupKey, Counts] = {}
    for level, names in levels.items():
        for table, count in ((predictions, _of_faces), (failures, _of_failures), (no_face, _of_no_face)):
            for values, counts in _count_level(table, partition, rule, names, count):
                key = GroupKey(level, values)
                total[key] = merge_counts([total.get(key, Counts()), counts])
    return total


def _count_level(
    table: pa.Table,
    partition: Sequence[str | None],
    rule: KeyRule,
    names: Sequence[str],
    count: Callable[[pa.Table], dict[str, pa.ChunkedArray]],
) -> list[tuple[tuple[str | None, ...], Counts]]:
    if table.num_rows == 0:
        return []
    keys = {name: _key_column(table, partition, rule, name) for name in names}
    counted = count(table)
    grouped = pa.table({**keys, **counted}).group_by(list(keys)).aggregate([(name, "sum") for name in counted])
    return [
        (tuple(row[name] for name in names), Counts(**{name: int(row[f"{name}_sum"]) for name in counted}))
        for row in grouped.to_pylist()
    ]


def _of_faces(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    # An image's first face stands for the image.
    columns = {"images_scored": pc.equal(table["face_index"], 0)}
    columns.update({f"faces_{name}": pc.equal(table["label"], name) for name in LABELS})
    return {name: pc.cast(column, pa.int64()) for name, column in columns.items()}


def _of_failures(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    if "frames" not in table.column_names:  # an earlier version knew no videos
        return {"images_failed": pa.repeat(1, table.num_rows)}
    return {"images_failed": pc.coalesce(table["frames"], pa.scalar(1, pa.int64()))}


def _of_no_face(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {"images_no_face": pa.repeat(1, table.num_rows)}


def _key_column(
    table: pa.Table, partition: Sequence[str | None], rule: KeyRule, name: str
) -> pa.Array | pa.ChunkedArray:
    if name in rule.partition_by:
        return pa.array([partition[rule.partition_by.index(name)]] * table.num_rows, pa.string())
    if name in rule.key_names:
        return table[name]
    times = pc.cast(table["captured_at"], pa.int64()).to_pylist()
    derived = {time: rule.derive(time, name) for time in set(times)}
    return pa.array([derived[time] for time in times], pa.string())


def compliance_table(
    groups: Mapping[tuple[str | None, ...], Counts],
    names: Sequence[str],
    all_names: Sequence[str],
    confidence: float,
    class_names: ClassNames = TWO_CLASSES,
) -> pa.Table:
    """The compliance table of one level.

    Args:
        groups: values of the level's keys → counts.
        names: the level's keys.
        all_names: keys of all levels, which are the table's columns; those the level lacks are null.
        confidence: nominal coverage of the intervals.
        class_names: the model's; what it cannot tell is null.

    Returns:
        One row per group, sorted by key.
    """
    ordered = sorted(groups.items(), key=lambda item: tuple((value is not None, value or "") for value in item[0]))
    rows = []
    for values, counts in ordered:
        keys = dict(zip(names, values, strict=True))
        columns = {name: key_value(name, keys.get(name)) for name in all_names}
        rows.append({**columns, **_measures(counts, confidence, class_names)})
    return pa.Table.from_pylist(rows, schema=compliance_schema(all_names))


def key_union(levels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Keys of all levels, each once, in the order of first use."""
    return tuple(dict.fromkeys(name for names in levels.values() for name in names))


def _measures(counts: Counts, confidence: float, class_names: ClassNames) -> dict[str, object]:
    tells_incorrect = INCORRECT in class_names
    return {
        "images_listed": counts.images_listed,
        "images_scored": counts.images_scored,
        "images_no_face": counts.images_no_face,
        "images_failed": counts.images_failed,
        "faces": counts.faces,
        "faces_mask": counts.faces_mask,
        # Rows of an earlier model, which told, may be among them.
        "faces_incorrect": counts.faces_incorrect if tells_incorrect or counts.faces_incorrect else None,
        "faces_no_mask": counts.faces_no_mask,
        "faces_uncertain": counts.faces_uncertain,
        **_rate("mask_rate", counts.faces_any_mask, counts, confidence),
        **_rate("any_mask_rate", counts.faces_any_mask, counts, confidence),
        **_rate("correct_rate", counts.faces_mask if tells_incorrect else None, counts, confidence),
        "rate_method": "raw",
        "interval_method": "wilson",
        "interval_confidence": confidence,
    }


def _rate(name: str, faces: int | None, counts: Counts, confidence: float) -> dict[str, float | None]:
    """A share of the labelled faces, and its interval."""
    total = 0 if faces is None else counts.faces_labelled
    interval = wilson_interval(faces or 0, total, confidence)
    return {
        name: (faces or 0) / total if total else None,
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
    }
