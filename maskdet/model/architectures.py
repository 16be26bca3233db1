"""The networks that training fits, by name.

Every network takes RGB ``(batch, height, width, 3)`` with values 0 to 255 (uint8, or floats of that range), scales them
inside the graph, and gives float32: the probability of "mask", ``(batch, 1)``, or of each of three classes,
``(batch, 3)``. Keras is imported when a network is built, not when this module is: scoring workers do not need
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from maskdet.errors import ConfigError
from maskdet.labels import TWO_CLASSES, ClassNames
from maskdet.model.efficientnet import FEATURES_LAYER, efficientnet_lite0, first_blocks

PIXEL_SCALE = 1.0 / 255.0
"""The factor by which the first layer of every network multiplies pixel values."""

# Four 3x3 'valid' convolutions, each halved: 46 px is the smallest side that leaves one pixel for the dense layers.
_REFERENCE_MIN_SIDE_PX = 46
_COMPACT_MIN_SIDE_PX = 32
_COMPACT_BLOCKS = 7
_VGG19_MIN_SIDE_PX = 32  # halved five times
_EFFICIENTNET_MIN_SIDE_PX = 32

EFFICIENTNET_LITE0, COMPACT = "efficientnet_lite0", "compact"


@dataclass(frozen=True)
class Architecture:
    """A network that can be built by name."""

    name: str
    description: str
    default_side_px: int
    """Height and width that it was designed for."""
    min_side_px: int
    layers: Callable[[Any], Any]
    """Scaled pixels (a Keras tensor) to features ``(batch, units)``, which the last dense layer turns into logits."""
    base_output: str = ""
    """The last layer of the base, which may start from pre-trained weights; empty if there is no base."""


def default_view(architecture: str) -> Literal["detect", "whole"]:
    """What a network is shown unless a run says otherwise: faces that are found, or whole images.

    The reference recipes train on whole images from one collection of face crops; a newly cut face looks different.
    """
    return "whole" if architecture.startswith("reference_") else "detect"


def build_model(name: str, height: int, width: int, class_names: ClassNames = TWO_CLASSES) -> Any:
    """Build an untrained network.

    Args:
        name: a key of :data:`ARCHITECTURES`.
        height: rows of the input in pixels.
        width: columns of the input in pixels.
        class_names: its classes, in the order of its outputs; see :mod:`maskdet.labels`.

    Returns:
        A ``keras.Model``: ``(batch, height, width, 3)`` of values 0 to 255 to probabilities float32 ``(batch, 1)`` of
        two classes, ``(batch, 3)`` of three. Its layers ``rescaling``, ``logit`` and ``probability_mask``, or
        ``probabilities``, are named so.

    Raises:
        ConfigError: the name is unknown, or the input is too small for the network.
    """
    if name not in ARCHITECTURES:
        raise ConfigError("architecture", f"one of {', '.join(sorted(ARCHITECTURES))}", name, "Correct the name.")
    architecture = ARCHITECTURES[name]
    if min(height, width) < architecture.min_side_px:
        raise ConfigError(
            f"input size of {name}",
            f"at least {architecture.min_side_px} pixels a side",
            (height, width),
            f"Use {architecture.default_side_px}, the size it was designed for.",
        )
    import keras

    pixels = keras.Input((height, width, 3), name="images")
    scaled = keras.layers.Rescaling(PIXEL_SCALE, name="rescaling")(pixels)
    # One unit for two classes: a second would be redundant. Both layers are float32 even where a mixed-precision policy
    # uses 16 bits for the rest of the network, which are too coarse for a loss.
    units, curve, output = (1, "sigmoid", "probability_mask")
    if class_names != TWO_CLASSES:
        units, curve, output = len(class_names), "softmax", "probabilities"
    logit = keras.layers.Dense(units, dtype="float32", name="logit")(architecture.layers(scaled))
    return keras.Model(pixels, keras.layers.Activation(curve, dtype="float32", name=output)(logit), name=name)


def _reference_cnn(tensor: Any, dropout: float = 0.0) -> Any:
    """4 blocks of 3x3 ReLU and 2x2 maximum, 512 dense units.

    At 128x128: 2,601,153 parameters, 164 million multiply-adds.
    """
    from keras import layers

    for filters in (32, 64, 128, 128):
        tensor = layers.Conv2D(filters, 3, activation="relu")(tensor)
        tensor = layers.MaxPooling2D(2)(tensor)
    tensor = layers.Flatten()(tensor)
    if dropout:
        tensor = layers.Dropout(dropout)(tensor)
    return layers.Dense(512, activation="relu")(tensor)


def _reference_cnn_dropout(tensor: Any) -> Any:
    """The reference CNN with dropout of one half before its 512 dense units."""
    return _reference_cnn(tensor, dropout=0.5)


def _reference_vgg19(tensor: Any) -> Any:
    """VGG19 without its top, 256 dense units.

    At 128x128: 22,122,049 parameters, 6.4 billion multiply-adds. Its layers are in the network's own graph, not in a
    nested one, so that exports see them.
    """
    import keras

    base = keras.applications.VGG19(include_top=False, weights=None, input_tensor=tensor)
    tensor = keras.layers.Flatten()(base.output)
    return keras.layers.Dense(256, activation="relu")(tensor)


def _efficientnet_lite0(tensor: Any) -> Any:
    """EfficientNet-Lite0 with one unit on top: 3.4 million parameters, 100 million multiply-adds at 112x112."""
    from keras import layers

    return layers.Dropout(0.2)(efficientnet_lite0(tensor))


def _compact(tensor: Any) -> Any:
    """The first 7 of EfficientNet-Lite0's 16 blocks and one more convolution: 36 million multiply-adds at 112x112.

    An output of the last block sees 115 pixels of the input, which is all of it; what the other nine blocks know about
    a thousand kinds of objects is not needed to recognise masks.
    """
    from keras import layers

    tensor = first_blocks(tensor, _COMPACT_BLOCKS)
    tensor = layers.Conv2D(256, 1, use_bias=False, name="widen")(tensor)
    tensor = layers.BatchNormalization(name="widen_bn")(tensor)
    tensor = layers.ReLU(6.0, name="widen_relu")(tensor)
    tensor = layers.GlobalAveragePooling2D()(tensor)
    return layers.Dropout(0.2)(tensor)


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="reference_cnn",
            description="the four-block network that mask classifiers are commonly taught with",
            default_side_px=128,
            min_side_px=_REFERENCE_MIN_SIDE_PX,
            layers=_reference_cnn,
        ),
        Architecture(
            name="reference_cnn_dropout",
            description="the same with dropout before its dense layer, for training with augmentation",
            default_side_px=128,
            min_side_px=_REFERENCE_MIN_SIDE_PX,
            layers=_reference_cnn_dropout,
        ),
        Architecture(
            name="reference_vgg19",
            description="VGG19 without its top under a small dense head",
            default_side_px=128,
            min_side_px=_VGG19_MIN_SIDE_PX,
            layers=_reference_vgg19,
            base_output="block5_pool",
        ),
        Architecture(
            name=EFFICIENTNET_LITE0,
            description="the teacher of the compact network",
            default_side_px=112,
            min_side_px=_EFFICIENTNET_MIN_SIDE_PX,
            layers=_efficientnet_lite0,
            base_output=FEATURES_LAYER,
        ),
        Architecture(
            name=COMPACT,
            description="the first blocks of EfficientNet-Lite0, made for int8 on a CPU",
            default_side_px=112,
            min_side_px=_COMPACT_MIN_SIDE_PX,
            layers=_compact,
            base_output=f"block{_COMPACT_BLOCKS - 1}_add",
        ),
    )
}
