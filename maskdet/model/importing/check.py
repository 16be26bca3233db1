"""Check whether labelled images bear out a declaration, or whether another one is clearly better.

A sigmoid's 1 stands for the folder that came second by name: with WithMask and WithoutMask it means *no* mask. A
network read the wrong way round runs without complaint, and is wrong about nearly every face. Less obviously, so is one
whose pixels are scaled differently than in training, or whose channels are swapped. None of this shows in the file, but
it does show in a few hundred labelled images.

Two readings are compared in two ways. On the images that one gets right and the other wrong: were they equally good,
either would be the right one with probability 1/2 (McNemar's exact test). And, if the other gets no fewer right, by the
logarithm of the true class's probability, image by image (a paired test of the mean, normal): networks of ReLUs turn
nearly the same way whatever their pixels are multiplied by, but are far too sure of themselves if it is too much. A
declaration is refused if another reading wins with a one-sided probability below .01, divided by the number of others
(Bonferroni).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import binomtest, norm

from maskdet.labels import CODES, THREE_CLASSES, TWO_CLASSES, Codes
from maskdet.model.importing.reading import Floats, Pixels, Reading

SIGNIFICANCE = 0.01
AS_DECLARED = "as declared"
# So that a single image about which a network is wrongly sure does not decide everything.
_LEAST_PROBABILITY = 1e-6


class Trial(BaseModel):
    """How one reading does on the labelled images."""

    model_config = ConfigDict(frozen=True)

    reading: str
    """How it changes the declaration, as flags of the command."""
    accuracy: float
    log_loss: float
    """Mean of -log p of the true class, in nats."""
    images: int
    better: int = 0
    """Images that this reading gets right and the declared one wrong."""
    worse: int = 0
    probability: float = 1.0
    """Probability of that many or more, if both were equally good."""
    loss_probability: float = 1.0
    """Probability of a log loss lower by that much or more, if both were equally good."""

    @property
    def worse_by_chance(self) -> float:
        """The probability of being right that much less often, if both were equally good."""
        decided = self.better + self.worse
        return float(binomtest(self.worse, decided, 0.5, alternative="greater").pvalue) if decided else 1.0


class Check(BaseModel):
    """A declaration checked on labelled images."""

    model_config = ConfigDict(frozen=True)

    trials: tuple[Trial, ...]
    """The declared reading first, then the others by log loss; among equal ones, those that change least first."""

    @property
    def declared(self) -> Trial:
        """The declaration."""
        return self.trials[0]

    @property
    def clearly_better(self) -> Trial | None:
        """The other reading that refutes the declaration, if there is one."""
        others = self.trials[1:]
        level = SIGNIFICANCE / max(1, len(others))
        right = [trial for trial in others if trial.better > trial.worse and trial.probability < level]
        surer = [trial for trial in others if trial.better >= trial.worse and trial.loss_probability < level]
        return min((*right, *surer), key=lambda trial: trial.log_loss, default=None)

    @property
    def doubtful(self) -> Trial | None:
        """A reading with a clearly lower log loss that is right a little less often, no more than by chance.

        It refutes nothing, since a network may be overconfident as declared, but it is worth a look.
        """
        others = self.trials[1:]
        level = SIGNIFICANCE / max(1, len(others))
        alike = [trial for trial in others if trial.loss_probability < level and trial.worse_by_chance >= level]
        return None if self.clearly_better else min(alike, key=lambda trial: trial.log_loss, default=None)


def check_reading(run: Callable[[Floats], Floats], reading: Reading, images: NDArray[np.uint8], truth: Codes) -> Check:
    """Check a declaration on labelled images.

    Args:
        run: the network, from pixels as it takes them to its outputs.
        reading: the complete declaration.
        images: uint8 RGB ``(images, height, width, 3)``.
        truth: codes of their classes, ``(images,)``, all of which the reading knows.
    """
    results: dict[str, _Result] = {}
    for words, one in _readings(reading):
        given = run(Pixels.apply(one.pixels, images))
        results[words or AS_DECLARED] = _result(given, one, truth)
        for other_words, other in one.exchanged():
            results[f"{words} {other_words}".strip()] = _result(given, other, truth)
    declared = results.pop(AS_DECLARED)
    others = [_trial(words, result, declared) for words, result in results.items()]
    others.sort(key=lambda trial: trial.log_loss)
    return Check(trials=(_trial(AS_DECLARED, declared, declared), *others))


def _readings(reading: Reading) -> Iterator[tuple[str, Reading]]:
    yield "", reading
    yield from reading.otherwise()


class _Result(NamedTuple):
    right: NDArray[np.bool_]
    """Whether the likeliest class of each image is its true one."""
    log_likelihood: NDArray[np.float64]
    """Log probability of its true class."""


def _result(given: Floats, reading: Reading, truth: Codes) -> _Result:
    probabilities = reading.columns(given.shape[1]).apply(given)
    if probabilities.ndim == 1:
        probabilities = np.stack([1 - probabilities, probabilities], axis=1)
    names = TWO_CLASSES if probabilities.shape[1] == 2 else THREE_CLASSES
    codes = np.array([CODES[name] for name in names], np.int8)
    own = probabilities[np.arange(len(truth)), (truth[:, np.newaxis] == codes).argmax(axis=1)].astype(np.float64)
    likelihood = np.log(np.clip(own, _LEAST_PROBABILITY, 1.0))
    return _Result(np.asarray(codes[probabilities.argmax(axis=1)] == truth, np.bool_), likelihood)


def _trial(words: str, one: _Result, declared: _Result) -> Trial:
    better, worse = int((one.right & ~declared.right).sum()), int((declared.right & ~one.right).sum())
    decided = better + worse
    probability = float(binomtest(better, decided, 0.5, alternative="greater").pvalue) if decided else 1.0
    return Trial(
        reading=words,
        accuracy=float(one.right.mean()),
        log_loss=-float(one.log_likelihood.mean()),
        images=len(one.right),
        better=better,
        worse=worse,
        probability=probability,
        loss_probability=_gain_probability(one.log_likelihood - declared.log_likelihood),
    )


def _gain_probability(gains: NDArray[np.float64]) -> float:
    """The one-sided probability of such a mean gain, or a larger one, if none were expected."""
    error = float(gains.std(ddof=1)) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return float(norm.sf(gains.mean() / error)) if error > 0 else 1.0
