"""What a model file does not say about itself: how its pixels are scaled, and what its outputs mean.

A file holds a network that turns a float tensor into one, two or three numbers. A :class:`Reading` is what its user
declares about both ends. :class:`Pixels` and :class:`Columns` are the two ends as arithmetic; a bundle's graph holds
the same arithmetic, and is compared with this one before it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from maskdet.errors import ConfigError
from maskdet.labels import INCORRECT, MASK, NO_MASK, THREE_CLASSES, TWO_CLASSES, ClassNames

Floats = NDArray[np.float32]
Channels = Literal["RGB", "BGR"]
Layout = Literal["NHWC", "NCHW"]
Activation = Literal["sigmoid", "softmax", "logits"]
ClassName = Literal["mask", "incorrect", "no_mask"]
Colours = tuple[float, float, float]
"""A number for red, green and blue."""


class Scale(NamedTuple):
    """A pixel's colour times a factor plus an offset."""

    name: str
    factor: Colours
    offset: Colours
    channels: Channels = "RGB"
    """The order of channels that such networks expect, unless declared otherwise."""


def scale_of_statistics(name: str, mean: Colours, deviation: Colours) -> Scale:
    """(x / 255 - mean) / deviation.

    Args:
        name: of the scale.
        mean: of red, green and blue, of values 0 to 1.
        deviation: the same.
    """
    factor = tuple(1.0 / (255.0 * one) for one in deviation)
    offset = tuple(-one / other for one, other in zip(mean, deviation, strict=True))
    return Scale(name, factor, offset)  # type: ignore[arg-type]  # three of each


SCALES: Mapping[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale("1/255", (1 / 255,) * 3, (0.0,) * 3),
        Scale("-1..1", (1 / 127.5,) * 3, (-1.0,) * 3),
        # torchvision.models: transforms.Normalize of what ToTensor made 0 to 1.
        scale_of_statistics("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        # keras.applications.imagenet_utils.preprocess_input, mode "caffe": means of blue, green, red are subtracted.
        Scale("caffe", (1.0,) * 3, (-123.68, -116.779, -103.939), "BGR"),
        Scale("none", (1.0,) * 3, (0.0,) * 3),
    )
}


class Pixels(NamedTuple):
    """From uint8 RGB to a network's input."""

    factor: Colours
    offset: Colours
    channels: Channels
    layout: Layout

    def apply(self, images: NDArray[np.uint8]) -> Floats:
        """Float32 pixels as the network takes them.

        Args:
            images: uint8 RGB ``(images, height, width, 3)``.

        Returns:
            ``(images, height, width, 3)`` or ``(images, 3, height, width)``.
        """
        scaled = images.astype(np.float32) * np.array(self.factor, np.float32) + np.array(self.offset, np.float32)
        ordered = scaled if self.channels == "RGB" else scaled[..., ::-1]
        return np.ascontiguousarray(ordered if self.layout == "NHWC" else ordered.transpose(0, 3, 1, 2))


class Columns(NamedTuple):
    """From a network's outputs to a bundle's: ``curve(given @ kernel + bias)``."""

    kernel: Floats
    """``(given, wanted)``."""
    bias: Floats
    """``(wanted,)``."""
    curve: Literal["sigmoid", "softmax"] | None

    def apply(self, given: Floats) -> Floats:
        """Probabilities.

        Args:
            given: the network's outputs, float32 ``(images, outputs)``.

        Returns:
            Float32: with two classes the probability of ``mask``, ``(images,)``, else ``(images, 3)`` in the order of
            :data:`maskdet.labels.THREE_CLASSES`.
        """
        made = given.astype(np.float64) @ self.kernel + self.bias
        if self.curve == "sigmoid":
            made = 1.0 / (1.0 + np.exp(-np.clip(made, -700, 700)))
        elif self.curve == "softmax":
            grown = np.exp(made - made.max(axis=1, keepdims=True))
            made = grown / grown.sum(axis=1, keepdims=True)
        probabilities: Floats = (made[:, 0] if made.shape[1] == 1 else made).astype(np.float32)
        return probabilities


class Reading(BaseModel):
    """What is declared about a network's input and outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[ClassName, ...]
    """In the order of the outputs; for a network with one output, what 0 and what 1 mean."""
    scale: str
    """A key of :data:`SCALES`, or ``statistics``."""
    factor: Colours
    offset: Colours
    channels: Channels = "RGB"
    layout: Layout = "NHWC"
    activation: Activation | None = None
    """What the outputs are; ``None``: inferred from their values."""

    @model_validator(mode="after")
    def _classes_known(self) -> Reading:
        if sorted(self.classes) not in (sorted(TWO_CLASSES), sorted(THREE_CLASSES)):
            raise ValueError(f"classes: expected mask and no_mask, with or without incorrect, received {self.classes}")
        return self

    @property
    def class_names(self) -> ClassNames:
        """The classes in a bundle's order."""
        return THREE_CLASSES if INCORRECT in self.classes else TWO_CLASSES

    @property
    def pixels(self) -> Pixels:
        """The input's arithmetic."""
        return Pixels(self.factor, self.offset, self.channels, self.layout)

    def columns(self, outputs: int) -> Columns:
        """The outputs' arithmetic.

        Args:
            outputs: how many numbers the network gives for an image.

        Raises:
            ConfigError: they do not fit the classes, or the activation is not known.
        """
        self.check_outputs(outputs)
        if self.activation is None:
            raise ConfigError("--activation", "sigmoid, softmax or logits", None, "Name what the outputs are.")
        kernel, bias = self._linear(outputs)
        if self.activation != "logits":
            return Columns(kernel, bias, None)
        return Columns(kernel, bias, "softmax" if outputs == 3 else "sigmoid")

    def check_outputs(self, outputs: int) -> None:
        """Make sure that a network has outputs for the classes.

        Args:
            outputs: how many numbers the network gives for an image.

        Raises:
            ConfigError: they do not fit the classes.
        """
        expected = (1, 2) if self.class_names == TWO_CLASSES else (3,)
        if outputs not in expected:
            wanted = " or ".join(map(str, expected))
            remedy = "Name a class for each output; one output takes the two classes that 0 and 1 mean."
            raise (
                ConfigError(
                    "--classes",
                    f"those of a network of {outputs} output{'s' if outputs > 1 else ''}",
                    list(self.classes),
                    remedy,
                )
                if (outputs in (1, 2, 3))
                else ConfigError("the network", f"{wanted} outputs", outputs, "Networks of mask classes have 1 to 3.")
            )

    def _linear(self, outputs: int) -> tuple[Floats, Floats]:
        logits = self.activation == "logits"
        if outputs == 1:
            upright = self.classes[1] == MASK
            kernel = np.array([[1.0 if upright else -1.0]])
            bias = np.array([0.0 if upright or logits else 1.0])
        elif outputs == 2:
            # The sigmoid of the difference of two logits is their softmax.
            signs = {MASK: 1.0, NO_MASK: -1.0 if logits else 0.0}
            kernel, bias = np.array([[signs[name]] for name in self.classes]), np.zeros(1)
        else:
            kernel, bias = np.zeros((3, 3)), np.zeros(3)
            for place, name in enumerate(self.classes):
                kernel[place, THREE_CLASSES.index(name)] = 1.0
        return kernel.astype(np.float32), bias.astype(np.float32)

    def with_scale(self, scale: Scale) -> Reading:
        """The same with another scale, and channels in that scale's order."""
        return self._changed(scale=scale.name, factor=scale.factor, offset=scale.offset, channels=scale.channels)

    def otherwise(self) -> Iterator[tuple[str, Reading]]:
        """Other declarations about the input, smallest changes first, with each change in words."""
        swapped: Channels = "RGB" if self.channels == "BGR" else "BGR"
        yield f"--channels {swapped}", self._changed(channels=swapped)
        for scale in SCALES.values():
            other = self.with_scale(scale)
            if (other.factor, other.offset) != (self.factor, self.offset):
                swap = "" if other.channels == self.channels else f" --channels {other.channels}"
                yield f"--scale {scale.name}{swap}", other

    def exchanged(self) -> Iterator[tuple[str, Reading]]:
        """The same with the classes in every other order, with each change in words."""
        for order in permutations(self.classes):
            if order != self.classes:
                yield f"--classes {','.join(order)}", self._changed(classes=order)

    def _changed(self, **changes: Any) -> Reading:
        return self.model_copy(update=changes)


def told_activation(given: Floats) -> Activation:
    """Infer what a network's outputs are from their values.

    Args:
        given: its outputs for varied images, ``(images, outputs)``.

    Raises:
        ConfigError: each output is a separate probability; they do not add up to 1.
    """
    within = bool(np.all((given >= -1e-6) & (given <= 1 + 1e-6)))
    if not within:
        return "logits"
    if given.shape[1] == 1:
        return "sigmoid"
    if np.abs(given.sum(axis=1) - 1).max() < 1e-3:
        return "softmax"
    received = f"values from 0 to 1 whose sums go from {given.sum(axis=1).min():.3f} to {given.sum(axis=1).max():.3f}"
    remedy = "If they are logits, say --activation logits; a sigmoid for each class has no single answer."
    raise ConfigError("the network's outputs", "a softmax, whose outputs add to 1", received, remedy)
