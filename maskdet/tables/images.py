"""What a shard remembers of its images: the references it was made of, how each ended, and by which model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from maskdet.inputs.references import ImageRef
from maskdet.schemas import images_schema

SCORED, NO_FACE_FOUND = "scored", "no_face"


class Ending(NamedTuple):
    """How an image ended in an earlier run."""

    outcome: str
    """``scored``, ``no_face``, or a failure's code."""
    scored_by: str
    """Fingerprint of the model and the settings that its rows depend on."""


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
        "outcome": [endings[ref.uri].outcome for ref in refs],
        "scored_by": [endings[ref.uri].scored_by for ref in refs],
    }
    return pa.table(columns, schema=images_schema())


def refs_of(images: pa.Table, slot: str) -> list[ImageRef]:
    """The references of a shard's images, marked as an earlier run's."""
    rows = images.select([name for name in images.column_names if name not in ("outcome", "scored_by")]).to_pylist()
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
        )
        for row in rows
    ]


def endings_of(images: pa.Table) -> dict[str, Ending]:
    """How each image of a shard ended, by URI."""
    columns = (images[name].to_pylist() for name in ("image_uri", "outcome", "scored_by"))
    return {uri: Ending(outcome, scored_by) for uri, outcome, scored_by in zip(*columns, strict=True)}
