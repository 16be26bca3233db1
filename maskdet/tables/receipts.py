"""Finishes shards: scores a shard or keeps it, writes its tables, and leaves a receipt.

The receipt is written last, so a shard with a receipt is complete; one without is scored again into files of the same
names. Where the current set of tables has the rows of an unchanged image, they are reused: only new and changed images
are read.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, ValidationError

from maskdet import storage
from maskdet.compliance.groups import Grouping, count_groups
from maskdet.compliance.state import GroupKey, State
from maskdet.errors import FailureCode, NotFoundError, OutputError
from maskdet.inputs.earlier import ABSENT, CHANGED, DISPLACED, LOST, REMOVED, UNCHANGED
from maskdet.inputs.references import ImageRef, Shard
from maskdet.inputs.sharding import KeyRule
from maskdet.schemas import conform, failures_schema, no_face_schema, predictions_schema
from maskdet.tables.images import NO_FACE_FOUND, SCORED, Ending, endings_of, images_table
from maskdet.tables.layout import (
    FAILURES,
    IMAGES,
    NO_FACE,
    PREDICTIONS,
    SHARD_TABLES,
    Layout,
    read_version,
    write_version,
)
from maskdet.tables.results import FrameCounts, ShardResult, StageSeconds
from maskdet.tables.videos import SeenVideo, SegmentCounts, videos_of


class Receipt(BaseModel):
    """What is known of a finished shard without opening its tables; every run writes the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slot: str
    shard_id: str
    fingerprint: str
    """Of the model and settings; see :func:`maskdet.scoring.fingerprint.scoring_fingerprint`."""
    images: int
    older: int = 0
    """Images whose rows come from another model or other settings: they are gone, so they cannot be scored again."""
    scored: int
    no_face: int
    failed: dict[str, int]
    """Images that failed, by code."""
    rows: dict[str, int]
    """Number of rows of each table that has any."""
    faces_by_model: dict[str, int] = {}
    """Faces by the model that scored them; empty where an older version wrote the receipt."""
    sha256: dict[str, str] = {}
    """Of each table's file, and of the images table, in which the shard remembers its images."""
    size_bytes: int
    segments: SegmentCounts | None = None
    """Counts of those images that are segments of videos, and of their frames; ``None`` where there are none."""

    def encode(self) -> bytes:
        """The file's content."""
        return (self.model_dump_json(exclude_none=True) + "\n").encode()

    @property
    def retryable(self) -> bool:
        """Whether some images failed in a way that may succeed on another try."""
        return any(FailureCode(code).transient for code in self.failed)


@dataclass(frozen=True)
class Outcomes:
    """Images by how they ended."""

    scored: int = 0
    no_face: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """All of them."""
        return self.scored + self.no_face + sum(self.failed.values())

    @classmethod
    def sum(cls, parts: Iterable[Outcomes]) -> Outcomes:
        """The sum of several."""
        scored, no_face, failed = 0, 0, Counter[str]()
        for part in parts:
            scored, no_face = scored + part.scored, no_face + part.no_face
            failed.update(part.failed)
        return cls(scored, no_face, dict(sorted(failed.items())))

    @classmethod
    def of(cls, outcomes: Iterable[str]) -> Outcomes:
        """Count outcomes, named as in images tables."""
        counts = Counter(outcomes)
        scored, no_face = counts.pop(SCORED, 0), counts.pop(NO_FACE_FOUND, 0)
        return cls(scored, no_face, dict(sorted(counts.items())))


@dataclass(frozen=True)
class ShardReport:
    """What a shard adds to its run: one element of the pipeline.

    Attributes:
        receipt: the shard's counts.
        kept: whether no image had to be read.
        groups: counts of every group of every level.
        seconds: thread-seconds by stage; 0 for a kept shard.
        images_read: how many images were read.
        carried: outcomes of images that this run did not list.
        carried_segments: counts of the segments of videos among those.
        videos: videos that it has segments of.
        turned: how many images with earlier rows had gone missing when they were to be read, by the change they were
            listed as and the one they turned out to be, both of :data:`maskdet.inputs.earlier.CHANGES`.
    """

    receipt: Receipt
    kept: bool
    groups: Mapping[GroupKey, State]
    seconds: StageSeconds = field(default_factory=StageSeconds)
    images_read: int = 0
    carried: Outcomes = field(default_factory=Outcomes)
    carried_segments: SegmentCounts | None = None
    videos: tuple[SeenVideo, ...] = ()
    turned: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Reused:
    """Rows of unchanged images in the current set of tables.

    Attributes:
        tables: their rows in each of the shard's tables, in any order.
        endings: how each image ended, by the name of its reference.
    """

    tables: Mapping[str, pa.Table]
    endings: Mapping[str, Ending]


class Reuse(Protocol):
    """Finds what the current set of tables has for images."""

    def __call__(self, shard: Shard) -> Reused:
        """Rows of images as they are, and of those that are lost."""

    def endings(self, slots: Iterable[str]) -> Mapping[str, Ending]:
        """How the images of earlier shards ended, by the name of their reference."""


@dataclass(frozen=True)
class ShardJob:
    """Everything a worker needs to finish shards, besides the scorer.

    Attributes:
        layout: where the tables go.
        fingerprint: of the model and settings.
        rule: the run's keys.
        grouping: how their rows are counted by group.
        row_group_rows: rows per Parquet row group.
        scored_by: fingerprint of the model and the settings that probabilities depend on.
        reuse: finds rows of earlier runs; default: there are none.
        keeps_absent: whether an image that is missing when it is to be read keeps its earlier rows.
    """

    layout: Layout
    fingerprint: str
    rule: KeyRule
    grouping: Grouping
    row_group_rows: int
    scored_by: str = ""
    reuse: Reuse | None = None
    keeps_absent: bool = True

    def finish(self, shard: Shard, score: Callable[[Shard], ShardResult]) -> ShardReport:
        """Keep the shard if it is finished already; else score what is new in it and write its tables and receipt.

        Args:
            shard: what to finish.
            score: scores a part of it; not called where there is nothing to score.

        Raises:
            OutputError: the current set of tables should hold rows of images that are gone, but they are missing.
            StorageError: the output cannot be read or written.
        """
        return self._kept(shard) or self._made(shard, score)

    def is_finished(self, shard: Shard) -> bool:
        """Whether an earlier run left a receipt that is still valid for the shard."""
        receipt = read_receipt(self.layout, shard.slot)
        return receipt is not None and self._holds(receipt, shard)

    def known_of(self, shard: Shard) -> Reused:
        """The rows that earlier runs left of the images of a shard that is not finished; the others are to be read.

        Raises:
            OutputError: there should be rows of images that are gone, but they are missing.
            StorageError: the output cannot be read.
        """
        return self.reuse(shard) if self.reuse and any(ref.earlier for ref in shard.refs) else Reused({}, {})

    @functools.cached_property
    def schemas(self) -> dict[str, pa.Schema]:
        """The schema of each of a shard's tables."""
        names = self.rule.all_names
        return {
            PREDICTIONS: predictions_schema(names),
            FAILURES: failures_schema(names),
            NO_FACE: no_face_schema(names),
        }

    def _holds(self, receipt: Receipt, shard: Shard) -> bool:
        if receipt.shard_id != shard.shard_id:
            return False
        if all(ref.is_lost for ref in shard.refs):  # nothing could be done about it anyway
            return True
        return receipt.fingerprint == self.fingerprint and not receipt.retryable and not receipt.older

    def _kept(self, shard: Shard) -> ShardReport | None:
        receipt = read_receipt(self.layout, shard.slot)
        if receipt is None or not self._holds(receipt, shard):
            return None
        columns = ["captured_at", *self.rule.all_names]
        wanted = {
            PREDICTIONS: list(dict.fromkeys([*columns, *self.grouping.prediction_columns, "model_id"])),
            FAILURES: [*columns, "frames"],
            NO_FACE: columns,
        }
        tables = {name: self._read(receipt, name, wanted[name]) for name in SHARD_TABLES}
        # Read even where no image is gone: the next run needs it, and nothing else would notice that it is missing.
        images = read_version(self.layout, IMAGES, receipt.slot, receipt.sha256.get(IMAGES, ""))
        if images is None or any(table is None for table in tables.values()):
            return None
        # Written by a version without videos. Making the shard again adds today's columns to its rows: readers of many
        # files need the same columns in all.
        if "segment" not in images.column_names:
            return None
        receipt = receipt.model_copy(update={"faces_by_model": _by_model(tables[PREDICTIONS])})
        report = ShardReport(receipt, True, self._count(shard, tables))
        if receipt.segments is None and not any(ref.gone for ref in shard.refs):
            return report
        return _with_carried(report, shard, endings_of(images))

    def _count(self, shard: Shard, tables: Mapping[str, pa.Table]) -> dict[GroupKey, State]:
        predictions, failures, no_face = (tables[name] for name in SHARD_TABLES)
        return count_groups(predictions, failures, no_face, shard.partition, self.rule, self.grouping)

    def _read(self, receipt: Receipt, name: str, columns: list[str]) -> pa.Table | None:
        """Columns of a finished shard's table; ``None`` if the file is not the one that the receipt names."""
        if not receipt.rows.get(name):
            return self.schemas[name].empty_table().select(columns)
        return read_version(self.layout, name, receipt.slot, receipt.sha256.get(name, ""), columns)

    def _made(self, shard: Shard, score: Callable[[Shard], ShardResult]) -> ShardReport:
        known = self.known_of(shard)
        new = tuple(ref for ref in shard.refs if ref.name not in known.endings)
        result = score(Shard(shard.slot, shard.shard_id, shard.partition, new)) if new else self._nothing()
        started = time.perf_counter()
        result, absent, turned = self._without_absent(shard, new, result)
        known, new = _both(known, absent), tuple(ref for ref in new if ref.name not in absent.endings)
        tables = {name: self._joined(name, table, known) for name, table in _tables(result).items()}
        endings = {ref.name: Ending(SCORED, self.scored_by) for ref in new}
        endings.update(_unscored(tables, self.scored_by))
        endings.update(_of_segments(new, result, self.scored_by))
        endings.update(known.endings)
        size_bytes = result.size_bytes + sum(
            max(ref.size_bytes, 0)
            for ref in shard.refs
            if ref.name in known.endings and endings[ref.name].outcome in (SCORED, NO_FACE_FOUND)
        )
        receipt = self.write(shard, tables, endings, size_bytes)
        seconds = result.seconds + StageSeconds(write=time.perf_counter() - started)
        groups = self._count(shard, tables)
        read = len(new) + len(absent.endings)
        report = ShardReport(receipt, not read, groups, seconds, read, turned=turned)
        return _with_carried(report, shard, endings)

    def _without_absent(
        self, shard: Shard, new: Sequence[ImageRef], result: ShardResult
    ) -> tuple[ShardResult, Reused, Mapping[tuple[str, str], int]]:
        """Separate images that have gone missing from the result.

        Returns:
            The result without failures of images whose earlier rows stay; those rows; and how many images with rows
            had gone missing, by the change they were listed as and the one they turned out to be.
        """
        codes = zip(*(result.failures[name].to_pylist() for name in ("image_uri", "code")), strict=True)
        missing = {uri for uri, code in codes if code == FailureCode.NOT_FOUND}
        refs = [ref for ref in new if ref.uri in missing and (ref.earlier or ref.replaces) and ref.segment is None]
        if not refs or self.reuse is None:
            return result, Reused({}, {}), {}
        lost = tuple(ref._replace(absent=True) for ref in refs if ref.earlier and self.keeps_absent)
        found = self.reuse(Shard(shard.slot, shard.shard_id, shard.partition, lost)) if lost else Reused({}, {})
        endings = {**self.reuse.endings({ref.earlier or ref.replaces for ref in refs}), **found.endings}
        had_rows = {name for name, ending in endings.items() if ending.outcome in (SCORED, NO_FACE_FOUND)}
        turned = Counter(self._turned(ref) for ref in refs if ref.name in had_rows)
        kept = {name: ending for name, ending in found.endings.items() if name in had_rows}
        uris = pa.array(list(kept), pa.string())
        tables = {name: rows.filter(pc.is_in(rows["image_uri"], uris)) for name, rows in found.tables.items()}
        failures = result.failures.filter(pc.invert(pc.is_in(result.failures["image_uri"], uris)))
        return dataclasses.replace(result, failures=failures), Reused(tables, kept), turned

    def _turned(self, ref: ImageRef) -> tuple[str, str]:
        """The change that a missing image with rows was listed as, and the one that it turned out to be."""
        listed = CHANGED if not ref.earlier else DISPLACED if ref.replaces else UNCHANGED
        if not self.keeps_absent:
            return listed, REMOVED
        return listed, ABSENT if ref.earlier else LOST

    def _nothing(self) -> ShardResult:
        return ShardResult(*(self.schemas[name].empty_table() for name in SHARD_TABLES))

    def _joined(self, name: str, table: pa.Table, known: Reused) -> pa.Table:
        """Rows scored now and rows of earlier runs, in the order of the shard's references."""
        if not known.endings:
            return table
        schema = self.schemas[name]
        parts = [part for part in (table, known.tables.get(name)) if part is not None and part.num_rows]
        if not parts:
            return schema.empty_table()
        order = [("image_uri", "ascending"), ("frame_time_us", "ascending")]
        order += [("face_index", "ascending")] if name == PREDICTIONS else []
        # One chunk, as in a table whose images were all scored in this run, because chunks change the file's bytes.
        parts = [conform(part, schema) for part in parts]
        return pa.concat_tables(parts).sort_by(order).combine_chunks().replace_schema_metadata(schema.metadata)

    def _marks(self, shard: Shard) -> dict[str, str]:
        """What a shard's tables carry in their schema metadata."""
        # The whole values, since names of folders may be cut.
        partition = dict(zip(self.rule.partition_by, shard.partition, strict=True))
        return {
            "maskdet.slot": shard.slot,
            "maskdet.shard_id": shard.shard_id,
            "maskdet.fingerprint": self.fingerprint,
            "maskdet.partition": json.dumps(partition, ensure_ascii=False),
        }

    def write(
        self, shard: Shard, tables: Mapping[str, pa.Table], endings: Mapping[str, Ending], size_bytes: int
    ) -> Receipt:
        """Write a shard's tables and its receipt.

        Args:
            shard: the shard.
            tables: its tables.
            endings: how each of its images ended, by the name of its reference.
            size_bytes: total size of its images that could be scored.

        Raises:
            StorageError: the output cannot be written.
        """
        marks = self._marks(shard)
        sha256 = {
            name: write_version(self.layout, name, shard.slot, table, self.row_group_rows, marks)
            for name, table in {**tables, IMAGES: images_table(shard.refs, endings)}.items()
            if table.num_rows
        }
        of_refs = [endings[ref.name] for ref in shard.refs]
        outcomes = Outcomes.of(ending.outcome for ending in of_refs)
        receipt = Receipt(
            slot=shard.slot,
            shard_id=shard.shard_id,
            fingerprint=self.fingerprint,
            images=len(shard.refs),
            older=sum(ending.scored_by != self.scored_by for ending in of_refs),
            scored=outcomes.scored,
            no_face=outcomes.no_face,
            failed=dict(outcomes.failed),
            rows={name: tables[name].num_rows for name in SHARD_TABLES if tables[name].num_rows},
            faces_by_model=_by_model(tables[PREDICTIONS]),
            sha256=sha256,
            size_bytes=size_bytes,
            segments=SegmentCounts.of(of_refs),
        )
        storage.write_bytes(self.layout.receipt(shard.slot), receipt.encode())
        return receipt


def _tables(result: ShardResult) -> dict[str, pa.Table]:
    return {PREDICTIONS: result.predictions, FAILURES: result.failures, NO_FACE: result.no_face}


def _both(one: Reused, other: Reused) -> Reused:
    """Both together; no image is in both."""
    parts = [(name, part.tables[name]) for part in (one, other) for name in part.tables]
    tables = {
        name: pa.concat_tables([table for of, table in parts if of == name], promote_options="default")
        for name in dict(parts)
    }
    return Reused(tables, {**one.endings, **other.endings})


def _by_model(predictions: pa.Table) -> dict[str, int]:
    """Faces by the model that scored them, in the order of models' names."""
    counts = pc.value_counts(predictions["model_id"]).to_pylist()
    return {row["values"]: row["counts"] for row in sorted(counts, key=lambda row: row["values"])}


def faces_by_model(receipts: Iterable[Receipt]) -> dict[str, int]:
    """Faces of some shards by the model that scored them; empty where a shard does not say."""
    total = Counter[str]()
    for receipt in receipts:
        if receipt.rows.get(PREDICTIONS) and not receipt.faces_by_model:
            return {}
        total.update(receipt.faces_by_model)
    return dict(sorted(total.items()))


def _with_carried(report: ShardReport, shard: Shard, endings: Mapping[str, Ending]) -> ShardReport:
    """The report, completed by its videos and by the images that the run did not list."""
    gone = [endings[ref.name] for ref in shard.refs if ref.gone]
    return dataclasses.replace(
        report,
        carried=Outcomes.of(ending.outcome for ending in gone),
        carried_segments=SegmentCounts.of(gone),
        videos=videos_of(shard.refs, endings),
    )


def _of_segments(refs: Sequence[ImageRef], result: ShardResult, scored_by: str) -> dict[str, Ending]:
    """How segments of videos ended; a segment without frames counts as one without faces."""
    endings = {}
    for ref in refs:
        if ref.segment is not None:
            frames, failure = result.segments.get(ref.name, (FrameCounts(), None))
            outcome = failure or (SCORED if frames.scored else NO_FACE_FOUND)
            endings[ref.name] = Ending(outcome, scored_by, frames)
    return endings


def _unscored(tables: Mapping[str, pa.Table], scored_by: str) -> dict[str, Ending]:
    """How images without a scored face ended; :func:`_of_segments` does the same for segments of videos."""
    endings = {uri: Ending(NO_FACE_FOUND, scored_by) for uri in tables[NO_FACE]["image_uri"].to_pylist()}
    failed = (tables[FAILURES][name].to_pylist() for name in ("image_uri", "code"))
    return {**endings, **{uri: Ending(code, scored_by) for uri, code in zip(*failed, strict=True)}}


def read_receipt(layout: Layout, slot: str) -> Receipt | None:
    """The receipt in a slot; ``None`` if it is missing or cannot be read."""
    try:
        return Receipt.model_validate_json(storage.read_bytes(layout.receipt(slot)))
    except (NotFoundError, ValidationError):
        return None


def read_kept(layout: Layout, receipt: Receipt, table: str, columns: list[str] | None = None) -> pa.Table:
    """A table of a finished shard as the last run left it, or its images table.

    Args:
        layout: the output.
        receipt: the shard's.
        table: which one.
        columns: some of its columns; default: all.

    Raises:
        OutputError: its file is missing or damaged.
        StorageError: the output cannot be read.
    """
    sha256 = receipt.sha256.get(table, "")
    found = read_version(layout, table, receipt.slot, sha256, columns)
    if found is None:
        uri = layout.version(table, receipt.slot, sha256)
        raise OutputError(uri, "what the last run left", "a missing or damaged file", "Run maskdet score again first.")
    return found
