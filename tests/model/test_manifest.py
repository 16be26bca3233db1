"""A bundle's manifest: its form, its fingerprint and what it refuses."""

from __future__ import annotations

import hashlib
import json

import pytest
from pydantic import ValidationError

from maskdet.model.manifest import (
    BundleFile,
    Calibration,
    Decision,
    ImportedFrom,
    InputSpec,
    Manifest,
    OperatingCharacteristics,
    TrainingData,
)

MEASURED = OperatingCharacteristics(
    dataset="x", masked_right=3, masked_total=4, unmasked_right=9, unmasked_total=10, shares_groups_with_training=False
)


IMPORTED = ImportedFrom(
    source="model.keras",
    sha256="0" * 64,
    made_with="Keras 3",
    classes=("mask", "no_mask"),
    scale="none",
    factor=(1, 1, 1),
    offset=(0, 0, 0),
    channels="RGB",
    layout="NHWC",
    activation="sigmoid",
)


def manifest(**changes):
    fields = {
        "name": "tiny",
        "architecture": "compact",
        "input": InputSpec(height=32, width=48),
        "training_data": TrainingData(description="none", images=0, fingerprint=""),
        "files": {"model.tflite": BundleFile(size_bytes=3, sha256="0" * 64)},
    }
    return Manifest(**{**fields, **changes})


CHANGES = {
    "name": {"name": "other"},
    "architecture": {"architecture": "other"},
    "description": {"description": "x"},
    "height": {"input": InputSpec(height=33, width=48)},
    "filter": {"input": InputSpec(height=32, width=48, resize_filter="box")},
    "decision": {"decision": Decision(mask_from=0.6)},
    "calibration": {"calibration": Calibration(method="temperature", temperature=1.5, fitted_on="x")},
    "measured": {"operating_characteristics": MEASURED},
    "training data": {"training_data": TrainingData(description="none", images=1, fingerprint="")},
    "versions": {"versions": {"keras": "3"}},
    "a file's hash": {"files": {"model.tflite": BundleFile(size_bytes=3, sha256="1" + "0" * 63)}},
    "a file's name": {"files": {"model2.tflite": BundleFile(size_bytes=3, sha256="0" * 64)}},
    "no files": {"files": {}},
    "faces": {"faces": "whole"},
    "imported": {"imported": IMPORTED},
}


def test_the_fingerprint_covers_everything():
    before = manifest().computed_fingerprint()
    assert not [what for what, change in CHANGES.items() if manifest(**change).computed_fingerprint() == before]


def test_a_bundle_that_was_not_imported_says_what_it_said_before():
    """Bundles older than these fields keep their fingerprints."""
    assert {"faces", "imported"}.isdisjoint(json.loads(manifest().sealed().to_json()))


def test_every_field_but_the_constant_ones_is_tried_above():
    tried = {name for change in CHANGES.values() for name in change}
    assert set(Manifest.model_fields) - tried == {"schema_version", "class_names", "fingerprint"}


def test_the_fingerprint_is_the_hash_of_the_canonical_json_without_itself():
    sealed = manifest().sealed()
    content = json.loads(sealed.to_json())
    assert content.pop("fingerprint") == sealed.fingerprint
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == sealed.fingerprint == sealed.sealed().fingerprint


def test_the_model_id_is_the_name_and_the_head_of_the_fingerprint():
    sealed = manifest().sealed()
    assert sealed.model_id == f"tiny@{sealed.fingerprint[:12]}"


def test_a_manifest_survives_its_file():
    sealed = manifest(operating_characteristics=MEASURED).sealed()
    assert Manifest.model_validate_json(sealed.to_json()) == sealed
    assert sealed.to_json().endswith("}\n")


def test_sensitivity_and_specificity_follow_from_the_counts():
    assert (MEASURED.sensitivity, MEASURED.specificity) == (0.75, 0.9)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema_version", 2),
        ("schema_version", 0),
        ("class_names", ["mask", "no_mask"]),
        ("unknown", 1),
        ("input", {"height": 0, "width": 3}),
        ("input", {"height": 3, "width": -1}),
        ("input", {"height": 3, "width": 3, "channel_order": "BGR"}),
        ("input", {"height": 3, "width": 3, "dtype": "float32"}),
        ("input", {"height": 3, "width": 3, "resize_filter": "lanczos"}),
        ("decision", {"no_mask_below": 0.6, "mask_from": 0.5}),
        ("decision", {"mask_from": 1.1}),
        ("decision", {"no_mask_below": -0.1}),
        ("decision", {"mask_from": float("nan")}),
        ("calibration", {"temperature": 0.0}),
        ("calibration", {"method": "magic"}),
    ],
)
def test_other_versions_and_impossible_values_are_refused(key, value):
    with pytest.raises(ValidationError):
        Manifest.model_validate({**manifest().model_dump(), key: value})


def test_a_manifest_cannot_be_changed():
    with pytest.raises(ValidationError):
        manifest().name = "other"
