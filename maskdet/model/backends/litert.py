"""LiteRT, formerly TensorFlow Lite, with which the base install runs networks."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from maskdet.model import litert_graph
from maskdet.model.backends.base import BackendType, Images, Probabilities, RuntimeSpec, refuse_signature
from maskdet.model.bundle import Bundle
from maskdet.model.manifest import Manifest


class LiteRTBackend:
    """LiteRT interpreters, one per thread, over one network.

    A thread gets the interpreter that it had before, whose buffers are still in its core's cache.
    """

    def __init__(self, bundle: Bundle, spec: RuntimeSpec) -> None:
        network = litert_graph.lean((bundle.folder / spec.format.path).read_bytes())
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
            raise refuse_signature(manifest, f"{list(details['shape'])} {np.dtype(details['dtype']).name}")
        self._output_shape = manifest.output_shape(block_images)
        self._interpreter.resize_tensor_input(self._input, shape, strict=False)
        self._interpreter.allocate_tensors()
        # The output's shape is only known after a call, which also spares the first block the set-up of kernels.
        output = self._invoke(np.zeros(shape, np.uint8))
        if output.dtype != np.float32 or output.size != block_images * manifest.outputs:
            raise refuse_signature(manifest, f"output {list(output.shape)} {output.dtype.name}")

    def run(self, block: Images) -> Probabilities:
        """As :meth:`Backend.run`."""
        return self._invoke(block).reshape(self._output_shape)

    def _invoke(self, block: Images) -> Probabilities:
        # With the highest bit flipped, uint8 reads as int8 that is 128 less.
        self._interpreter.set_tensor(self._input, (block ^ 0x80).view(np.int8) if self._shifted else block)
        self._interpreter.invoke()
        output: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return output


LITERT = BackendType(
    name="litert",
    package="ai-edge-litert",
    install="maskdet",
    formats={"int8": "litert_int8", "float32": "litert_float"},
    make=LiteRTBackend,
)
