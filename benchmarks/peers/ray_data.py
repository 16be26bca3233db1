"""Ray Data: `read_images` with its own resize, a stateful actor for the model, `write_parquet`."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray

from benchmarks.peers.command import CORES, parse_job, worn

BATCH = 64


class Classifier:
    """Keeps the model for its batches."""

    def __init__(self, model: str) -> None:
        import keras
        import tensorflow as tf

        network = keras.models.load_model(model, compile=False)
        self._predict = tf.function(lambda batch: network(batch, training=False), reduce_retracing=True)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Probabilities for a batch of images of the same size."""
        probabilities = worn(self._predict(np.ascontiguousarray(batch["image"])).numpy())
        return {"uri": batch["path"], "probability": probabilities}


def main() -> None:
    job = parse_job(__doc__)
    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    images = ray.data.read_images(
        str(job.folder),
        size=(job.height, job.width),
        mode="RGB",
        include_paths=True,
        override_num_blocks=4 * CORES,  # the default, 200 on one machine, makes tasks of a few images each
    )
    predictions = images.map_batches(
        Classifier,
        fn_constructor_args=(job.keras,),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    predictions.write_parquet(str(job.output))


if __name__ == "__main__":
    main()
