"""What changed between two outputs, or two periods of one: first what was covered, then the rates."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from maskdet.answer_schemas import changes_schema
from maskdet.compliance.change import Adjustment, Difference, adjust, difference
from maskdet.compliance.groups import Grouping
from maskdet.compliance.state import Counts, GroupKey, State
from maskdet.config import GROUPED_KEYS
from maskdet.errors import ConfigError, OutputError
from maskdet.tables.corrections import read_corrections
from maskdet.tables.counting import Period, count_output
from maskdet.tables.disclosure import refuse_small_groups
from maskdet.tables.layout import Layout
from maskdet.tables.metadata import Metadata
from maskdet.tables.run_records import RunRecord, read_run
from maskdet.tables.snapshot import Snapshot, current_snapshot

ALL, BY = "all", "by"


@dataclass(frozen=True)
class Question:
    """The question asked.

    Attributes:
        by: keys whose groups are compared, as of ``compliance.levels``.
        rate: of :data:`maskdet.compliance.change.RATES`.
        cluster: keys that all faces of a cluster share; default: the run's, without ``date`` where periods are
            compared, so that a camera at an hour of the day is one cluster on both sides.
        confidence: nominal coverage of intervals.
        adjustment: how p values are corrected for the number of groups.
        time_zone: of days and hours; default: the run's.
        metadata: more keys, derived from one of the outputs'.
        small_groups: whether the reader may see what ``privacy`` hides or rounds in the tables.
    """

    by: tuple[str, ...] = ()
    rate: str = "any_mask_rate"
    cluster: tuple[str, ...] | None = None
    confidence: float = 0.95
    adjustment: Adjustment = "holm"
    time_zone: str | None = None
    metadata: Metadata = Metadata()
    small_groups: bool = False


@dataclass(frozen=True)
class Side:
    """One side of the comparison.

    Attributes:
        name: what people call it.
        layout: its output.
        period: its days; ``None``: all images, including those without a capture time.
    """

    name: str
    layout: Layout
    period: Period | None = None

    @functools.cached_property
    def snapshot(self) -> Snapshot:
        """The current set of its tables."""
        return current_snapshot(self.layout)

    @functools.cached_property
    def run(self) -> RunRecord:
        """The run that left it."""
        return read_run(self.layout, self.snapshot.run_id)

    @property
    def compliance(self) -> Mapping[str, Any]:
        """How the run grouped faces, where its record says so."""
        found: Mapping[str, Any] = self.run.settings.get("compliance", {})
        return found

    @property
    def time_zone(self) -> str:
        """The time zone of the run's days and hours."""
        return self.compliance.get("time_zone") or self.snapshot.dataset.timezone


@dataclass(frozen=True)
class Changes:
    """The answer.

    Attributes:
        before: one side.
        after: the other.
        counts: images and faces of each side, all groups together.
        values: each key that the source gives → its values on each side.
        models: names and thresholds of the two sides' models.
        cluster: keys that all faces of a cluster share.
        time_zone: of days and hours.
        table: one row for all groups together, then one per group; see
            :func:`maskdet.answer_schemas.changes_schema`.
    """

    before: Side
    after: Side
    counts: tuple[Counts, Counts]
    values: Mapping[str, tuple[frozenset[str | None], frozenset[str | None]]]
    models: tuple[str, str]
    cluster: tuple[str, ...]
    time_zone: str
    table: pa.Table

    @property
    def same_model(self) -> bool:
        """Whether a difference of rates comes from the faces, not from models or thresholds."""
        return self.models[0] == self.models[1]


def compare(before: Side, after: Side, question: Question) -> Changes:
    """What changed from one side to the other.

    Raises:
        ConfigError: a key is missing from one of the outputs, a period has no images, or one output's model cannot tell
            what the rate needs.
        SourceError: one of them holds no tables.
        StorageError: a table cannot be read.
    """
    refuse_small_groups((before.run, after.run), allowed=question.small_groups)
    keys, shared = _shared_keys(before, after)
    cluster = _cluster(before, after, question, keys)
    known = tuple(name for name in dict.fromkeys((*shared, *GROUPED_KEYS)) if name not in changes_schema().names)
    # "date" and "hour" are not columns of the tables, but keys of every output.
    metadata = question.metadata.beside((*keys, *shared, *GROUPED_KEYS, *changes_schema().names))
    counted_by = metadata.counted(question.by)
    for flag, names in (("--by", counted_by), ("--cluster", cluster)):
        for name in names:
            if name not in known:
                raise ConfigError(flag, f"keys of both outputs, of {list(known)}", name, "See maskdet inspect.")
    _refuse_untold(before, after, question.rate)
    zone = question.time_zone or after.time_zone
    levels = {ALL: (), BY: counted_by, **{f"key {name}": (name,) for name in keys}}
    counted = [
        count_output(s.layout, s.snapshot, Grouping(levels, cluster, zone, read_corrections(s.layout)), s.period)
        for s in (before, after)
    ]
    counted = [metadata.regroup(side, BY, question.by) for side in counted]
    whole = [side.get(GroupKey(ALL, ()), State()) for side in counted]
    for flag, side, state in zip(("--before", "--after"), (before, after), whole, strict=True):
        if side.period is not None and not state.counts.images_listed:
            remedy = f"Days are those of {zone}; images without a capture time are of none. See maskdet report."
            raise ConfigError(flag, f"days of which {side.layout.root} has images", str(side.period), remedy)
    return Changes(
        before=before,
        after=after,
        counts=(whole[0].counts, whole[1].counts),
        values={name: (_values(counted[0], f"key {name}"), _values(counted[1], f"key {name}")) for name in keys},
        models=(_model(before.run), _model(after.run)),
        cluster=cluster,
        time_zone=zone,
        table=_table(counted, dataclasses.replace(question, cluster=cluster)),
    )


def _shared_keys(before: Side, after: Side) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys common to both sides that say where images are from, and all common keys."""
    first, second = before.snapshot.dataset, after.snapshot.dataset
    shared = tuple(name for name in first.key_names if name in second.key_names)
    return tuple(name for name in shared if name in first.place_names and name in second.place_names), shared


def _cluster(before: Side, after: Side, question: Question, keys: Sequence[str]) -> tuple[str, ...]:
    if question.cluster is not None:
        return question.cluster
    named = after.compliance.get("cluster")
    found = tuple(named) if named is not None else (*keys, "date", "hour")
    if before.period is not None or after.period is not None:
        found = tuple(name for name in found if name != "date")
    return found


def _refuse_untold(before: Side, after: Side, rate: str) -> None:
    untold = [side.name for side in (before, after) if rate == "correct_rate" and "incorrect" not in side.run.classes]
    if untold:
        expected = "models that tell masks worn incorrectly from others"
        raise ConfigError(
            "--rate correct_rate", expected, f"a model of two classes in {untold[0]}", "Compare any_mask_rate."
        )


def _values(counted: Mapping[GroupKey, State], level: str) -> frozenset[str | None]:
    return frozenset(key.values[0] for key in counted if key.level == level)


def _model(run: RunRecord) -> str:
    try:
        return f"{run.model['id']} ({run.decision})"
    except OutputError:  # the record of an older version has no thresholds as numbers
        return str(run.model["id"])


def _table(counted: Sequence[Mapping[GroupKey, State]], question: Question) -> pa.Table:
    groups = sorted(
        {key.values for side in counted for key in side if key.level == BY},
        key=lambda values: tuple((value is not None, value or "") for value in values),
    )
    rows = [_row({}, "all", [side.get(GroupKey(ALL, ()), State()) for side in counted], question)]
    for values in groups if question.by else ():
        keys = dict(zip(question.by, values, strict=True))
        rows.append(_row(keys, "group", [side.get(GroupKey(BY, values), State()) for side in counted], question))
    adjusted = adjust([row["p"] for row in rows[1:]], question.adjustment)
    for row, p in zip(rows[1:], adjusted, strict=True):
        row["p_adjusted"] = p
    return pa.Table.from_pylist(rows, schema=changes_schema(question.by))


def _row(keys: Mapping[str, str | None], scope: str, sides: Sequence[State], question: Question) -> dict[str, Any]:
    clustered = bool(question.cluster)
    found = difference(sides[0], sides[1], question.rate, question.confidence, clustered=clustered)
    row: dict[str, Any] = {**keys, "scope": scope, "rate": question.rate, "p_adjusted": None}
    for name, state in zip(("before", "after"), sides, strict=True):
        counts = state.counts
        readable = counts.images_scored + counts.images_no_face
        row[f"images_{name}"], row[f"images_failed_{name}"] = counts.images_listed, counts.images_failed
        row[f"faces_labelled_{name}"] = counts.faces_labelled
        row[f"no_face_share_{name}"] = counts.images_no_face / readable if readable else None
    return {**row, **_columns(found), "adjustment": question.adjustment, "confidence": question.confidence}


def _columns(found: Difference) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    naive_low, naive_high = found.naive or (None, None)
    return {
        "rate_before": found.before,
        "rate_after": found.after,
        "difference": found.difference,
        "difference_low": low,
        "difference_high": high,
        "difference_naive_low": naive_low,
        "difference_naive_high": naive_high,
        "p": found.p,
        "pairs": found.pairs,
        "method": found.method,
    }
