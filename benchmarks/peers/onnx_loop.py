"""A hand-written loop: a thread per core, each with Pillow and float32 ONNX Runtime."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from benchmarks.peers.command import CORES, parse_job, write

BATCH = 32


def main() -> None:
    job = parse_job(__doc__)
    options = onnxruntime.SessionOptions()
    # Each thread takes whole batches: batches are not divided, so no thread spins while it waits for another's part.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(job.bundle / "model.onnx"), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def decode(path: str) -> Any:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((job.width, job.height), Image.Resampling.BILINEAR))

    def predict(paths: list[str]) -> Any:
        return session.run(None, {name: np.stack([decode(path) for path in paths])})[0]

    files = job.files
    with ThreadPoolExecutor(CORES) as pool:
        results = list(pool.map(predict, [files[start : start + BATCH] for start in range(0, len(files), BATCH)]))
    write(job.output, files, np.concatenate(results))


if __name__ == "__main__":
    main()
