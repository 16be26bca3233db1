import numpy as np
import pytest

from maskdet.model.architectures import ARCHITECTURES, build_model
from maskdet.model.folding import folded

pytestmark = [
    pytest.mark.xdist_group("models"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


def unsettled(model, rng):
    """The network with batch normalisations that have seen data."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2, weights.shape) for weights in layer.get_weights()])
    return model


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_outputs_stay_and_normalisations_go(name):
    import keras

    rng = np.random.default_rng(0)
    side = ARCHITECTURES[name].min_side_px
    model = unsettled(build_model(name, side, side), rng)
    twin = folded(model)
    pixels = rng.uniform(0, 255, (3, side, side, 3)).astype(np.float32)
    features, expected = (keras.Model(m.input, m.get_layer("logit").output)(pixels).numpy() for m in (twin, model))
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in twin.layers)


def test_one_channel_by_hand():
    import keras
    from keras import layers

    pixels = keras.Input((1, 1, 1))
    convolved = layers.Conv2D(1, 1, use_bias=False)(pixels)
    model = keras.Model(pixels, layers.BatchNormalization(epsilon=0.0)(convolved))
    model.layers[1].set_weights([np.full((1, 1, 1, 1), 3.0)])
    model.layers[2].set_weights([np.array([value]) for value in (2.0, 5.0, 7.0, 4.0)])
    # 2 (3 x - 7) / sqrt(4) + 5 = 3 x - 2
    kernel, bias = folded(model).layers[1].get_weights()
    assert (kernel.item(), bias.item()) == (3.0, -2.0)


def test_what_cannot_be_folded_stays():
    import keras
    from keras import layers

    pixels = keras.Input((4, 4, 3))
    convolved = layers.Conv2D(2, 1, use_bias=False)(pixels)
    both = layers.Add()([layers.BatchNormalization()(convolved), convolved])  # the convolution is used as it is, too
    active = layers.BatchNormalization()(layers.Conv2D(2, 1, use_bias=False, activation="relu")(both))
    model = unsettled(keras.Model(pixels, active), np.random.default_rng(1))
    twin = folded(model)
    assert sum(isinstance(layer, layers.BatchNormalization) for layer in twin.layers) == 2
    image = np.random.default_rng(2).normal(size=(2, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(twin(image).numpy(), model(image).numpy(), rtol=1e-5)
