"""Make a LiteRT file take uint8 RGB and give probabilities, with operators before and after its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskdet.errors import ModelError
from maskdet.model import litert_export
from maskdet.model.importing.litert_file import open_shape
from maskdet.model.importing.reading import Columns, Pixels
from maskdet.model.litert_graph import LiteRTGraph


def convert_litert(file: bytes, pixels: Pixels, columns: Columns) -> tuple[bytes, bool]:
    """Complete a LiteRT file.

    Args:
        file: a file that was inspected.
        pixels: its input's arithmetic.
        columns: its outputs'.

    Returns:
        The new file, and whether its network is quantised.
    """
    graph = LiteRTGraph(file)
    quantised = _scale_of(graph.tensor(graph.input_index)) is not None
    put_pixels(graph, pixels)
    _give_float(graph)
    put_columns(graph, columns)
    return graph.to_bytes(), quantised


def put_pixels(graph: LiteRTGraph, pixels: Pixels) -> None:
    """Make a graph take uint8 RGB ``(batch, height, width, 3)``.

    Args:
        graph: takes real values of pixels, in float32 or quantised.
        pixels: from the one to the other.
    """
    taken = graph.tensor(graph.input_index)
    if pixels.layout == "NHWC" and pixels.channels == "RGB" and _takes_plainly(graph, taken, pixels):
        return
    schema, builtin = graph.schema, graph.schema.BuiltinOperator
    known = open_shape(taken)
    height, width = known[1:3] if pixels.layout == "NHWC" else known[2:4]
    shape, before = [-1, height, width, 3], []
    images = graph.add_activation("images", shape)
    graph.tensor(images).type = schema.TensorType.UINT8
    place = graph.add_activation("images/float", shape)
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = schema.TensorType.UINT8, schema.TensorType.FLOAT32
    before.append(graph.make_operator(builtin.CAST, [images], place, options))
    for name, code, options, values in (
        ("factor", builtin.MUL, schema.MulOptionsT(), pixels.factor),
        ("offset", builtin.ADD, schema.AddOptionsT(), pixels.offset),
    ):
        made, constant = graph.add_activation(f"images/{name}ed", shape), np.array(values, np.float32)
        inputs = [place, graph.add_constant(f"images/{name}", constant)]
        before.append(graph.make_operator(code, inputs, made, options))
        place = made
    if pixels.channels == "BGR":
        made = graph.add_activation("images/bgr", shape)
        axis = graph.add_constant("images/axis", np.array([3], np.int32))
        before.append(graph.make_operator(builtin.REVERSE_V2, [place, axis], made, schema.ReverseV2OptionsT()))
        place = made
    if pixels.layout == "NCHW":
        made = graph.add_activation("images/nchw", [-1, 3, height, width])
        order = graph.add_constant("images/order", np.array([0, 3, 1, 2], np.int32))
        before.append(graph.make_operator(builtin.TRANSPOSE, [place, order], made, schema.TransposeOptionsT()))
        place = made
    _connect(graph, before, place, taken)
    graph.operators[:0] = before
    graph.take(images)


def put_columns(graph: LiteRTGraph, columns: Columns) -> None:
    """Make a graph with a float32 output ``(batch, outputs)`` give probabilities as a bundle does."""
    litert_export.append_dense(graph, columns.kernel, columns.bias, columns.curve)


def _takes_plainly(graph: LiteRTGraph, taken: Any, pixels: Pixels) -> bool:
    """Whether a quantised input takes pixels as they are, because its scale is the declared one."""
    if taken.type != graph.schema.TensorType.UINT8:
        return False
    scale, zero_point = _scale_of(taken) or (1.0, 0)
    values = np.arange(256)[:, np.newaxis]
    declared = values * np.array(pixels.factor) + np.array(pixels.offset)
    return bool(np.abs(declared / scale + zero_point - values).max() < 0.5)


def _scale_of(tensor: Any) -> tuple[float, int] | None:
    """Scale and zero point of a tensor; ``None`` if it is not quantised."""
    known = tensor.quantization
    if known is None or known.scale is None or not len(known.scale):
        return None
    return float(known.scale[0]), int(known.zeroPoint[0])


def _connect(graph: LiteRTGraph, before: list[Any], place: int, taken: Any) -> None:
    """Connect the network's input to what comes before it: under another name, or quantised."""
    index = graph.input_index
    if taken.type != graph.schema.TensorType.FLOAT32 and _scale_of(taken) is None:
        remedy = "It scales them by itself: say --scale none."
        raise ModelError("the network's input", "float32, or quantised with a scale", "plain whole numbers", remedy)
    if taken.type != graph.schema.TensorType.FLOAT32:
        code = graph.schema.BuiltinOperator.QUANTIZE
        before.append(graph.make_operator(code, [place], index, graph.schema.QuantizeOptionsT()))
        return
    before[-1].outputs = [index]


def _give_float(graph: LiteRTGraph) -> None:
    output = graph.tensor(graph.output_index)
    if output.type == graph.schema.TensorType.FLOAT32:
        return
    made = graph.add_activation("given", open_shape(output))
    code = graph.schema.BuiltinOperator.DEQUANTIZE
    graph.operators.append(graph.make_operator(code, [graph.output_index], made, graph.schema.DequantizeOptionsT()))
    graph.give(made)
