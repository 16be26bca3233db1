"""From a Keras network to LiteRT files: float32, and int8 with a float32 end.

Both take raw pixels: the 1/255 is folded into the layer that follows it. In the int8 file uint8 pixels are the
quantised input (scale 1, zero point 0), every layer up to the last dense one is int8, and that one and the sigmoid, or
softmax, are float32: a sigmoid in int8 has only 256 probabilities, logits in int8 are coarser still, and a few dense
units cost nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ModelError
from maskdet.model.litert_graph import LiteRTGraph
from maskdet.model.tensorflow_export import graph_output


def convert_float(model: Any) -> bytes:
    """Convert a network to float32 LiteRT.

    Args:
        model: a ``keras.Model`` of :func:`maskdet.model.architectures.build_model`.

    Returns:
        A LiteRT file: ``images`` uint8 ``(batch, height, width, 3)`` to what
        :func:`maskdet.model.tensorflow_export.graph_output` says, float32.
    """
    import tensorflow as tf

    folded = _fold_pixel_scale(model)

    def score(images: Any) -> dict[str, Any]:
        return graph_output(folded, tf.cast(images, tf.float32))

    return converted(_converter(folded, score, tf.uint8))


def convert_int8(model: Any, representative: NDArray[np.uint8]) -> bytes:
    """Convert a network to int8 LiteRT.

    Args:
        model: a ``keras.Model`` of :func:`maskdet.model.architectures.build_model`.
        representative: RGB uint8 ``(images, height, width, 3)`` on which the ranges of activations are measured.

    Returns:
        A LiteRT file: ``images`` uint8 ``(batch, height, width, 3)``, quantised with scale 1 and zero point 0, to
        ``probability_mask`` float32 ``(batch,)``, or ``probabilities`` ``(batch, classes)``.

    Raises:
        ModelError: the converter did not keep pixels as they are.
    """
    import keras
    import tensorflow as tf

    folded = _fold_pixel_scale(model)
    last_dense = folded.get_layer("logit")
    body = keras.Model(folded.input, last_dense.input)
    samples = representative.astype(np.float32)
    samples[0, 0, 0] = (0.0, 255.0, 255.0)  # a pixel's whole range, so that its scale comes out as exactly 1

    def samples_one_by_one() -> Iterator[list[NDArray[np.float32]]]:
        return ([sample[np.newaxis]] for sample in samples)

    converter = _converter(body, lambda images: {"features": body(images, training=False)}, tf.float32)
    quantise(converter, samples_one_by_one)
    graph = LiteRTGraph(converted(converter))
    check_pixels_unscaled(graph)
    kernel, bias = last_dense.get_weights()
    append_dense(graph, kernel, bias, "sigmoid" if len(bias) == 1 else "softmax")
    return graph.to_bytes()


def run(file: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Score images in one batch on one thread.

    Args:
        file: a LiteRT file that this module wrote.
        images: RGB uint8 ``(batch, height, width, 3)``.

    Returns:
        Probabilities of "mask", float32 ``(batch,)``, or of the classes, ``(batch, classes)``.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=1)
    (input_detail,), (output_detail,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(input_detail["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(input_detail["index"], images)
    interpreter.invoke()
    probabilities: NDArray[np.float32] = interpreter.get_tensor(output_detail["index"])
    return probabilities


def _fold_pixel_scale(model: Any) -> Any:
    """The same network without its first rescaling, which the next layer that multiplies takes over.

    Raises:
        ModelError: that layer is not a convolution, a dense layer or a rescaling.
    """
    import keras

    following = model.layers[model.layers.index(model.get_layer("rescaling")) + 1 :]
    first = next(layer for layer in following if layer.weights or isinstance(layer, keras.layers.Rescaling))
    scale = model.get_layer("rescaling").scale

    def folded_layer(layer: Any) -> Any:
        if layer.name == "rescaling":
            return keras.layers.Activation("linear", name=layer.name)
        config = layer.get_config()
        if layer is first and isinstance(layer, keras.layers.Rescaling):
            config["scale"] = layer.scale * scale
        return type(layer).from_config(config)

    folded = keras.models.clone_model(model, clone_function=folded_layer)
    folded.set_weights(model.get_weights())
    if not isinstance(first, keras.layers.Rescaling):
        if not hasattr(first, "kernel"):
            remedy = "Let a convolution follow the rescaling."
            raise ModelError(f"layer {first.name}", "a layer with a kernel, after the rescaling", type(first), remedy)
        kernel, *bias = first.get_weights()
        folded.get_layer(first.name).set_weights([kernel * scale, *bias])
    return folded


def _converter(model: Any, score: Any, pixel_type: Any) -> Any:
    import tensorflow as tf

    holder = tf.Module()
    holder.weights = [variable.value for variable in model.variables]
    signature = tf.TensorSpec((None, *model.input_shape[1:]), pixel_type, name="images")
    holder.score = tf.function(score, input_signature=[signature])
    return tf.lite.TFLiteConverter.from_concrete_functions([holder.score.get_concrete_function()], holder)


def quantise(converter: Any, samples: Callable[[], Iterator[list[NDArray[np.float32]]]]) -> None:
    """Make a TensorFlow Lite converter quantise everything between uint8 pixels and a float32 output.

    Args:
        converter: of a network that takes float32.
        samples: gives batches of one, on which ranges are measured.
    """
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32


def converted(converter: Any) -> bytes:
    """The LiteRT file that a TensorFlow Lite converter makes."""
    with warnings.catch_warnings():
        # "Statistics for quantized inputs were expected": there are some, since the samples cover the pixels' range.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs were expected")
        file: bytes = converter.convert()
    return file


def append_dense(
    graph: LiteRTGraph,
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32],
    curve: Literal["sigmoid", "softmax"] | None,
) -> None:
    """Append a float32 dense layer, and the curve that makes probabilities, to a float32 output ``(batch, features)``.

    They are written into the file's graph directly: the converter keeps a layer in float32 only by a name that it makes
    up.

    Args:
        graph: afterwards gives ``(batch,)`` for one unit, else ``(batch, units)``.
        kernel: ``(features, units)``.
        bias: ``(units,)``.
        curve: ``None``: the units are probabilities.
    """
    builtin, schema, units = graph.schema.BuiltinOperator, graph.schema, len(bias)
    weights = graph.add_constant("logit/kernel", np.ascontiguousarray(kernel.T, np.float32))
    offset = graph.add_constant("logit/bias", bias.astype(np.float32))
    made = graph.add_activation("logit", [-1, units])
    features = [graph.output_index, weights, offset]
    graph.operators.append(
        graph.make_operator(builtin.FULLY_CONNECTED, features, made, schema.FullyConnectedOptionsT())
    )
    if units == 1:
        flat = graph.add_activation("flat_logit", [-1])
        graph.operators.append(graph.make_reshape(made, flat))
        made = flat
    if curve == "sigmoid":
        given = graph.add_activation("probability_mask", [-1])
        graph.operators.append(graph.make_operator(builtin.LOGISTIC, [made], given))
        made = given
    elif curve == "softmax":
        given = graph.add_activation("probabilities", [-1, units])
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        graph.operators.append(graph.make_operator(builtin.SOFTMAX, [made], given, options))
        made = given
    graph.give(made)


def check_pixels_unscaled(graph: LiteRTGraph) -> None:
    """Make sure that a quantised network takes pixels as they are.

    Raises:
        ModelError: its input is not uint8 with scale 1 and zero point 0.
    """
    tensor, schema = graph.tensor(graph.input_index), graph.schema
    scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
    if (tensor.type, scale, zero_point) != (schema.TensorType.UINT8, 1.0, 0):
        raise ModelError(
            "int8 network's input",
            "uint8 with scale 1 and zero point 0",
            (tensor.type, scale, zero_point),
            "The converter of this TensorFlow version measures ranges differently; pin another version.",
        )
