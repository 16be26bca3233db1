"""Measure how long a worker process takes from its start to its first scored image.

    .venv/bin/python -m benchmarks.start

The peer is the same worker with the TensorFlow backend and the same bundle. Each run is a new process that imports what
a worker imports, loads and checks the model, and scores one image. They run in turn, after one round that fills the
file cache. The peer needs TensorFlow.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_WORKER = """
import sys
from maskdet.beam import transforms
from maskdet.images.codecs import resolve_codecs
from maskdet.config import FacesSettings
from maskdet.tables.layout import Layout
from maskdet.model.backends import RuntimeSpec
from maskdet.inputs.columns import columns_of
from maskdet.inputs.sharding import KeyRule, Size, cut_shards
from maskdet.tables.receipts import ShardJob
from maskdet.inputs.references import ImageRef
from maskdet.scoring.scorer import ScoreOptions

backend, image = sys.argv[1:]
rule = KeyRule((), ())
options = ScoreOptions(rule, codecs=resolve_codecs("auto"), faces=FacesSettings(mode="whole"))
spec = RuntimeSpec(backend, "int8" if backend == "litert" else "float32")
job = ShardJob(Layout("/nowhere"), "", rule, {}, 1)
scorer = transforms.ScoreShards(job, "builtin", spec, options).load()
[shard] = pack([ImageRef(image, -1, "")], rule, Size(1, 1))
assert scorer.score_shard(shard).predictions.num_rows == 1
"""


def main() -> None:
    arguments = _parser().parse_args()
    seconds: dict[str, list[float]] = {"litert": [], "tensorflow": []}
    with tempfile.TemporaryDirectory() as scratch:
        image = _drawn(Path(scratch) / "face.jpg")
        for _ in range(arguments.rounds + 1):
            for backend, values in seconds.items():
                started = time.perf_counter()
                subprocess.run([sys.executable, "-c", _WORKER, backend, str(image)], check=True, capture_output=True)
                values.append(time.perf_counter() - started)
    for backend, values in seconds.items():
        counted = values[1:]
        print(f"{backend:<11} {statistics.median(counted):.2f} s ({min(counted):.2f} to {max(counted):.2f})")
    ratios = [ours / peer for ours, peer in zip(*seconds.values(), strict=True)][1:]
    print(f"ratio       {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def _drawn(path: Path) -> Path:
    import numpy as np

    from maskdet.demo.drawing import draw_face

    draw_face(np.random.default_rng(1), 128, masked=True).save(path, quality=90)
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    return parser


if __name__ == "__main__":
    main()
