"""What a shard remembers of its images: the references it was made from, how each ended, and with which model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from maskdet.inputs import columns
from maskdet.inputs.references import ImageRef
from maskdet.schemas import images_schema
from maskdet.tables.results import FrameCounts

SCORED, NO_FACE_FOUND = "scored", "no_face"
REFERENCE_COLUMNS = tuple(name for name in images_schema().names if name not in ("outcome", "scored_by", "frames"))
"""Those of the images table that say what the references were, and not what became of them."""


class Ending(NamedTuple):
    """How an image ended in an earlier run."""

    outcome: str
    """``scored``, ``no_face``, or a failure's code."""
    scored_by: str
    """Fingerprint of the model and the settings that its rows depend on."""
    frames: FrameCounts | None = None
    """Counts of a segment of a video."""


def images_table(refs: Sequence[ImageRef], endings: Mapping[str, Ending]) -> pa.Table:
    """The table of a shard's images, in the order of its references."""
    problems = [ref.problem or (None, None) for ref in refs]
    columns = {
        "image_uri": [ref.uri for ref in refs],
        "size_bytes": [ref.size_bytes for ref in refs],
        "version": [ref.version for ref in refs],
        "keys": [list(ref.keys) for ref in refs],
        "captured_at_ms": [ref.captured_at_ms for ref in refs],
        "problem_code": [code for code, _ in problems],
        "problem_message": [message for _, message in problems],
        "outcome": [endings[ref.name].outcome for ref in refs],
        "scored_by": [endings[ref.name].scored_by for ref in refs],
        "segment": [None if ref.segment is None else ref.segment._asdict() for ref in refs],
        "frames": [None if (frames := endings[ref.name].frames) is None else frames._asdict() for ref in refs],
    }
    return pa.table(columns, schema=images_schema())


def columns_of(images: pa.Table, slot: str) -> pa.RecordBatch:
    """The references of a shard's images as columns, marked as those of an earlier run."""
    count = images.num_rows
    told = {
        **{name: images[name] for name in images.column_names if name in REFERENCE_COLUMNS},
        "uri": images["image_uri"],
        "earlier": pa.repeat(slot, count),
        "gone": pa.repeat(True, count),
        "location": pa.nulls(count, pa.string()),
        "absent": pa.repeat(False, count),
        "replaces": pa.repeat("", count),
    }
    # An earlier version did not write segments.
    arrays = [told[field.name] if field.name in told else pa.nulls(count, field.type) for field in columns.COLUMNS]
    batches = pa.table(arrays, schema=columns.COLUMNS).combine_chunks().to_batches()
    return batches[0] if batches else columns.columns_of([])


def refs_of(images: pa.Table, slot: str) -> list[ImageRef]:
    """The references of a shard's images, marked as those of an earlier run."""
    return list(map(ImageRef._make, columns.rows_of(columns_of(images, slot))))


def endings_of(images: pa.Table) -> dict[str, Ending]:
    """How each image of a shard ended, by the name of its reference."""
    uris = images["image_uri"].to_pylist()
    segments = images["segment"] if "segment" in images.column_names else pa.nulls(len(uris))
    return dict(zip(columns.names(uris, segments), _endings(images), strict=True))


def _endings(images: pa.Table) -> list[Ending]:
    outcomes, scored_by = (images[name].to_pylist() for name in ("outcome", "scored_by"))
    counted = images["frames"] if "frames" in images.column_names else pa.nulls(images.num_rows)
    if counted.null_count == len(counted):
        return list(map(Ending, outcomes, scored_by))
    frames = counted.to_pylist()
    return [
        Ending(outcome, by, None if counted is None else FrameCounts(**counted))
        for outcome, by, counted in zip(outcomes, scored_by, frames, strict=True)
    ]
