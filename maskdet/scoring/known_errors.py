"""How often a model is wrong by its bundle's counts, in the form that corrected rates need."""

from __future__ import annotations

from maskdet.compliance.intervals import ErrorRates
from maskdet.compliance.rates import KnownErrors
from maskdet.labels import TWO_CLASSES, Decision
from maskdet.model.manifest import Manifest, OperatingCharacteristics


def known_errors(manifest: Manifest, decision: Decision) -> KnownErrors:
    """The errors of a model's labels, for both questions that rates answer.

    Three classes mean two questions: is there a mask, worn correctly or not? Is it worn correctly? Counts are those of
    the bundle's test set, whose mix of classes they share. If a bundle does not say how many masks worn incorrectly
    were labelled ``mask``, all those that it got wrong are assumed to have been.

    Args:
        manifest: the model's.
        decision: the thresholds of the labels.

    Returns:
        A reason instead of errors, where the bundle's counts do not apply to these labels.
    """
    found = manifest.operating_characteristics
    if found is None:
        return KnownErrors(refused="the bundle does not say how often its model is right")
    if decision != manifest.decision:
        return KnownErrors(refused="the thresholds are not the bundle's, by which its errors were counted")
    if decision.no_mask_below < decision.mask_from and found.masked_uncertain is None:
        return KnownErrors(refused="the bundle counts uncertain faces among the wrong ones; rates leave them out")
    correct = None if manifest.class_names == TWO_CLASSES else _of_correct(found)
    return KnownErrors(_of_any_mask(found), correct, None)


def _of_any_mask(found: OperatingCharacteristics) -> ErrorRates:
    right = found.masked_right + (found.masked_as_incorrect or 0)
    positives = found.masked_total - (found.masked_uncertain or 0)
    if found.incorrect_as_mask is not None:
        right += (found.incorrect_right or 0) + found.incorrect_as_mask
        positives += _incorrect(found)
    return ErrorRates(right, positives, found.unmasked_right, _unmasked(found))


def _of_correct(found: OperatingCharacteristics) -> ErrorRates:
    incorrect = found.incorrect_right or 0
    if found.incorrect_as_mask is not None:
        incorrect = _incorrect(found) - found.incorrect_as_mask
    return ErrorRates(
        found.masked_right,
        found.masked_total - (found.masked_uncertain or 0),
        found.unmasked_right + (found.unmasked_as_incorrect or 0) + incorrect,
        _unmasked(found) + _incorrect(found),
    )


def _unmasked(found: OperatingCharacteristics) -> int:
    return found.unmasked_total - (found.unmasked_uncertain or 0)


def _incorrect(found: OperatingCharacteristics) -> int:
    return (found.incorrect_total or 0) - (found.incorrect_uncertain or 0)
