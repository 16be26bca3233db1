"""The network of a model file as it is, run by its own library, with which a bundle is compared.

Files come here after :mod:`maskdet.model.importing.inspection` has found nothing but layers and weights in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskdet.errors import MaskdetError, ModelError
from maskdet.model.importing.facts import KINDS, Kind, input_facts
from maskdet.model.importing.reading import Floats
from maskdet.model.importing.saved_model import SIGNATURE

_BATCH_IMAGES = 32


@dataclass(frozen=True)
class Network:
    """A loaded network.

    Attributes:
        kind: of its file.
        shape: of its input including the batch; open sizes are ``None``.
        dtype: of its input.
        call: from a batch of that type to outputs, ``(images, outputs)``.
        loaded: a ``keras.Model``, a SavedModel, an ONNX ``ModelProto``, or the bytes of a LiteRT file.
    """

    kind: Kind
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    call: Callable[[Any], Any]
    loaded: Any

    def run(self, pixels: Floats) -> Floats:
        """The network's outputs.

        Args:
            pixels: float32, as it takes them, of any number of images.

        Returns:
            Float32 ``(images, outputs)``.

        Raises:
            ModelError: it cannot be run, or gives something else.
        """
        with model_errors(f"{KINDS[self.kind]} that runs on {len(pixels)} images of {pixels.shape[1:]}"):
            batches = range(0, len(pixels), _BATCH_IMAGES)
            parts = [np.asarray(self.call(self._cast(pixels[i : i + _BATCH_IMAGES])), np.float32) for i in batches]
        given: Floats = np.concatenate(parts)
        if given.ndim != 2 or len(given) != len(pixels):
            expected = f"one row of outputs for each of {len(pixels)} images"
            remedy = "Save the model so that it takes batches of any size (ONNX: dynamic axes)."
            raise ModelError("the network's output", expected, list(given.shape), remedy)
        if not np.isfinite(given).all():
            raise ModelError("the network's output", "finite numbers", "others", "Is the scale of the pixels right?")
        return given

    def _cast(self, pixels: Floats) -> Any:
        return np.rint(pixels).astype(self.dtype) if self.dtype.kind in "iu" else pixels.astype(self.dtype)


@contextmanager
def model_errors(expected: str, file: Path | None = None) -> Iterator[None]:
    """Turn whatever a library raises into an error that says what was expected of the model.

    Args:
        expected: of the model.
        file: the copy that is read; messages give its name without its folder, which nobody else knows.
    """
    try:
        yield
    except (MaskdetError, MemoryError, RecursionError):
        raise
    except Exception as error:  # libraries raise errors of any kind for models that they cannot read
        said = " ".join(str(error).split())
        problem = f"{type(error).__name__}: {said if file is None else said.replace(f'{file.parent}/', '')}"
        remedy = "Save the model again with a current version of its library."
        raise ModelError("the model file", expected, problem, remedy) from error


def open_network(kind: Kind, file: Path) -> Network:
    """Load the network of a file that was inspected.

    Raises:
        ModelError: its library cannot load it.
    """
    open_it = {
        "keras": _open_keras,
        "h5": _open_keras,
        "saved_model": _open_saved_model,
        "onnx": _open_onnx,
        "litert": _open_litert,
    }[kind]
    with model_errors(KINDS[kind], file):
        network = open_it(kind, file)
    input_facts(network.shape)  # refuses anything but a batch of images
    return network


def _open_keras(kind: Kind, file: Path) -> Network:
    import keras

    model = keras.saving.load_model(file, compile=False, safe_mode=True)
    if isinstance(model.input_shape, list) or isinstance(model.output_shape, list | dict):
        raise ModelError("the network", "one input and one output", "several", "Save a model of one of each.")
    dtype = np.dtype(model.inputs[0].dtype)
    return Network(kind, tuple(model.input_shape), dtype, lambda batch: model(batch, training=False), model)


def _open_saved_model(kind: Kind, folder: Path) -> Network:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    function = loaded.signatures[SIGNATURE]
    ((name, spec),) = function.structured_input_signature[1].items()

    def call(batch: Any) -> Any:
        (given,) = function(**{name: tf.convert_to_tensor(batch)}).values()
        return given

    return Network(kind, tuple(spec.shape.as_list()), np.dtype(spec.dtype.as_numpy_dtype), call, loaded)


def _open_onnx(kind: Kind, file: Path) -> Network:
    import onnx

    from maskdet.model.onnx_export import open_session_of

    proto = onnx.load(str(file))  # and the weights beside it
    constants = {tensor.name for tensor in proto.graph.initializer}
    (image,) = (value for value in proto.graph.input if value.name not in constants)
    _let_batch_vary(onnx, proto.graph, image)
    session = open_session_of(proto.SerializeToString())
    shape = tuple(dim.dim_value or None for dim in image.type.tensor_type.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)
    return Network(kind, shape, np.dtype(dtype), lambda batch: session.run(None, {image.name: batch})[0], proto)


def _let_batch_vary(onnx: Any, graph: Any, image: Any) -> None:
    """Make a network take batches of any size.

    Many exporters write the example's batch size, 1, into input and output and wherever features are flattened.
    Networks seldom depend on it; loading the bundle makes sure that no image changes another's result.
    """
    of_one = image.type.tensor_type.shape.dim[0].dim_value == 1
    for value in (image, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]
    if not of_one:
        return
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    constants = [tensor for tensor in graph.initializer if tensor.name in shapes]
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in shapes:
            constants += [attribute.t for attribute in node.attribute if attribute.name == "value"]
    for tensor in constants:
        sizes = onnx.numpy_helper.to_array(tensor).copy()
        if sizes.ndim == 1 and len(sizes) > 1 and sizes[0] == 1:
            sizes[0] = 0  # as it comes
            tensor.CopyFrom(onnx.numpy_helper.from_array(sizes, tensor.name))


def _open_litert(kind: Kind, file: Path) -> Network:
    from ai_edge_litert.interpreter import Interpreter

    data = file.read_bytes()
    interpreter = Interpreter(model_content=data, num_threads=1)
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def call(batch: Floats) -> Floats:
        interpreter.resize_tensor_input(taken["index"], list(batch.shape))
        interpreter.allocate_tensors()
        interpreter.set_tensor(taken["index"], _quantised(batch, taken))
        interpreter.invoke()
        return _real(interpreter.get_tensor(given["index"]), given)

    shape = tuple(int(size) if size > 0 else None for size in taken["shape_signature"])
    return Network(kind, shape, np.dtype(np.float32), call, data)


def _quantised(values: Floats, details: dict[str, Any]) -> Any:
    """Real values in the form of a LiteRT tensor."""
    scale, zero_point = details["quantization"]
    dtype = np.dtype(details["dtype"])
    if dtype.kind == "f":
        return values.astype(dtype)
    bounds = np.iinfo(dtype)
    return np.clip(np.rint(values / (scale or 1.0)) + zero_point, bounds.min, bounds.max).astype(dtype)


def _real(values: Any, details: dict[str, Any]) -> Floats:
    """The real values that a LiteRT tensor stands for."""
    scale, zero_point = details["quantization"]
    if values.dtype.kind == "f" or not scale:
        return np.asarray(values, np.float32)
    return np.asarray((values.astype(np.float32) - zero_point) * np.float32(scale), np.float32)
