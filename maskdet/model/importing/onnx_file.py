"""Inspect ONNX files without the library: standard operators, and weights in the file or its own folder.

Fields are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from maskdet.errors import ModelError
from maskdet.model.importing import wire
from maskdet.model.importing.facts import LAST_LAYERS, Facts, damaged, input_facts, only, unsafe

_STANDARD = ("", "ai.onnx")
_EXTERNAL = 1
_MIN_OPSET = 9
_MOST_DEPTH = 16
_STANDARD_ONLY = "Export it with standard operators alone: custom ones are code of whoever made them."
_ONE_FILE = "Save it in one file: onnx.save(onnx.load('model.onnx'), 'whole.onnx')."


def inspect_onnx(file: Path) -> Facts:
    """Inspect an ONNX file.

    Raises:
        ModelError: it is damaged, has custom operators or functions, names files elsewhere, or has no single image
            input and output.
    """
    try:
        model = memoryview(file.read_bytes())
        graph = wire.single(model, 7)
        if not len(graph):
            raise damaged("onnx", "no graph")
        _check_versions(model)
        _check_graph(graph, file.parent, 0)
        return _facts(model, graph)
    except wire.WireError as error:
        raise damaged("onnx", str(error)) from error


def external_files(file: Path) -> list[str]:
    """The files beside a network that hold its weights, as it names them, all in its folder.

    Raises:
        ModelError: as :func:`inspect_onnx`.
    """
    try:
        graph = wire.single(memoryview(file.read_bytes()), 7)
        places = [place for tensor in wire.messages(graph, 5) if (place := _location(tensor)) is not None]
    except wire.WireError as error:
        raise damaged("onnx", str(error)) from error
    for place in places:
        _check_location(place)
    return sorted(set(places))


def _check_versions(model: memoryview) -> None:
    if any(True for _ in wire.messages(model, 25)):
        raise unsafe("functions of its own", _STANDARD_ONLY)
    for imported in wire.messages(model, 8):
        domain, version = wire.text(imported, 1), wire.integer(imported, 2)
        if domain in _STANDARD and version < _MIN_OPSET:
            raise ModelError(
                "the ONNX file", f"opset {_MIN_OPSET} or later", version, "Export it with opset_version=17."
            )


def _check_graph(graph: memoryview, folder: Path, depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise unsafe("graphs nested more deeply than 16", _STANDARD_ONLY)
    for node in wire.messages(graph, 1):
        domain = wire.text(node, 7)
        if domain not in _STANDARD:
            raise unsafe(f"the operator {wire.text(node, 4)} of the domain {domain}", _STANDARD_ONLY)
        for attribute in wire.messages(node, 5):
            tensors = [*wire.messages(attribute, 5), *wire.messages(attribute, 10)]
            _check_tensors(tensors, folder)
            for inner in (*wire.messages(attribute, 6), *wire.messages(attribute, 11)):
                _check_graph(inner, folder, depth + 1)
    _check_tensors(wire.messages(graph, 5), folder)
    for sparse in wire.messages(graph, 15):
        _check_tensors([wire.single(sparse, 1), wire.single(sparse, 2)], folder)


def _check_tensors(tensors: Iterator[memoryview] | list[memoryview], folder: Path) -> None:
    for tensor in tensors:
        place = _location(tensor)
        if place is None:
            continue
        _check_location(place)
        path = folder / place
        if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            raise unsafe(f"weights in {place!r}, which is no file in its folder", _ONE_FILE)


def _location(tensor: memoryview) -> str | None:
    """Where a tensor's values are, if they are not in the file."""
    named = {wire.text(entry, 1): wire.text(entry, 2) for entry in wire.messages(tensor, 13)}
    return named.get("location", "") if named or wire.integer(tensor, 14) == _EXTERNAL else None


def _check_location(place: str) -> None:
    path = PurePosixPath(place)
    if not place or path.is_absolute() or len(path.parts) != 1 or place == ".." or "\\" in place or ":" in place:
        raise unsafe(f"weights in {place!r}, outside its folder", _ONE_FILE)


def _facts(model: memoryview, graph: memoryview) -> Facts:
    constants = {wire.text(tensor, 8) for tensor in wire.messages(graph, 5)}
    inputs = {wire.text(value, 1): value for value in wire.messages(graph, 11)}
    outputs = {wire.text(value, 1): value for value in wire.messages(graph, 12)}
    image = only([name for name in inputs if name not in constants], "input")
    given = _shape(outputs[only(list(outputs), "output")])
    units = given[-1] if len(given) == 2 and (given[-1] or 0) > 0 else None
    made_by = {
        wire.text_of(name): wire.text(node, 4) for node in wire.messages(graph, 1) for name in wire.messages(node, 2)
    }
    operator = made_by.get(next(iter(outputs)), "")
    activation = "logits" if operator in ("Gemm", "MatMul", "Add") else LAST_LAYERS.get(operator.lower())
    made_with = " ".join(filter(None, (wire.text(model, 2), wire.text(model, 3).removesuffix("None")))) or "ONNX"
    return Facts(
        kind="onnx", outputs=units, activation=activation, made_with=made_with, **input_facts(_shape(inputs[image]))
    )


def _shape(value: memoryview) -> tuple[int | None, ...]:
    """The sizes of the tensor shape in a ValueInfoProto's type."""
    shape = wire.single(wire.single(wire.single(value, 2), 1), 2)
    return tuple(wire.integer(dim, 1) or None for dim in wire.messages(shape, 1))
