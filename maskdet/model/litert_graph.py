"""The graph of a LiteRT file, parsed and written again.

:class:`LiteRTGraph` reads, appends and writes; :func:`lean` makes a network faster without changing what it computes.
"""

from __future__ import annotations

import copy
from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray

_FILE_IDENTIFIER = b"TFL3"
_PAIR = 2


class LiteRTGraph:
    """The only subgraph of a LiteRT file."""

    def __init__(self, file: bytes) -> None:
        from ai_edge_litert import schema_py_generated  # absent where only TensorFlow is installed

        self.schema: Any = schema_py_generated
        self._network = self.schema.ModelT.InitFromObj(self.schema.Model.GetRootAs(bytearray(file), 0))
        self._graph = self._network.subgraphs[0]

    @property
    def input_index(self) -> int:
        """Index of the graph's input tensor."""
        return int(self._graph.inputs[0])

    @property
    def output_index(self) -> int:
        """Index of the graph's output tensor."""
        return int(self._graph.outputs[0])

    @property
    def operators(self) -> list[Any]:
        """The operators, in the order in which they run; may be changed."""
        operators: list[Any] = self._graph.operators
        return operators

    def tensor(self, index: int) -> Any:
        """A tensor's description."""
        return self._graph.tensors[index]

    def code(self, operator: Any) -> int:
        """The kind of an operator, as numbered in the schema."""
        code = self._network.operatorCodes[operator.opcodeIndex]
        return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))

    def constant(self, index: int, dtype: type[np.generic]) -> NDArray[Any]:
        """The values of a constant tensor, in its shape."""
        tensor = self.tensor(index)
        return np.frombuffer(bytes(self._network.buffers[tensor.buffer].data), dtype).reshape(tensor.shape)

    def add_constant(self, name: str, values: NDArray[Any]) -> int:
        """Add an int8, int32 or float32 constant that is not quantised; returns its tensor's index."""
        kinds = self.schema.TensorType
        types = {"float32": kinds.FLOAT32, "int32": kinds.INT32, "int8": kinds.INT8}
        tensor = self._add_tensor(name, list(values.shape), types[values.dtype.name])
        self._network.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
        return len(self._graph.tensors) - 1

    def add_activation(self, name: str, shape: list[int], like: int | None = None) -> int:
        """Add a tensor that an operator computes, with -1 for the batch; returns its index.

        Args:
            name: of the tensor.
            shape: of the tensor.
            like: the tensor whose type and quantisation it has; default: float32.
        """
        known = None if like is None else self.tensor(like)
        tensor = self._add_tensor(
            name, [max(1, size) for size in shape], known.type if known else self.schema.TensorType.FLOAT32
        )
        tensor.shapeSignature = shape
        tensor.quantization = known and known.quantization
        return len(self._graph.tensors) - 1

    def make_operator(self, code: int, inputs: list[int], output: int, options: Any = None) -> Any:
        """Make an operator by its code and options in the schema; it still has to be put in place."""
        operator_code, operator = self.schema.OperatorCodeT(), self.schema.OperatorT()
        operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
        operator_code.version = 1
        self._network.operatorCodes.append(operator_code)
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self._network.operatorCodes) - 1, inputs, [output]
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        return operator

    def make_reshape(self, source: int, target: int) -> Any:
        """Make an operator that reshapes a tensor."""
        shape = np.array(self.tensor(target).shapeSignature, np.int32)
        inputs = [source, self.add_constant(f"{self.tensor(target).name.decode()}/shape", shape)]
        return self.make_operator(self.schema.BuiltinOperator.RESHAPE, inputs, target, self.schema.ReshapeOptionsT())

    def take(self, index: int) -> None:
        """Make this tensor the graph's input."""
        self._graph.inputs = [index]
        for signature in self._network.signatureDefs or ():
            signature.inputs[0].tensorIndex = index

    def give(self, index: int) -> None:
        """Make this tensor the graph's output."""
        self._graph.outputs = [index]
        for signature in self._network.signatureDefs or ():
            signature.outputs[0].tensorIndex = index

    def to_bytes(self) -> bytes:
        """The bytes of the file."""
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._network.Pack(builder), _FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _add_tensor(self, name: str, shape: list[int], tensor_type: int) -> Any:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), shape, tensor_type
        tensor.buffer = len(self._network.buffers)
        self._network.buffers.append(self.schema.BufferT())
        self._graph.tensors.append(tensor)
        return tensor


def lean(file: bytes) -> bytes:
    """The same network, bit for bit, without two things that are slow on CPUs.

    - LiteRT converts uint8 pixels to int8 in a loop of its own, a sixteenth of the reference CNN's time. The returned
      network takes int8: the pixel minus 128.
    - int8 kernels work on 8 channels at a time, of which a picture has 3. A first convolution (stride 1, no padding) is
      made to work on two neighbouring columns as one of 6 channels, for two columns of output; memory holds both the
      same way. A third of its time goes.

    Args:
        file: a LiteRT file; one that is not quantised, or begins otherwise, is returned as it is.
    """
    graph = LiteRTGraph(file)
    first = graph.operators[0]
    if not _is_shift_of_pixels(graph, first):
        return file
    del graph.operators[0]
    graph.take(first.outputs[0])
    if _may_pair(graph, graph.operators[0]):
        _pair_columns(graph)
    return graph.to_bytes()


def takes_shifted(tensor_details: dict[str, Any]) -> bool:
    """Whether an interpreter's input, by its details, is int8: the pixel minus 128."""
    return tensor_details["dtype"] == np.int8 and tuple(tensor_details["quantization"]) == (1.0, -128)


def _is_shift_of_pixels(graph: LiteRTGraph, operator: Any) -> bool:
    """Whether an operator takes the graph's pixels and only subtracts 128."""
    if graph.code(operator) != graph.schema.BuiltinOperator.QUANTIZE or operator.inputs[0] != graph.input_index:
        return False
    kinds, given, made = graph.schema.TensorType, graph.tensor(graph.input_index), graph.tensor(operator.outputs[0])
    return (
        (given.type, made.type) == (kinds.UINT8, kinds.INT8)
        and (list(given.quantization.scale), list(given.quantization.zeroPoint)) == ([1.0], [0])
        and (list(made.quantization.scale), list(made.quantization.zeroPoint)) == ([1.0], [-128])
    )


def _may_pair(graph: LiteRTGraph, operator: Any) -> bool:
    if graph.code(operator) != graph.schema.BuiltinOperator.CONV_2D or operator.inputs[0] != graph.input_index:
        return False
    options, width = operator.builtinOptions, graph.tensor(graph.input_index).shape[2]
    return (
        options.padding == graph.schema.Padding.VALID
        and (options.strideH, options.strideW) == (1, 1)
        and (options.dilationHFactor, options.dilationWFactor) == (1, 1)
        and width % _PAIR == 0
        and graph.tensor(operator.outputs[0]).shape[2] % _PAIR == 0
    )


def _pair_columns(graph: LiteRTGraph) -> None:
    """Make the first operator, a convolution, work on pairs of columns."""
    convolution = graph.operators[0]
    (pixels, kernel, bias), [output] = convolution.inputs, convolution.outputs
    _, height, width, channels = graph.tensor(pixels).shape
    _, rows, columns, filters = graph.tensor(output).shape
    paired_in = graph.add_activation("pairs/in", [-1, height, width // _PAIR, _PAIR * channels], like=pixels)
    paired_out = graph.add_activation("pairs/out", [-1, rows, columns // _PAIR, _PAIR * filters], like=output)
    paired_kernel = graph.add_constant("pairs/kernel", pair_kernel(graph.constant(kernel, np.int8)))
    paired_bias = graph.add_constant("pairs/bias", np.tile(graph.constant(bias, np.int32), _PAIR))
    for paired, single in ((paired_kernel, kernel), (paired_bias, bias)):
        graph.tensor(paired).quantization = _tiled(graph.tensor(single).quantization)
    convolution.inputs, convolution.outputs = [paired_in, paired_kernel, paired_bias], [paired_out]
    graph.operators.insert(0, graph.make_reshape(pixels, paired_in))
    graph.operators.insert(2, graph.make_reshape(paired_out, output))


def pair_kernel(kernel: NDArray[np.int8]) -> NDArray[np.int8]:
    """The kernel of a convolution of stride 1, for pairs of neighbouring columns.

    Args:
        kernel: int8 ``(filters, rows, columns, channels)``.

    Returns:
        int8 ``(2 filters, rows, columns // 2 + 1, 2 channels)``: the filters for the left column of a pair of outputs,
        then those for its right column, one further on.
    """
    filters, rows, columns, channels = kernel.shape
    wide = np.zeros((_PAIR, filters, rows, (columns // _PAIR + 1) * _PAIR, channels), np.int8)
    for side in range(_PAIR):
        wide[side, :, :, side : side + columns] = kernel
    return wide.reshape(_PAIR * filters, rows, columns // _PAIR + 1, _PAIR * channels)


def _tiled(quantization: Any) -> Any:
    """A quantisation with one scale per filter, for twice as many filters."""
    tiled = copy.copy(quantization)
    if len(quantization.scale) > 1:
        tiled.scale, tiled.zeroPoint = (np.tile(v, _PAIR) for v in (quantization.scale, quantization.zeroPoint))
    return tiled
