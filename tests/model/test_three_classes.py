"""Three classes in every format: softmax in the graph, one order, results that depend on each image alone."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from maskdet.errors import ModelError
from maskdet.labels import THREE_CLASSES, Decision, class_columns
from maskdet.model.architectures import build_model
from maskdet.model.backends import RuntimeSpec, load_model
from maskdet.model.conversion import convert_bundle
from maskdet.model.export import export_bundle
from maskdet.model.manifest import InputSpec, Manifest, OperatingCharacteristics, TrainingData
from maskdet.model.training_images import hash_heads, read_training_images, were_trained_on

SIDE_PX = 48
BLOCK = 4
TRAINED_ON = ["ff" * 32, "00" * 31 + "01", "0123456789abcdef" * 4, "ff" * 32]

pytestmark = [
    pytest.mark.xdist_group("models"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


def draft(**changes):
    fields = {
        "name": "three",
        "architecture": "compact",
        "input": InputSpec(height=SIDE_PX, width=SIDE_PX),
        "class_names": THREE_CLASSES,
        "decision": Decision(incorrect_from=0.5),
        "training_data": TrainingData(description="nothing", images=0, fingerprint=""),
    }
    return Manifest(**{**fields, **changes})


@pytest.fixture(scope="module")
def network(randomize):
    return randomize(build_model("compact", SIDE_PX, SIDE_PX, THREE_CLASSES), seed=4)


@pytest.fixture(scope="module")
def folder(network, patches, tmp_path_factory):
    """A bundle with ONNX too."""
    made = tmp_path_factory.mktemp("three") / "plain"
    shown = patches(32, SIDE_PX, SIDE_PX, seed=1)
    export_bundle(network, made, draft(), representative=shown, training_images=TRAINED_ON)
    formats = ["keras", "saved_model", "litert_float", "litert_int8", "onnx"]
    convert_bundle(str(made), made.with_name("all"), formats)
    return made.with_name("all")


RUNTIMES = pytest.mark.parametrize(
    ("backend", "precision"),
    [("litert", "int8"), ("litert", "float32"), ("tensorflow", "float32"), ("onnx", "float32")],
)


@RUNTIMES
def test_every_runtime_gives_the_networks_probabilities_in_its_order(folder, network, patches, backend, precision):
    images = patches(2 * BLOCK + 1, SIDE_PX, SIDE_PX, seed=9)
    model = load_model(str(folder), RuntimeSpec(backend, precision, threads=2, block_images=BLOCK))
    found = model.predict(images)
    assert (found.shape, found.dtype) == ((len(images), 3), np.float32)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    expected = network(images.astype(np.float32), training=False).numpy()
    assert np.ptp(expected, axis=0).min() > 0.2  # every class varies
    np.testing.assert_allclose(found, expected, atol=0.15 if precision == "int8" else 1e-4)
    alone = np.concatenate([model.predict(image[np.newaxis]) for image in images])
    assert np.array_equal(found, alone)


def test_the_network_ends_in_a_softmax_of_its_logits(network, patches):
    import keras

    images = patches(5, SIDE_PX, SIDE_PX).astype(np.float32)
    logits = keras.Model(network.input, network.get_layer("logit").output)(images, training=False).numpy()
    powers = np.exp(logits.astype(np.float64))
    found = network(images, training=False).numpy()
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)


def test_two_classes_add_to_one_and_keep_the_networks_number():
    model = load_model("builtin", RuntimeSpec())
    images = np.random.default_rng(0).integers(0, 256, (8, 112, 112, 3)).astype(np.uint8)
    if len(model.manifest.class_names) == 3:
        pytest.skip("the built-in model has three classes")
    by_class = class_columns(model.predict(images), model.manifest.class_names)
    assert np.array_equal(by_class["mask"], model.run(images))
    assert np.array_equal(by_class["mask"] + by_class["no_mask"], np.ones(8, np.float32))


def test_images_that_it_was_trained_on_are_known_by_the_heads_of_their_hashes(folder):
    known = read_training_images(str(folder))  # conversion copies the list
    assert known.tolist() == [0, 0x0123456789ABCDEF, 0xFFFFFFFFFFFFFFFF]
    asked = ["00" * 32, "0123456789abcdef" + "0" * 48, "0123456789abcdee" + "0" * 48, "f" * 64]
    assert were_trained_on(asked, known).tolist() == [True, True, False, True]
    assert hash_heads([]).tolist() == []


def test_a_bundle_without_a_list_says_nothing(tmp_path, network, patches):
    made = tmp_path / "silent"
    export_bundle(network, made, draft(), representative=patches(4, SIDE_PX, SIDE_PX))
    assert read_training_images(str(made)) is None


def test_a_network_of_other_outputs_than_the_manifest_states_is_refused(tmp_path, network, patches):
    two = draft(class_names=("no_mask", "mask"), decision=Decision())
    with pytest.raises(ModelError, match="expected 1 for the classes no_mask, mask, received 3"):
        export_bundle(network, tmp_path / "x", two, representative=patches(4, SIDE_PX, SIDE_PX))


@pytest.mark.parametrize(
    "changes",
    [
        {"decision": Decision()},
        {"class_names": ("no_mask", "mask")},
        {"class_names": ("incorrect", "mask", "no_mask")},
        {"class_names": ("mask", "incorrect", "no_mask", "shield")},
    ],
)
def test_classes_and_thresholds_belong_together(changes):
    with pytest.raises(ValidationError):
        draft(**changes)


def test_what_two_classes_do_not_have_is_not_in_their_manifest():
    two = draft(class_names=("no_mask", "mask"), decision=Decision())
    assert two.model_dump(mode="json")["decision"] == {"no_mask_below": 0.5, "mask_from": 0.5}
    counts = {"masked_right": 3, "masked_total": 4, "unmasked_right": 9, "unmasked_total": 10}
    measured = OperatingCharacteristics(dataset="x", shares_groups_with_training=False, **counts)
    assert not {name for name in measured.model_dump() if "incorrect" in name}
    assert measured.incorrect_recall is None
    of_three = measured.model_copy(update={"incorrect_right": 1, "incorrect_total": 4})
    assert of_three.incorrect_recall == 0.25
    sealed = draft(operating_characteristics=of_three).sealed()
    assert Manifest.model_validate_json(sealed.to_json()) == sealed
