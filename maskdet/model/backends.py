"""Backends: run a bundle's model on blocks of images.

Every backend gives an image the same probability, bit for bit, whatever other images share its block: blocks have one
fixed size (a short one is padded), and :func:`load_model` checks the property on the golden images before the first
real one. Tables are then identical for any shard size, order and number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ModelError
from maskdet.model import litert_graph, onnx_export
from maskdet.model.bundle import Bundle, open_bundle
from maskdet.model.manifest import (
    GOLDEN_FILE,
    LITERT_FLOAT_FILE,
    LITERT_INT8_FILE,
    ONNX_FILE,
    SAVED_MODEL_FOLDER,
    Manifest,
)

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

# Golden outputs were made on another machine, perhaps with other vector instructions. Float kernels then differ in the
# last bits; int8 kernels may round a few values to the neighbouring step, and steps add up over a network's layers.
_GOLDEN_TOLERANCE = {"float32": 1e-3, "int8": 0.05}


class Backend(Protocol):
    """Runs a model on blocks of one fixed size; safe to call from several threads."""

    def run(self, block: Images) -> Probabilities:
        """What the network gives.

        Args:
            block: uint8 RGB ``(block_images, height, width, 3)``.

        Returns:
            float32, of a network of two classes the probability of ``mask``, ``(block_images,)``, of one of three that
            of each class, ``(block_images, 3)``.
        """


@dataclass(frozen=True)
class RuntimeSpec:
    """Which runtime runs a bundle, and how."""

    backend: Literal["litert", "tensorflow", "onnx"] = "litert"
    precision: Literal["int8", "float32"] = "int8"
    threads: int = 1
    """Blocks that run concurrently, one thread each (TensorFlow: threads within a block)."""
    block_images: int = 8

    @property
    def output_name(self) -> str:
        """The golden output that this runtime must reproduce."""
        return f"{self.backend}_{self.precision}"

    @property
    def runtime_version(self) -> str:
        """Name and version of the library that runs the model; part of a run's fingerprint."""
        package, extra = {
            "litert": ("ai-edge-litert", "maskdet"),
            "tensorflow": ("tensorflow", "maskdet[tensorflow]"),
            "onnx": ("onnxruntime", "maskdet[onnx]"),
        }[self.backend]
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError as error:
            raise ModelError(
                f"model.backend {self.backend!r}",
                f"the package {package}",
                "none installed",
                f"Run: pip install '{extra}'.",
            ) from error

    def needs(self, name: str) -> bool:
        """Whether this runtime reads a file of a bundle."""
        if self.backend == "tensorflow":
            return name == GOLDEN_FILE or name.startswith(f"{SAVED_MODEL_FOLDER}/")
        return name in (GOLDEN_FILE, ONNX_FILE if self.backend == "onnx" else self.litert_file)

    @property
    def litert_file(self) -> str:
        """The LiteRT file of this precision."""
        return LITERT_INT8_FILE if self.precision == "int8" else LITERT_FLOAT_FILE


class Model:
    """A verified, warmed-up model."""

    def __init__(self, manifest: Manifest, backend: Backend, block_images: int) -> None:
        self.manifest = manifest
        self.block_images = block_images
        self._backend = backend

    def predict(self, images: Images) -> Probabilities:
        """Probabilities of the classes, for any number of images.

        Args:
            images: uint8 RGB ``(n, height, width, 3)`` of the manifest's input size.

        Returns:
            float32 ``(n, classes)``, in the order of the manifest's ``class_names``; a row depends on its own image
            alone, and adds to 1. Of two classes that of ``mask`` is what the network gave, and the other 1 less it.
        """
        outputs = self.run(images)
        return outputs if outputs.ndim == 2 else np.stack([np.float32(1) - outputs, outputs], axis=1)

    def run(self, images: Images) -> Probabilities:
        """What the network gives, for any number of images.

        Args:
            images: uint8 RGB ``(n, height, width, 3)`` of the manifest's input size.

        Returns:
            float32 ``(n,)`` or ``(n, classes)``, as :meth:`Backend.run`.
        """
        size = self.block_images
        if len(images) == size:
            return self._backend.run(images)
        outputs = np.empty(self.manifest.output_shape(len(images)), np.float32)
        for start in range(0, len(images), size):
            part = images[start : start + size]
            block = (
                part
                if len(part) == size
                else np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.uint8)])
            )
            outputs[start : start + size] = self._backend.run(block)[: len(part)]
        return outputs


def load_model(uri: str, spec: RuntimeSpec) -> Model:
    """Open a bundle, load it on a backend, check it against its golden outputs and warm it up.

    Raises: ModelError: the bundle is missing, damaged, of another shape than its manifest says, does not reproduce its
    golden outputs, or lets one image change another's result. StorageError: the bundle cannot be read.
    """
    spec.runtime_version  # noqa: B018  says which package is missing before anything is fetched
    bundle = open_bundle(uri, spec.needs)
    _refuse_unlisted(bundle, spec)
    _refuse_absent(uri, bundle, spec)
    make = _BACKENDS[spec.backend]
    try:
        backend = make(bundle, spec)
    except ModelError:
        raise
    except Exception as error:  # the runtimes raise whatever they like for a file they cannot read
        raise ModelError(f"model {uri}: {spec.backend} cannot load it: {error}. Export the bundle again.") from error
    model = Model(bundle.manifest, backend, spec.block_images)
    _check_golden(bundle, model, spec)
    return model


def _refuse_unlisted(bundle: Bundle, spec: RuntimeSpec) -> None:
    """A file that the runtime would read, though no hash in the manifest covers it."""
    present = (path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file())
    unlisted = sorted(name for name in present if spec.needs(name) and name not in bundle.manifest.files)
    if unlisted:
        raise ModelError(
            f"model {bundle.folder}", "only files that its manifest lists", unlisted, "Copy the bundle again, in whole."
        )


def _refuse_absent(uri: str, bundle: Bundle, spec: RuntimeSpec) -> None:
    if any(name != GOLDEN_FILE and spec.needs(name) for name in bundle.manifest.files):
        return
    raise ModelError(
        f"model {uri}",
        f"a file for backend {spec.backend!r} in {spec.precision}",
        "none",
        f"Make one: maskdet export --model {uri} --output DIR; then use --model DIR.",
    )


class LiteRTBackend:
    """LiteRT interpreters, one per thread, over one network.

    A thread is given the interpreter that it had before, whose buffers are in its core's cache.
    """

    def __init__(self, bundle: Bundle, spec: RuntimeSpec) -> None:
        path = bundle.folder / spec.litert_file
        if not path.is_file():
            raise ModelError(
                f"model {bundle.manifest.name}", f"the file {spec.litert_file}", "none", "Choose another precision."
            )
        network = litert_graph.lean(path.read_bytes())
        self._free = [_Interpreter(network, bundle.manifest, spec.block_images) for _ in range(spec.threads)]
        self._given_back = threading.Condition()
        self._of_thread = threading.local()

    def run(self, block: Images) -> Probabilities:
        """As :meth:`Backend.run`; waits while every interpreter is busy."""
        interpreter = self._take()
        try:
            return interpreter.run(block)
        finally:
            self._give_back(interpreter)

    def _take(self) -> _Interpreter:
        with self._given_back:
            self._given_back.wait_for(lambda: self._free)
            known = getattr(self._of_thread, "interpreter", None)
            interpreter = self._free.pop(self._free.index(known) if known in self._free else 0)
        self._of_thread.interpreter = interpreter
        return interpreter

    def _give_back(self, interpreter: _Interpreter) -> None:
        with self._given_back:
            self._free.append(interpreter)
            self._given_back.notify()


class _Interpreter:
    """One LiteRT interpreter, for one thread at a time."""

    def __init__(self, network: bytes, manifest: Manifest, block_images: int) -> None:
        from ai_edge_litert.interpreter import Interpreter  # heavy, and absent where only TensorFlow is installed

        self._interpreter = Interpreter(model_content=network, num_threads=1)
        [details], [result] = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._input, self._output = details["index"], result["index"]
        self._shifted = litert_graph.takes_shifted(details)
        shape = [block_images, manifest.input.height, manifest.input.width, 3]
        if list(details["shape"][1:]) != shape[1:] or not (self._shifted or details["dtype"] == np.uint8):
            _refuse_signature(manifest, f"{list(details['shape'])} {np.dtype(details['dtype']).name}")
        self._output_shape = manifest.output_shape(block_images)
        self._interpreter.resize_tensor_input(self._input, shape, strict=False)
        self._interpreter.allocate_tensors()
        # The output's shape is known only after a call, whose kernel set-up the first block should not pay for anyway.
        output = self._invoke(np.zeros(shape, np.uint8))
        if output.dtype != np.float32 or output.size != block_images * manifest.outputs:
            _refuse_signature(manifest, f"output {list(output.shape)} {output.dtype.name}")

    def run(self, block: Images) -> Probabilities:
        """As :meth:`Backend.run`."""
        return self._invoke(block).reshape(self._output_shape)

    def _invoke(self, block: Images) -> Probabilities:
        # With the highest bit turned, uint8 reads as int8 that is 128 less.
        self._interpreter.set_tensor(self._input, (block ^ 0x80).view(np.int8) if self._shifted else block)
        self._interpreter.invoke()
        output: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return output


class TensorFlowBackend:
    """The SavedModel, through a function of one fixed input shape."""

    def __init__(self, bundle: Bundle, spec: RuntimeSpec) -> None:
        import tensorflow as tf  # heavy; a LiteRT worker never imports it

        _limit_threads(tf, spec.threads)
        saved_model = tf.saved_model.load(str(bundle.folder / SAVED_MODEL_FOLDER))
        self._function = saved_model.signatures["serving_default"]
        (spec_in,) = self._function.structured_input_signature[1].values()
        shape = [bundle.manifest.input.height, bundle.manifest.input.width, 3]
        if spec_in.dtype != tf.uint8 or spec_in.shape.as_list()[1:] != shape:
            _refuse_signature(bundle.manifest, f"{spec_in.shape.as_list()} {spec_in.dtype.name}")
        (spec_out,) = self._function.structured_outputs.values()
        if spec_out.shape.as_list()[1:] != list(bundle.manifest.output_shape(1)[1:]):
            _refuse_signature(bundle.manifest, f"output {spec_out.shape.as_list()} {spec_out.dtype.name}")
        self._saved_model = saved_model  # its variables live as long as this object
        self._constant = tf.constant

    def run(self, block: Images) -> Probabilities:
        """As :meth:`Backend.run`."""
        (output,) = self._function(self._constant(block)).values()
        probabilities: NDArray[np.float32] = output.numpy()
        return probabilities


class OnnxBackend:
    """The ONNX file; as many blocks concurrently as there are threads."""

    def __init__(self, bundle: Bundle, spec: RuntimeSpec) -> None:
        self._session = onnx_export.open_session(bundle.folder / ONNX_FILE)
        (tensor_in,), (tensor_out,) = self._session.get_inputs(), self._session.get_outputs()
        shape = [bundle.manifest.input.height, bundle.manifest.input.width, 3]
        types = (tensor_in.type, tensor_out.type)
        given = list(bundle.manifest.output_shape(1)[1:])
        if types != ("tensor(uint8)", "tensor(float)") or tensor_in.shape[1:] != shape or tensor_out.shape[1:] != given:
            _refuse_signature(bundle.manifest, f"{types[0]} {tensor_in.shape}, {types[1]} {tensor_out.shape}")
        self._input = tensor_in.name
        self._free = threading.BoundedSemaphore(spec.threads)  # a call runs on the thread that makes it

    def run(self, block: Images) -> Probabilities:
        """As :meth:`Backend.run`."""
        with self._free:
            output: Probabilities
            (output,) = self._session.run(None, {self._input: block})
            return output


def _limit_threads(tf: Any, threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        # TensorFlow is already running in this process; its threads were chosen by whoever started it.
        return


def _refuse_signature(manifest: Manifest, received: str) -> None:
    output = "(batch,)" if manifest.outputs == 1 else f"(batch, {manifest.outputs})"
    wanted = f"input uint8 (batch, {manifest.input.height}, {manifest.input.width}, 3), output float32 {output}"
    raise ModelError(f"model {manifest.name}", wanted, received, "Export the bundle again.")


def _check_golden(bundle: Bundle, model: Model, spec: RuntimeSpec) -> None:
    inputs, expected = bundle.golden(spec.output_name)
    shape = (len(inputs), model.manifest.input.height, model.manifest.input.width, 3)
    if inputs.shape != shape or expected.shape != model.manifest.output_shape(len(inputs)):
        _refuse_signature(bundle.manifest, f"golden inputs {list(inputs.shape)}, outputs {list(expected.shape)}")
    received = model.run(inputs)
    worst = float(np.max(np.abs(received - expected)))
    tolerance = _GOLDEN_TOLERANCE[spec.precision]
    if not worst <= tolerance:  # also refuses NaN
        raise ModelError(
            f"model {bundle.manifest.model_id} on {spec.runtime_version}, {spec.precision}",
            f"its golden outputs within {tolerance}",
            f"{worst:.4f} off",
            "The runtime computes something else than at export; export the bundle with this version.",
        )
    filler = np.repeat(inputs[::-1], -(-spec.block_images // len(inputs)), axis=0)[: spec.block_images]
    block = np.concatenate([filler[: spec.block_images // 2], inputs])
    shifted = model.run(block)[spec.block_images // 2 :]
    if not np.array_equal(shifted, received):
        raise ModelError(
            f"model {bundle.manifest.model_id} on {spec.runtime_version}, {spec.precision}",
            "the same result for an image whatever else is in its block",
            "different results",
            "Use another backend or precision; tables from this one would not be reproducible.",
        )


_BACKENDS: dict[str, Callable[[Bundle, RuntimeSpec], Backend]] = {
    "litert": LiteRTBackend,
    "tensorflow": TensorFlowBackend,
    "onnx": OnnxBackend,
}
