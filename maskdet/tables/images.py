"""What a shard remembers of its images: the references it was made from, how each ended, and with which model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from maskdet.inputs.references import ImageRef
from maskdet.schemas import images_schema
from maskdet.tables.results import FrameCounts
from maskdet.video.sampling import Segment

SCORED, NO_FACE_FOUND = "scored", "no_face"
_NOT_OF_REFERENCES = ("outcome", "scored_by", "frames")


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


def refs_of(images: pa.Table, slot: str) -> list[ImageRef]:
    """The references of a shard's images, marked as those of an earlier run."""
    rows = images.select([name for name in images.column_names if name not in _NOT_OF_REFERENCES]).to_pylist()
    return [
        ImageRef(
            row["image_uri"],
            row["size_bytes"],
            row["version"],
            tuple(row["keys"]),
            row["captured_at_ms"],
            None if row["problem_code"] is None else (row["problem_code"], row["problem_message"]),
            earlier=slot,
            gone=True,
            segment=_segment(row.get("segment")),  # an earlier version did not write it
        )
        for row in rows
    ]


def endings_of(images: pa.Table) -> dict[str, Ending]:
    """How each image of a shard ended, by the name of its reference."""
    return {ref.name: ending for ref, ending in zip(refs_of(images, ""), _endings(images), strict=True)}


def _endings(images: pa.Table) -> list[Ending]:
    outcomes, scored_by = (images[name].to_pylist() for name in ("outcome", "scored_by"))
    frames = images["frames"].to_pylist() if "frames" in images.column_names else [None] * images.num_rows
    return [
        Ending(outcome, by, None if counted is None else FrameCounts(**counted))
        for outcome, by, counted in zip(outcomes, scored_by, frames, strict=True)
    ]


def _segment(row: dict[str, Any] | None) -> Segment | None:
    if row is None:
        return None
    numerator, denominator = row["rate"]
    return Segment(**{**row, "rate": (numerator, denominator)})
