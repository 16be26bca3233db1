"""The contestants: how each is started, and what its run reports."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.comparison import OURS, split_time
from benchmarks.process_tree import Cost

ROOT = Path(__file__).parents[1]
PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
PEERS = {
    "beam": "Apache Beam RunInference",
    "keras_generator": "Keras generator + predict",
    "tf_data": "tf.data + tf.function",
    "daft_frame": "Daft",
    "ray_data": "Ray Data",
    "onnx_loop": "ONNX Runtime loop",
}
LABELS = {
    OURS: "**maskdet score**",
    "compact": "**maskdet score**, built-in compact model",
    "bare_loop": "limit: bare loop, same model as ours",
    **PEERS,
}


@dataclass(frozen=True)
class Task:
    """What contestants are given.

    Attributes:
        folder: folder of images.
        model: bundle to score with, as maskdet takes it.
        bundle: bundle with the same weights as Keras and ONNX files, for peers.
        cores: how many cores this process may use.
    """

    folder: Path
    model: str
    bundle: Path
    cores: int


def command(name: str, task: Task, output: Path) -> list[str]:
    """The command that starts a contestant."""
    shared = ["--input", str(task.folder)]
    if name in PEERS or name == "float32_reference":
        peer = [str(PEER_PYTHON), "-m", f"benchmarks.peers.{name}", *shared]
        return [*peer, "--model", str(task.bundle), "--output", str(output)]
    model = ["--model", "builtin" if name == "compact" else task.model]
    if name == "bare_loop":
        return [sys.executable, "-m", "benchmarks.limit", "--bare", *shared, *model]
    score = [sys.executable, "-m", "maskdet.cli.main", "score", "--quiet", "--faces", "whole"]
    return [*score, *shared, *model, "--output", str(output)]


def writes_tables(name: str) -> bool:
    """Whether a contestant writes probabilities."""
    return name != "bare_loop"


def probabilities(output: Path) -> dict[str, float]:
    """Probability of a mask, worn correctly or not, by file name, from a contestant's output; empty without one."""
    import pyarrow.parquet as pq

    tables = output / "predictions"
    source = tables if tables.is_dir() else output
    if not source.exists():
        return {}
    ours = ("image_uri", "probability_mask", "probability_incorrect")  # the last is null with two classes
    uri, *values = ours if source == tables else ("uri", "probability")
    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    found: dict[str, float] = {}
    for path in files:
        with pq.ParquetFile(path) as file:
            rows = file.read([uri, *values]).to_pylist()
        found.update((row[uri].rpartition("/")[2], sum(row.get(name) or 0.0 for name in values)) for row in rows)
    return found


def split(name: str, cost: Cost, task: Task, output: Path, printed: str) -> dict[str, float]:
    """Where a contestant's wall time went, if it reports that; see :func:`benchmarks.comparison.split_time`."""
    tells: Mapping[str, Callable[[], dict[str, float]]] = {
        OURS: lambda: _of_manifest(cost, task.cores, output),
        "compact": lambda: _of_manifest(cost, task.cores, output),
        "bare_loop": lambda: _of_loop(cost, printed),
    }
    return tells[name]() if name in tells else {}


def _of_manifest(cost: Cost, cores: int, output: Path) -> dict[str, float]:
    [path] = (output / "_runs").glob("*.json")
    run: dict[str, Any] = json.loads(path.read_text())
    begun, finished = (datetime.fromisoformat(run[name]).timestamp() for name in ("started_at", "finished_at"))
    return split_time(cost.wall_s, begun - cost.begun_at, finished - begun, run["thread_seconds"], cores)


def _of_loop(cost: Cost, printed: str) -> dict[str, float]:
    loop_s = float(json.loads(printed.splitlines()[-1])["loop_s"])
    return {"start": cost.wall_s - loop_s, "loop": loop_s}
