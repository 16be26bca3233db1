"""How images and frames ended, before they become rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from maskdet.errors import FailureCode, ImageFault
from maskdet.faces.extraction import View
from maskdet.inputs.references import ImageRef
from maskdet.model.backends import Probabilities
from maskdet.tables.results import FrameCounts, StageSeconds


class Subject(NamedTuple):
    """The subject of a row: an image, or a moment or stretch of a video."""

    ref: ImageRef
    time_us: int | None = None
    """Time since the start of the video."""
    end_us: int | None = None
    """End of a stretch that is lost."""
    frames: int | None = None
    """How many frames of a video a failure stands for."""

    @property
    def captured_at_ms(self) -> int | None:
        """When it was taken; for a frame, its segment's capture time plus the time since then."""
        captured_at_ms, segment = self.ref.captured_at_ms, self.ref.segment
        if captured_at_ms is None or segment is None or self.time_us is None:
            return captured_at_ms
        return captured_at_ms - segment.start_us // 1000 + self.time_us // 1000


class Seen(NamedTuple):
    """An image as the model will see it."""

    content_sha256: str
    size_bytes: int
    view: View


class Scored(NamedTuple):
    """An image and the model's answer for its faces."""

    image: Seen
    probabilities: Sequence[Probabilities]
    """Probabilities of the model's classes, ``(classes,)``, for each face; none where no face was found."""


class Outcomes(NamedTuple):
    """How each image or frame of a part ended, in order, and thread-seconds."""

    found: list[tuple[Subject, Scored | ImageFault]]
    seconds: StageSeconds
    references: int
    """Images and segments of the part."""


def count_segments(found: Iterable[tuple[Subject, Scored | ImageFault]]) -> dict[str, tuple[FrameCounts, str | None]]:
    """Frames of each segment by how they ended, and the failure recorded for the segment.

    That is a failure that another try may mend, if there is one; else, where no frame could be scored, any.
    """
    counts: dict[str, FrameCounts] = {}
    faults: dict[str, list[FailureCode]] = {}
    for subject, outcome in found:
        if subject.ref.segment is None:
            continue
        name = subject.ref.name
        scored, no_face, failed = counts.get(name, FrameCounts())
        if isinstance(outcome, ImageFault):
            faults.setdefault(name, []).append(outcome.code)
            failed += subject.frames or 0
        elif outcome.probabilities:
            scored += 1
        else:
            no_face += 1
        counts[name] = FrameCounts(scored, no_face, failed)
    return {name: (count, _remembered(count, faults.get(name, []))) for name, count in counts.items()}


def _remembered(count: FrameCounts, faults: Sequence[FailureCode]) -> str | None:
    transient = sorted(code for code in faults if code.transient)
    if transient:
        return transient[0].value
    return None if count.scored or count.no_face or not faults else sorted(faults)[0].value
