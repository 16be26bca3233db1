"""Measure whether time and memory per image are the same in a run of a million images as in one of ten thousand.

    .venv/bin/python -m benchmarks.scale
    .venv/bin/python -m benchmarks.scale --images 1000000 --input ../shared/data/k12/Test

The peer is the same command on fewer images. Images are hard links to some real files (default: drawn crops of 32
pixels, so that listing, packing and counting weigh as much as possible), 5,000 per folder. Each run is a whole process
with a new output; a run on ten images gives the start-up time, which is subtracted before times are divided by images.
Small runs come before and after the large one, to show whether the machine's speed drifts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.datasets import images_below
from benchmarks.process_tree import measure

FOLDER_IMAGES = 5_000
# File systems limit the number of links to a file (ext4: 65,000).
LINKS_PER_FILE = 60_000
SOURCES = 64


class Run(NamedTuple):
    """One whole process."""

    images: int
    wall_s: float
    cpu_s: float
    peak_mib: float


def main() -> None:
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        place = Path(scratch)
        sources = _sources(arguments.input, place / "sources")
        trees = {
            count: link_tree(sources, count, place / f"images-{count}")
            for count in (10, arguments.small, arguments.images)
        }
        order = [10, 10, *[arguments.small] * arguments.rounds, arguments.images, *[arguments.small] * arguments.rounds]
        runs = []
        for number, count in enumerate([10, *order]):
            run = _score(trees[count], place / f"tables-{number}", count, arguments.model)
            print(
                f"{count:>9,} images: {run.wall_s:8.2f} s wall, {run.cpu_s:8.2f} s CPU, {run.peak_mib:,.0f} MiB",
                flush=True,
            )
            runs.append(run)
    _report(runs[1:], arguments.small, arguments.images)  # the first fills the file cache


def _score(tree: Path, output: Path, count: int, model: str) -> Run:
    arguments = ["--input", str(tree), "--output", str(output), "--model", model, "--faces", "whole", "--quiet"]
    command = [sys.executable, "-m", "maskdet.cli.main", "score", *arguments]
    cost = measure(command, stdout=output.with_suffix(".out"), stderr=output.with_suffix(".err"))
    [manifest] = (output / "_runs").glob("*.json")
    run = json.loads(manifest.read_text())
    scored = run["images"]["scored"]
    if cost.exit_code or run["status"] != "succeeded" or scored != count:
        sys.exit(f"a run on {count} images ended with {cost.exit_code}, {scored} scored: {run['reason']}")
    return Run(count, cost.wall_s, cost.cpu_s, cost.peak_mib)


def _report(runs: list[Run], small: int, large: int) -> None:
    start_s = statistics.median(run.wall_s for run in runs if run.images == 10)
    per_image = {
        count: statistics.median((run.wall_s - start_s) / count for run in runs if run.images == count)
        for count in (small, large)
    }
    peaks = {count: max(run.peak_mib for run in runs if run.images == count) for count in (small, large)}
    print(f"start-up {start_s:.2f} s")
    for count in (small, large):
        print(f"{count:>9,} images: {per_image[count] * 1e6:.0f} µs per image, peak {peaks[count]:,.0f} MiB")
    grown = (peaks[large] - peaks[small]) * 2**20 / (large - small)
    ratio = per_image[large] / per_image[small]
    print(f"time per image, large / small: {ratio:.3f}; {grown:.0f} bytes more per image")


def _sources(folder: Path | None, scratch: Path) -> list[Path]:
    if folder is not None:
        found = images_below([folder])
        if not found:
            sys.exit(f"--input: expected a folder with images, received {folder}")
        return found
    import numpy as np

    from maskdet.demo.drawing import draw_face

    scratch.mkdir()
    for number in range(SOURCES):
        masked = number % 2 == 0
        face = draw_face(np.random.default_rng([number, masked]), 32, masked=masked)
        face.save(scratch / f"{number:03d}.jpg", quality=90)
    return sorted(scratch.iterdir())


def link_tree(sources: list[Path], count: int, root: Path) -> Path:
    """A folder with ``count`` links to copies of the sources, each under a name of its own."""
    copies = root.with_name(f"{root.name}-files")
    copies.mkdir()
    repeats = -(-count // (len(sources) * LINKS_PER_FILE))
    originals = []
    for repeat, source in itertools.product(range(repeats), sources):
        copy = copies / f"{repeat}-{len(originals):05d}{source.suffix}"
        copy.write_bytes(source.read_bytes())
        originals.append(copy)
    for number in range(count):
        folder = root / f"{number // FOLDER_IMAGES:04d}"
        if number % FOLDER_IMAGES == 0:
            folder.mkdir(parents=True)
        original = originals[number % len(originals)]
        os.link(original, folder / f"{number:07d}{original.suffix}")
    return root


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="a folder of images to link to (default: drawn crops of 32 pixels)")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2, help="small runs before, and again after, the large one")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--scratch", help="folder for temporary links and tables")
    return parser


if __name__ == "__main__":
    main()
