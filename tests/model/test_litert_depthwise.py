"""LiteRT exports of depthwise-separable networks: inverted residuals with ReLU6, sums, and a second rescaling."""

from __future__ import annotations

import numpy as np
import pytest

from maskdet.errors import ModelError
from maskdet.model import litert_export

pytestmark = [
    pytest.mark.xdist_group("models"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

HEIGHT, WIDTH = 47, 58
STEMS = ["convolution", "depthwise", "centred"]


def normalized(tensor, activate=True):
    from keras import layers

    tensor = layers.BatchNormalization(momentum=0.7)(tensor)
    return layers.ReLU(6.0)(tensor) if activate else tensor


def inverted_residual(tensor, filters, stride, size):
    from keras import layers

    wide = normalized(layers.Conv2D(4 * tensor.shape[-1], 1, use_bias=False)(tensor))
    wide = normalized(layers.DepthwiseConv2D(size, strides=stride, padding="same", use_bias=False)(wide))
    narrow = normalized(layers.Conv2D(filters, 1, use_bias=False)(wide), activate=False)
    return layers.Add()([tensor, narrow]) if tensor.shape == narrow.shape else narrow


def network(stem):
    import keras
    from keras import layers

    pixels = keras.Input((HEIGHT, WIDTH, 3), name="images")
    tensor = layers.Rescaling(1 / 255, name="rescaling")(pixels)
    if stem == "centred":  # as EfficientNet-Lite0's published weights want it
        tensor = layers.Rescaling(2.0, offset=-1.0, name="centred")(tensor)
    if stem == "depthwise":
        tensor = layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=4)(tensor)
    else:
        tensor = layers.Conv2D(12, 3, strides=2, padding="same", use_bias=False)(tensor)
    tensor = normalized(tensor)
    for filters, stride, size in ((16, 2, 3), (16, 1, 3), (24, 2, 5), (24, 1, 5)):
        tensor = inverted_residual(tensor, filters, stride, size)
    tensor = layers.GlobalAveragePooling2D()(normalized(layers.Conv2D(48, 1, use_bias=False)(tensor)))
    tensor = layers.Dense(1, name="logit")(layers.Dropout(0.2)(tensor))
    return keras.Model(pixels, layers.Activation("sigmoid", name="probability_mask")(tensor))


def details_of(file):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file))
    return interpreter.get_input_details()[0], interpreter.get_tensor_details()


@pytest.mark.parametrize("stem", STEMS)
def test_float_agrees_with_keras(stem, patches, randomize, tmp_path):
    model = randomize(network(stem))
    images = patches(24, HEIGHT, WIDTH, seed=1)
    expected = model(images.astype(np.float32), training=False).numpy()[:, 0]
    assert expected.std() > 0.1  # or else agreement would say little
    (tmp_path / "float").write_bytes(litert_export.convert_float(model))
    np.testing.assert_allclose(litert_export.run(tmp_path / "float", images), expected, atol=2e-5)


@pytest.mark.parametrize("stem", [pytest.param("convolution", marks=pytest.mark.thorough), "centred"])
def test_int8_agrees_with_keras_within_quantisation(stem, patches, spread, tmp_path):
    import keras

    keras.utils.set_random_seed(5)
    model = network(stem)
    model.compile("adam", "binary_crossentropy")
    # Random weights amplify small differences, such as quantisation's; a fitted network does not.
    model.fit(patches(64, HEIGHT, WIDTH, seed=3), np.arange(64).reshape(-1, 1) % 2, epochs=8, batch_size=32, verbose=0)
    spread(model)
    images = patches(64, HEIGHT, WIDTH, seed=1)
    expected = model(images.astype(np.float32), training=False).numpy()[:, 0]
    assert expected.std() > 0.2
    (tmp_path / "int8").write_bytes(litert_export.convert_int8(model, patches(32, HEIGHT, WIDTH, seed=2)))
    difference = np.abs(litert_export.run(tmp_path / "int8", images) - expected)
    assert difference.mean() < 0.03
    assert difference.max() < 0.12
    pixels, _ = details_of(tmp_path / "int8")
    assert (pixels["dtype"], pixels["quantization"]) == (np.uint8, (1.0, 0))


def test_int8_kernels_have_a_scale_a_channel(patches, randomize, tmp_path):
    (tmp_path / "int8").write_bytes(
        litert_export.convert_int8(randomize(network("convolution")), patches(8, HEIGHT, WIDTH))
    )
    _, tensors = details_of(tmp_path / "int8")
    kernels = [t for t in tensors if len(t["shape"]) == 4 and len(t["quantization_parameters"]["scales"]) > 1]
    # A stem, four blocks of three, and a last one; a depthwise kernel (1, size, size, channels) counts along axis 3.
    depthwise = [t for t in kernels if t["quantization_parameters"]["quantized_dimension"] == 3]
    assert (len(kernels), len(depthwise)) == (14, 4)
    for tensor in kernels:
        parameters = tensor["quantization_parameters"]
        assert tensor["dtype"] == np.int8
        assert len(parameters["scales"]) == tensor["shape"][parameters["quantized_dimension"]]
        assert len(set(parameters["scales"])) > 1


def test_what_cannot_take_the_pixel_scale_is_refused():
    import keras
    from keras import layers

    pixels = keras.Input((8, 8, 3))
    tensor = layers.BatchNormalization(name="first")(layers.Rescaling(1 / 255, name="rescaling")(pixels))
    tensor = layers.Dense(1, name="logit")(layers.Flatten()(tensor))
    model = keras.Model(pixels, layers.Activation("sigmoid", name="probability_mask")(tensor))
    with pytest.raises(ModelError, match="layer first: expected a layer with a kernel"):
        litert_export.convert_float(model)
