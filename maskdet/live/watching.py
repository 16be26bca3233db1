"""Score the newest frames of a source, and report at once what is in them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from maskdet.errors import ImageFault
from maskdet.images.codecs import Pixels
from maskdet.labels import INCORRECT, MASK, NO_MASK
from maskdet.live.capture import Capture, Counts
from maskdet.memory import GivingBack
from maskdet.scoring.predicting import FaceModel, ImagePrediction
from maskdet.video.frames import SampledFrame
from maskdet.video.pictures import upright_rgb

_PATIENCE_S = 0.5
_HOUR_S = 3600.0


class Observation(NamedTuple):
    """A frame and what is in it."""

    at: datetime
    """When it arrived."""
    time_us: int | None
    """When it is to be shown, since the stream's start."""
    latency_s: float
    """From its arrival until its faces had labels."""
    pixels: Pixels
    """uint8 RGB ``(height, width, 3)``, upright."""
    prediction: ImagePrediction
    counts: Counts
    """Of frames up to it."""

    def line(self) -> dict[str, Any]:
        """The content of its line of JSON."""
        fault = self.prediction.fault
        return {
            "at": self.at.isoformat(timespec="milliseconds"),
            "time_us": self.time_us,
            "latency_ms": round(self.latency_s * 1000, 1),
            "decoded": self.counts.decoded,
            "dropped": self.counts.dropped,
            "reconnects": self.counts.reconnects,
            "faces": [
                {
                    "label": face.label,
                    "probabilities": {name: round(value, 4) for name, value in face.probabilities.items()},
                    "box": None if face.box is None else [round(side, 1) for side in face.box],
                    "score": None if face.score is None else round(face.score, 4),
                }
                for face in self.prediction.faces
            ],
            **({"failed": str(fault)} if fault is not None else {}),
        }


def watch(
    capture: Capture,
    model: FaceModel,
    frames_per_second: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Observation | None]:
    """Score the newest frame, over and over, until the source ends.

    Args:
        capture: running.
        model: finds and labels the faces in a frame.
        frames_per_second: most frames to score.
        clock: the capture's.
        now: tells the date and time.
        sleep: waits some seconds.

    Yields:
        What was seen; ``None`` where no frame arrived for half a second, so that the caller can do other things.
    """
    due, give_back = clock(), GivingBack()
    while True:
        give_back()  # here, where no frame waits for it
        early_s = due - clock()
        if early_s > 0:
            sleep(early_s)
        frame = capture.take(_PATIENCE_S)
        if frame is None:
            if capture.ended:
                return
            yield None
            continue
        due = max(due, clock()) + 1 / frames_per_second
        arrived = now() - timedelta(seconds=clock() - frame.arrived_s)
        try:
            pixels = upright_rgb(SampledFrame(frame.time_us or 0, frame.picture, None, None), frame.aspect)
            [prediction] = model.predict([pixels])
        except ImageFault as fault:
            pixels, prediction = np.zeros((8, 8, 3), np.uint8), ImagePrediction((), None, None, fault)
        latency_s = clock() - frame.arrived_s
        yield Observation(arrived, frame.time_us, latency_s, pixels, prediction, capture.counts)


class LastHour:
    """Faces by label over the last hour, by minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minutes: deque[tuple[int, dict[str, int]]] = deque()

    def add(self, prediction: ImagePrediction) -> None:
        """Count the faces of a frame."""
        minute = int(self._clock() // 60)
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, {}))
        counted = self._minutes[-1][1]
        for face in prediction.faces:
            counted[face.label] = counted.get(face.label, 0) + 1
        self._forget()

    @property
    def faces(self) -> dict[str, int]:
        """Faces of the last hour, by label; each frame counts its own."""
        self._forget()
        total: dict[str, int] = {}
        for _, counted in self._minutes:
            for label, faces in counted.items():
                total[label] = total.get(label, 0) + faces
        return dict(sorted(total.items()))

    @property
    def mask_rate(self) -> float | None:
        """Share of the labelled faces that wear a mask, correctly or not; ``None`` without any."""
        faces = self.faces
        worn = faces.get(MASK, 0) + faces.get(INCORRECT, 0)
        labelled = worn + faces.get(NO_MASK, 0)
        return worn / labelled if labelled else None

    def _forget(self) -> None:
        oldest = int((self._clock() - _HOUR_S) // 60)
        while self._minutes and self._minutes[0][0] <= oldest:
            self._minutes.popleft()
