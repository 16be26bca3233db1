"""Error rates of a run's labels, from the bundle's counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from maskdet.compliance.intervals import ErrorRates
from maskdet.labels import THREE_CLASSES, TWO_CLASSES, Decision
from maskdet.model.bundle import open_bundle
from maskdet.model.manifest import OperatingCharacteristics
from maskdet.scoring.known_errors import known_errors

ONE = Decision(no_mask_below=0.5, mask_from=0.5, incorrect_from=0.3)
COUNTS = {
    "dataset": "d",
    "masked_right": 80,
    "masked_total": 100,
    "unmasked_right": 45,
    "unmasked_total": 50,
    "shares_groups_with_training": False,
}
OF_THREE = {"incorrect_right": 12, "incorrect_total": 20, "masked_as_incorrect": 10, "unmasked_as_incorrect": 2}
ALL = {"incorrect_as_mask": 5, "masked_uncertain": 4, "unmasked_uncertain": 1, "incorrect_uncertain": 2}


def manifest(class_names=THREE_CLASSES, decision=ONE, **counts):
    found = OperatingCharacteristics(**{**COUNTS, **counts})
    return SimpleNamespace(class_names=class_names, decision=decision, operating_characteristics=found)


def test_three_classes_of_a_bundle_that_does_not_say_all():
    found = known_errors(manifest(**OF_THREE), ONE)
    assert found.any_mask == ErrorRates(90, 100, 45, 50)
    # The eight masks worn incorrectly that got another label are assumed to be labelled mask.
    assert found.correct == ErrorRates(80, 100, 45 + 2 + 12, 70)
    assert found.refused is None


def test_three_classes_of_a_bundle_that_says_all():
    found = known_errors(manifest(**OF_THREE, **ALL), ONE)
    assert found.any_mask == ErrorRates(80 + 10 + 12 + 5, 96 + 18, 45, 49)
    assert found.correct == ErrorRates(80, 96, 45 + 2 + 13, 49 + 18)


def test_two_classes_have_one_question():
    decision = Decision()
    found = known_errors(manifest(TWO_CLASSES, decision), decision)
    assert found == (ErrorRates(80, 100, 45, 50), None, None)


@pytest.mark.parametrize(
    ("of_bundle", "of_run", "counts", "words"),
    [
        (ONE, Decision(no_mask_below=0.4, mask_from=0.5, incorrect_from=0.3), OF_THREE, "thresholds"),
        (ONE.model_copy(update={"no_mask_below": 0.4}),) * 2 + (OF_THREE, "uncertain"),
    ],
)
def test_counts_of_other_labels_are_refused(of_bundle, of_run, counts, words):
    found = known_errors(manifest(decision=of_bundle, **counts), of_run)
    assert (found.any_mask, found.correct) == (None, None)
    assert words in found.refused


def test_a_bundle_without_counts_says_so():
    bare = SimpleNamespace(class_names=THREE_CLASSES, decision=ONE, operating_characteristics=None)
    assert "how often" in known_errors(bare, ONE).refused


def test_the_bundle_that_ships_can_be_corrected_for():
    shipped = open_bundle("builtin", lambda name: False).manifest
    found = known_errors(shipped, shipped.decision)
    assert found.of("any_mask_rate") == found.any_mask
    assert found.of("correct_rate") == found.correct
    assert found.refusal() is None
