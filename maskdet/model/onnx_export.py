"""From a Keras network to ONNX, and ONNX files run by ONNX Runtime.

tf2onnx translates the same TensorFlow function that the SavedModel holds, so every layer that Keras can build is
supported, including 'same' padding and the order of flattened features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet.config import Device
from maskdet.errors import ModelError
from maskdet.model.tensorflow_export import graph_output

_OPSET = 17  # from 2022, so that runtimes a few years old can read the file too


def convert(model: Any) -> bytes:
    """Convert a network to float32 ONNX.

    Args:
        model: a ``keras.Model`` of :func:`maskdet.model.architectures.build_model`.

    Returns:
        An ONNX file: ``images`` uint8 ``(batch, height, width, 3)`` to what
        :func:`maskdet.model.tensorflow_export.graph_output` says, float32, the batch of any size.
    """
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="images")]

    def score(images: Any) -> dict[str, Any]:
        return graph_output(model, tf.cast(images, tf.float32))

    function = tf.function(score, input_signature=signature)
    network, _ = tf2onnx.convert.from_function(function, signature, opset=_OPSET)
    for tensor in (*network.graph.input, *network.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"  # two unrelated, made-up names up to here
    converted: bytes = network.SerializeToString()
    return converted


PROVIDERS: dict[Device, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # Rounded to 10 bits (TF32), labels near a threshold would differ from a CPU's; an exhaustive search for the fastest
    # kernel finds another one at each start.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
}
"""Device → ONNX Runtime's execution provider and its options."""


def open_session(file: Path, device: Device = "cpu") -> Any:
    """An ``onnxruntime.InferenceSession`` of a file; on the CPU, each call runs on the thread that makes it.

    Args:
        file: an ONNX file that holds its weights itself.
        device: on which it runs.

    Raises:
        ModelError: this machine, or the installed ONNX Runtime, has no such device.
    """
    return open_session_of(file.read_bytes(), device)


def open_session_of(network: bytes, device: Device = "cpu") -> Any:
    """The same from a file's bytes, so that the file cannot name others to read, which no hash would cover."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    wanted, settings = PROVIDERS[device]
    available = onnxruntime.get_available_providers()
    if wanted not in available:
        remedy = "Run: pip install onnxruntime-gpu, in place of onnxruntime, on machines with a GPU."
        raise ModelError(f"model.device {device!r}", f"ONNX Runtime with {wanted}", ", ".join(available), remedy)
    session = onnxruntime.InferenceSession(network, options, providers=[(wanted, settings)])
    if session.get_providers()[0] != wanted:  # otherwise it continues without the device, and only logs it
        remedy = "Does nvidia-smi show the GPU, and do driver, CUDA and cuDNN fit this ONNX Runtime?"
        raise ModelError(f"model.device {device!r}", wanted, ", ".join(session.get_providers()), remedy)
    return session


def run(file: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Score images in one batch on one thread.

    Args:
        file: of a bundle.
        images: RGB uint8 ``(batch, height, width, 3)``.

    Returns:
        Probabilities of "mask", float32 ``(batch,)``, or of the classes, ``(batch, classes)``.
    """
    session = open_session(file)
    (taken,) = session.get_inputs()
    probabilities: NDArray[np.float32]
    (probabilities,) = session.run(None, {taken.name: images})
    return probabilities
