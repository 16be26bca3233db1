"""What the configuration of a Keras network may name: Keras' own layers that compute, and nothing that runs code.

Keras builds a network by importing the modules and calling the classes that its configuration names. So the names are
first checked against lists of what is allowed. Anything else is refused: Lambda layers contain Python code, custom
objects are Python code, and layers such as TFSMLayer and StringLookup read other files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from maskdet.model.importing.facts import LAST_LAYERS, damaged, input_facts, names_in, unsafe

_MODELS = frozenset(("Sequential", "Functional", "Model"))
_LAYERS = names_in(
    """
    Activation ActivityRegularization Add AlphaDropout Average AveragePooling1D AveragePooling2D
    BatchNormalization CenterCrop Concatenate Conv1D Conv2D Conv2DTranspose Cropping2D Dense DepthwiseConv2D Dot
    Dropout ELU EinsumDense Flatten GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalMaxPooling1D GlobalMaxPooling2D GroupNormalization Identity InputLayer LayerNormalization LeakyReLU
    MaxPooling1D MaxPooling2D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute
    RMSNormalization ReLU RandomBrightness RandomContrast RandomCrop RandomFlip RandomHeight RandomRotation
    RandomTranslation RandomWidth RandomZoom RepeatVector Rescaling Reshape Resizing SeparableConv1D
    SeparableConv2D Softmax SpatialDropout1D SpatialDropout2D Subtract ThresholdedReLU UnitNormalization
    UpSampling2D ZeroPadding2D AvgPool2D Convolution2D DepthwiseConvolution2D GlobalAvgPool2D GlobalMaxPool2D
    MaxPool2D SeparableConvolution2D SyncBatchNormalization BatchNormalizationV1
    """
)
# What layers are configured with: initialisers, regularisers, constraints, precisions.
_PARTS = names_in(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones Orthogonal
    RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros L1 L2 L1L2 MaxNorm NonNeg UnitNorm
    MinMaxNorm DTypePolicy Policy FloatDTypePolicy
    """
)
# Values that Keras writes in the same form.
_VALUES = frozenset(("__keras_tensor__", "__tuple__", "__tensor__", "__numpy__", "TensorShape"))
# Operations that a functional network may use in place of layers, except those that take functions.
_OPERATIONS = names_in(
    """
    Abs Absolute Add Average Broadcast_to BroadcastTo Cast Clip Concatenate Conv Divide Exp ExpandDims Flip
    GetItem HardSigmoid HardSilu HardSwish Log Matmul Max Maximum Mean Min Minimum Moveaxis Multiply Negative
    Pad Power Relu Relu6 Reshape Resize Rsqrt Sigmoid Silu Softmax Softplus Sqrt Square Squeeze Stack Subtract
    Sum Tanh Transpose TrueDivide
    """
)
_MODULES = re.compile(
    r"keras(\.layers|\.models|\.initializers|\.regularizers|\.constraints|\.dtype_policies|\.activations)?"
    r"|keras\.src\.(models|layers|initializers|regularizers|constraints|dtype_policies)(\.\w+)*"
)
_OPERATION_MODULES = re.compile(r"keras\.(src\.)?ops(\.\w+)*")
_NO_CODE = "Lambda layers and custom objects are Python code. Replace them by layers of keras.layers and save again."


def check_config(config: Mapping[str, Any]) -> None:
    """Make sure that a configuration names only what is allowed, at any depth.

    Args:
        config: of a network, as in its file, without how it was compiled.

    Raises:
        ModelError: it names something else.
    """
    waiting: list[Any] = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            _check_part(part)
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _check_part(part: Mapping[str, Any]) -> None:
    registered = part.get("registered_name")
    if isinstance(registered, str) and ">" in registered:
        raise unsafe(f"the custom object {registered}", _NO_CODE)
    if "class_name" not in part:
        if isinstance(part.get("module"), str):
            raise unsafe(f"something of the module {part['module']}", _NO_CODE)
        return
    name, module = part["class_name"], part.get("module")
    if name == "function":  # one of Keras' own by name, such as "relu"
        if module not in (None, "builtins") or not re.fullmatch(r"\w+", str(part.get("config"))):
            raise unsafe(f"the function {part.get('config')} of the module {module}", _NO_CODE)
        return
    if isinstance(module, str) and _OPERATION_MODULES.fullmatch(module):
        allowed = name in _OPERATIONS
    else:
        allowed = name in _MODELS | _LAYERS | _PARTS | _VALUES
        allowed = allowed and (module is None or bool(_MODULES.fullmatch(str(module))))
    if not allowed:
        raise unsafe(f"{name}" + (f" of the module {module}" if module else ""), _NO_CODE)


def config_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Input size, layout and number of outputs of a network, by its configuration.

    Raises:
        ModelError: it has no layers, or its input is not a batch of colour images.
    """
    layers = _layers(config)
    if not layers:
        raise damaged("keras", "a configuration without layers")
    shape = _input_shape(config, layers[0])
    last = _last(layers)
    units = last.get("config", {}).get("units") if last.get("class_name") == "Dense" else None
    return {**(input_facts(tuple(shape)) if shape else {}), "outputs": units, "activation": _activation(layers)}


def _layers(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    inner = config.get("config")
    layers = inner.get("layers", []) if isinstance(inner, Mapping) else inner
    return [layer for layer in layers or [] if isinstance(layer, dict)]


def _input_shape(config: Mapping[str, Any], first: Mapping[str, Any]) -> list[int | None] | None:
    inner = first.get("config", {})
    for place in (inner, config.get("build_config") or {}, config.get("config", {})):
        for name in ("batch_shape", "batch_input_shape", "input_shape", "build_input_shape"):
            if isinstance(place, Mapping) and isinstance(place.get(name), list):
                return list(place[name])
    return _input_shape(first, _layers(first)[0]) if first.get("class_name") in _MODELS and _layers(first) else None


def _activation(layers: list[dict[str, Any]]) -> str | None:
    """What the last layer turns its outputs into; ``None`` where that is not one of the usual activations."""
    last = layers[-1]
    if last.get("class_name") in _MODELS and _layers(last):
        return _activation(_layers(last))
    if last.get("class_name") == "Softmax":
        return "softmax"
    curve = last.get("config", {}).get("activation")
    if isinstance(curve, Mapping):  # of a function, its name
        curve = curve.get("config")
    if last.get("class_name") == "Dense" and curve in (None, "linear"):
        return "logits"
    return LAST_LAYERS.get(str(curve)) if last.get("class_name") in ("Dense", "Activation") else None


def _last(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """The last layer that computes numbers, also inside nested networks."""
    last = layers[-1]
    if last.get("class_name") in _MODELS and (inner := _layers(last)):
        return _last(inner)
    passes_on = last.get("class_name") in ("Activation", "Softmax", "Dropout", "Identity", "InputLayer")
    return _last(layers[:-1]) if passes_on and len(layers) > 1 else last
