"""Declarations of a network's input and output, against values worked out by hand and by the presets' libraries."""

import numpy as np
import pytest

from maskdet.errors import ConfigError
from maskdet.labels import THREE_CLASSES, TWO_CLASSES
from maskdet.model.importing.reading import SCALES, Reading, told_activation

WHITE_RED = np.array([[[[255, 255, 255], [255, 0, 51]]]], np.uint8)  # (1, 1, 2, 3)


def reading(classes=("mask", "no_mask"), scale="1/255", **changes):
    chosen = SCALES[scale]
    given = {"factor": chosen.factor, "offset": chosen.offset, "channels": chosen.channels, **changes}
    return Reading(classes=classes, scale=scale, **given)


@pytest.mark.parametrize(
    ("scale", "red"),
    [
        ("1/255", (1.0, 0.0, 0.2)),
        ("-1..1", (1.0, -1.0, -0.6)),
        ("none", (255.0, 0.0, 51.0)),
        ("imagenet", ((1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225)),
        ("caffe", (51 - 103.939, -116.779, 255 - 123.68)),  # blue, green, red
    ],
)
def test_a_red_pixel_is_scaled_as_the_preset_s_library_does(scale, red):
    np.testing.assert_allclose(reading(scale=scale).pixels.apply(WHITE_RED)[0, 0, 1], red, rtol=1e-5)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_presets_are_those_of_keras(mode):
    keras = pytest.importorskip("keras")
    scale = {"tf": "-1..1", "torch": "imagenet", "caffe": "caffe"}[mode]
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    expected = keras.applications.imagenet_utils.preprocess_input(images.astype(np.float32), mode=mode)
    np.testing.assert_allclose(reading(scale=scale).pixels.apply(images), expected, atol=1e-4)


def test_channels_and_layout():
    found = reading(channels="BGR", layout="NCHW").pixels.apply(WHITE_RED)
    assert found.shape == (1, 3, 1, 2)
    np.testing.assert_allclose(found[0, :, 0, 1], (0.2, 0.0, 1.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("classes", "activation", "given", "mask"),
    [
        (("no_mask", "mask"), "sigmoid", [[0.8]], 0.8),
        (("mask", "no_mask"), "sigmoid", [[0.8]], 0.2),  # flow_from_directory of WithMask, WithoutMask
        (("mask", "no_mask"), "logits", [[np.log(3)]], 0.25),
        (("mask", "no_mask"), "softmax", [[0.7, 0.3]], 0.7),
        (("no_mask", "mask"), "softmax", [[0.7, 0.3]], 0.3),
        (("mask", "no_mask"), "logits", [[np.log(3), 0.0]], 0.75),
        (("no_mask", "mask"), "logits", [[1000.0, -1000.0]], 0.0),
    ],
)
def test_two_classes_become_the_probability_of_mask(classes, activation, given, mask):
    one = reading(classes, activation=activation)
    assert one.class_names == TWO_CLASSES
    np.testing.assert_allclose(one.columns(len(given[0])).apply(np.float32(given)), [mask], atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "logits"])
def test_three_classes_are_put_in_order(activation):
    one = reading(("no_mask", "mask", "incorrect"), activation=activation)
    probabilities = np.array([[0.1, 0.6, 0.3]])
    given = probabilities if activation == "softmax" else np.log(probabilities) + 5
    assert one.class_names == THREE_CLASSES
    found = one.columns(3).apply(given.astype(np.float32))
    np.testing.assert_allclose(found, [[0.6, 0.3, 0.1]], atol=1e-6)  # mask, incorrect, no_mask


@pytest.mark.parametrize(
    ("classes", "outputs", "received"),
    [
        (("mask", "no_mask"), 3, "mask"),
        (("mask", "incorrect", "no_mask"), 2, "incorrect"),
        (("mask", "no_mask"), 1000, "1000"),
    ],
)
def test_classes_that_do_not_fit_the_outputs_are_refused(classes, outputs, received):
    with pytest.raises(ConfigError, match=received):
        reading(classes, activation="softmax").columns(outputs)


@pytest.mark.parametrize(
    "classes", [("mask",), ("mask", "mask"), ("mask", "incorrect"), ("mask", "no_mask", "no_mask")]
)
def test_classes_that_are_no_set_of_classes_are_refused(classes):
    with pytest.raises(ValueError, match="expected mask and no_mask"):
        reading(classes)


@pytest.mark.parametrize(
    ("given", "expected"),
    [([[0.1], [1.0]], "sigmoid"), ([[0.1], [1.2]], "logits"), ([[0.25, 0.75]], "softmax"), ([[-1.0, 2.0]], "logits")],
)
def test_values_tell_what_they_are(given, expected):
    assert told_activation(np.float32(given)) == expected


def test_two_sigmoids_have_no_single_answer():
    with pytest.raises(ConfigError, match=r"sums go from 0\.200 to 1\.600"):
        told_activation(np.float32([[0.1, 0.1], [0.8, 0.8]]))


def test_other_readings_change_one_thing_at_a_time():
    words = [words for words, _ in reading().otherwise()]
    assert words == [
        *("--channels BGR", "--scale -1..1", "--scale imagenet", "--scale caffe --channels BGR", "--scale none"),
    ]
    assert [words for words, _ in reading().exchanged()] == ["--classes no_mask,mask"]
    assert len(list(reading(("mask", "incorrect", "no_mask")).exchanged())) == 5
