"""Decode videos in processes of their own: a decoder that crashes or hangs costs the segment that it was decoding."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from maskdet.children import CHILDREN, Answer, DiedError, Limits, TaskError
from maskdet.errors import FailureCode, ImageFault
from maskdet.images.isolated import died
from maskdet.process_limits import MIB
from maskdet.video.frames import LostStretch
from maskdet.video.pictures import DecodedFrame
from maskdet.video.reading import VideoInfo
from maskdet.video.sampling import Segment

_TASKS = "maskdet.video.decoding_task"
# Address space: a decoder keeps up to 17 pictures, each of which takes 100 MB in 8K.
_MEMORY_BYTES = 4096 * MIB
_MOST_FRAME_BYTES = 1024 * MIB


def decode_apart(source: str | BinaryIO, segment: Segment, seconds: float) -> Iterator[DecodedFrame | LostStretch]:
    """As :func:`maskdet.video.pictures.decode_segment`, in a process of its own.

    Args:
        source: an absolute path of this machine, or a stream that can seek, which is read in this process.
        segment: which part of the video, and which frames.
        seconds: processor time that a packet may take.

    Raises:
        ImageFault: it is not a video that can be read, or its decoder crashed or reached its limit.
        ConfigError: no process can be started.
    """
    for answer in _ask("decode_task", source, {"segment": segment._asdict()}, seconds):
        yield _event(answer)


def read_info_apart(source: str | BinaryIO, seconds: float) -> VideoInfo:
    """As :func:`maskdet.video.reading.read_info`, in a process of its own.

    Raises:
        ImageFault, ConfigError: as :func:`decode_apart`.
    """
    try:
        (answer,) = _ask("info_task", source, {}, seconds)
        return VideoInfo(*answer.header["info"])
    except (ValueError, KeyError, TypeError):
        raise _no_answer() from None


def _ask(task: str, source: str | BinaryIO, argument: Mapping[str, Any], seconds: float) -> Iterator[Answer]:
    where = {"path": source} if isinstance(source, str) else {"size_bytes": source.seek(0, io.SEEK_END)}
    read = None if isinstance(source, str) else _reader(source)
    limits = Limits(seconds, _MEMORY_BYTES, _MOST_FRAME_BYTES)
    try:
        yield from CHILDREN.ask(f"{_TASKS}:{task}", {**where, **argument}, b"", limits, read=read)
    except DiedError as error:
        raise died(error, "decoder of the video", seconds) from None
    except TaskError as error:
        raise ImageFault(FailureCode.CORRUPT_VIDEO, f"decoding raised {error}") from None


def _reader(stream: BinaryIO) -> Callable[[int, int], bytes]:
    def read(place: int, size: int) -> bytes:
        stream.seek(place)
        return stream.read(size)

    return read


def _event(answer: Answer) -> DecodedFrame | LostStretch:
    header = answer.header
    try:
        if "lost" in header:
            start_us, end_us, frames = (int(value) for value in header["lost"])
            return LostStretch(start_us, end_us, frames)
        time_us = int(header["time_us"])
        if "unreadable" in header:
            code, message = header["unreadable"]
            return DecodedFrame(time_us, ImageFault(FailureCode(code), str(message)))
        rows, columns = int(header["rows"]), int(header["columns"])
        return DecodedFrame(time_us, np.frombuffer(answer.data, np.uint8).reshape(rows, columns, 3))
    except (ValueError, KeyError, TypeError):
        raise _no_answer() from None


def _no_answer() -> ImageFault:
    return ImageFault(FailureCode.DECODER_CRASHED, "the decoder of the video gave no answer that can be read")
