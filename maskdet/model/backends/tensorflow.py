"""TensorFlow, which runs the SavedModel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ModelError
from maskdet.model.backends.base import BackendType, Images, Probabilities, RuntimeSpec, refuse_signature
from maskdet.model.bundle import Bundle
from maskdet.model.manifest import SAVED_MODEL_FOLDER


class TensorFlowBackend:
    """The SavedModel, through a function of one fixed input shape."""

    def __init__(self, bundle: Bundle, spec: RuntimeSpec) -> None:
        import tensorflow as tf  # heavy; a LiteRT worker never imports it

        _limit_threads(tf, spec.threads)
        self._place = _place(tf, spec)
        saved_model = tf.saved_model.load(str(bundle.folder / SAVED_MODEL_FOLDER))
        self._function = saved_model.signatures["serving_default"]
        (spec_in,) = self._function.structured_input_signature[1].values()
        shape = [bundle.manifest.input.height, bundle.manifest.input.width, 3]
        if spec_in.dtype != tf.uint8 or spec_in.shape.as_list()[1:] != shape:
            raise refuse_signature(bundle.manifest, f"{spec_in.shape.as_list()} {spec_in.dtype.name}")
        (spec_out,) = self._function.structured_outputs.values()
        if spec_out.shape.as_list()[1:] != list(bundle.manifest.output_shape(1)[1:]):
            raise refuse_signature(bundle.manifest, f"output {spec_out.shape.as_list()} {spec_out.dtype.name}")
        self._saved_model = saved_model  # its variables live only as long as this object
        self._constant, self._device = tf.constant, tf.device

    def run(self, block: Images) -> Probabilities:
        """As :meth:`Backend.run`."""
        with self._device(self._place):
            (output,) = self._function(self._constant(block)).values()
        probabilities: NDArray[np.float32] = output.numpy()
        return probabilities


def _place(tf: Any, spec: RuntimeSpec) -> str:
    """TensorFlow's name of a run's device.

    Raises:
        ModelError: there is no such device.
    """
    if spec.device == "cpu":
        return "/CPU:0"
    # With numbers rounded to 10 bits, labels near a threshold would differ from a CPU's.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    if not tf.config.list_physical_devices("GPU"):
        found = ", ".join(device.name for device in tf.config.list_physical_devices())
        remedy = "Does nvidia-smi show the GPU? Run: pip install 'tensorflow[and-cuda]'."
        raise ModelError(f"model.device {spec.device!r}", "a GPU that TensorFlow can use", found, remedy)
    return "/GPU:0"


def _limit_threads(tf: Any, threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        # TensorFlow is already running in this process, with the threads of whoever started it.
        return


TENSORFLOW = BackendType(
    name="tensorflow",
    package="tensorflow",
    install="maskdet[tensorflow]",
    formats={"float32": "saved_model"},
    make=TensorFlowBackend,
    devices=("cpu", "cuda"),
)
