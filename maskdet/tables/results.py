"""The rows of a shard, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa


@dataclass(frozen=True)
class StageSeconds:
    """Thread-seconds that a shard spent in each stage."""

    fetch: float = 0.0
    decode: float = 0.0
    detect: float = 0.0
    infer: float = 0.0
    write: float = 0.0

    def __add__(self, other: StageSeconds) -> StageSeconds:
        return StageSeconds(**{stage: spent + getattr(other, stage) for stage, spent in vars(self).items()})


class FrameCounts(NamedTuple):
    """Frames of a segment of a video by how they ended."""

    scored: int = 0
    no_face: int = 0
    failed: int = 0


@dataclass(frozen=True)
class ShardResult:
    """The rows of a shard, and what they cost.

    Attributes:
        predictions: one row per face, of :func:`maskdet.schemas.predictions_schema`.
        failures: one row per failed image, of :func:`maskdet.schemas.failures_schema`.
        no_face: one row per image in which no face was found, of :func:`maskdet.schemas.no_face_schema`.
        size_bytes: bytes read.
        seconds: thread-seconds by stage.
        segments: frames of each segment of a video, by the name of its reference, and the failure recorded for the
            segment, if any.
    """

    predictions: pa.Table
    failures: pa.Table
    no_face: pa.Table
    size_bytes: int = 0
    seconds: StageSeconds = field(default_factory=StageSeconds)
    segments: Mapping[str, tuple[FrameCounts, str | None]] = field(default_factory=dict)
