"""Random geometry in the input pipeline, from a seed that comes with each batch.

Each of Keras' preprocessing layers would resample the picture; rotation, shift, shear and zoom in a row would soften a
small face four times. Here they are one affine map and one resampling, as they were in ImageDataGenerator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from maskdet.training.recipe import OnlineAugmentation


def online_augmenter(settings: OnlineAugmentation) -> Callable[[Any, Any], Any]:
    """Build the function that augments a batch.

    It is made for ``tf.data.Dataset.map``, whichever backend Keras runs on. Layers' own random state would depend on
    the order in which parallel calls happen to run; here each batch brings its seed.

    Returns:
        Pixels ``(batch, height, width, 3)`` and a seed int32 ``(2,)`` to pixels float32 of the same shape. What the
        frame's edge leaves empty repeats the nearest pixel.
    """
    if settings == OnlineAugmentation():
        return lambda pixels, _seed: pixels

    def augment(pixels: Any, seed: Any) -> Any:
        import tensorflow as tf

        pixels = tf.cast(pixels, tf.float32)
        batch, height, width = (tf.shape(pixels)[axis] for axis in range(3))
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=pixels,
            transforms=_transforms(settings, batch, height, width, seed),
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )

    return augment


def _transforms(settings: OnlineAugmentation, batch: Any, height: Any, width: Any, seed: Any) -> Any:
    """Where each output pixel comes from: ``(batch, 8)``, the first two rows of 3 x 3 matrices and two zeros.

    About the centre of the picture: zoom, then shear, then shift, then rotation.
    """
    import tensorflow as tf

    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    draws = tf.random.stateless_uniform((6, batch), seed, -1.0, 1.0)
    zoom_x, zoom_y = 1.0 + settings.zoom * draws[0], 1.0 + settings.zoom * draws[1]
    slope = math.tan(math.radians(settings.shear_degrees)) * draws[2]
    right, down = settings.width_shift * width * draws[3], settings.height_shift * height * draws[4]
    angle_rad = math.radians(settings.rotation_degrees) * draws[5]
    if settings.horizontal_flip:
        zoom_x *= tf.where(tf.random.stateless_uniform((batch,), seed + 1) < 0.5, -1.0, 1.0)
    cosine, sine = tf.cos(angle_rad), tf.sin(angle_rad)
    # Rotation · (shear · zoom) = [[a, b], [c, d]], column by column.
    a, b = cosine * zoom_x, (cosine * slope - sine) * zoom_y
    c, d = sine * zoom_x, (sine * slope + cosine) * zoom_y
    centre_x, centre_y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
    from_x = cosine * right - sine * down + centre_x - a * centre_x - b * centre_y
    from_y = sine * right + cosine * down + centre_y - c * centre_x - d * centre_y
    none = tf.zeros_like(a)
    return tf.stack([a, b, from_x, c, d, from_y, none, none], axis=1)
