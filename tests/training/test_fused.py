import numpy as np
import pytest

from maskdet.model.architectures import build_model
from maskdet.training.fused import with_fused_normalization

pytestmark = [pytest.mark.training, pytest.mark.xdist_group("tensorflow")]


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(3.0, 2.0, (4, 5, 6, 7)).astype(np.float32), rng.normal(size=(4, 5, 6, 7)).astype(np.float32)


@pytest.fixture
def normalization():
    """A network of one batch normalisation with weights unlike the initial ones."""
    import keras

    inputs = keras.Input((5, 6, 7))
    model = keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)(inputs))
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.5, 1.5, 7).astype(np.float32) for _ in range(4)])
    return model


def test_training_normalises_by_the_batchs_moments_and_moves_the_averages(normalization, batch):
    pixels, _ = batch
    scale, offset, mean, variance = (weights.astype(np.float64) for weights in normalization.get_weights())
    fused = with_fused_normalization(normalization)
    outputs = fused(pixels, training=True).numpy()
    batch_mean, batch_variance = pixels.mean(axis=(0, 1, 2), dtype=float), pixels.var(axis=(0, 1, 2), dtype=float)
    expected = (pixels - batch_mean) / np.sqrt(batch_variance + 1e-3) * scale + offset
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(fused.get_weights()[2], 0.9 * mean + 0.1 * batch_mean, rtol=1e-5)
    np.testing.assert_allclose(fused.get_weights()[3], 0.9 * variance + 0.1 * batch_variance, rtol=1e-5)
    np.testing.assert_array_equal(normalization.get_weights()[2], mean.astype(np.float32))


def test_gradients_and_inference_are_those_of_keras_own(normalization, batch):
    import tensorflow as tf

    pixels, weights = (tf.constant(values) for values in batch)
    fused = with_fused_normalization(normalization)
    gradients = []
    for model in (normalization, fused):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            total = tf.reduce_sum(model(pixels, training=True) * weights)
        gradients.append(tape.gradient(total, [pixels, *(each.value for each in model.trainable_variables)]))
    for expected, received in zip(*gradients, strict=True):
        np.testing.assert_allclose(received, expected, atol=2e-4)
    np.testing.assert_allclose(fused(pixels), normalization(pixels), atol=1e-5)


def test_a_whole_network_keeps_its_weights_in_their_order():
    model = build_model("compact", 32, 32)
    fused = with_fused_normalization(model)
    assert [weights.path for weights in fused.weights] == [weights.path for weights in model.weights]
    for expected, received in zip(model.get_weights(), fused.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, received)
    pixels = np.random.default_rng(2).integers(0, 256, (3, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(fused(pixels), model(pixels), atol=1e-6)
    # The stem's, two of the first block, three of each of the six others, and that of the last convolution.
    assert sum(type(layer).__name__ == "FusedBatchNormalization" for layer in fused.layers) == 1 + 2 + 6 * 3 + 1
