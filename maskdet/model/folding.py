"""Fold batch normalisation into the convolution before it: the same numbers from fewer variables.

With scale g, offset b, mean m and variance v of each channel, BN(k * x) = (g / sqrt(v + epsilon)) k * x
+ (b - g m / sqrt(v + epsilon)); Jacob et al., "Quantization and Training of Neural Networks" (2018), section 3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def folded(model: Any) -> Any:
    """A network with the same outputs whose convolutions have absorbed the batch normalisations after them.

    Args:
        model: a functional ``keras.Model``; left as it is.

    Returns:
        Another one. Normalisations stay unless they follow a convolution without bias and activation.
    """
    import keras

    pairs = {norm.name: convolution.name for norm in model.layers if (convolution := _foldable(norm)) is not None}
    convolutions = set(pairs.values())

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in pairs:
            return keras.layers.Identity(name=layer.name)
        if layer.name in convolutions:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        # A normalisation is called with a mask, which its replacement does not accept.
        return layer(*inputs) if layer.name in pairs else layer(*inputs, **options)

    twin = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.weights and layer.name not in pairs and layer.name not in convolutions:
            twin.get_layer(layer.name).set_weights(layer.get_weights())
    for norm, convolution in pairs.items():
        weights = _fold(model.get_layer(convolution), model.get_layer(norm))
        twin.get_layer(convolution).set_weights(weights)
    return twin


def _foldable(layer: Any) -> Any:
    """The convolution into which a layer can be folded, if it is such a normalisation."""
    import keras

    if not isinstance(layer, keras.layers.BatchNormalization):
        return None
    before = layer.input._keras_history.operation
    plain = isinstance(before, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)) and not before.use_bias
    alone = plain and before.activation is keras.activations.linear and len(before._outbound_nodes) == 1
    return before if alone else None


def _fold(convolution: Any, norm: Any) -> list[Any]:
    import keras

    (kernel,) = convolution.get_weights()
    scale, offset, mean, variance = (np.asarray(weights, np.float64) for weights in norm.get_weights())
    factor = scale / np.sqrt(variance + norm.epsilon)
    if isinstance(convolution, keras.layers.DepthwiseConv2D):
        folded_kernel = kernel * factor.reshape(kernel.shape[2:])  # (height, width, channels, multiplier)
    else:
        folded_kernel = kernel * factor  # (height, width, in, out)
    return [folded_kernel.astype(np.float32), (offset - mean * factor).astype(np.float32)]
