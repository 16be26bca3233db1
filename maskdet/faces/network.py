"""Runs a detector's network on canvases of any size, each canvas on its own and in one thread.

LiteRT fixes a canvas's size when it allocates memory, which takes 4 ms for a canvas that then takes 14. So each worker
keeps its last sizes prepared, as many as fit in a memory limit; camera frames, which all have the same size, are
prepared once. ONNX Runtime, for imported detectors, accepts any size without preparation.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ModelError
from maskdet.faces.bundle import DetectorBundle, DetectorManifest
from maskdet.faces.decoding import DECODERS, Detections, Maps
from maskdet.faces.prepared import PreparedSizes

# int8 kernels of other processors may round some values to the neighbouring step, and these add up over 60 layers.
_GOLDEN_MEAN_TOLERANCE = 0.02
_GOLDEN_SCORE_TOLERANCE = 0.15
_PACKAGES = {"litert": "ai-edge-litert", "onnx": "onnxruntime"}


class _Runner(Protocol):
    """Runs canvases for one thread."""

    def run(self, canvas: NDArray[np.uint8]) -> Maps:
        """The network's maps for one canvas."""
        ...


class Network:
    """A verified detector network; safe to call from several threads.

    Args:
        bundle: what to run.
        threads: how many canvases run concurrently.

    Raises:
        ModelError: the runtime is not installed, the file is not a network of this architecture, or it does not
            reproduce its golden maps.
    """

    def __init__(self, bundle: DetectorBundle, threads: int = 1) -> None:
        try:
            self._set_up(bundle, threads)
            _check_golden(bundle, self)
        except ModelError:
            raise
        except Exception as error:  # the runtime raises whatever it likes for a file it cannot read
            runtime = bundle.manifest.runtime
            raise ModelError(
                f"detector {bundle.folder}: {runtime} cannot load it: {error}. Export it again."
            ) from error

    @classmethod
    def unchecked(cls, bundle: DetectorBundle) -> Network:
        """A network that is not verified, since its golden maps are yet to be made."""
        network = cls.__new__(cls)
        network._set_up(bundle, 1)
        return network

    def _set_up(self, bundle: DetectorBundle, threads: int) -> None:
        self.manifest = bundle.manifest
        self._decode = DECODERS[bundle.manifest.architecture]
        self._free: queue.SimpleQueue[_Runner] = queue.SimpleQueue()
        for _ in range(threads):
            self._free.put(_RUNNERS[bundle.manifest.runtime](bundle.network, bundle.manifest))

    def run(self, canvas: NDArray[np.uint8]) -> Maps:
        """The network's maps for one canvas; waits while every worker is busy.

        Args:
            canvas: uint8 RGB ``(height, width, 3)``; both sides are multiples of the manifest's ``side_multiple_px``.
        """
        runner = self._free.get()
        try:
            return runner.run(canvas)
        finally:
            self._free.put(runner)

    def detect(self, canvas: NDArray[np.uint8], min_score: float) -> Detections:
        """Every box of a canvas whose score reaches a threshold, in pixels of the canvas, before suppression.

        Args:
            canvas: as for :meth:`run`.
            min_score: boxes below this score are left out.
        """
        return self._decode(self.run(canvas), (canvas.shape[0], canvas.shape[1]), min_score)


def open_network(bundle: DetectorBundle, threads: int = 1) -> Network:
    """Load, verify and warm up a bundle's network; as :class:`Network`."""
    return Network(bundle, threads)


def runtime_version(manifest: DetectorManifest) -> str:
    """Name and version of the library that runs the network; part of a run's fingerprint.

    Raises:
        ModelError: it is not installed.
    """
    package = _PACKAGES[manifest.runtime]
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError as error:
        remedy = f"Run where images are scored: pip install {package}."
        raise ModelError(f"detector {manifest.model_id}", f"the package {package}", "none installed", remedy) from error


class _Interpreter(NamedTuple):
    """An interpreter, and the indices of its input and outputs."""

    interpreter: Any
    input: int
    outputs: dict[str, int]

    @classmethod
    def load(cls, path: Path) -> _Interpreter:
        """An interpreter that is not prepared for any size yet."""
        from ai_edge_litert.interpreter import Interpreter  # heavy

        interpreter = Interpreter(model_path=str(path), num_threads=1)
        return cls(interpreter, interpreter.get_input_details()[0]["index"], _output_indices(interpreter))

    def prepare(self, height: int, width: int) -> None:
        """Prepare it for canvases of a size."""
        self.interpreter.resize_tensor_input(self.input, (1, height, width, 3))
        self.interpreter.allocate_tensors()


class _LiteRTRunner:
    """LiteRT interpreters with one thread, one for each of the latest canvas sizes."""

    def __init__(self, path: Path, manifest: DetectorManifest) -> None:
        self._manifest = manifest
        self._sizes = PreparedSizes(lambda: _Interpreter.load(path), _Interpreter.prepare)

    def run(self, canvas: NDArray[np.uint8]) -> Maps:
        interpreter, input_index, outputs = self._sizes.of(*canvas.shape[:2])
        # Rotated by 180 degrees, and the maps rotated back: see tools.detector.centerface. A canvas that is rotated and
        # has its channels reversed is its bytes in reverse order, which takes a fifth of the time of rotation alone.
        step = -1 if self._manifest.turned else 1
        turned = canvas[np.newaxis, ::step, ::step, :: -1 if self._manifest.channel_order == "BGR" else 1]
        interpreter.set_tensor(input_index, np.ascontiguousarray(turned))
        interpreter.invoke()
        return {name: interpreter.get_tensor(index)[0, ::step, ::step] for name, index in outputs.items()}


class _OnnxRunner:
    """A session of ONNX Runtime, in float32 and with one thread."""

    def __init__(self, path: Path, manifest: DetectorManifest) -> None:
        runtime_version(manifest)  # raises an error that says how to install it
        import onnxruntime  # heavy

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]
        self._reversed = manifest.channel_order == "BGR"

    def run(self, canvas: NDArray[np.uint8]) -> Maps:
        channels = canvas[..., ::-1] if self._reversed else canvas
        pixels = np.ascontiguousarray(channels.transpose(2, 0, 1)[np.newaxis], np.float32)
        maps = self._session.run(self._names, {self._input: pixels})
        return {name: values[0] for name, values in zip(self._names, maps, strict=True)}


_RUNNERS: dict[str, Callable[[Path, DetectorManifest], _Runner]] = {"litert": _LiteRTRunner, "onnx": _OnnxRunner}


def _output_indices(interpreter: Any) -> dict[str, int]:
    outputs = interpreter.get_signature_runner().get_output_details()
    return {name: int(detail["index"]) for name, detail in outputs.items()}


def _check_golden(bundle: DetectorBundle, network: Network) -> None:
    canvas, expected = bundle.golden()
    received = network.run(canvas)
    shapes = [{name: values.shape for name, values in maps.items()} for maps in (expected, received)]
    if shapes[0] != shapes[1]:
        raise ModelError(f"detector {bundle.folder}", f"maps of {shapes[0]}", shapes[1], "Export it again.")
    worst, mean = 0.0, 0.0
    for name, values in expected.items():
        difference = np.abs(received[name] - values)
        mean = max(mean, float(np.mean(difference)))
        worst = max(worst, float(np.max(difference))) if name in _SCORE_MAPS else worst
    # Written so that NaN is refused too.
    if not (worst <= _GOLDEN_SCORE_TOLERANCE and mean <= _GOLDEN_MEAN_TOLERANCE):
        raise ModelError(
            f"detector {bundle.manifest.model_id} on {runtime_version(bundle.manifest)}",
            f"its golden maps within {_GOLDEN_MEAN_TOLERANCE} on average, scores within {_GOLDEN_SCORE_TOLERANCE}",
            f"{mean:.4f} on average, a score {worst:.4f} off",
            "The runtime computes something different than at export; export the bundle again with this version.",
        )


_SCORE_MAPS = frozenset(("score", *(f"{kind}_{stride}" for kind in ("cls", "obj") for stride in (8, 16, 32))))
