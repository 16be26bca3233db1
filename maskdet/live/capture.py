"""A live source: frames are decoded as they arrive, and only the newest waits to be scored.

Decoding goes on in a thread of its own, so that a stream never waits for the model. A frame that is replaced before
it was taken is dropped, and counted. A stream that ends or breaks is opened again, after 0.5 s, then twice as long
each time up to 30 s; a film ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from maskdet.errors import ConfigError, ImageFault
from maskdet.video.reading import decoder_errors, open_stream

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "udp", "tcp")


class Arrived(NamedTuple):
    """A frame as it arrived."""

    picture: Any
    """As decoded (``av.VideoFrame``)."""
    aspect: Fraction | None
    """Width of a pixel over its height, if the stream says so."""
    time_us: int | None
    """When it is to be shown, in microseconds since the stream's start, if the stream says so."""
    arrived_s: float
    """When it was decoded, by the clock."""


class Counts(NamedTuple):
    """What became of the frames so far."""

    decoded: int = 0
    dropped: int = 0
    """Frames that were replaced by a newer one before they were taken."""
    reconnects: int = 0


class Source(NamedTuple):
    """What is watched."""

    uri: str
    kind: str
    """``stream``, ``device`` or ``file``."""

    @classmethod
    def of(cls, text: str) -> Source:
        """The source that a text names: ``rtsp://…``, ``/dev/video0`` or a film.

        Raises:
            ConfigError: it names none, or one with a scheme that cannot be watched.
        """
        scheme = urlsplit(text).scheme
        if scheme in STREAM_SCHEMES:
            return cls(text, "stream")
        if text.startswith("/dev/"):
            return cls(text, "device")
        if scheme and "://" in text:
            expected = f"a file, /dev/videoN, or a stream: {', '.join(f'{one}://' for one in STREAM_SCHEMES)}"
            raise ConfigError("SOURCE", expected, shown_source(text), "Copy what lies in a store, or score it.")
        return cls(text, "file")

    def __str__(self) -> str:
        return shown_source(self.uri)


def shown_source(uri: str) -> str:
    """A source without the password that it may contain."""
    parts = urlsplit(uri)
    if not parts.hostname or "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class Capture:
    """Decodes a source in a thread, and hands out its newest frame.

    Args:
        source: what to watch.
        frames: opens the source and gives its frames; default: by PyAV, films at their own pace.
        told: called with the reason why a stream is opened again, and after how many seconds.
        clock: tells the time in seconds.
        wait: waits some seconds, or until told to stop.
    """

    def __init__(
        self,
        source: Source,
        frames: Callable[[Source], Iterator[Arrived]] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] | None = None,
        told: Callable[[str, float], None] = lambda reason, seconds: None,
    ) -> None:
        self._source = source
        self._clock = clock
        self._told = told
        self._stop = threading.Event()
        self._wait = wait or (lambda seconds: self._stop.wait(seconds) and None)
        self._frames = frames or self._decode
        self._changed = threading.Condition()
        self._newest: Arrived | None = None
        self._counts = Counts()
        self._ended = False
        self.fault: BaseException | None = None
        """Why the source can no longer be watched, unless it simply ended."""
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    @property
    def counts(self) -> Counts:
        """What became of the frames so far."""
        return self._counts

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def take(self, timeout_s: float) -> Arrived | None:
        """The newest frame that was not taken yet; ``None`` if none arrived in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended, timeout_s)
            newest, self._newest = self._newest, None
            return newest

    @property
    def ended(self) -> bool:
        """Whether no more frames will come."""
        return self._ended and self._newest is None

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        try:
            while not self._stop.is_set():
                seen = self._counts.decoded
                broken = self._follow()
                if self._source.kind == "file":
                    self.fault = broken
                    return
                wait_s = FIRST_WAIT_S if self._counts.decoded > seen else min(2 * wait_s, LONGEST_WAIT_S)
                if not self._stop.is_set():
                    self._told(_reason(broken), wait_s)
                    self._wait(wait_s)
                    self._counts = self._counts._replace(reconnects=self._counts.reconnects + 1)
        except BaseException as error:
            self.fault = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _follow(self) -> Exception | None:
        """Take frames until the source ends, breaks, or is no longer wanted."""
        try:
            for frame in self._frames(self._source):
                if self._stop.is_set():
                    return None
                with self._changed:
                    dropped = self._counts.dropped + (self._newest is not None)
                    self._counts = Counts(self._counts.decoded + 1, dropped, self._counts.reconnects)
                    self._newest = frame
                    self._changed.notify_all()
        except ConfigError:
            raise
        except (ImageFault, OSError, ValueError) as error:
            return error.with_traceback(None)  # which holds the last frame and its decoder
        except decoder_errors() as error:
            return error.with_traceback(None)  # which holds the last frame and its decoder
        return None

    def _decode(self, source: Source) -> Iterator[Arrived]:
        started = self._clock()
        with open_stream(source.uri, source.kind) as video:
            for picture in video.container.decode(video.stream):
                time_us = None if picture.pts is None else video.time_us(picture.pts)
                if source.kind == "file" and time_us is not None:
                    early_s = time_us / 1e6 - (self._clock() - started)
                    if early_s > 0:
                        self._wait(early_s)
                yield Arrived(picture, video.stream.sample_aspect_ratio, time_us, self._clock())


def _reason(error: Exception | None) -> str:
    """Why a stream is opened again, without its address, which may contain a password."""
    if error is None:
        return "the stream ended"
    if isinstance(error, ImageFault):
        return str(error)
    told = str(getattr(error, "strerror", None) or type(error).__name__)
    return "it said nothing for too long" if told == "Immediate exit requested" else told
