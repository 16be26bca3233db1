"""Measure how much faster two Flink task managers score than one.

    make tools
    .venv/bin/python -m benchmarks.flink --input ../shared/data/k12/Test --repeat 100

Each task manager, with the Python worker that it starts, has one core and one inference thread; job manager, job server
and client use whatever is left. A cluster of each size, started for each run, scores the same images into a new output,
in turn. Without photographs a demo tree is drawn. Needs Linux, two cores, Java, Maven and Go.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.limit import demo_tree, image_files, linked
from tools.flink.cluster import FlinkCluster, Ports, running

ROOT = Path(__file__).parents[1]

SIZES = (1, 2)
_TASKS = 2  # per step and task manager, as in configs/runners/flink.yaml


def main() -> None:
    arguments = _parser().parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < max(SIZES):
        sys.exit(f"expected at least {max(SIZES)} cores, received {len(cores)}")
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.input or demo_tree(Path(scratch) / "demo")
        files = image_files(source, arguments.repeat)
        folder = linked(files, Path(scratch) / "images")
        rounds = []
        for number in range(arguments.rounds):
            rounds.append({size: _measure(folder, Path(scratch) / f"{number}-{size}", cores[:size]) for size in SIZES})
            print(f"  round {number + 1}: {_row(rounds[-1])}", flush=True)
    _report(len(files), rounds)


def _measure(images: Path, scratch: Path, cores: list[int]) -> dict[str, float]:
    """Seconds that the whole command, the job on Flink, and the stage that scores took."""
    with running(FlinkCluster(scratch / "flink", Ports.free(), cores)) as cluster:
        command = [
            *(sys.executable, "-m", "maskdet.cli.main", "score", "--quiet", "--faces", "whole"),
            *("--input", str(images), "--output", str(scratch / "tables")),
            *("--set", "packing.max_images=250", "--set", "scoring.threads=1", "--set", "scoring.inference_threads=1"),
            *("--runner-config", "configs/runners/flink.yaml", *cluster.flags),
            f"--parallelism={_TASKS * len(cores)}",
        ]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(done.stderr)
        (job,) = cluster.rest("/jobs/overview")["jobs"]
        stages = cluster.rest(f"/jobs/{job['jid']}")["vertices"]
        scoring = max(stage["duration"] for stage in stages if "ScoreShards" in stage["name"])
    return {"command": seconds, "job": job["duration"] / 1000, "scoring": scoring / 1000}


def _row(one: dict[int, dict[str, float]]) -> str:
    return ", ".join(
        f"{name} {one[1][name]:.1f} s / {one[2][name]:.1f} s = {one[1][name] / one[2][name]:.2f}" for name in one[1]
    )


def _report(images: int, rounds: list[dict[int, dict[str, float]]]) -> None:
    print(f"{images} images, {len(rounds)} rounds; one task manager / two task managers, median (min to max)")
    for name in rounds[0][1]:
        ratios = [one[1][name] / one[2][name] for one in rounds]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  {name:<8} {statistics.median(ratios):5.2f}   ({spread})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", help="a folder of images (default: a demo tree)")
    parser.add_argument("--repeat", type=int, default=100, help="score every image this many times")
    parser.add_argument("--rounds", type=int, default=2)
    return parser


if __name__ == "__main__":
    main()
