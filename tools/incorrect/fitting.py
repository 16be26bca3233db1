"""Fit the whole compact network, or its layers from one on, to views drawn by weight, and average its weights.

Weights are averaged by an exponential moving average, as Keras' optimizers do, after Polyak and Juditsky,
"Acceleration of Stochastic Approximation by Averaging" (1992).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.labels import THREE_CLASSES
from maskdet.model.architectures import COMPACT, build_model
from maskdet.training.fused import with_fused_normalization

BATCH = 64
FROZEN_UP_TO = "block2_add"
"""The last frozen layer when only the later layers learn."""
LAST_LAYERS_FROM = "block4_add"
"""The last frozen layer when only the last layers learn, which is five times as fast."""

_WARM_UP_STEPS = 50
_LABEL_SMOOTHING = 0.03
_WEIGHT_DECAY = 1e-4
_REPORTED_STEPS = 200
_SHIPPED_WORN_LOGIT, _RARE_LOGIT = 0.7, -1.5


class Part(NamedTuple):
    """Views from one source."""

    views: NDArray[Any]
    """``(items, copies, …)``: uint8 pixels or float16 features."""
    labels: NDArray[np.int64]
    """Indices of classes, ``(items,)``."""
    weights: NDArray[np.float64]
    """Relative frequency at which each item is drawn, ``(items,)``."""


class Mixture:
    """Draws batches from parts: items by their weights, one view of each, mirrored or not.

    Args:
        parts: what to draw from.
        seed: seed of every draw.
        mirror: whether half of the views are mirrored, which is for pixels, not for features.
    """

    def __init__(self, parts: Sequence[Part], seed: int, *, mirror: bool) -> None:
        self._parts, self._mirror, self._rng = parts, mirror, np.random.default_rng(seed)
        weights = np.concatenate([part.weights for part in parts])
        self._chances = weights / weights.sum()
        self._labels = np.concatenate([part.labels for part in parts])
        self._places = np.array([(p, i) for p, part in enumerate(parts) for i in range(len(part.labels))])

    def shares(self) -> dict[str, float]:
        """Class → its share of the draws."""
        return {name: float(self._chances[self._labels == code].sum()) for code, name in enumerate(THREE_CLASSES)}

    def batches(self, steps: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """``steps`` batches of views and labels."""
        for _ in range(steps):
            drawn = self._rng.choice(len(self._chances), BATCH, p=self._chances)
            views = []
            for part, item in self._places[drawn]:
                copies = self._parts[part].views[item]
                views.append(copies[self._rng.integers(len(copies))])
            batch = np.stack(views).astype(np.float32)
            if self._mirror:
                mirrored = self._rng.random(BATCH) < 0.5
                batch[mirrored] = batch[mirrored][:, :, ::-1]
            yield batch, self._labels[drawn]


def with_three_classes(shipped: Any) -> Any:
    """A compact network of three classes, initialised from one of two classes.

    Args:
        shipped: a ``keras.Model`` of two classes; plus and minus half its log odds are the first logits of ``mask`` and
            ``no_mask``.
    """
    _, height, width, _ = shipped.input_shape
    network = build_model(COMPACT, height, width, THREE_CLASSES)
    for layer in network.layers:
        if layer.name != "logit" and layer.weights:
            layer.set_weights(shipped.get_layer(layer.name).get_weights())
    kernel, bias = shipped.get_layer("logit").get_weights()
    rare = np.random.default_rng(0).normal(0, 0.01, kernel.shape)
    kernels = np.concatenate([kernel / 2, rare, -kernel / 2], axis=1)
    biases = np.concatenate([bias / 2 + _SHIPPED_WORN_LOGIT, [_RARE_LOGIT], -bias / 2 - _SHIPPED_WORN_LOGIT])
    network.get_layer("logit").set_weights([kernels.astype(np.float32), biases.astype(np.float32)])
    return network


def cut(network: Any, layer: str = FROZEN_UP_TO) -> tuple[Any, Any]:
    """The network up to a layer, and a copy of the rest, which takes that layer's output."""
    import keras

    first = keras.Model(network.input, network.get_layer(layer).output)
    names = [part.name for part in network.layers]
    features = keras.Input(network.get_layer(layer).output.shape[1:], name="features")
    outputs = {layer: features}
    for part in network.layers[names.index(layer) + 1 :]:
        wanted = part.input if isinstance(part.input, list) else [part.input]
        inputs = [outputs[tensor._keras_history.operation.name] for tensor in wanted]
        copied = type(part).from_config(part.get_config())
        outputs[part.name] = copied(inputs if len(inputs) > 1 else inputs[0])
        if part.weights:
            copied.set_weights(part.get_weights())
    return first, keras.Model(features, outputs[names[-1]])


def put_back(network: Any, rest: Any) -> Any:
    """Put the weights of the second part that :func:`cut` made back into the network, in place."""
    for layer in rest.layers:
        if layer.weights:
            network.get_layer(layer.name).set_weights(layer.get_weights())
    return network


def fit(network: Any, mixture: Mixture, steps: int, rate: float, *, averaged: float) -> Any:
    """Fit a network by Adam with decoupled weight decay, cosine decay after a short warm-up, and averaged weights.

    Args:
        network: the network to start from; not changed.
        mixture: the views to fit it to.
        steps: number of batches.
        rate: the highest learning rate.
        averaged: the moving average's momentum.

    Returns:
        A network with the same layers and the averaged weights.
    """
    import keras
    import tensorflow as tf

    learner = with_fused_normalization(network)
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 10, steps - _WARM_UP_STEPS, warmup_target=rate, warmup_steps=_WARM_UP_STEPS
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=_WEIGHT_DECAY, use_ema=True, ema_momentum=averaged)
    loss_of = keras.losses.CategoricalCrossentropy(label_smoothing=_LABEL_SMOOTHING)
    optimizer.build(learner.trainable_variables)

    def step(views: Any, wanted: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(wanted, learner(views, training=True))
        gradients = tape.gradient(loss, learner.trainable_variables)
        optimizer.apply_gradients(zip(gradients, learner.trainable_variables, strict=True))
        return loss

    compiled, began_s, total = tf.function(step), time.perf_counter(), 0.0
    for number, (views, labels) in enumerate(mixture.batches(steps), 1):
        total += float(compiled(tf.constant(views), tf.one_hot(labels, len(THREE_CLASSES))))
        if number % _REPORTED_STEPS == 0:
            speed = number * BATCH / (time.perf_counter() - began_s)
            print(f"step {number} of {steps} · loss {total / _REPORTED_STEPS:.4f} · {speed:.0f} views/s", flush=True)
            total = 0.0
    optimizer.finalize_variable_values(learner.trainable_variables)
    fitted = keras.models.clone_model(network)
    fitted.set_weights(learner.get_weights())
    return fitted
