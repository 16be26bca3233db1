"""Measure whether a long run needs more memory than a short one: resident memory of a run of half an hour.

    .venv/bin/python -m benchmarks.soak --minutes 30 ../shared/data/scenes/images ../shared/data/wild

The run scores hard links to the photographs of some folders, more than it can finish. After the given time it is told
to end (SIGTERM), and has to end as an interrupted run does. Every second, its memory is added up: the private memory of
the whole process tree, and the files, nearly all of them libraries, that the first process maps. These files are
counted in full, because it does not depend on the run how many other processes map them, too. The first minutes, in
which work tables and interpreters for all canvas sizes are allocated, belong to the first half, so growth that ends
early shows, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.datasets import images_below
from benchmarks.scale import link_tree

INTERRUPTED = 143
_QUARTERS = 4
_GRACE_S = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="folders with photographs")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--images", type=int, default=150_000, help="more than can be scored in that time")
    parser.add_argument("--faces", choices=("detect", "whole"), default="detect")
    parser.add_argument("--scratch", type=Path, help="folder for links and tables")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        place = Path(scratch)
        link_tree(images_below(arguments.folders), arguments.images, place / "images")
        sizes_mib = resident_mib(place, arguments.faces, arguments.minutes * 60)
        scored = sum(json.loads(path.read_bytes())["scored"] for path in (place / "tables" / "_shards").rglob("*.json"))
    report(sizes_mib, scored)


def resident_mib(place: Path, faces: str, seconds: float) -> list[float]:
    """Score the images below a folder for some seconds, and measure memory every second."""
    arguments = ["--input", str(place / "images"), "--output", str(place / "tables"), "--faces", faces]
    command = [sys.executable, "-m", "maskdet.cli.main", "score", *arguments, "--json-logs"]
    sizes_mib: list[float] = []
    with (place / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as run:
        process, ends = psutil.Process(run.pid), time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(1)
            if run.poll() is not None:
                sys.exit(f"it ended after {len(sizes_mib)} s with {run.returncode}: give it more --images")
            sizes_mib.append(tree_mib(process))
        run.send_signal(signal.SIGTERM)
        code = run.wait(_GRACE_S)
    if code != INTERRUPTED:
        sys.exit(f"told to end, it exited with {code}, not with {INTERRUPTED}:\n{(place / 'log').read_text()[-2000:]}")
    return sizes_mib


def tree_mib(process: psutil.Process) -> float:
    """Memory of a process and those below it, in MiB: their private memory, and the files that the first maps."""
    first = _resident_kib(process.pid)
    total = first["Rss"] - first["Anonymous"]
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(OSError):  # it has ended
            total += _resident_kib(one.pid)["Anonymous"]
    return total / 1024


def _resident_kib(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def report(sizes_mib: list[float], scored: int) -> None:
    """Print means of quarters and of the first minutes, and the ratio of the halves."""
    length = len(sizes_mib) // _QUARTERS
    quarters = [statistics.mean(sizes_mib[at * length : (at + 1) * length]) for at in range(_QUARTERS)]
    first, second = statistics.mean(quarters[:2]), statistics.mean(quarters[2:])
    print(f"{len(sizes_mib) / 60:.0f} minutes, {scored:,} images in finished shards, peak {max(sizes_mib):,.0f} MiB")
    print("mean of each quarter, MiB:", ", ".join(f"{quarter:,.0f}" for quarter in quarters))
    minutes = [statistics.mean(sizes_mib[at : at + 60]) for at in range(0, min(len(sizes_mib), 600), 60)]
    print("mean of the first minutes, MiB:", ", ".join(f"{minute:,.0f}" for minute in minutes))
    print(f"second half / first half: {second / first:.3f}")


if __name__ == "__main__":
    main()
