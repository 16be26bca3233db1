"""ONNX Runtime, which runs the ONNX file."""

from __future__ import annotations

import threading

from maskdet.model import onnx_export
from maskdet.model.backends.base import BackendType, Images, Probabilities, RuntimeSpec, refuse_signature
from maskdet.model.bundle import Bundle
from maskdet.model.manifest import ONNX_FILE


class OnnxBackend:
    """The ONNX file; runs as many blocks concurrently as there are threads."""

    def __init__(self, bundle: Bundle, spec: RuntimeSpec) -> None:
        self._session = onnx_export.open_session(bundle.folder / ONNX_FILE, spec.device)
        (tensor_in,), (tensor_out,) = self._session.get_inputs(), self._session.get_outputs()
        shape = [bundle.manifest.input.height, bundle.manifest.input.width, 3]
        types = (tensor_in.type, tensor_out.type)
        given = list(bundle.manifest.output_shape(1)[1:])
        if types != ("tensor(uint8)", "tensor(float)") or tensor_in.shape[1:] != shape or tensor_out.shape[1:] != given:
            raise refuse_signature(bundle.manifest, f"{types[0]} {tensor_in.shape}, {types[1]} {tensor_out.shape}")
        self._input = tensor_in.name
        self._free = threading.BoundedSemaphore(spec.threads)  # a call runs on the thread that makes it

    def run(self, block: Images) -> Probabilities:
        """As :meth:`Backend.run`."""
        with self._free:
            output: Probabilities
            (output,) = self._session.run(None, {self._input: block})
            return output


ONNX = BackendType(
    name="onnx",
    package="onnxruntime",
    install="maskdet[onnx]",
    formats={"float32": "onnx"},
    make=OnnxBackend,
    devices=("cpu", "cuda"),
    variants=("onnxruntime-gpu",),
)
