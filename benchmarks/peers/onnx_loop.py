"""A hand-written loop: Pillow in a thread pool, float32 ONNX Runtime on all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from benchmarks.peers.command import CORES, Job, parse_job, write

BATCH = 64
AHEAD = 4


def main() -> None:
    job = parse_job(__doc__)
    session = onnxruntime.InferenceSession(str(job.bundle / "model.onnx"), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    results = [session.run(None, {name: batch})[0] for batch in batches(job)]
    write(job.output, job.files, np.concatenate(results))


def batches(job: Job) -> Iterator[Any]:
    """Decoded batches, in order; the pool works a few batches ahead of the model."""

    def decode(path: str) -> Any:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((job.width, job.height), Image.Resampling.BILINEAR))

    files = job.files
    with ThreadPoolExecutor(CORES) as pool:
        waiting: deque[list[Future[Any]]] = deque()
        for start in range(0, len(files), BATCH):
            waiting.append([pool.submit(decode, path) for path in files[start : start + BATCH]])
            if len(waiting) > AHEAD:
                yield np.stack([future.result() for future in waiting.popleft()])
        for futures in waiting:
            yield np.stack([future.result() for future in futures])


if __name__ == "__main__":
    main()
