"""Inspect SavedModels without TensorFlow: every operation that loading or scoring could run has to be on a list.

A SavedModel is a graph, and a graph can read and write files, open connections and call Python by name. Anything
that is not listed here is refused, in the graph, in each of its functions, and wherever a function is called. Fields
are those of TensorFlow's saved_model.proto, meta_graph.proto, graph.proto, function.proto and saved_object_graph.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from maskdet.model.importing import wire
from maskdet.model.importing.facts import Facts, damaged, input_facts, names_in, only, unsafe

GRAPH_FILE = "saved_model.pb"
SIGNATURE = "serving_default"

# Arithmetic on tensors, reading variables, calls and branches.
_OPERATIONS = names_in(
    """
    Abs Add AddN AddV2 ArgMax AssignVariableOp AvgPool BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND
    BiasAdd BroadcastArgs BroadcastTo Cast Ceil ClipByValue Concat ConcatV2 Const Conv2D Cumsum DepthToSpace
    DepthwiseConv2dNative DisableCopyOnRead DivNoNan Einsum Elu EnsureShape Equal Erf Exp ExpandDims FakeParam
    FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel Fill Floor FloorDiv FloorMod FusedBatchNorm
    FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual Identity IdentityN L2Loss
    LeakyRelu Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr LogSoftmax MatMul Max MaxPool MaxPoolV2
    Maximum Mean Min Minimum MirrorPad Mod Mul MulNoNan Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2
    PartitionedCall Placeholder PlaceholderWithDefault Pow Prod Range Rank ReadVariableOp RealDiv Reciprocal
    Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ReverseV2 Round Rsqrt
    Select SelectV2 Selu Shape ShapeN Sigmoid Sign Size Slice Softmax Softplus Softsign SpaceToBatchND
    SpaceToDepth Split SplitV Sqrt Square SquaredDifference Squeeze StatefulPartitionedCall StatelessIf
    StopGradient StridedSlice Sub Sum Tanh Tile TopKV2 Transpose Unpack VarHandleOp VarIsInitializedOp Where
    ZerosLike If
    """
)
# The graph's own saving and restoring of weights, which loading does not use: TensorFlow restores them itself.
_CHECKPOINT = names_in(
    """
    MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename StaticRegexFullMatch StringJoin
    """
)
_EXPORT = "Save it again with Keras, model.export(folder), which writes a graph for scoring alone."
_NO_KIND, _FLOAT, _UINT8 = 0, 1, 4
_OBJECT_FUNCTION, _OBJECT_BARE, _OBJECT_ASSET, _OBJECT_RESOURCE, _SAVEABLES = 6, 8, 5, 10, 11


def inspect_saved_model(folder: Path) -> Facts:
    """Inspect a SavedModel.

    Raises:
        ModelError: it is damaged, has an operation that is not allowed, or has no single image input and output.
    """
    _check_files(folder)
    try:
        graphs = list(wire.messages(memoryview((folder / GRAPH_FILE).read_bytes()), 2))
        if len(graphs) != 1:
            raise damaged("saved_model", f"{len(graphs)} graphs")
        (graph,) = graphs
        _check_operations(graph)
        return _facts(graph)
    except (OSError, wire.WireError) as error:
        raise damaged("saved_model", str(error)) from error


def _check_files(folder: Path) -> None:
    """Refuse a second graph: among several, TensorFlow reads another one than is inspected here."""
    others = sorted(path.name for path in folder.glob("saved_model.*") if path.name != GRAPH_FILE)
    if others:
        raise unsafe(f"{', '.join(others)} beside {GRAPH_FILE}", _EXPORT)


def _check_operations(graph: memoryview) -> None:
    definition, objects = wire.single(graph, 2), wire.single(graph, 7)
    if not len(objects):
        raise unsafe("a SavedModel of TensorFlow 1, which runs operations of its own choice when it is loaded", _EXPORT)
    if any(True for _ in wire.messages(graph, 6)):
        raise unsafe("files beside the graph (assets)", _EXPORT)
    functions = {_name(function): function for function in wire.messages(wire.single(definition, 2), 1)}
    # The graph around the functions is not run; it saves and restores weights for TensorFlow 1.
    called = _named_by_objects(objects)
    for function in functions.values():
        called |= {name for node in wire.messages(function, 3) for name in _calls(node)}
    for node in wire.messages(definition, 1):
        _check_node(node, "the graph", _OPERATIONS | _CHECKPOINT)
    for name, function in functions.items():
        allowed = _OPERATIONS if name in called else _OPERATIONS | _CHECKPOINT
        for node in wire.messages(function, 3):
            _check_node(node, f"the function {name}", allowed)


def _check_node(node: memoryview, place: str, allowed: frozenset[str]) -> None:
    operation = wire.text(node, 2)
    if operation not in allowed:
        remedy = f"An operation beyond arithmetic on images could reach files, the network or Python. {_EXPORT}"
        raise unsafe(f"the operation {operation} in {place}", remedy)


def _name(function: memoryview) -> str:
    return wire.text(wire.single(function, 1), 1)


def _calls(node: memoryview) -> Iterator[str]:
    """Functions named in an operation's attributes: AttrValue's func, or list of func."""
    for _, value in wire.entries(node, 5):
        yield from (wire.text(function, 1) for function in wire.messages(value, 10))
        for many in wire.messages(value, 1):
            yield from (wire.text(function, 1) for function in wire.messages(many, 9))


def _named_by_objects(objects: memoryview) -> set[str]:
    """Functions that loading makes callable or calls; objects that call one while they are loaded are refused."""
    named: set[str] = set()
    for node in wire.messages(objects, 1):
        for field in wire.fields(node):
            if field.number in (_OBJECT_ASSET, _OBJECT_RESOURCE):
                raise unsafe("a table or file that is set up when the model is loaded", _EXPORT)
            if field.number == _SAVEABLES:
                raise unsafe("an object that restores itself by a function of its own", _EXPORT)
            if not isinstance(field.value, memoryview):
                continue
            if field.number == _OBJECT_FUNCTION:
                named |= {wire.text_of(name) for name in wire.messages(field.value, 1)}
            if field.number == _OBJECT_BARE:
                named.add(wire.text(field.value, 1))
    return named


def _facts(graph: memoryview) -> Facts:
    signatures = dict(wire.entries(graph, 5))
    if SIGNATURE not in signatures:
        found = ", ".join(sorted(signatures)) or "none"
        raise damaged("saved_model", f"no signature {SIGNATURE!r} but {found}")
    inputs, outputs = (dict(wire.entries(signatures[SIGNATURE], number)) for number in (1, 2))
    shape = _shape(inputs[only(sorted(inputs), "input")])
    given = _shape(outputs[only(sorted(outputs), "output")])
    units = given[-1] if len(given) == 2 and (given[-1] or 0) > 0 else None
    version = wire.text(wire.single(graph, 1), 5)
    return Facts(kind="saved_model", outputs=units, made_with=f"TensorFlow {version}".strip(), **input_facts(shape))


def _shape(info: memoryview) -> tuple[int | None, ...]:
    """The sizes of the dimensions in a TensorInfo's tensor_shape."""
    return tuple(wire.integer(dim, 1) for dim in wire.messages(wire.single(info, 3), 2))
