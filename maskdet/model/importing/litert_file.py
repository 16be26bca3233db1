"""Inspect LiteRT files without an interpreter: only built-in operators are allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskdet.model.importing.facts import Facts, damaged, input_facts, only, unsafe

_IDENTIFIER = b"TFL3"
_BUILT_IN = "Convert it with built-in operators alone: custom and Flex ones are code that the file does not hold."


def inspect_litert(file: Path) -> Facts:
    """Inspect a LiteRT file.

    Raises:
        ModelError: it is damaged, has operators that are not built in, or no single image input and output.
    """
    from ai_edge_litert import schema_py_generated as schema

    data = file.read_bytes()
    if data[4:8] != _IDENTIFIER:
        raise damaged("litert", "a file that does not begin like one")
    try:
        network = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(data), 0))
        _check_operators(network, schema)
        (graph,) = network.subgraphs
        return _facts(network, graph, schema)
    except (
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        SystemError,
    ) as error:
        raise damaged("litert", f"{type(error).__name__}: {error}") from error
    except Exception as error:
        if type(error).__module__ != "struct":
            raise
        raise damaged("litert", str(error)) from error


def _check_operators(network: Any, schema: Any) -> None:
    for code in network.operatorCodes:
        if code.customCode or schema.BuiltinOperator.CUSTOM in (code.builtinCode, code.deprecatedBuiltinCode):
            name = bytes(code.customCode or b"").decode("utf-8", "replace")
            raise unsafe(f"the operator {name or 'CUSTOM'}", _BUILT_IN)
    for buffer in network.buffers:
        if buffer.offset or buffer.size:
            raise unsafe("weights outside the file's own table", _BUILT_IN)
    if len(network.subgraphs) != 1:
        raise unsafe(f"{len(network.subgraphs)} graphs", "Convert a network without branches and loops.")


def _facts(network: Any, graph: Any, schema: Any) -> Facts:
    shapes = []
    for indices, what in ((graph.inputs, "input"), (graph.outputs, "output")):
        only([str(index) for index in indices], what)
        shapes.append(open_shape(graph.tensors[indices[0]]))
    units = shapes[1][-1] if len(shapes[1]) == 2 and shapes[1][-1] > 0 else None
    made_with = bytes(network.description or b"LiteRT").decode("utf-8", "replace")
    return Facts(
        kind="litert",
        outputs=units,
        activation=_activation(network, graph, schema),
        made_with=made_with,
        **input_facts(tuple(shapes[0])),
    )


def open_shape(tensor: Any) -> list[int]:
    """A tensor's shape, -1 where it is left open."""
    known = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return [] if known is None else [int(size) for size in known]


def _activation(network: Any, graph: Any, schema: Any) -> str | None:
    """What the last operator turns the outputs into, ignoring changes of type or shape after it."""
    builtin = schema.BuiltinOperator
    for operator in reversed(graph.operators):
        code = network.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        if number in (builtin.DEQUANTIZE, builtin.QUANTIZE, builtin.RESHAPE):
            continue
        names = {builtin.LOGISTIC: "sigmoid", builtin.SOFTMAX: "softmax", builtin.FULLY_CONNECTED: "logits"}
        return names.get(number)
    return None
