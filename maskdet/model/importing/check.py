"""Whether labelled images bear out what was declared, or another declaration clearly better.

A sigmoid's 1 is what came second when folders were sorted by name: of WithMask and WithoutMask it means *no* mask. A
network read the wrong way round runs as well as ever, and is wrong about nearly every face. So are, less plainly, one
whose pixels are scaled otherwise than in its training, and one whose channels are swapped. None of it can be seen in a
file; it can be seen in a few hundred labelled images.

Two readings are compared on the images that one gets right and the other wrong. Were they equally good, either would be
the right one with probability 1/2 (McNemar's exact test). A declaration is refused if some other reading wins with a
one-sided probability below .01, divided by the number of others (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import binomtest

from maskdet.labels import CODES, THREE_CLASSES, TWO_CLASSES, Codes
from maskdet.model.importing.reading import Floats, Pixels, Reading

SIGNIFICANCE = 0.01
AS_DECLARED = "as declared"


class Trial(BaseModel):
    """What one reading makes of the labelled images."""

    model_config = ConfigDict(frozen=True)

    reading: str
    """What it changes of the declaration, in the command's flags."""
    accuracy: float
    images: int
    better: int = 0
    """Images that this reading gets right and the declared one wrong."""
    worse: int = 0
    probability: float = 1.0
    """Of so many or more, if both were equally good."""


class Check(BaseModel):
    """A declaration held against labelled images."""

    model_config = ConfigDict(frozen=True)

    trials: tuple[Trial, ...]
    """The declared reading first, then the others: the most accurate first, of equal ones that which changes least."""

    @property
    def declared(self) -> Trial:
        """The declaration."""
        return self.trials[0]

    @property
    def clearly_better(self) -> Trial | None:
        """The other reading that refutes the declaration, if there is one."""
        others = self.trials[1:]
        level = SIGNIFICANCE / max(1, len(others))
        refuting = [trial for trial in others if trial.better > trial.worse and trial.probability < level]
        return max(refuting, key=lambda trial: trial.accuracy, default=None)


def check_reading(run: Callable[[Floats], Floats], reading: Reading, images: NDArray[np.uint8], truth: Codes) -> Check:
    """Hold a declaration against labelled images.

    Args:
        run: the network, of pixels as it takes them to its outputs.
        reading: what is declared, complete.
        images: uint8 RGB ``(images, height, width, 3)``.
        truth: codes of their classes, ``(images,)``; those that the reading does not know must not be among them.
    """
    results: dict[str, NDArray[np.bool_]] = {}
    for words, one in _readings(reading):
        given = run(Pixels.apply(one.pixels, images))
        results[words or AS_DECLARED] = _right(given, one, truth)
        for other_words, other in one.exchanged():
            results[f"{words} {other_words}".strip()] = _right(given, other, truth)
    declared = results.pop(AS_DECLARED)
    others = [_trial(words, right, declared) for words, right in results.items()]
    others.sort(key=lambda trial: -trial.accuracy)
    return Check(trials=(_trial(AS_DECLARED, declared, declared), *others))


def _readings(reading: Reading) -> Iterator[tuple[str, Reading]]:
    yield "", reading
    yield from reading.otherwise()


def _right(given: Floats, reading: Reading, truth: Codes) -> NDArray[np.bool_]:
    """Whether the likeliest class of each image is its own."""
    probabilities = reading.columns(given.shape[1]).apply(given)
    if probabilities.ndim == 1:
        probabilities = np.stack([1 - probabilities, probabilities], axis=1)
    names = TWO_CLASSES if probabilities.shape[1] == 2 else THREE_CLASSES
    codes = np.array([CODES[name] for name in names], np.int8)
    return np.asarray(codes[probabilities.argmax(axis=1)] == truth, np.bool_)


def _trial(words: str, right: NDArray[np.bool_], declared: NDArray[np.bool_]) -> Trial:
    better, worse = int((right & ~declared).sum()), int((declared & ~right).sum())
    decided = better + worse
    probability = float(binomtest(better, decided, 0.5, alternative="greater").pvalue) if decided else 1.0
    return Trial(
        reading=words,
        accuracy=float(right.mean()),
        images=len(right),
        better=better,
        worse=worse,
        probability=probability,
    )
