"""Random geometry in the input pipeline, by Keras' preprocessing layers, from a seed that comes with each batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from maskdet.training.recipe import OnlineAugmentation


def online_augmenter(settings: OnlineAugmentation) -> Callable[[Any, Any], Any]:
    """Build the function that augments a batch.

    It is made for ``tf.data.Dataset.map``, whichever backend Keras runs on. The layers' own random state would depend
    on the order in which parallel calls happen to run; here each batch brings its seed.

    Returns:
        Pixels ``(batch, height, width, 3)`` and a seed int32 ``(2,)`` to pixels float32 of the same shape. What the
        frame's edge leaves empty repeats the nearest pixel.
    """
    stages = _layers(settings)
    for layer in stages:
        layer.backend.set_backend("tensorflow")

    def augment(pixels: Any, seed: Any) -> Any:
        import tensorflow as tf

        pixels = tf.cast(pixels, tf.float32)
        draws = _seed_sequence(seed)
        for layer in stages:
            transformation = layer.get_random_transformation(pixels, training=True, seed=draws)
            pixels = layer.transform_images(pixels, transformation, training=True)
        return pixels

    return augment


def _layers(settings: OnlineAugmentation) -> list[Any]:
    from keras import layers

    common = {"dtype": "float32"}  # whatever the policy of the network is
    edge = {"fill_mode": "nearest", "interpolation": "bilinear"} | common
    stages = []
    if settings.rotation_degrees:
        stages.append(layers.RandomRotation(settings.rotation_degrees / 360.0, **edge))
    if settings.height_shift or settings.width_shift:
        stages.append(layers.RandomTranslation(settings.height_shift, settings.width_shift, **edge))
    if settings.shear_degrees:
        slope = math.tan(math.radians(settings.shear_degrees))
        stages.append(layers.RandomShear(x_factor=(0.0, slope), y_factor=(0.0, 0.0), **edge))  # drawn with either sign
    if settings.zoom:
        both_ways = (-settings.zoom, settings.zoom)
        stages.append(layers.RandomZoom(both_ways, both_ways, **edge))
    if settings.horizontal_flip:
        stages.append(layers.RandomFlip("horizontal", **common))
    return stages


def _seed_sequence(seed: Any) -> Any:
    """A Keras seed generator without state: the n-th draw's seed is the given one plus n."""
    import keras
    import tensorflow as tf

    class SeedSequence(keras.random.SeedGenerator):  # type: ignore[misc]  # Keras has no types
        def __init__(self) -> None:  # not the parent's, which would make a variable
            self._draws = 0

        def next(self, ordered: bool = True) -> Any:
            self._draws += 1
            return tf.add(seed, [0, self._draws])

    return SeedSequence()
