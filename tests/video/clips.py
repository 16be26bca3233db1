"""Films for tests: frames that encode their own number, and faces that move along known lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

BITS = 8
NUMBERED_SIZE = (160, 96)


def numbered(number: int) -> np.ndarray:
    """A picture whose columns are the bits of a number, black or white; a red corner shows which way is up."""
    width, height = NUMBERED_SIZE
    picture = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        picture[:, bit * width // BITS : (bit + 1) * width // BITS] = 255 * (number >> (BITS - 1 - bit) & 1)
    picture[:24, :24] = (255, 0, 0)
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number in a picture of :func:`numbered`."""
    height, width = picture.shape[:2]
    row = picture[height * 3 // 4]
    bits = [int(row[(2 * bit + 1) * width // (2 * BITS)].mean() > 127) for bit in range(BITS)]
    return int("".join(map(str, bits)), 2)


def film(
    path: Path,
    pictures: Iterator[np.ndarray] | Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    rate: int = 25,
    pixels: str = "yuv420p",
    gop: int = 25,
    times: Callable[[int], int] | None = None,
    options: dict[str, str] | None = None,
    prepare: Callable[[object], None] = lambda stream: None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write a film.

    Args:
        path: where to; its extension chooses the container.
        pictures: uint8 RGB ``(height, width, 3)``, one a frame.
        codec: FFmpeg's name of the encoder.
        rate: frames a second.
        pixels: pixel format.
        gop: frames from keyframe to keyframe.
        times: number of a frame → when it is shown, in ms; default: at the rate.
        options: of the encoder.
        prepare: changes the stream before it is written.
        tags: of the container.
    """
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"} if tags else {}) as container:
        container.metadata.update(tags or {})
        stream = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=options or {})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt, stream.gop_size = pixels, gop
                if times is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
                prepare(stream)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times(number), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sound(path: Path, seconds: float = 1.0) -> Path:
    """Write a file of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        for start in range(0, int(16_000 * seconds), 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown_times_us(path: Path) -> list[int]:
    """When each frame is shown, in microseconds since the first, read from the packets alone, as ffprobe does."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        exact = sorted(packet.pts * packet.time_base for packet in container.demux(stream) if packet.pts is not None)
    return [int(-(-(time - exact[0]) * 1_000_000 // 1)) for time in exact]


class Actor(NamedTuple):
    """A face that crosses the picture."""

    picture: np.ndarray
    """uint8 RGB ``(side, side, 3)``."""
    start: tuple[float, float]
    """Place of its centre, in pixels, at its first moment."""
    speed: tuple[float, float]
    """Pixels per second."""
    seconds: tuple[float, float] = (0.0, 1e9)
    """When it appears and disappears."""

    def place(self, time_s: float) -> tuple[int, int] | None:
        """Left and top edge at a time; ``None`` where it is not there."""
        if not self.seconds[0] <= time_s < self.seconds[1]:
            return None
        side, passed = self.picture.shape[0], time_s - self.seconds[0]
        return tuple(round(at + by * passed - side / 2) for at, by in zip(self.start, self.speed, strict=True))


def play(actors: Sequence[Actor], background: np.ndarray, seconds: float, rate: int = 25) -> Iterator[np.ndarray]:
    """The frames of a film in which faces cross a background; later faces are in front of earlier ones."""
    for number in range(int(seconds * rate)):
        picture = background.copy()
        for actor in actors:
            place = actor.place(number / rate)
            if place is not None:
                _paste(picture, actor.picture, place)
        yield picture


def _paste(picture: np.ndarray, patch: np.ndarray, place: tuple[int, int]) -> None:
    left, top = place
    height, width = picture.shape[:2]
    rows, columns = (
        slice(max(top, 0), min(top + len(patch), height)),
        slice(max(left, 0), min(left + len(patch), width)),
    )
    if rows.start < rows.stop and columns.start < columns.stop:
        picture[rows, columns] = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
