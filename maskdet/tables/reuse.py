"""Rows that the current set of tables already has, for images that did not change and images that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from maskdet.errors import FailureCode, OutputError
from maskdet.inputs import columns
from maskdet.inputs.references import ImageRef, Shard
from maskdet.labels import Decision, label_codes, label_names
from maskdet.tables.images import NO_FACE_FOUND, REFERENCE_COLUMNS, SCORED, Ending, columns_of, endings_of
from maskdet.tables.layout import IMAGES, PREDICTIONS, SHARD_TABLES, Layout, read_version
from maskdet.tables.receipts import Receipt, Reused
from maskdet.tables.snapshot import base_snapshot
from maskdet.video.sampling import Segment


@dataclass(frozen=True)
class RowsOfBefore:
    """Finds rows of earlier runs for the shards of this one: a :class:`maskdet.tables.receipts.Reuse`.

    Rows of unchanged images are taken where the same model and settings made them, and labelled anew with this run's
    thresholds; rows of images that are gone, or listed but missing, are taken in any case.

    Attributes:
        layout: the output.
        base_run: the run whose set of tables is the current one.
        scored_by: fingerprint of this run's model and of the settings that probabilities depend on.
        decision: this run's thresholds.
    """

    layout: Layout
    base_run: str
    scored_by: str
    decision: Decision

    def __call__(self, shard: Shard) -> Reused:
        """The rows for a shard.

        Raises:
            OutputError: rows of images that are gone are missing from the current set.
            StorageError: the output cannot be read.
        """
        by_slot: dict[str, list[ImageRef]] = {}
        for ref in shard.refs:
            if ref.earlier:
                by_slot.setdefault(ref.earlier, []).append(ref)
        parts = [part for slot in sorted(by_slot) if (part := self._of_slot(slot, by_slot[slot])) is not None]
        if not parts:
            return Reused({}, {})
        found = {name: [part.tables[name] for part in parts if name in part.tables] for name in SHARD_TABLES}
        # Files of an earlier version lack columns.
        tables = {
            name: pa.concat_tables(of_slots, promote_options="default") for name, of_slots in found.items() if of_slots
        }
        endings = {name: ending for part in parts for name, ending in part.endings.items()}
        if PREDICTIONS in tables:
            all_ours = all(map(self._made_by_us, endings.values()))
            named = (ref for refs in by_slot.values() for ref in refs)
            ours = None if all_ours else [ref for ref in named if self._made_by_us(endings.get(ref.name))]
            tables[PREDICTIONS] = self._relabelled(tables[PREDICTIONS], ours)
        return Reused(tables, endings)

    def endings(self, slots: Iterable[str]) -> dict[str, Ending]:
        """How the images of earlier shards ended, by the name of their reference; nothing of a file that is damaged.

        Raises:
            StorageError: the output cannot be read.
        """
        snapshot, found = base_snapshot(self.layout, self.base_run), {}
        for receipt in map(snapshot.receipt, slots):
            images = None if receipt is None else _read(self.layout, receipt, IMAGES, _of_endings(receipt))
            found.update({} if images is None else endings_of(images))
        return found

    def _of_slot(self, slot: str, refs: Sequence[ImageRef]) -> Reused | None:
        """Rows of one earlier shard; ``None`` if its files are damaged and all its images can be scored again."""
        snapshot = base_snapshot(self.layout, self.base_run)
        receipt = snapshot.receipt(slot)
        images = None if receipt is None else _read(self.layout, receipt, IMAGES, _of_endings(receipt))
        if receipt is None or images is None:
            self._refuse_loss(slot, refs)
            return None
        endings = endings_of(images)
        wanted = [ref for ref in refs if ref.is_lost or self._is_final(endings[ref.name])]
        if not wanted:
            return None
        rows = {}
        for name in SHARD_TABLES:
            table = _read(self.layout, receipt, name) if receipt.rows.get(name) else None
            if table is not None:
                rows[name] = table if len(wanted) == receipt.images else rows_of(table, wanted)
            elif receipt.rows.get(name):
                self._refuse_loss(slot, refs)
                return None
        return Reused(rows, {ref.name: endings[ref.name] for ref in wanted})

    def _is_final(self, ending: Ending) -> bool:
        if ending.scored_by != self.scored_by:
            return False
        return ending.outcome in (SCORED, NO_FACE_FOUND) or not FailureCode(ending.outcome).transient

    def _refuse_loss(self, slot: str, refs: Sequence[ImageRef]) -> None:
        """Refuse to go on where rows are lost that cannot be recreated."""
        lost = [ref.uri for ref in refs if ref.is_lost]
        if lost:
            raise OutputError(
                f"output {self.layout.root}",
                f"the tables of the shard {slot}, for {len(lost)} images that the input no longer has",
                "missing or damaged files",
                "Restore them below _files, or give those rows up: --set tables.on_gone=remove.",
            )

    def _made_by_us(self, ending: Ending | None) -> bool:
        return ending is not None and ending.scored_by == self.scored_by

    def _relabelled(self, predictions: pa.Table, ours: Sequence[ImageRef] | None) -> pa.Table:
        """The rows, labelled with this run's thresholds where its own model gave the probabilities.

        Args:
            predictions: the rows.
            ours: images for which it did; ``None``: for all.
        """
        incorrect = None
        if "probability_incorrect" in predictions.column_names and self.decision.incorrect_from is not None:
            incorrect = predictions["probability_incorrect"].to_numpy()
        codes = label_codes(predictions["probability_mask"].to_numpy(), incorrect, self.decision)
        place = predictions.column_names.index("label")
        labels = pa.chunked_array([pa.array(label_names(codes), pa.string())])
        if ours is not None:
            labels = pc.if_else(belongs(predictions, ours), labels, predictions["label"])
        return predictions.set_column(place, predictions.schema.field("label"), labels)


def rows_of(table: pa.Table, refs: Sequence[ImageRef]) -> pa.Table:
    """The rows of some images and segments of videos.

    Args:
        table: one of a shard's tables.
        refs: images and segments.
    """
    return table.filter(belongs(table, refs))


def belongs(table: pa.Table, refs: Sequence[ImageRef]) -> pa.ChunkedArray:
    """Which rows belong to some images and segments of videos: one boolean per row."""
    images = pa.array([ref.uri for ref in refs if ref.segment is None], pa.string())
    found = pc.is_in(table["image_uri"], value_set=images)
    spans: dict[str, list[Segment]] = {}
    for ref in refs:
        if ref.segment is not None:
            spans.setdefault(ref.uri, []).append(ref.segment)
    if not spans:
        return found
    is_video = pc.is_in(table["image_uri"], value_set=pa.array(list(spans), pa.string())).to_pylist()
    rows = zip(
        found.to_pylist(), is_video, table["image_uri"].to_pylist(), table["frame_time_us"].to_pylist(), strict=True
    )
    return pa.chunked_array(
        [[known or (video and _lies_in(spans[uri], time)) for known, video, uri, time in rows]], pa.bool_()
    )


def _lies_in(segments: Sequence[Segment], time_us: int | None) -> bool:
    """Whether a row belongs to one of some segments; one without a time is of a video that could not be opened."""
    return any(time_us is None or segment.holds(time_us) for segment in segments)


def read_columns(layout: Layout, shards: Iterable[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
    """The images of earlier shards, as columns of references marked as gone; as absent, too, if nothing was there.

    Args:
        layout: the output.
        shards: slot and SHA-256 of what the shard remembers of its images.

    Raises:
        OutputError: a file is missing or damaged.
        StorageError: the output cannot be read.
    """
    for slot, sha256 in shards:
        images = read_version(layout, IMAGES, slot, sha256, [*REFERENCE_COLUMNS, "outcome"])
        if images is None:
            raise OutputError(
                layout.version(IMAGES, slot, sha256),
                "what an earlier run left",
                "a missing or damaged file",
                "Restore it, or begin the tables anew with --overwrite.",
            )
        was_absent = pc.equal(images["outcome"], FailureCode.NOT_FOUND.value).combine_chunks()
        yield columns.replaced(columns_of(images, slot), {"absent": was_absent})


def _of_endings(receipt: Receipt) -> list[str]:
    """Columns of what a shard remembers of its images that say how they ended."""
    of_videos = [] if receipt.segments is None else ["segment", "frames"]
    return ["image_uri", "outcome", "scored_by", *of_videos]


def _read(layout: Layout, receipt: Receipt, table: str, columns: list[str] | None = None) -> pa.Table | None:
    found = read_version(layout, table, receipt.slot, receipt.sha256.get(table, ""), columns)
    return None if found is None else found.replace_schema_metadata(None)
