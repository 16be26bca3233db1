"""ONNX agrees with Keras for every architecture, odd sizes and any batch, and with NumPy on a small network."""

from __future__ import annotations

import numpy as np
import pytest

from maskdet.model import onnx_export
from maskdet.model.architectures import ARCHITECTURES, build_model

pytestmark = [
    pytest.mark.xdist_group("models"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

# 'same' padding of a stride of 2 is lopsided for even sizes and even for odd ones.
SIZES = {"reference_vgg19": [(35, 38)], "compact": [(33, 45), (48, 38)]}
# Twenty million weights take 14 s, and its layers are those of the reference CNN.
LARGE = {"reference_vgg19": [pytest.mark.thorough]}
CASES = [
    pytest.param(name, *size, marks=LARGE.get(name, ()))
    for name in ARCHITECTURES
    for size in SIZES.get(name, [(47, 58)])
]


def write(model, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_export.convert(model))
    return file


@pytest.mark.parametrize(("name", "height", "width"), CASES)
def test_every_architecture_agrees_with_keras_for_any_batch(name, height, width, patches, randomize, tmp_path):
    model = randomize(build_model(name, height, width), seed=height)
    file = write(model, tmp_path)
    images = patches(5, height, width, seed=1)
    expected = model(images.astype(np.float32), training=False).numpy()[:, 0]
    assert expected.std() > 0.05  # or else agreement would say little
    for count in (5, 1):
        scored = onnx_export.run(file, images[:count])
        assert (scored.dtype, scored.shape) == (np.float32, (count,))
        np.testing.assert_allclose(scored, expected[:count], atol=2e-5)


def test_the_file_is_valid_and_has_the_signature_of_every_bundle(tmp_path):
    import onnx

    network = onnx.load(write(build_model("compact", 40, 52), tmp_path))
    onnx.checker.check_model(network, full_check=True)
    (tensor_in,), (tensor_out,) = network.graph.input, network.graph.output
    assert [(tensor.name, tensor.type.tensor_type.elem_type) for tensor in (tensor_in, tensor_out)] == [
        ("images", onnx.TensorProto.UINT8),
        ("probability_mask", onnx.TensorProto.FLOAT),
    ]
    sizes = [[d.dim_param or d.dim_value for d in t.type.tensor_type.shape.dim] for t in (tensor_in, tensor_out)]
    assert sizes == [["batch", 40, 52, 3], ["batch"]]
    assert [opset.version for opset in network.opset_import if opset.domain in ("", "ai.onnx")] == [17]
    assert not any(weight.external_data for weight in network.graph.initializer)


def test_the_same_network_gives_the_same_probabilities_after_a_second_conversion(patches, randomize, tmp_path):
    model, images = randomize(build_model("compact", 32, 32)), patches(3, 32, 32)
    first = onnx_export.run(write(model, tmp_path), images)
    np.testing.assert_array_equal(onnx_export.run(write(model, tmp_path), images), first)


def small_network(height, width):
    """One layer of each kind that has its own rule of padding, axes or order."""
    import keras
    from keras import layers

    pixels = keras.Input((height, width, 3), name="images")
    tensor = layers.Rescaling(1 / 255, name="rescaling")(pixels)
    tensor = layers.Conv2D(5, 3, strides=2, padding="same", use_bias=False, name="convolution")(tensor)
    tensor = layers.ReLU(6.0)(layers.BatchNormalization(name="batch_statistics")(tensor))
    tensor = layers.DepthwiseConv2D(3, strides=2, padding="same", name="depthwise")(tensor)
    tensor = layers.MaxPooling2D(2)(tensor)
    tensor = layers.Dense(7, activation="relu", name="dense")(layers.Flatten()(tensor))
    tensor = layers.Dense(1, name="logit")(layers.Dropout(0.5)(tensor))
    return keras.Model(pixels, layers.Activation("sigmoid", name="probability_mask")(tensor))


def windows(images, size, stride):
    """3x3 windows of 'same' convolutions as TensorFlow states the rule: ``(images, rows, columns, 3, 3, channels)``."""
    pads = []
    for length in images.shape[1:3]:
        total = max((-(-length // stride) - 1) * stride + size - length, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(images, [(0, 0), *pads, (0, 0)])
    cut = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return cut[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


def score_by_hand(model, images):
    """The small network in NumPy, float64."""
    weights = {layer.name: [value.astype(np.float64) for value in layer.get_weights()] for layer in model.layers}
    tensor = np.einsum("nyxijc,ijco->nyxo", windows(images / 255, 3, 2), weights["convolution"][0])
    gamma, beta, mean, variance = weights["batch_statistics"]
    tensor = np.clip((tensor - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0, 6)
    kernel, bias = weights["depthwise"]
    tensor = np.einsum("nyxijc,ijc->nyxc", windows(tensor, 3, 2), kernel[..., 0]) + bias
    rows, columns = tensor.shape[1] // 2, tensor.shape[2] // 2
    tensor = tensor[:, : 2 * rows, : 2 * columns].reshape(len(images), rows, 2, columns, 2, -1).max(axis=(2, 4))
    kernel, bias = weights["dense"]
    tensor = np.maximum(tensor.reshape(len(images), -1) @ kernel + bias, 0)
    kernel, bias = weights["logit"]
    return 1 / (1 + np.exp(-(tensor @ kernel + bias)[:, 0]))


@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 23), (19, 26)])
def test_a_small_network_agrees_with_plain_numpy(height, width, patches, randomize, tmp_path):
    model = randomize(small_network(height, width), seed=height)
    images = patches(5, height, width, seed=2)
    expected = score_by_hand(model, images)
    assert expected.std() > 0.05
    np.testing.assert_allclose(onnx_export.run(write(model, tmp_path), images), expected, atol=1e-5)
