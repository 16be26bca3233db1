"""The one vocabulary of classes, and the one rule from probabilities to a label.

A face is of one of three classes:

- ``mask``: a mask covers nose and mouth;
- ``incorrect``: there is a mask, but nose or mouth is bare: it is below the nose, under the chin, or hangs from an
  ear;
- ``no_mask``: there is none.

A label is a class or ``uncertain``. A model has two classes (:data:`TWO_CLASSES`, without ``incorrect``) or
three (:data:`THREE_CLASSES`), and the rule is the same for both. With the probabilities p:

1. Is there a mask? ``worn = p(mask) + p(incorrect)``. From ``mask_from`` on there is; below ``no_mask_below`` the label
   is ``no_mask``; between them it is ``uncertain``.
2. Where there is one, is it worn incorrectly? From ``p(incorrect) >= incorrect_from · worn`` on, given that
   p(incorrect) is not 0, the label is ``incorrect``, else ``mask``.

Bare faces with something at the chin or a cheek resemble masks worn incorrectly far more than masks over nose and
mouth. So ``incorrect`` may need more: with ``incorrect_odds``, the odds of a mask, ``worn : 1 − worn``, have to be that
many times those of ``mask_from``. Where they fall short, ``incorrect`` is left out, and the first question is asked
again of the other two alone: ``p(mask) / (p(mask) + p(no_mask))`` takes the place of ``worn``.

For a model of two classes p(incorrect) is 0, which leaves its own rule: ``mask`` from one threshold on, ``no_mask``
below the other. Each question has its own thresholds, which can be changed, and tuned on held-out photographs, without
affecting the other's answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

MASK: Literal["mask"] = "mask"
INCORRECT: Literal["incorrect"] = "incorrect"
NO_MASK: Literal["no_mask"] = "no_mask"
UNCERTAIN = "uncertain"

TwoClasses = tuple[Literal["no_mask"], Literal["mask"]]
ThreeClasses = tuple[Literal["mask"], Literal["incorrect"], Literal["no_mask"]]
ClassNames = TwoClasses | ThreeClasses

TWO_CLASSES: TwoClasses = (NO_MASK, MASK)
"""Classes of a model with one output, the probability of ``mask``, in the order of its predictions."""
THREE_CLASSES: ThreeClasses = (MASK, INCORRECT, NO_MASK)
"""Classes of a model with three outputs, in their order."""
LABELS = (*THREE_CLASSES, UNCERTAIN)

CODES: Mapping[str, int] = {NO_MASK: 0, MASK: 1, INCORRECT: 2, UNCERTAIN: -1}
"""Label → its number in arrays, files of training data and fingerprints."""
_NAMES = {code: name for name, code in CODES.items()}

Codes = NDArray[np.int8]
_LEAST = 1e-12
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Times = Annotated[float, Field(ge=1.0, allow_inf_nan=False)]


class Decision(BaseModel):
    """Which probabilities become which label: the thresholds of the rule above."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    no_mask_below: Probability = 0.5
    mask_from: Probability = 0.5
    incorrect_from: Probability | None = None
    """``None``: the model does not have the class ``incorrect``."""
    incorrect_odds: Times | None = None
    """How many times the odds of ``mask_from`` a mask worn incorrectly needs; ``None``: once, like any mask."""

    @model_validator(mode="after")
    def _ordered(self) -> Decision:
        if self.no_mask_below > self.mask_from:
            raise ValueError(f"no_mask_below = {self.no_mask_below} lies above mask_from = {self.mask_from}")
        if self.incorrect_odds is not None and self.incorrect_from is None:
            raise ValueError(f"incorrect_odds = {self.incorrect_odds} of a model that knows of no incorrect")
        return self

    @model_serializer(mode="wrap")
    def _of_what_there_is(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # For two classes, this is the same as before there were three, so that fingerprints stay.
        return {name: value for name, value in write(self).items() if value is not None}

    @property
    def middle(self) -> float:
        """Where the answer to whether there is a mask changes: the middle of its two thresholds."""
        return (self.no_mask_below + self.mask_from) / 2

    def __str__(self) -> str:
        text = f"{MASK} from {self.mask_from:g}, {NO_MASK} below {self.no_mask_below:g}"
        if self.incorrect_from is not None:
            text += f", {INCORRECT} from {self.incorrect_from:g} of a mask"
        return text if self.incorrect_odds is None else f"{text} at {self.incorrect_odds:g} times the odds"


def label_codes(mask: NDArray[Any], incorrect: NDArray[Any] | None, decision: Decision) -> Codes:
    """Labels of faces, by the rule above.

    Args:
        mask: probability of ``mask``, ``(faces,)``.
        incorrect: probability of ``incorrect``, ``(faces,)``; ``None`` for a model without that class.
        decision: the thresholds; compared in double precision, so that a table read back gives the same labels.

    Returns:
        Codes, ``(faces,)``; see :data:`CODES`. What is not a number is uncertain.
    """
    worn = worn_probability(mask, incorrect)
    wrongly = np.zeros(worn.shape, bool)
    if incorrect is not None:
        assert decision.incorrect_from is not None, "three classes take three thresholds"
        wrong = incorrect.astype(np.float64)
        wrongly = (wrong > 0) & (wrong >= decision.incorrect_from * worn)
        if decision.incorrect_odds is not None:
            bare, right = np.maximum(1 - worn, 0), mask.astype(np.float64)
            enough = worn >= decision.mask_from * (worn + decision.incorrect_odds * bare)
            short = wrongly & (worn >= decision.mask_from) & ~enough
            wrongly &= ~short
            worn = np.where(short, right / np.maximum(right + bare, _LEAST), worn)
    sure = np.where(worn < decision.no_mask_below, CODES[NO_MASK], CODES[UNCERTAIN])
    there = np.where(wrongly, CODES[INCORRECT], CODES[MASK])
    return np.where(worn >= decision.mask_from, there, sure).astype(np.int8)


def worn_probability(mask: NDArray[Any], incorrect: NDArray[Any] | None) -> NDArray[np.float64]:
    """Probability that there is a mask, worn correctly or not, float64 ``(faces,)``.

    Args:
        mask: probability of ``mask``, ``(faces,)``.
        incorrect: probability of ``incorrect``, ``(faces,)``, or ``None``.
    """
    worn = mask.astype(np.float64)
    return worn if incorrect is None else worn + incorrect.astype(np.float64)


def label_names(codes: Codes) -> list[str]:
    """The labels of codes."""
    return [_NAMES[code] for code in codes.tolist()]


def codes_of(labels: Iterable[str]) -> Codes:
    """The codes of labels."""
    return np.array([CODES[label] for label in labels], np.int8)


def class_columns(probabilities: NDArray[np.float32], class_names: ClassNames) -> dict[str, NDArray[np.float32]]:
    """What a model predicts, class by class.

    Args:
        probabilities: ``(faces, classes)``, in the order of the names.
        class_names: :data:`TWO_CLASSES` or :data:`THREE_CLASSES`.

    Returns:
        Class → ``(faces,)``, without :data:`INCORRECT` where the model does not have it.
    """
    return {name: probabilities[:, place] for place, name in enumerate(class_names)}
