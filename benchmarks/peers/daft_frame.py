"""Daft: download, decode and resize expressions, a class UDF for the model, `write_parquet`."""

from __future__ import annotations

from typing import Any

import daft
import numpy as np
from daft import DataType, Series, col

from benchmarks.peers.command import parse_job, worn

BATCH = 64


@daft.cls(max_concurrency=1)
class Classifier:
    """Keeps the model for its batches."""

    def __init__(self, model: str) -> None:
        import keras
        import tensorflow as tf

        network = keras.models.load_model(model, compile=False)
        self._predict = tf.function(lambda batch: network(batch, training=False), reduce_retracing=True)

    @daft.method.batch(return_dtype=DataType.float32(), batch_size=BATCH)
    def __call__(self, images: Series) -> Any:
        """Probabilities for a batch of images of the same size."""
        return worn(self._predict(np.stack(images.to_pylist())).numpy())


def main() -> None:
    job = parse_job(__doc__)
    classify = Classifier(job.keras)
    image = col("path").download().decode_image(mode="RGB").resize(job.width, job.height)
    frame = daft.from_glob_path(f"{job.folder}/*").select(col("path").alias("uri"), image.alias("image"))
    frame.select(col("uri"), classify(col("image")).alias("probability")).write_parquet(str(job.output))


if __name__ == "__main__":
    main()
