"""Move a Keras network's pixel scale into its first convolution, and separate its last dense layer.

Both serve speed and precision and change no result: a convolution of scaled pixels is one with a scaled kernel, and the
last few numbers, for which int8 is too coarse, can stay in float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from maskdet.model.importing.reading import Columns, Floats, Pixels

PLAIN = Pixels((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), "RGB", "NHWC")
"""Pixels as they are."""


class Head(NamedTuple):
    """The last dense layer of a network, and what it is given."""

    features: Any
    """A ``keras.Model`` to features ``(batch, units)``."""
    kernel: Floats
    bias: Floats


def with_pixels_folded(model: Any, pixels: Pixels) -> tuple[Any, Pixels]:
    """The same network, with the scale in its first convolution where that gives the same numbers.

    Args:
        model: a ``keras.Model``.
        pixels: what it takes.

    Returns:
        A network and what it takes: another one and :data:`PLAIN`, or those given.
    """
    import keras

    first = _first_convolution(model)
    shifted = any(pixels.offset)
    # At a border padded with zeros, an offset before the convolution is not the same as one after it.
    if first is None or (shifted and (first.padding != "valid" or not first.use_bias)):
        return model, pixels
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    kernel, *bias = first.get_weights()  # (rows, columns, colours, filters)
    factor, offset = np.array(pixels.factor), np.array(pixels.offset)
    if pixels.channels == "BGR":
        kernel = kernel[:, :, ::-1]
    added = np.tensordot(kernel.astype(np.float64), offset, axes=([2], [0])).sum(axis=(0, 1))
    folded = [(kernel * factor[:, np.newaxis]).astype(np.float32), *((one + added).astype(np.float32) for one in bias)]
    twin.get_layer(first.name).set_weights(folded)
    return twin, PLAIN._replace(layout=pixels.layout)


def completed(model: Any, pixels: Pixels, columns: Columns, size: tuple[int, int]) -> Any:
    """A network with both ends as layers, as :func:`maskdet.model.architectures.build_model` promises among others.

    Args:
        model: a ``keras.Model``.
        pixels: what it takes.
        columns: what its outputs mean.
        size: height and width of its input.

    Returns:
        A ``keras.Model``: float32 RGB ``(batch, height, width, 3)`` of values 0 to 255, to ``(batch, 1)`` or
        ``(batch, 3)``.
    """
    import keras

    images = keras.Input((*size, 3), name="images")
    tensor = images
    if set(pixels.factor) != {1.0} or any(pixels.offset):
        tensor = keras.layers.Rescaling(list(pixels.factor), list(pixels.offset), name="pixels_scaled")(tensor)
    if pixels.channels == "BGR":
        tensor = keras.ops.flip(tensor, axis=-1)
    if pixels.layout == "NCHW":
        tensor = keras.layers.Permute((3, 1, 2), name="pixels_nchw")(tensor)
    meaning = keras.layers.Dense(
        columns.kernel.shape[1], activation=columns.curve, dtype="float32", name="classes_ordered"
    )
    whole = keras.Model(images, meaning(model(tensor, training=False)))
    meaning.set_weights([columns.kernel, columns.bias])
    return whole


def _first_convolution(model: Any) -> Any:
    """The convolution that is the only layer to take a network's input."""
    import keras

    if not isinstance(model, keras.Sequential | keras.Model) or len(getattr(model, "inputs", ())) != 1:
        return None
    consumers = [layer for layer in model.layers if _takes(layer, model.inputs[0])]
    plain = len(consumers) == 1 and type(consumers[0]) is keras.layers.Conv2D
    return consumers[0] if plain and consumers[0].groups == 1 and _weights_are_float32(model) else None


def _takes(layer: Any, tensor: Any) -> bool:
    import keras

    if isinstance(layer, keras.layers.InputLayer):
        return False
    return any(taken is tensor for node in layer._inbound_nodes for taken in node.input_tensors)


def _weights_are_float32(model: Any) -> bool:
    return all(str(variable.dtype) == "float32" for variable in model.variables if "seed" not in variable.path)


def last_dense(model: Any) -> tuple[Head, bool] | None:
    """The last layer of a network, where it is dense.

    Args:
        model: a ``keras.Model``.

    Returns:
        The separate layer, and whether it has a sigmoid or softmax; ``None`` if the network ends differently.
    """
    import keras

    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    last = layers[-1] if layers else None
    if (
        last is None
        or type(last) is not keras.layers.Dense
        or last.output is not model.outputs[0]
        or not _weights_are_float32(model)
    ):
        return None
    curves = (keras.activations.sigmoid, keras.activations.softmax)
    if last.activation not in (*curves, keras.activations.linear) or len(last._inbound_nodes) != 1:
        return None
    kernel, *bias = last.get_weights()
    offset = bias[0] if bias else np.zeros(kernel.shape[1], np.float32)
    return Head(keras.Model(model.inputs[0], last.input), kernel, offset), last.activation in curves
