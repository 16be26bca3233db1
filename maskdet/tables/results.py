"""The rows of one shard, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class ShardResult:
    """The rows of one shard, and what they cost.

    Attributes:
        predictions: one row per face, of :func:`maskdet.schemas.predictions_schema`.
        failures: one row per failed image, of :func:`maskdet.schemas.failures_schema`.
        no_face: one row per image in which no face was found, of :func:`maskdet.schemas.no_face_schema`.
        size_bytes: bytes read.
        seconds: thread-seconds by stage.
    """

    predictions: pa.Table
    failures: pa.Table
    no_face: pa.Table
    size_bytes: int = 0
    seconds: StageSeconds = field(default_factory=StageSeconds)
