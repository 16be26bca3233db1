"""Cuts listed videos into segments. Each is opened once, where it is listed, for its duration and capture time.

A segment is a reference of its own, so that workers share a long video, and only the changed part of a changed video is
scored again. Where the capture time is known and the date or the hour is a partition key, segments also end at midnight
or on the hour in the run's time zone, so that a segment lies in one partition. Where a video is cut changes no row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import BinaryIO
from zoneinfo import ZoneInfo

from maskdet import storage
from maskdet.errors import FailureCode, ImageFault, StorageError, lasting_fault
from maskdet.inputs.folders import extension_of
from maskdet.inputs.listing import ListTask
from maskdet.inputs.pseudonyms import told
from maskdet.inputs.references import ImageRef, RefBatch
from maskdet.inputs.sharding import KeyRule
from maskdet.resolved import ResolvedVideo
from maskdet.sections import VideoSettings
from maskdet.video.frames import LostStretch
from maskdet.video.isolated import decode_apart, read_info_apart
from maskdet.video.pictures import DecodedFrame, decode_segment
from maskdet.video.reading import OpenVideo, VideoInfo, decoder_identity, is_installed, open_video, read_info
from maskdet.video.sampling import MICROSECONDS, UNCUT, Grid, Segment, cut, unreadable

VIDEOS, SEGMENTS = "videos", "segments"
"""Names of counts: of videos opened, and of segments that they were cut into."""

_OPENING_THREADS = 16  # most of it is waiting for a disk or a store
_MOST_MIDNIGHTS = 4000
_HOUR = timedelta(hours=1)


def video_extensions(settings: VideoSettings | None, images: Sequence[str]) -> frozenset[str]:
    """Extensions of files that are to be read as videos; none if there are no settings, or they skip videos."""
    if settings is None or settings.mode != "score":
        return frozenset()
    taken = {extension.lower().lstrip(".") for extension in images}
    return frozenset(extension.lower().lstrip(".") for extension in settings.extensions) - taken


def resolve_mode(settings: VideoSettings) -> ResolvedVideo:
    """Settings with ``auto`` resolved: to ``score`` where the decoder is installed, else to ``skip``.

    Raises:
        ConfigError: videos are to be scored, and the decoder is not installed.
    """
    if settings.mode == "score":
        decoder_identity()
    mode = settings.mode if settings.mode != "auto" else "score" if is_installed() else "skip"
    return ResolvedVideo(**dict(settings) | {"mode": mode})


def refuse_unreadable(tasks: Iterable[ListTask], settings: VideoSettings) -> None:
    """Refuse inputs that name videos where the decoder is missing, rather than skip them.

    Raises:
        ConfigError: an input is a video or a glob of videos, and the decoder is not installed.
    """
    if settings.mode == "auto" and not is_installed():
        named = (task.uri for task in tasks if task.kind == "glob")
        if any(extension_of(uri) in settings.extensions for uri in named):
            decoder_identity()


def cut_videos(
    batch: RefBatch, settings: VideoSettings, rule: KeyRule, decoder_seconds: float | None = None
) -> tuple[list[ImageRef], dict[str, int]]:
    """Open the videos of a batch and replace them by their segments.

    Args:
        batch: images, and videos that have not been opened.
        settings: which frames are scored, and how long a segment is.
        rule: the run's keys.
        decoder_seconds: limit for reading a header in a process of its own; ``None``: read it in this process.

    Returns:
        References of images and segments, and how many :data:`VIDEOS` and :data:`SEGMENTS` there are.

    Raises:
        ConfigError: there is a video, and its decoder is not installed.
    """
    images = [ref for ref in batch.refs if ref.segment is None]
    videos = [ref for ref in batch.refs if ref.segment == UNCUT]
    if not videos:
        return images, {}
    decoder = decoder_identity()
    with ThreadPoolExecutor(min(_OPENING_THREADS, len(videos)), thread_name_prefix="open") as pool:
        found = list(pool.map(lambda ref: _segments_of(ref, settings, rule, decoder, decoder_seconds), videos))
    segments = [segment for one in found for segment in one]
    return [*images, *segments], {VIDEOS: len(videos), SEGMENTS: len(segments)}


@contextlib.contextmanager
def reading_video(uri: str) -> Iterator[OpenVideo]:
    """Open a video of any storage in this process; see :func:`_reading`.

    Raises:
        ImageFault: it is missing, forbidden, empty, or not a video that can be read.
        ConfigError: the decoder is not installed.
        StorageError: its store does not answer.
    """
    with _reading(uri) as source, open_video(source) as video:
        yield video


def decoded_frames(uri: str, segment: Segment, decoder_seconds: float | None) -> Iterator[DecodedFrame | LostStretch]:
    """The frames of a segment that are to be scored, and the stretches of it that are lost.

    Args:
        uri: of a video of any storage.
        segment: a part of it.
        decoder_seconds: limit per frame for a decoder in a process of its own; ``None``: decode in this process.

    Raises:
        ImageFault, ConfigError, StorageError: as :func:`reading_video`.
        ImageFault: the decoder's process crashed or reached its limit.
    """
    if decoder_seconds is None:
        with reading_video(uri) as video:
            yield from decode_segment(video, segment)
        return
    decoder_identity()  # raises an error that says what to install
    with _reading(uri) as source:
        yield from decode_apart(source, segment, decoder_seconds)


def video_info(uri: str, decoder_seconds: float | None) -> VideoInfo:
    """What the header of a video of any storage says.

    Args:
        uri: of the video.
        decoder_seconds: limit for reading it in a process of its own; ``None``: read it in this process.

    Raises:
        ImageFault, ConfigError, StorageError: as :func:`decoded_frames`.
    """
    if decoder_seconds is None:
        with reading_video(uri) as video:
            return read_info(video)
    with _reading(uri) as source:
        return read_info_apart(source, decoder_seconds)


@contextlib.contextmanager
def _reading(uri: str) -> Iterator[str | BinaryIO]:
    """A local file's path, or a stream that reads an object of a store by ranges."""
    try:
        if storage.stat(uri).size_bytes == 0:
            raise ImageFault(FailureCode.EMPTY_FILE, "the file has no bytes")
        with _source(uri) as source:
            yield source
    except StorageError as error:
        if (fault := lasting_fault(error)) is None:
            raise
        raise fault from None


@contextlib.contextmanager
def _source(uri: str) -> Iterator[str | BinaryIO]:
    with storage.open_binary(uri) as stream:  # also for local paths, since it refuses what is not a file
        yield str(storage.local_path(uri).absolute()) if storage.is_local(uri) else stream


def _segments_of(
    ref: ImageRef, settings: VideoSettings, rule: KeyRule, decoder: str, decoder_seconds: float | None
) -> list[ImageRef]:
    if ref.problem is not None:
        return [ref._replace(segment=unreadable())]
    try:
        info = video_info(ref.place, decoder_seconds)
    except ImageFault as fault:
        return [ref._replace(segment=unreadable(), problem=(fault.code.value, fault.message))]
    except StorageError as error:
        return [
            ref._replace(
                segment=unreadable(),
                problem=(FailureCode.READ_ERROR.value, told(ref, FailureCode.READ_ERROR, str(error))),
            )
        ]
    if ref.captured_at_ms is None:
        ref = ref._replace(captured_at_ms=info.created_at_ms)
    segments = _cut(info, settings, _cuts_us(ref, info, rule), decoder)
    return [_part(ref, segment, len(segments)) for segment in segments]


def _cut(info: VideoInfo, settings: VideoSettings, at_us: Sequence[int], decoder: str) -> list[Segment]:
    grid, duration_us = Grid.of(settings.frames_per_second), info.duration_us
    limit_us = round(settings.max_seconds * MICROSECONDS) if settings.max_seconds is not None else None
    read_us = duration_us if limit_us is None else min(duration_us, limit_us)
    segment_us = round(settings.segment_seconds * MICROSECONDS) if info.is_cuttable else max(read_us, 1)
    segments = cut(read_us, grid, settings.frames, segment_us, at_us if info.is_cuttable else (), decoder)
    if limit_us is not None:
        segments[-1] = segments[-1]._replace(end_us=grid.point_us(grid.points_before(limit_us)))
    return segments


def _part(ref: ImageRef, segment: Segment, parts: int) -> ImageRef:
    captured_at_ms = None if ref.captured_at_ms is None else ref.captured_at_ms + segment.start_us // 1000
    size_bytes = ref.size_bytes if ref.size_bytes < 0 else ref.size_bytes // parts
    return ref._replace(segment=segment, captured_at_ms=captured_at_ms, size_bytes=size_bytes)


def _cuts_us(ref: ImageRef, info: VideoInfo, rule: KeyRule) -> list[int]:
    """When a new hour or day begins within a video, if that is a partition key; in microseconds."""
    if ref.captured_at_ms is None or not info.duration_us:
        return []
    zone = ZoneInfo(rule.timezone)
    start_ms, end_ms = ref.captured_at_ms, ref.captured_at_ms + info.duration_us // 1000
    begins = datetime.fromtimestamp(start_ms / 1000, zone)
    if "hour" in rule.partition_by:
        first, step = begins.replace(minute=0, second=0, microsecond=0), _HOUR
    elif "date" in rule.partition_by:
        first, step = begins.replace(hour=0, minute=0, second=0, microsecond=0), timedelta(days=1)
    else:
        return []
    # Steps in local time, since a day may have 23 or 25 hours.
    moments = (round((first + step * number).timestamp() * 1000) for number in range(1, _MOST_MIDNIGHTS))
    cuts = []
    for moment_ms in moments:
        if moment_ms >= end_ms:
            break
        if moment_ms > start_ms:
            cuts.append((moment_ms - start_ms) * 1000)
    return cuts
