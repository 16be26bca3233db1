"""Thresholds of a run: the bundle's, except those that the settings give."""

import pytest

from maskdet.config import ModelSettings, ScoreSettings
from maskdet.errors import ConfigError
from maskdet.labels import TWO_CLASSES, Decision
from maskdet.model.bundle import read_manifest
from maskdet.scoring.setup import resolve_decision


@pytest.fixture(scope="module")
def manifest():
    return read_manifest("builtin")


def of(**model):
    return ScoreSettings.model_construct(model=ModelSettings(**model))


def test_settings_replace_one_threshold_at_a_time(manifest):
    bundle = manifest.decision
    assert bundle.incorrect_odds > 1
    assert resolve_decision(of(), manifest) == bundle
    assert resolve_decision(of(incorrect_odds=1), manifest) == bundle.model_copy(update={"incorrect_odds": 1.0})
    # A stricter mask_from moves what incorrect takes along: the odds are times those of mask_from.
    assert resolve_decision(of(mask_from=0.9), manifest) == bundle.model_copy(update={"mask_from": 0.9})


@pytest.mark.parametrize("name", ["incorrect_from", "incorrect_odds"])
def test_two_classes_have_no_threshold_for_a_third(manifest, name):
    two = manifest.model_copy(update={"class_names": TWO_CLASSES, "decision": Decision()})
    with pytest.raises(ConfigError, match=f"model.{name}: expected nothing, for a model of the classes no_mask, mask"):
        resolve_decision(of(**{name: 1}), two)
