"""Make an ONNX file take uint8 RGB and give probabilities, with nodes before and after its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskdet.model.importing.reading import Columns, Pixels

_PREFIX = "maskdet_"


def convert_onnx(proto: Any, pixels: Pixels, columns: Columns, size: tuple[int, int]) -> bytes:
    """Complete an ONNX network.

    Args:
        proto: an ``onnx.ModelProto`` that was inspected, with its weights; it is changed.
        pixels: its input's arithmetic.
        columns: its outputs'.
        size: height and width of its input.

    Returns:
        An ONNX file that takes uint8 ``(batch, height, width, 3)``.
    """
    import onnx

    helper, kinds = onnx.helper, onnx.TensorProto
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    (image,) = (value for value in graph.input if value.name not in constants)
    (given,) = graph.output
    before = _before(onnx, graph, pixels, image)
    after, name = _after(onnx, graph, columns, given)
    graph.node.extend(after)
    _put_first(graph, before)
    taken = helper.make_tensor_value_info(f"{_PREFIX}images", kinds.UINT8, ["batch", *size, 3])
    shape = ["batch"] if columns.kernel.shape[1] == 1 else ["batch", columns.kernel.shape[1]]
    graph.input.remove(image)
    graph.input.insert(0, taken)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, kinds.FLOAT, shape))
    converted: bytes = proto.SerializeToString()
    return converted


def _before(onnx: Any, graph: Any, pixels: Pixels, image: Any) -> list[Any]:
    helper, kinds = onnx.helper, onnx.TensorProto
    steps: list[tuple[str, list[str], dict[str, Any]]] = [("Cast", [], {"to": kinds.FLOAT})]
    if set(pixels.factor) != {1.0} or any(pixels.offset):
        steps.append(("Mul", [_constant(onnx, graph, "factor", np.array(pixels.factor, np.float32))], {}))
        steps.append(("Add", [_constant(onnx, graph, "offset", np.array(pixels.offset, np.float32))], {}))
    if pixels.channels == "BGR":
        steps.append(("Gather", [_constant(onnx, graph, "bgr", np.array([2, 1, 0], np.int64))], {"axis": 3}))
    if pixels.layout == "NCHW":
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    steps.append(("Cast", [], {"to": image.type.tensor_type.elem_type}))
    nodes, place = [], f"{_PREFIX}images"
    for number, (operator, inputs, attributes) in enumerate(steps):
        made = image.name if number == len(steps) - 1 else f"{_PREFIX}pixels_{number}"
        name = f"{_PREFIX}before_{number}"
        nodes.append(helper.make_node(operator, [place, *inputs], [made], name=name, **attributes))
        place = made
    return nodes


def _after(onnx: Any, graph: Any, columns: Columns, given: Any) -> tuple[list[Any], str]:
    helper, kinds = onnx.helper, onnx.TensorProto
    kernel = _constant(onnx, graph, "kernel", columns.kernel)
    bias = _constant(onnx, graph, "bias", columns.bias)
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Cast", [], {"to": kinds.FLOAT}),
        ("MatMul", [kernel], {}),
        ("Add", [bias], {}),
    ]
    if columns.curve == "sigmoid":
        steps.append(("Sigmoid", [], {}))
    elif columns.curve == "softmax":
        steps.append(("Softmax", [], {"axis": 1}))
    if columns.kernel.shape[1] == 1:
        steps.append(("Reshape", [_constant(onnx, graph, "flat", np.array([-1], np.int64))], {}))
    nodes, place = [], given.name
    for number, (operator, inputs, attributes) in enumerate(steps):
        made = f"{_PREFIX}made_{number}"
        name = f"{_PREFIX}after_{number}"
        nodes.append(helper.make_node(operator, [place, *inputs], [made], name=name, **attributes))
        place = made
    return nodes, place


def _constant(onnx: Any, graph: Any, name: str, values: Any) -> str:
    graph.initializer.append(onnx.numpy_helper.from_array(values, f"{_PREFIX}{name}"))
    return f"{_PREFIX}{name}"


def _put_first(graph: Any, nodes: list[Any]) -> None:
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
