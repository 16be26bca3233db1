"""Counts of videos and their frames: of segments in receipts, and of whole videos in run records.

A run accounts for videos in two equations: videos listed = scored + failed, where a video is scored if a frame of it
was; and frames sampled = scored + no face + failed, where a stretch that cannot be decoded counts as the frames that
would have been sampled in it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from maskdet.inputs.references import ImageRef
from maskdet.tables.images import NO_FACE_FOUND, SCORED, Ending
from maskdet.tables.results import FrameCounts


class SegmentCounts(BaseModel):
    """Segments of videos in a shard, and their frames, by how they ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scored: int = 0
    no_face: int = 0
    failed: dict[str, int] = {}
    """Failed segments, by code."""
    frames_scored: int = 0
    frames_no_face: int = 0
    frames_failed: int = 0

    @property
    def segments(self) -> int:
        """How many there are in total."""
        return self.scored + self.no_face + sum(self.failed.values())

    @classmethod
    def of(cls, endings: Iterable[Ending]) -> SegmentCounts | None:
        """Count the segments among some endings; ``None`` if there are none."""
        outcomes, frames = Counter[str](), FrameCounts()
        for ending in endings:
            if ending.frames is not None:
                outcomes[ending.outcome] += 1
                frames = FrameCounts(*(one + more for one, more in zip(frames, ending.frames, strict=True)))
        if not outcomes:
            return None
        scored, no_face = outcomes.pop(SCORED, 0), outcomes.pop(NO_FACE_FOUND, 0)
        return cls(
            scored=scored,
            no_face=no_face,
            failed=dict(sorted(outcomes.items())),
            frames_scored=frames.scored,
            frames_no_face=frames.no_face,
            frames_failed=frames.failed,
        )

    @classmethod
    def sum(cls, parts: Iterable[SegmentCounts | None]) -> SegmentCounts:
        """The sum of several counts."""
        total, failed = cls(), Counter[str]()
        for part in parts:
            if part is not None:
                numbers = {name: getattr(total, name) + getattr(part, name) for name in _NUMBERS}
                failed.update(part.failed)
                total = cls(**numbers, failed=dict(sorted(failed.items())))
        return total

    def minus(self, other: SegmentCounts) -> SegmentCounts:
        """What is left without some of them."""
        failed = Counter(self.failed)
        failed.subtract(other.failed)
        numbers = {name: getattr(self, name) - getattr(other, name) for name in _NUMBERS}
        return SegmentCounts(**numbers, failed={code: count for code, count in sorted(failed.items()) if count})


_NUMBERS = ("scored", "no_face", "frames_scored", "frames_no_face", "frames_failed")


class VideoCounts(BaseModel):
    """Videos of a run and their frames: listed = scored + failed, frames = scored + no_face + failed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listed: int = 0
    scored: int = 0
    """Videos of which a frame could be scored."""
    failed: int = 0
    segments: int = 0
    frames: int = 0
    """Frames sampled, and those that would have been sampled in lost stretches."""
    frames_scored: int = 0
    """Frames with at least one scored face."""
    frames_no_face: int = 0
    frames_failed: int = 0

    @classmethod
    def of(cls, listed: int, seen: Mapping[str, bool], counts: SegmentCounts) -> VideoCounts:
        """The counts of a run.

        Args:
            listed: videos, whether they could be opened or not.
            seen: for each video with segments, by its mark, whether a frame of it could be scored.
            counts: of its segments.
        """
        frames = counts.frames_scored + counts.frames_no_face + counts.frames_failed
        return cls(
            listed=listed,
            scored=sum(seen.values()),
            failed=len(seen) - sum(seen.values()),
            segments=counts.segments,
            frames=frames,
            frames_scored=counts.frames_scored,
            frames_no_face=counts.frames_no_face,
            frames_failed=counts.frames_failed,
        )


class SeenVideo(NamedTuple):
    """A video of which a shard has segments."""

    mark: str
    """The first digits of the SHA-256 of its URI."""
    listed: bool
    """Whether this run listed it, rather than an earlier one."""
    looked_at: bool
    """Whether a frame of those segments could be scored."""


def videos_of(refs: Iterable[ImageRef], endings: Mapping[str, Ending]) -> tuple[SeenVideo, ...]:
    """The videos to which some references belong as segments."""
    found: dict[str, SeenVideo] = {}
    for ref in refs:
        frames = endings[ref.name].frames if ref.segment is not None else None
        if frames is not None:
            mark = hashlib.sha256(ref.uri.encode()).hexdigest()[:20]
            known = found.get(mark, SeenVideo(mark, False, False))
            looked_at = known.looked_at or frames.scored + frames.no_face > 0
            found[mark] = SeenVideo(mark, known.listed or not ref.gone, looked_at)
    return tuple(found[mark] for mark in sorted(found))


def merge_videos(parts: Iterable[tuple[SeenVideo, ...]], *, listed_only: bool) -> dict[str, bool]:
    """Videos of several shards → whether a frame could be scored in any of them."""
    merged: dict[str, bool] = {}
    for part in parts:
        for video in part:
            if video.listed or not listed_only:
                merged[video.mark] = merged.get(video.mark, False) or video.looked_at
    return merged
