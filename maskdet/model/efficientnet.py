"""EfficientNet-Lite0: the compact model starts from a part of it, and its teacher from all of it.

Source: Mingxing Tan and Quoc V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019);
the Lite variant leaves out squeeze-and-excitation and uses ReLU6. 3.4 million parameters without its top; 128 million
multiply-adds at 128x128.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

FEATURES_LAYER = "features"
STEM, HEAD = "stem", "head"

_STEM_FILTERS, _HEAD_FILTERS = 32, 1280
_BATCH_NORM_EPSILON = 1e-3


class Stage(NamedTuple):
    """Blocks of equal width."""

    blocks: int
    kernel_px: int
    stride: int
    expansion: int
    filters: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Block(NamedTuple):
    """One inverted residual block: widen, filter in space, narrow."""

    name: str
    kernel_px: int
    stride: int
    expansion: int
    filters: int


def blocks() -> Iterator[Block]:
    """Every block, from the input on, named ``block0``, ``block1`` and so on."""
    number = 0
    for stage in STAGES:
        for index in range(stage.blocks):
            stride = stage.stride if index == 0 else 1
            yield Block(f"block{number}", stage.kernel_px, stride, stage.expansion, stage.filters)
            number += 1


def efficientnet_lite0(scaled: Any) -> Any:
    """The network without its top.

    Args:
        scaled: a Keras tensor ``(batch, height, width, 3)`` of values 0 to 1.

    Returns:
        The layer :data:`FEATURES_LAYER`'s tensor ``(batch, 1280)``: the averages of the last map.
    """
    from keras import layers

    tensor = first_blocks(scaled, len(list(blocks())))
    tensor = _normalize(layers.Conv2D(_HEAD_FILTERS, 1, use_bias=False, name=HEAD)(tensor), HEAD)
    return layers.GlobalAveragePooling2D(name=FEATURES_LAYER)(tensor)


def first_blocks(scaled: Any, count: int) -> Any:
    """The network up to its ``count``-th block: a tensor ``(batch, height, width, channels)``."""
    from keras import layers

    # The published weights were trained on values of -1 to 1.
    tensor = layers.Rescaling(2.0, offset=-1.0, name="centred")(scaled)
    tensor = _normalize(
        layers.Conv2D(_STEM_FILTERS, 3, strides=2, padding="same", use_bias=False, name=STEM)(tensor), STEM
    )
    for block in itertools.islice(blocks(), count):
        tensor = _inverted_residual(tensor, block)
    return tensor


def _inverted_residual(tensor: Any, block: Block) -> Any:
    from keras import layers

    inside = tensor
    if block.expansion > 1:
        name = f"{block.name}_expand"
        widened = layers.Conv2D(block.expansion * tensor.shape[-1], 1, use_bias=False, name=name)
        inside = _normalize(widened(inside), name)
    name = f"{block.name}_depthwise"
    filtered = layers.DepthwiseConv2D(block.kernel_px, strides=block.stride, padding="same", use_bias=False, name=name)
    inside = _normalize(filtered(inside), name)
    name = f"{block.name}_project"
    inside = _normalize(layers.Conv2D(block.filters, 1, use_bias=False, name=name)(inside), name, activate=False)
    if block.stride == 1 and block.filters == tensor.shape[-1]:
        return layers.Add(name=f"{block.name}_add")([tensor, inside])
    return inside


def _normalize(tensor: Any, name: str, *, activate: bool = True) -> Any:
    from keras import layers

    tensor = layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=f"{name}_bn")(tensor)
    return layers.ReLU(6.0, name=f"{name}_relu")(tensor) if activate else tensor
