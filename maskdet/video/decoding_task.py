"""What a process that decodes videos does; its modules are imported before its limits are set."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, cast

import numpy as np

from maskdet.children import Talk
from maskdet.errors import ImageFault
from maskdet.video.frames import LostStretch
from maskdet.video.pictures import decode_segment
from maskdet.video.reading import OpenVideo, decoder_identity, open_video, read_info
from maskdet.video.sampling import Segment

decoder_identity()  # loads the decoder


class _AskedFor(io.RawIOBase):
    """A file that the asking process reads."""

    def __init__(self, talk: Talk, size_bytes: int) -> None:
        self._talk, self._size_bytes, self._place = talk, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size_bytes}[whence]
        self._place = max(0, start + offset)
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size_bytes - self._place)
        found = self._talk.read(self._place, left if size < 0 else min(size, left)) if left else b""
        self._place += len(found)
        return found


def decode_task(argument: Mapping[str, Any], data: memoryview, talk: Talk) -> None:
    """The task of :func:`maskdet.video.isolated.decode_apart`."""
    told = argument["segment"]
    segment = Segment(**{**told, "rate": tuple(told["rate"])})
    with _opened(argument, talk) as video:
        for event in decode_segment(video, segment, talk.alive):
            if isinstance(event, LostStretch):
                talk.send({"lost": [event.start_us, event.end_us, event.frames]})
            elif isinstance(event.pixels, ImageFault):
                talk.send({"time_us": event.time_us, "unreadable": [event.pixels.code.value, event.pixels.message]})
            else:
                rows, columns, _ = event.pixels.shape
                pixels = np.ascontiguousarray(event.pixels)
                talk.send({"time_us": event.time_us, "rows": rows, "columns": columns}, pixels.data)


def info_task(argument: Mapping[str, Any], data: memoryview, talk: Talk) -> None:
    """The task of :func:`maskdet.video.isolated.read_info_apart`."""
    with _opened(argument, talk) as video:
        talk.send({"info": list(read_info(video))})


@contextlib.contextmanager
def _opened(argument: Mapping[str, Any], talk: Talk) -> Iterator[OpenVideo]:
    path = argument.get("path")
    source = path if path is not None else cast(BinaryIO, _AskedFor(talk, argument["size_bytes"]))
    with open_video(source) as video:
        yield video
