"""Decode a segment of a video: the frames to use, and the stretches that are lost.

Decoding goes forward from a keyframe before the segment, on one thread: it is segments that are processed concurrently.
What a frame shows depends on the file alone, not on where decoding began, since nothing before a keyframe affects what
comes after it.

Damage is what the decoder refuses or reports as incomplete. From there to the next keyframe nothing can be trusted,
since each frame builds on those before it. Such a stretch belongs to the segment in which it begins, which reads on to
its end; the segments that it reaches into ignore it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from maskdet.video.reading import OpenVideo, decoder_errors
from maskdet.video.sampling import MICROSECONDS, OPEN_END, Segment

# Decoding begins this long before a segment, at a keyframe: what its first frame is deinterlaced by comes before it,
# and so may the damage that it lies in.
LEAD_US = 1_000_000

# How far a header's length may be off: of streams that end together, one ends a little later.
TAIL_SLACK_US = 1_000_000

_MOST_READ_ERRORS = 8  # one after the other, with nothing between them
_REMEMBERED_PACKETS = 64  # more frames than any decoder holds back to put them in order
# Makes the decoder refuse what it would otherwise guess.
_DECODER_OPTIONS = {"err_detect": "crccheck+bitstream+buffer+explode"}


class SampledFrame(NamedTuple):
    """A frame to use."""

    time_us: int
    """Since the start of the video, in microseconds."""
    picture: Any
    """As decoded (``av.VideoFrame``)."""
    before: Any | None
    """The frame before it, if it is interlaced."""
    after: Any | None
    """The frame after it, if it is interlaced."""


class LostStretch(NamedTuple):
    """A part of the video that cannot be decoded."""

    start_us: int
    end_us: int
    frames: int
    """How many frames would have been used."""


class _Good(NamedTuple):
    """An intact frame."""

    time_us: int
    picture: Any


class _Damage(NamedTuple):
    """The first sign of damage after intact frames."""

    time_us: int


class _Lost(NamedTuple):
    """A packet within a damaged stretch, which is not decoded."""

    is_keyframe: bool


def read_segment(
    video: OpenVideo, segment: Segment, alive: Callable[[], None] = lambda: None
) -> Iterator[SampledFrame | LostStretch]:
    """Decode a segment.

    Args:
        video: the file, just opened.
        segment: which part of it, and which frames.
        alive: called before each packet is decoded.

    Yields:
        Frames in the order of their times, and lost stretches, each where it ends.
    """
    return _Sampler(segment).sample(_decode(video, segment, alive), _frame_us(video))


def _frame_us(video: OpenVideo) -> int:
    """How long a frame is shown on average; 0 if the file does not say."""
    rate = video.stream.average_rate
    return int(MICROSECONDS / rate) if rate else 0


class _Sampler:
    """Chooses frames, and keeps track of what is lost between them."""

    def __init__(self, segment: Segment) -> None:
        self._segment, self._grid = segment, segment.grid
        self._last_cell = segment.grid.cell(segment.start_us) - 1
        self._damage: int | None = None
        """Where the current damaged stretch began."""
        self._lost_packets = 0
        self._latest: int | None = None

    def sample(self, events: Iterator[_Good | _Damage | _Lost], frame_us: int) -> Iterator[SampledFrame | LostStretch]:
        """The frames to use, and the stretches that are lost."""
        segment, before, held = self._segment, None, None
        for event in events:
            if isinstance(event, _Lost):
                self._lost_packets += segment.frames == "all" or event.is_keyframe
                continue
            if held is not None:
                yield from self._chosen(held, before, event if isinstance(event, _Good) else None)
                before, held = held, None
            if isinstance(event, _Damage):
                before = None
                self._damage = event.time_us if self._damage is None else self._damage
                continue
            yield from self._stretch_to(event.time_us)
            self._latest = event.time_us
            if segment.end_us != OPEN_END and event.time_us >= segment.end_us:
                return
            held = event
        if held is not None:
            yield from self._chosen(held, before, None)
        yield from self._end(frame_us)

    def _chosen(self, frame: _Good, before: _Good | None, after: _Good | None) -> Iterator[SampledFrame]:
        if not self._segment.holds(frame.time_us):
            return
        cell = self._grid.cell(frame.time_us)
        if self._segment.frames == "sampled" and cell <= self._last_cell:
            return
        self._last_cell = cell
        # Keyframes are not each other's neighbours.
        interlaced = frame.picture.interlaced_frame and self._segment.frames != "keyframes"
        yield SampledFrame(
            frame.time_us,
            frame.picture,
            before.picture if interlaced and before is not None else None,
            after.picture if interlaced and after is not None else None,
        )

    def _stretch_to(self, end_us: int) -> Iterator[LostStretch]:
        """The stretch that ends here, if there is one that belongs to this segment and cost it a frame."""
        start, packets = self._damage, self._lost_packets
        self._damage, self._lost_packets = None, 0
        if start is None or not self._segment.holds(start):
            return
        frames = packets if self._segment.frames != "sampled" else self._points_between(start, end_us)
        if frames > 0:
            yield LostStretch(start, end_us, frames)

    def _points_between(self, start_us: int, end_us: int) -> int:
        """The cells from that of a start, unless it has a frame already, up to but not including that of an end."""
        first = max(self._grid.cell(start_us), self._last_cell + 1)
        return self._grid.cell(end_us) - first

    def _end(self, frame_us: int) -> Iterator[LostStretch]:
        """What is missing at the end of the file, of all that its header promises."""
        duration = self._segment.duration_us
        if self._damage is None:
            ended = 0 if self._latest is None else self._latest + frame_us
            if duration - ended <= TAIL_SLACK_US or (self._latest is None and self._segment.start_us > 0):
                return
            self._damage = ended
            self._lost_packets = 1 if self._segment.frames == "keyframes" else (duration - ended) // max(frame_us, 1)
        end = max(duration, self._damage + frame_us)
        yield from self._stretch_to(self._grid.point_us(self._grid.points_before(end)))


def _decode(video: OpenVideo, segment: Segment, alive: Callable[[], None]) -> Iterator[_Good | _Damage | _Lost]:
    """Everything from a keyframe before the segment on, in the order in which it is shown."""
    decoder = _Decoder(video, keyframes_only=segment.frames == "keyframes")
    for packet in _packets_from(video, segment.start_us - LEAD_US):
        alive()
        yield from decoder.feed(packet)
    yield from decoder.drain()


class _Decoder:
    """Decodes packets, and drops everything from a damaged one to the next keyframe."""

    def __init__(self, video: OpenVideo, *, keyframes_only: bool) -> None:
        self._video, self._keyframes_only = video, keyframes_only
        self._context = video.stream.codec_context
        self._context.thread_count = 1
        self._context.options = _DECODER_OPTIONS
        self._skipping = True
        """Whether it waits for a keyframe: at the start, and after damage."""
        self._begun = False
        self._first_us = 0
        self._recent: deque[tuple[int | None, bool]] = deque(maxlen=_REMEMBERED_PACKETS)
        self._damaged: set[int | None] = set()

    def feed(self, packet: Any) -> Iterator[_Good | _Damage | _Lost]:
        """The frames that a packet yields."""
        if self._keyframes_only and not packet.is_keyframe:
            return
        if self._skipping and not packet.is_keyframe:
            if self._begun:
                yield _Lost(is_keyframe=False)
            return
        if self._skipping:
            self._start(packet)
        self._recent.append((packet.pts, packet.is_keyframe))
        if packet.is_corrupt:
            yield from self._refuse(packet.pts, packet.dts)
            return
        try:
            frames = self._context.decode(packet)
        except decoder_errors():
            yield from self._refuse(packet.pts, packet.dts)
            return
        yield from self._seen(frames)

    def drain(self) -> Iterator[_Good | _Damage | _Lost]:
        """The frames that the decoder still holds."""
        if self._begun and not self._skipping:
            yield from self._seen(self._rest())

    def _start(self, packet: Any) -> None:
        self._skipping = False
        if not self._begun and packet.pts is not None:
            self._first_us = self._video.time_us(packet.pts)
        self._begun = True
        self._recent.clear()
        self._damaged.clear()

    def _rest(self) -> list[Any]:
        try:
            frames = list(self._context.decode(None))
        except decoder_errors():
            frames = []
        self._context.flush_buffers()
        return frames

    def _refuse(self, pts: int | None, dts: int | None) -> Iterator[_Good | _Damage | _Lost]:
        """Skip to the next keyframe: hand out what was decoded before, then the damage."""
        self._damaged.add(pts)
        yield from self._seen(self._rest())
        self._skipping = True
        moment = pts if pts is not None else dts
        yield _Damage(self._first_us if moment is None else self._video.time_us(moment))
        yield _Lost(is_keyframe=bool(self._recent and self._recent[-1][1]))

    def _seen(self, frames: list[Any]) -> Iterator[_Good | _Damage | _Lost]:
        for frame in frames:
            if frame.pts is None:
                continue
            time_us = self._video.time_us(frame.pts)
            # After a seek, what is shown before the keyframe builds on frames that were not decoded.
            if time_us < 0 or time_us < self._first_us:
                continue
            if frame.is_corrupt:
                self._taint(frame.pts)
            if frame.pts in self._damaged:
                yield _Damage(time_us)
                yield _Lost(is_keyframe=frame.key_frame)
            else:
                yield _Good(time_us, frame)

    def _taint(self, pts: int) -> None:
        """Mark a frame that came out incomplete, and those decoded after it up to the next keyframe."""
        after = False
        for recent, is_keyframe in self._recent:
            if after and is_keyframe:
                break
            after = after or recent == pts
            if after:
                self._damaged.add(recent)
        self._damaged.add(pts)


def _packets_from(video: OpenVideo, time_us: int) -> Iterator[Any]:
    """The stream's packets from the last keyframe before a time on, or from the start if it cannot seek."""
    stream = video.stream
    if time_us > 0:
        target = (stream.start_time or 0) + int(time_us / (MICROSECONDS * stream.time_base))
        try:
            video.container.seek(target, backward=True, stream=stream)
        except decoder_errors():
            _rewind(video)
    first = True
    for packet in _packets(video):
        if first and time_us > 0 and packet.pts is not None and video.time_us(packet.pts) > time_us:
            _rewind(video)  # an index that leads past the time asked for
            yield from _packets(video)
            return
        first = False
        yield packet


def _rewind(video: OpenVideo) -> None:
    # Well before the start: some demuxers seek by decoding time, which is earlier than presentation time.
    before = (video.stream.start_time or 0) - int(LEAD_US / (MICROSECONDS * video.stream.time_base))
    try:
        video.container.seek(before, backward=True, stream=video.stream)
    except decoder_errors():  # this demuxer takes no time before the start
        video.container.seek(video.stream.start_time or 0, backward=True, stream=video.stream)
    video.stream.codec_context.flush_buffers()


def _packets(video: OpenVideo) -> Iterator[Any]:
    errors = 0
    packets = video.container.demux(video.stream)
    while errors < _MOST_READ_ERRORS:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except decoder_errors():
            errors += 1
            packets = video.container.demux(video.stream)
            continue
        errors = 0
        if packet.size:
            yield packet
