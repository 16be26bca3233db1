"""Networks and images for tests of exports: outputs vary as those of trained networks do, images are not mere noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


def _patches(count, height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3)).astype(np.uint8)
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 6 // width
    return coarse[:, rows][:, :, columns]


def _randomize(model, seed=0):
    import keras

    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            ranges = ((0.5, 1.5), (-0.5, 0.5), (-0.3, 0.3), (0.3, 2))  # gamma, beta, moving mean and variance
            layer.set_weights([rng.uniform(*limits, shape) for limits in ranges])
        elif layer.get_weights():
            kernel, *bias = layer.get_weights()
            inputs = kernel.size / kernel.shape[-1]
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                inputs = kernel.shape[0] * kernel.shape[1]
            kernel = rng.normal(0, np.sqrt(2 / inputs), kernel.shape)
            layer.set_weights([kernel, *(rng.normal(0, 0.1, one.shape) for one in bias)])
    return _spread(model)


def _spread(model):
    import keras

    images = _patches(16, *model.input_shape[1:3]).astype(np.float32)
    logits = keras.Model(model.input, model.get_layer("logit").output)(images, training=False).numpy()
    kernel, bias = model.get_layer("logit").get_weights()
    scale = 2.0 / logits.std()
    model.get_layer("logit").set_weights([kernel * scale, (bias - logits.mean(axis=0)) * scale])
    return model


@pytest.fixture(scope="session")
def patches() -> Callable[..., np.ndarray]:
    """``patches(count, height, width, seed=0)``: coarse random patches, uint8 RGB ``(count, height, width, 3)``."""
    return _patches


@pytest.fixture(scope="session")
def randomize() -> Callable[..., object]:
    """``randomize(model, seed=0)``: gives random weights and batch statistics, so that logits vary by a few units."""
    return _randomize


@pytest.fixture(scope="session")
def spread() -> Callable[..., object]:
    """``spread(model)``: rescales the last layer so that logits lie around 0 and vary by a few units."""
    return _spread
