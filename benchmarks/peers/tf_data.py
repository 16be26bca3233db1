"""tf.data: parallel map, batch, prefetch, all on AUTOTUNE, into a compiled function of the Keras model."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers.command import parse_job, write

BATCH = 64


def main() -> None:
    job = parse_job(__doc__)
    model = keras.models.load_model(job.keras, compile=False)

    def decode(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        resized = tf.image.resize(image, (job.height, job.width))
        return tf.cast(tf.round(resized), tf.uint8)

    @tf.function(input_signature=[tf.TensorSpec((None, job.height, job.width, 3), tf.uint8)])
    def predict(batch: tf.Tensor) -> tf.Tensor:
        return model(batch, training=False)

    images = tf.data.Dataset.from_tensor_slices(job.files).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    results = [predict(batch).numpy() for batch in images.batch(BATCH).prefetch(tf.data.AUTOTUNE)]
    write(job.output, job.files, np.concatenate(results))


if __name__ == "__main__":
    main()
