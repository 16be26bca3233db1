"""A Keras network to LiteRT files: float32, and int8 with a float32 end.

Both take raw pixels: the 1/255 is folded into the layer that follows it. In the int8 file uint8 pixels are the
quantised input (scale 1, zero point 0), every layer up to the last dense one is int8, and that one and the sigmoid are
float32: a sigmoid in int8 knows 256 probabilities, logits in int8 are coarser still, and one dense unit costs nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ModelError


def convert_float(model: Any) -> bytes:
    """Convert a network to float32 LiteRT.

    Args:
        model: a ``keras.Model`` of :func:`maskdet.model.architectures.build_model`.

    Returns:
        A LiteRT file: ``images`` uint8 ``(batch, height, width, 3)`` to ``probability_mask`` float32 ``(batch,)``.
    """
    import tensorflow as tf

    folded = _fold_pixel_scale(model)

    def score(images: Any) -> dict[str, Any]:
        probability = folded(tf.cast(images, tf.float32), training=False)
        return {"probability_mask": tf.reshape(probability, [-1])}

    return _convert(_converter(folded, score, tf.uint8))


def convert_int8(model: Any, representative: NDArray[np.uint8]) -> bytes:
    """Convert a network to int8 LiteRT.

    Args:
        model: a ``keras.Model`` of :func:`maskdet.model.architectures.build_model`.
        representative: RGB uint8 ``(images, height, width, 3)`` that the ranges of activations are measured on.

    Returns:
        A LiteRT file: ``images`` uint8 ``(batch, height, width, 3)``, quantised with scale 1 and zero point 0, to
        ``probability_mask`` float32 ``(batch,)``.

    Raises:
        ModelError: the converter did not keep pixels as they are.
    """
    import keras
    import tensorflow as tf

    folded = _fold_pixel_scale(model)
    last_dense = folded.get_layer("logit")
    body = keras.Model(folded.input, last_dense.input)
    samples = representative.astype(np.float32)
    samples[0, 0, 0] = (0.0, 255.0, 255.0)  # the whole range of a pixel, so that its scale comes out as exactly 1

    def samples_one_by_one() -> Iterator[list[NDArray[np.float32]]]:
        return ([sample[np.newaxis]] for sample in samples)

    converter = _converter(body, lambda images: {"probability_mask": body(images, training=False)}, tf.float32)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples_one_by_one
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    return _append_dense_sigmoid(_convert(converter), *last_dense.get_weights())


def run(file: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Score images in one batch on one thread.

    Args:
        file: a LiteRT file that this module wrote.
        images: RGB uint8 ``(batch, height, width, 3)``.

    Returns:
        Probabilities of "mask", float32 ``(batch,)``.
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
    """The same network without its first rescaling: the next layer that multiplies does that too.

    Raises:
        ModelError: that layer is neither a convolution, nor dense, nor a rescaling.
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


def _convert(converter: Any) -> bytes:
    with warnings.catch_warnings():
        # "Statistics for quantized inputs were expected": they are, the pixels' own range is among the samples.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs were expected")
        converted: bytes = converter.convert()
    return converted


def _append_dense_sigmoid(file: bytes, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> bytes:
    """Put a float32 dense unit and a sigmoid behind a LiteRT network with one float32 output ``(batch, features)``.

    Written into the file's graph directly: the converter keeps a layer in float32 only by a name of its own making.

    Raises:
        ModelError: the network's input is not uint8 with scale 1 and zero point 0.
    """
    editor = _GraphEditor(file)
    _check_pixels_unscaled(editor.input, editor.schema)
    builtin, schema = editor.schema.BuiltinOperator, editor.schema
    weights = editor.add_constant("logit/kernel", np.ascontiguousarray(kernel.T, np.float32))
    offset = editor.add_constant("logit/bias", bias.astype(np.float32))
    flat_shape = editor.add_constant("flat_logit/shape", np.array([-1], np.int32))
    logit = editor.add_activation("logit", [-1, 1])
    flat_logit = editor.add_activation("flat_logit", [-1])
    probability = editor.add_activation("probability_mask", [-1])
    features = editor.output_index
    editor.add_operator(builtin.FULLY_CONNECTED, [features, weights, offset], logit, schema.FullyConnectedOptionsT())
    editor.add_operator(builtin.RESHAPE, [logit, flat_shape], flat_logit, schema.ReshapeOptionsT())
    editor.add_operator(builtin.LOGISTIC, [flat_logit], probability)
    return editor.finish(probability)


class _GraphEditor:
    """Appends to the graph of a LiteRT file."""

    def __init__(self, file: bytes) -> None:
        from tensorflow.lite.python import schema_py_generated
        from tensorflow.lite.tools import flatbuffer_utils

        self.schema = schema_py_generated
        self._serialize = flatbuffer_utils.convert_object_to_bytearray
        self._network = flatbuffer_utils.convert_bytearray_to_object(bytearray(file))
        self._graph = self._network.subgraphs[0]

    @property
    def input(self) -> Any:
        """The tensor that the graph takes."""
        return self._graph.tensors[self._graph.inputs[0]]

    @property
    def output_index(self) -> int:
        """Index of the tensor that the graph gives."""
        return int(self._graph.outputs[0])

    def add_constant(self, name: str, values: NDArray[Any]) -> int:
        """Add a float32 or int32 constant; its tensor's index."""
        types = {np.dtype(np.float32): self.schema.TensorType.FLOAT32, np.dtype(np.int32): self.schema.TensorType.INT32}
        tensor = self._new_tensor(name, list(values.shape), types[values.dtype])
        self._network.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
        return len(self._graph.tensors) - 1

    def add_activation(self, name: str, shape: list[int]) -> int:
        """Add a float32 tensor that an operator computes, -1 for the batch; its index."""
        tensor = self._new_tensor(name, [max(1, size) for size in shape], self.schema.TensorType.FLOAT32)
        tensor.shapeSignature = shape
        return len(self._graph.tensors) - 1

    def add_operator(self, code: int, inputs: list[int], output: int, options: Any = None) -> None:
        """Add an operator by its code in the schema, with its options object there."""
        operator_code, operator = self.schema.OperatorCodeT(), self.schema.OperatorT()
        operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
        operator_code.version = 1
        self._network.operatorCodes.append(operator_code)
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self._network.operatorCodes) - 1, inputs, [output]
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._graph.operators.append(operator)

    def finish(self, output: int) -> bytes:
        """The file with this tensor as what the graph gives."""
        self._graph.outputs = [output]
        for signature in self._network.signatureDefs or ():
            signature.outputs[0].tensorIndex = output
        return bytes(self._serialize(self._network))

    def _new_tensor(self, name: str, shape: list[int], tensor_type: int) -> Any:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = (
            name.encode(),
            shape,
            tensor_type,
            len(self._network.buffers),
        )
        self._network.buffers.append(self.schema.BufferT())
        self._graph.tensors.append(tensor)
        return tensor


def _check_pixels_unscaled(tensor: Any, schema: Any) -> None:
    scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
    if (tensor.type, scale, zero_point) != (schema.TensorType.UINT8, 1.0, 0):
        raise ModelError(
            "int8 network's input",
            "uint8 with scale 1 and zero point 0",
            (tensor.type, scale, zero_point),
            "The converter of this TensorFlow version measures ranges differently; pin another version.",
        )
