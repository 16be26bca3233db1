"""Keras' legacy `ImageDataGenerator` and `model.predict`, as most courses teach it."""

from __future__ import annotations

import keras
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from benchmarks.peers.command import CORES, parse_job, write

BATCH = 64


def main() -> None:
    job = parse_job(__doc__)
    model = keras.models.load_model(job.keras, compile=False)
    flow = ImageDataGenerator().flow_from_directory(
        str(job.folder.parent),
        classes=[job.folder.name],
        target_size=(job.height, job.width),
        interpolation="bilinear",
        class_mode=None,
        batch_size=BATCH,
        shuffle=False,
    )
    flow.workers = CORES
    write(job.output, flow.filenames, model.predict(flow, verbose=0))


if __name__ == "__main__":
    main()
