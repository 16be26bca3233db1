"""What a track says of its person: one label by a vote of its frames, and when the mask was put on or taken off.

Frames of one face are far from independent: what misleads the model in one misleads it in the next. The log-odds of
the frames are therefore averaged, and the mean counts as often as an effective number of frames n / (1 + (n - 1) r),
where r is the correlation of two frames' errors (Kish's design effect). With r = .5 that is 1 for one frame, 1.33 for
two and never more than 2, so a long track is surer than a frame, but never much. Each question of
:mod:`maskdet.labels` is voted on for itself: whether there is a mask, and whether it is worn incorrectly, where each
frame counts by its probability that there is one. The thresholds of the run then make a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.labels import INCORRECT, MASK, NO_MASK, UNCERTAIN, Decision, label_codes, label_names, worn_probability

Floats = NDArray[np.float64]

CORRELATION = 0.5
"""Correlation of the errors of two frames of a track: assumed, not measured."""
# A model's output of 0 or 1 is as sure as its last bit; one frame is not to outvote all others.
_LEAST = 0.002

PUT_ON, TAKEN_OFF, SLIPPED, PUT_RIGHT = "put_on", "taken_off", "slipped", "put_right"
_KINDS = {
    (NO_MASK, MASK): PUT_ON,
    (NO_MASK, INCORRECT): PUT_ON,
    (MASK, NO_MASK): TAKEN_OFF,
    (INCORRECT, NO_MASK): TAKEN_OFF,
    (MASK, INCORRECT): SLIPPED,
    (INCORRECT, MASK): PUT_RIGHT,
}


class Vote(NamedTuple):
    """What the frames of a track say together."""

    label: str
    mask: float
    """Probability of the class; the three add to 1."""
    incorrect: float | None
    """``None`` for a model without that class."""
    no_mask: float


class Change(NamedTuple):
    """What a person did."""

    time_us: int
    """The first frame that shows it."""
    kind: str
    """``put_on``, ``taken_off``, ``slipped`` (nose or mouth are bare now) or ``put_right``."""


def effective_frames(frames: float) -> float:
    """How many independent frames so many frames of a track are worth."""
    return frames / (1 + (frames - 1) * CORRELATION)


def vote(mask: Floats, incorrect: Floats | None, decision: Decision) -> Vote:
    """One label of a track.

    Args:
        mask: probability of ``mask`` in each frame, ``(frames,)``, at least one.
        incorrect: probability of ``incorrect``; ``None`` for a model without that class.
        decision: the run's thresholds.
    """
    worn = worn_probability(mask, incorrect)
    weight = effective_frames(len(worn))
    any_mask = _pooled(worn, np.ones(len(worn)), weight)
    if incorrect is None:
        wrong, share = None, 0.0
    else:
        frames = max(1.0, float(worn.sum()))  # that show a mask
        share = _pooled(incorrect / np.maximum(worn, _LEAST), worn, effective_frames(frames))
        wrong = any_mask * share
    right = any_mask - (wrong or 0.0)
    codes = label_codes(np.array([right]), None if wrong is None else np.array([wrong]), decision)
    return Vote(label_names(codes)[0], right, wrong, 1 - any_mask)


def find_changes(times_us: Sequence[int], labels: Sequence[str], least_frames: int) -> list[Change]:
    """When the mask was put on, taken off, slipped or was put right.

    A change counts once that many frames in a row show it; uncertain frames neither count nor interrupt. What a track
    begins with is not a change.

    Args:
        times_us: of the frames, ascending.
        labels: of the frames.
        least_frames: in a row.
    """
    changes: list[Change] = []
    state: str | None = None
    run, since = 0, 0
    candidate: str | None = None
    for time_us, label in zip(times_us, labels, strict=True):
        if label == UNCERTAIN:
            continue
        if label != candidate:
            candidate, run, since = label, 0, time_us
        run += 1
        if run == least_frames and candidate != state:
            if state is not None:
                changes.append(Change(since, _KINDS[state, candidate]))
            state = candidate
    return changes


def _pooled(probabilities: Floats, weights: Floats, effective: float) -> float:
    """The probability of a weighted mean of log-odds that counts as some number of frames."""
    bounded = np.clip(probabilities, _LEAST, 1 - _LEAST)
    if weights.sum() <= 0:
        return float(probabilities.mean())
    log_odds = float(np.average(np.log(bounded / (1 - bounded)), weights=weights)) * effective
    return 1 / (1 + float(np.exp(-log_odds)))
