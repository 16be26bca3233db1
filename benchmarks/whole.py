"""Measure what the search for faces costs runs that do not ask for it: `--faces whole` against an older revision.

    .venv/bin/python -m benchmarks.whole --input ../shared/data/k12/Test --repeat 5

The peer is revision a18ab07, before there was a search for faces, from a temporary worktree of this repository: in the
same environment, with the same model (the one that it shipped), on the same files. Both run as whole processes,
start-up included, in turn, and the one that goes first changes with every round. CPU time shows what was computed, and
is the steadier figure on a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.limit import demo_tree, image_files, linked
from benchmarks.process_tree import Cost, measure
from benchmarks.worktrees import REPOSITORY, command_module, worktree

BEFORE = "a18ab07"
MODEL = "maskdet/model/builtin/compact"


def main() -> None:
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory() as name, worktree(Path(name) / "before", arguments.before) as before:
        scratch = Path(name)
        files = image_files(arguments.input or demo_tree(scratch / "demo"), arguments.repeat)
        shared = ["--input", str(linked(files, scratch / "images")), "--model", str(before / MODEL)]
        now = [*shared, "--faces", "whole", "--set", "imaging.codecs=pillow"]  # the only decoder that there was before
        sides = {"before": (before, shared), "now": (REPOSITORY, now)}
        costs: dict[str, list[Cost]] = {side: [] for side in sides}
        for turn in range(arguments.rounds + 1):
            for side in sorted(sides, reverse=turn % 2 == 1):
                folder, flags = sides[side]
                costs[side].append(_score(folder, flags, scratch / f"{side}-{turn}"))
    _report(len(files), costs["before"][1:], costs["now"][1:])  # the first round warms the file cache


def _score(folder: Path, flags: list[str], output: Path) -> Cost:
    """One run of the code in a folder."""
    command = [sys.executable, "-m", command_module(folder), "score", "--output", str(output), "--quiet", *flags]
    printed, errors = output.with_suffix(".out"), output.with_suffix(".err")
    cost = measure(command, stdout=printed, stderr=errors, environment={"PYTHONPATH": str(folder)}, folder=folder)
    if cost.exit_code != 0:
        sys.exit(f"{folder}: expected a run that ends with 0, received {cost.exit_code}: {errors.read_text()[-2000:]}")
    return cost


def _report(images: int, before: list[Cost], now: list[Cost]) -> None:
    print(f"{images:,} images, {len(now)} interleaved rounds; median (min to max)")
    for field in ("wall_s", "cpu_s"):
        ratios = [getattr(new, field) / getattr(old, field) for old, new in zip(before, now, strict=True)]
        old_s, new_s = (statistics.median(getattr(cost, field) for cost in costs) for costs in (before, now))
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        name = field.removesuffix("_s")
        print(
            f"  {name:<10} before {old_s:6.2f} s, now {new_s:6.2f} s, ratio {statistics.median(ratios):.3f} ({spread})"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", help="a folder of images (default: a demo tree)")
    parser.add_argument("--repeat", type=int, default=1, help="score every image this many times")
    parser.add_argument("--before", default=BEFORE, help="revision to compare with, in which every image is one face")
    parser.add_argument("--rounds", type=int, default=5)
    return parser


if __name__ == "__main__":
    main()
