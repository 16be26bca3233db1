"""Runs the detector's network on canvases of any size, one at a time and one thread each.

LiteRT fixes a canvas's size when it allocates memory: 14 ms for 448 x 576 pixels, which then take 18 ms to run. So each
worker keeps its last few sizes prepared; camera frames, which all have one size, are prepared once. For another size
the one longest unused is resized: its weights stay packed, which leaves 3 ms.
"""

from __future__ import annotations

import queue
from collections import OrderedDict
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ModelError
from maskdet.faces.bundle import DetectorBundle
from maskdet.faces.decoding import STRIDE_PX, Heads

# Sizes kept prepared by a worker. A 1280 x 1280 canvas holds some 120 MB.
_PREPARED_SIZES = 6
# int8 kernels of other processors may round single values to the neighbouring step, and steps add up over 60 layers.
_GOLDEN_MEAN_TOLERANCE = 0.02
_GOLDEN_SCORE_TOLERANCE = 0.15


class Network:
    """A verified detector network; safe to call from several threads.

    Args:
        bundle: what to run.
        threads: canvases that run concurrently.

    Raises:
        ModelError: the file is no network of four heads, or does not reproduce its golden outputs.
    """

    def __init__(self, bundle: DetectorBundle, threads: int = 1) -> None:
        self._set_up(bundle, threads)
        try:
            _check_golden(bundle, self)
        except ModelError:
            raise
        except Exception as error:  # the runtime raises whatever it likes for a file it cannot read
            raise ModelError(f"detector {bundle.folder}: LiteRT cannot load it: {error}. Export it again.") from error

    @classmethod
    def unchecked(cls, bundle: DetectorBundle) -> Network:
        """A network whose golden maps are still to be made."""
        network = cls.__new__(cls)
        network._set_up(bundle, 1)
        return network

    def _set_up(self, bundle: DetectorBundle, threads: int) -> None:
        self.manifest = bundle.manifest
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(threads):
            self._free.put(_Worker(bundle.network))

    def run(self, canvas: NDArray[np.uint8]) -> Heads:
        """The network's maps for one canvas; waits while every worker is busy.

        Args:
            canvas: uint8 RGB ``(height, width, 3)``, sides multiples of the manifest's ``side_multiple_px``.
        """
        worker = self._free.get()
        try:
            return worker.run(canvas)
        finally:
            self._free.put(worker)


def runtime_version() -> str:
    """Name and version of the library that runs the network; part of a run's fingerprint."""
    return f"ai-edge-litert {metadata.version('ai-edge-litert')}"


class _Prepared(NamedTuple):
    """An interpreter, and where its input and outputs are."""

    interpreter: Any
    input: int
    outputs: dict[str, int]


class _Worker:
    """LiteRT interpreters of one thread, one per canvas size, the latest sizes kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._prepared: OrderedDict[tuple[int, int], _Prepared] = OrderedDict()

    def run(self, canvas: NDArray[np.uint8]) -> Heads:
        interpreter, input_index, outputs = self._of_size(*canvas.shape[:2])
        # Turned by 180 degrees, and the maps turned back: see tools.detector.centerface.
        interpreter.set_tensor(input_index, canvas[np.newaxis, ::-1, ::-1])
        interpreter.invoke()
        maps = {name: interpreter.get_tensor(index)[0, ::-1, ::-1] for name, index in outputs.items()}
        return Heads(maps["score"][..., 0], maps["size"], maps["offset"], maps["landmarks"])

    def _of_size(self, height: int, width: int) -> _Prepared:
        prepared = self._prepared.pop((height, width), None)
        if prepared is None:
            full = len(self._prepared) == _PREPARED_SIZES
            prepared = self._prepared.popitem(last=False)[1] if full else self._new()
            prepared.interpreter.resize_tensor_input(prepared.input, (1, height, width, 3))
            prepared.interpreter.allocate_tensors()
        self._prepared[height, width] = prepared  # now the latest; one whose resizing failed is not kept
        return prepared

    def _new(self) -> _Prepared:
        from ai_edge_litert.interpreter import Interpreter  # heavy

        interpreter = Interpreter(model_path=str(self._path), num_threads=1)
        return _Prepared(interpreter, interpreter.get_input_details()[0]["index"], _output_indices(interpreter))


def _output_indices(interpreter: Any) -> dict[str, int]:
    outputs = interpreter.get_signature_runner().get_output_details()
    return {name: int(detail["index"]) for name, detail in outputs.items()}


def _check_golden(bundle: DetectorBundle, network: Network) -> None:
    canvas, expected = bundle.golden()
    received = network.run(canvas)
    rows, columns = canvas.shape[0] // STRIDE_PX, canvas.shape[1] // STRIDE_PX
    if received.score.shape != (rows, columns):
        raise ModelError(
            f"detector {bundle.folder}", f"a map of {rows} x {columns} cells", received.score.shape, "Export it again."
        )
    worst = float(np.max(np.abs(received.score - expected.score)))
    means = [float(np.mean(np.abs(one - other))) for one, other in zip(received, expected, strict=True)]
    # Written so that NaN is refused too.
    if not (worst <= _GOLDEN_SCORE_TOLERANCE and max(means) <= _GOLDEN_MEAN_TOLERANCE):
        raise ModelError(
            f"detector {bundle.manifest.model_id} on {runtime_version()}",
            f"its golden maps within {_GOLDEN_MEAN_TOLERANCE} on average, scores within {_GOLDEN_SCORE_TOLERANCE}",
            f"{max(means):.4f} on average, a score {worst:.4f} off",
            "The runtime computes something else than at export; export the bundle with this version.",
        )
