"""Open video files: which ones are read, and what their headers say.

Videos are decoded by FFmpeg through PyAV (the extra ``maskdet[video]``), which is imported when the first one is
opened. Only the containers of :data:`CONTAINERS` are read, and only the file itself: playlists and scripts that name
other files are refused.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from maskdet.errors import ConfigError, FailureCode, ImageFault
from maskdet.video.cut_short import is_cut_short
from maskdet.video.sampling import microseconds

PACKAGE = "av"
EXTRA = "maskdet[video]"

# FFmpeg's names of demuxers. HLS, DASH, concat and image sequences are left out: they open other files.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf"
_COUNTED = ("avi",)
_OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}

_OPEN_TIMEOUT_S, _READ_TIMEOUT_S = 10.0, 10.0  # of streams
_DURATION_TAGS = ("DURATION", "DURATION-eng")
_APPLE_CREATION = "com.apple.quicktime.creationdate"
_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)  # clocks that were never set show 1904, 1970 or 1980


class VideoInfo(NamedTuple):
    """What a video's header says."""

    duration_us: int
    """Length of the video stream in microseconds; 0 if the file does not say."""
    created_at_ms: int | None
    """When the recording began, in milliseconds since the epoch; ``None`` if the file does not say."""
    width_px: int
    """As coded, not rotated."""
    height_px: int
    is_cuttable: bool
    """Whether decoding can begin in the middle with the same times: AVI counts times from where decoding begins."""


class OpenVideo(NamedTuple):
    """An open file and the stream in it that holds the video."""

    container: Any
    stream: Any

    def time_us(self, pts: int) -> int:
        """A presentation time of the stream, in microseconds since its start."""
        return microseconds(pts - (self.stream.start_time or 0), Fraction(self.stream.time_base))


def is_installed() -> bool:
    """Whether the decoder is installed on this machine."""
    try:
        metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True


def decoder_identity() -> str:
    """Name and version of the decoder.

    Raises:
        ConfigError: it is not installed.
    """
    _load()
    return f"{PACKAGE} {metadata.version(PACKAGE)}"


@contextlib.contextmanager
def open_video(source: str | BinaryIO) -> Iterator[OpenVideo]:
    """Open a video file.

    Args:
        source: an absolute path of this machine, or a stream that can seek.

    Raises:
        ImageFault: it is not a video of a kind that is read, holds no moving pictures, or has no decoder here.
        ConfigError: PyAV is not installed.
    """
    av = _load()
    name = f"file:{source}" if isinstance(source, str) else source
    try:
        container = av.open(name, options=_OPTIONS, metadata_errors="replace")
    except av.error.FFmpegError as error:
        if isinstance(error, (av.error.FileNotFoundError, av.error.PermissionError)):
            raise ImageFault(FailureCode.NOT_FOUND, "nothing can be read at the URI") from None
        raise _fault_of(source) from None
    with container:
        yield OpenVideo(container, _video_stream(container))


@contextlib.contextmanager
def open_stream(uri: str, kind: str) -> Iterator[OpenVideo]:
    """Open a live source: a camera's stream, a camera of this machine, or a film played as one.

    Args:
        uri: of the stream; a device such as ``/dev/video0``; or a path.
        kind: ``stream``, ``device`` or ``file``.

    Raises:
        ImageFault: a film is not a video that can be read.
        ConfigError: PyAV is not installed.
        OSError: the stream or device cannot be opened.
        Exception: one of :func:`decoder_errors`: it broke off, or was silent for ten seconds.
    """
    if kind == "file":
        with open_video(str(Path(uri).absolute())) as video:
            yield video
        return
    av = _load()
    options = {"rtsp_transport": "tcp", "fflags": "nobuffer"} if uri.startswith("rtsp") else {}
    container = av.open(
        uri, format="v4l2" if kind == "device" else None, options=options, timeout=(_OPEN_TIMEOUT_S, _READ_TIMEOUT_S)
    )
    with container:
        yield OpenVideo(container, _video_stream(container))


def read_info(video: OpenVideo) -> VideoInfo:
    """What an open video's header says."""
    stream = video.stream
    created = _created_at(video.container.metadata) or _created_at(stream.metadata)
    context = stream.codec_context
    cuttable = video.container.format.name not in _COUNTED
    return VideoInfo(_duration_us(video), created, context.width, context.height, cuttable)


def _fault_of(source: str | BinaryIO) -> ImageFault:
    """Why an existing file cannot be opened."""
    with open(source, "rb") if isinstance(source, str) else contextlib.nullcontext(source) as stream:
        if stream.seek(0, io.SEEK_END) == 0:
            return ImageFault(FailureCode.EMPTY_FILE, "the file has no bytes")
        if is_cut_short(stream):
            message = (
                "an MP4 or MOV that is cut short, or still being written: its index (moov) is missing or not whole"
            )
            return ImageFault(FailureCode.TRUNCATED_VIDEO, message)
    return ImageFault(FailureCode.NOT_A_VIDEO, "no video container that is read here")


def decoder_errors() -> tuple[type[Exception], ...]:
    """The errors that the decoder raises; only some are :class:`OSError` or :class:`ValueError` as well."""
    error: type[Exception] = _load().error.FFmpegError
    return (error,)


def _load() -> Any:
    try:
        import av
        import av.error
    except ImportError as error:
        raise ConfigError(
            "a video among the inputs",
            "the package av where videos are read",
            "none",
            f"Run there: pip install '{EXTRA}'; or leave videos out: --set video.mode=skip.",
        ) from error
    return av


def _video_stream(container: Any) -> Any:
    """The stream that players show: the best of those that are not cover pictures."""
    pictures = [one for one in container.streams.video if "attached_pic" not in str(one.disposition)]
    if not pictures:
        raise ImageFault(FailureCode.NO_PICTURES, "the file holds no video stream, as of sound alone")
    best = container.streams.best("video")
    stream = best if best in pictures else pictures[0]
    context = stream.codec_context
    if context is None or not context.width or not context.height:
        raise ImageFault(FailureCode.UNSUPPORTED_FORMAT, "a video stream that no decoder here takes")
    return stream


def _duration_us(video: OpenVideo) -> int:
    """Length of the stream: its own, else the container's where it holds nothing else."""
    stream, container = video.stream, video.container
    if stream.duration:
        return max(0, microseconds(stream.duration, Fraction(stream.time_base)))
    for tag in _DURATION_TAGS:
        if (told := _clock_us(stream.metadata.get(tag, ""))) is not None:
            return told
    if container.duration and len(container.streams) == 1:
        return max(0, int(container.duration))
    return 0


def _clock_us(text: str) -> int | None:
    """Microseconds in ``HH:MM:SS.fraction``, the form of Matroska's tags."""
    try:
        hours, minutes, seconds = text.strip("\0 ").split(":")
        exact = (int(hours) * 60 + int(minutes)) * 60 + Fraction(seconds)
    except ValueError:
        return None
    return int(exact * 1_000_000)


def _created_at(tags: dict[str, str]) -> int | None:
    for tag in (_APPLE_CREATION, "creation_time"):
        with contextlib.suppress(ValueError):
            told = datetime.fromisoformat(tags.get(tag, ""))
            moment = told if told.tzinfo is not None else told.replace(tzinfo=UTC)
            if moment >= _EARLIEST:
                return round(moment.timestamp() * 1000)
    return None
