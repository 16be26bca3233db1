"""The video frames of rows, read again from their sources: the very pixels that were scored, or none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from maskdet.errors import ImageFault
from maskdet.images.codecs import Pixels
from maskdet.inputs.folders import extension_of
from maskdet.inputs.videos import decoded_frames
from maskdet.report.marks import CHANGED, why_missing
from maskdet.sections import VideoSettings
from maskdet.tables.run_records import RunRecord
from maskdet.video.frames import LostStretch
from maskdet.video.reading import is_installed
from maskdet.video.sampling import MICROSECONDS, OPEN_END, Grid, Segment

NO_DECODER = "a frame of a video, which takes maskdet[video] to show"

# Times this close together are decoded in one go; decoding forward is cheaper than going back to a keyframe.
_NEAR_US = 5 * MICROSECONDS
# Frames of these formats are counted from the start, so they are decoded from there.
_COUNTED = frozenset({"avi"})
EVERY = Segment(0, OPEN_END, "all", (1, 1))
"""All frames of a video."""

Frame = Image.Image | str
"""RGB, upright, or why there is none."""


def is_frame(row: Mapping[str, Any]) -> bool:
    """Whether a row describes a frame of a video."""
    return row.get("frame_time_us") is not None


def frames_of(run: RunRecord) -> Segment:
    """Which frames of a whole video a run used."""
    video = VideoSettings.model_validate(run.settings.get("video", {}))
    grid = Grid.of(video.frames_per_second)
    return Segment(0, OPEN_END, video.frames, (grid.numerator, grid.denominator))


def read_frames(
    uri: str, wanted: Mapping[int, str], looked: Segment = EVERY, decoder_seconds: float | None = None
) -> Iterator[tuple[int, Frame]]:
    """Decode some frames of a video one by one.

    Args:
        uri: of the video.
        wanted: time in microseconds since the video's start → SHA-256 of the frame's pixels, both as in the rows.
        looked: which frames the run used.
        decoder_seconds: time that a decoder in its own process may take for a frame; ``None``: decode in this process.

    Yields:
        Each time once, with its frame or the reason why there is none.
    """
    if not is_installed():
        yield from ((time_us, NO_DECODER) for time_us in wanted)
        return
    missing, reason = set(wanted), CHANGED
    try:
        for start_us, end_us in _stretches(sorted(wanted)):
            for event in decoded_frames(uri, _segment(uri, looked, start_us, end_us), decoder_seconds):
                if isinstance(event, LostStretch) or event.time_us not in wanted:
                    continue
                missing.discard(event.time_us)
                yield event.time_us, _checked(event.pixels, wanted[event.time_us])
    except ImageFault as fault:
        reason = why_missing(fault.code)
    yield from ((time_us, reason) for time_us in sorted(missing))


def _segment(uri: str, looked: Segment, start_us: int, end_us: int) -> Segment:
    """The part of a video that contains frames."""
    if extension_of(uri) in _COUNTED:
        return looked._replace(end_us=end_us + 1)
    # Rows of an earlier run may have another rate. Keyframes alone have no neighbours that complete them.
    frames = "keyframes" if looked.frames == "keyframes" else "all"
    return looked._replace(start_us=start_us, end_us=end_us + 1, frames=frames)


def _stretches(times_us: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Groups of times that are decoded together: the first and the last of each."""
    start = end = times_us[0]
    for time_us in times_us[1:]:
        if time_us - end > _NEAR_US:
            yield start, end
            start = time_us
        end = time_us
    yield start, end


def _checked(pixels: Pixels | ImageFault, sha256: str) -> Frame:
    if isinstance(pixels, ImageFault):
        return why_missing(pixels.code)
    same = hashlib.sha256(pixels.data).hexdigest() == sha256
    return Image.fromarray(pixels) if same else CHANGED
