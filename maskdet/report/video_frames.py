"""Frames of videos that rows are about, read again from their sources: the very pixels that were scored, or none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from maskdet.errors import FailureCode, ImageFault
from maskdet.inputs.videos import reading_video
from maskdet.report.marks import CHANGED, GONE
from maskdet.sections import VideoSettings
from maskdet.tables.manifest import RunManifest
from maskdet.video.frames import SampledFrame, read_segment
from maskdet.video.pictures import upright_rgb
from maskdet.video.reading import is_installed, read_info
from maskdet.video.sampling import MICROSECONDS, Segment

NO_DECODER = "a frame of a video, which takes maskdet[video] to show"

# Times no further apart are decoded in one go; decoding forward is cheaper than going back to a keyframe.
_NEAR_US = 5 * MICROSECONDS

Frame = Image.Image | str
"""RGB, upright; or why there is none."""


def is_frame(row: Mapping[str, Any]) -> bool:
    """Whether a row is about a frame of a video."""
    return row.get("frame_time_us") is not None


def frames_mode(run: RunManifest) -> str:
    """Which frames a run looked at."""
    return VideoSettings.model_validate(run.settings.get("video", {})).frames


def read_frames(uri: str, wanted: Mapping[int, str], mode: str) -> Iterator[tuple[int, Frame]]:
    """Decode some frames of a video, one after the other.

    Args:
        uri: of the video.
        wanted: time in microseconds since the video's start → SHA-256 of the frame's pixels, as rows have both.
        mode: which frames the run looked at (:data:`maskdet.video.sampling.FramesMode`).

    Yields:
        Each time once, with its frame or why there is none.
    """
    if not is_installed():
        yield from ((time_us, NO_DECODER) for time_us in wanted)
        return
    missing, reason = set(wanted), CHANGED
    try:
        for start_us, end_us in _stretches(sorted(wanted)):
            for time_us, frame in _decoded(uri, start_us, end_us, wanted, mode):
                missing.discard(time_us)
                yield time_us, frame
    except ImageFault as fault:
        reason = GONE if fault.code is FailureCode.NOT_FOUND else f"unreadable: {fault.code}"
    yield from ((time_us, reason) for time_us in sorted(missing))


def _stretches(times_us: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Times in groups that are decoded together: the first of each, and the last."""
    start = end = times_us[0]
    for time_us in times_us[1:]:
        if time_us - end > _NEAR_US:
            yield start, end
            start = time_us
        end = time_us
    yield start, end


def _decoded(uri: str, start_us: int, end_us: int, wanted: Mapping[int, str], mode: str) -> Iterator[tuple[int, Frame]]:
    with reading_video(uri) as video:
        # What counts its frames from the start, as AVI does, is decoded from there.
        begin_us = start_us if read_info(video).is_cuttable else 0
        # Neighbours complete interlaced frames; keyframes alone have none, and had none when they were scored.
        frames = "keyframes" if mode == "keyframes" else "all"
        segment = Segment(begin_us, end_us + 1, frames, (1, 1))
        for event in read_segment(video, segment):
            if not isinstance(event, SampledFrame) or event.time_us not in wanted:
                continue
            pixels = upright_rgb(event, video.stream.sample_aspect_ratio)
            same = hashlib.sha256(pixels.data).hexdigest() == wanted[event.time_us]
            yield event.time_us, Image.fromarray(pixels) if same else CHANGED
