"""Score a segment of a video: decode forward and score frames block by block, in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from maskdet.errors import FailureCode, ImageFault, MaskdetError, StorageError
from maskdet.faces.extraction import StageClock, View
from maskdet.images.codecs import Pixels
from maskdet.inputs.references import ImageRef
from maskdet.inputs.videos import decoded_frames
from maskdet.scoring.outcomes import Scored, Seen, Subject
from maskdet.storage import backoff_s
from maskdet.video.frames import LostStretch
from maskdet.video.pictures import DecodedFrame
from maskdet.video.sampling import MICROSECONDS, OPEN_END, Segment

Found = tuple[Subject, Scored | ImageFault]


@dataclass(frozen=True)
class SegmentReader:
    """Reads segments of videos, and tries again where a store answers with a transient error.

    Attributes:
        view: finds the faces of a picture.
        infer: scores a block of what was seen.
        block_frames: how many frames are in memory together, as crops of their faces.
        attempts: tries per segment.
        sleep: waits before another try, in seconds.
        decoder_seconds: time that a decoder in its own process may take for a frame; ``None``: decode in this process.
    """

    view: Callable[[Pixels, StageClock], View]
    infer: Callable[[Sequence[tuple[Subject, Seen | ImageFault]], StageClock], list[Found]]
    block_frames: int
    attempts: int
    sleep: Callable[[float], None]
    decoder_seconds: float | None = None

    def score(self, ref: ImageRef, clock: StageClock) -> list[Found]:
        """How each frame and each lost stretch of a segment ended, in the order of their times.

        Args:
            ref: a segment.
            clock: counts the stages.
        """
        if ref.problem is not None:
            code, message = ref.problem
            return [(Subject(ref, frames=0), ImageFault(FailureCode(code), message, attempts=0))]
        for attempt in range(1, self.attempts + 1):
            try:
                return self._try(ref, clock)
            except ImageFault as fault:
                return [(_whole(ref), fault)]
            except StorageError as error:
                if attempt == self.attempts:
                    return [(_whole(ref), ImageFault(FailureCode.READ_ERROR, str(error), attempt))]
                self.sleep(backoff_s(attempt))
            except MemoryError:
                return [(_whole(ref), ImageFault(FailureCode.OUT_OF_MEMORY, "not enough memory to decode the video"))]
            except MaskdetError:
                raise
            except Exception as error:  # the one boundary: whatever decoders raise costs one row
                message = f"decoding raised {type(error).__name__}"
                return [(_whole(ref), ImageFault(FailureCode.CORRUPT_VIDEO, message))]
        raise AssertionError("the last attempt returns or raises")

    def _try(self, ref: ImageRef, clock: StageClock) -> list[Found]:
        found: list[Found] = []
        block: list[tuple[Subject, Seen | ImageFault]] = []
        for one in self._seen(ref, clock):
            block.append(one)
            if len(block) == self.block_frames:
                found += self.infer(block, clock)
                block = []
        return found + self.infer(block, clock)

    def _seen(self, ref: ImageRef, clock: StageClock) -> Iterator[tuple[Subject, Seen | ImageFault]]:
        clock.start()
        for event in decoded_frames(ref.place, _segment(ref), self.decoder_seconds):
            clock.stop("decode")
            if isinstance(event, LostStretch):
                subject = Subject(ref, event.start_us, event.end_us, event.frames)
                yield subject, ImageFault(FailureCode.CORRUPT_VIDEO, _lost(event))
            else:
                yield Subject(ref, event.time_us, frames=1), self._look(event, clock)
            clock.start()
        clock.stop("decode")

    def _look(self, frame: DecodedFrame, clock: StageClock) -> Seen | ImageFault:
        if isinstance(frame.pixels, ImageFault):
            return frame.pixels
        try:
            return Seen(hashlib.sha256(frame.pixels.data).hexdigest(), 0, self.view(frame.pixels, clock))
        except ImageFault as fault:
            return fault


def _segment(ref: ImageRef) -> Segment:
    assert ref.segment is not None, "segments are read here, images are not"
    return ref.segment


def _lost(stretch: LostStretch) -> str:
    start, end = (time_us / MICROSECONDS for time_us in (stretch.start_us, stretch.end_us))
    return f"from {start:.3f} s to {end:.3f} s nothing can be decoded, where {stretch.frames} frames are"


def _whole(ref: ImageRef) -> Subject:
    """A whole segment as the subject of a failure."""
    segment = _segment(ref)
    end_us = max(segment.duration_us, segment.start_us) if segment.end_us == OPEN_END else segment.end_us
    grid = segment.grid
    points = grid.points_before(end_us) - grid.points_before(segment.start_us)
    return Subject(ref, segment.start_us, end_us, max(points, 1))
