"""Measure what an image list costs when none of its images exists, as with an unmounted disk.

    .venv/bin/python -m benchmarks.missing_rows
    .venv/bin/python -m benchmarks.missing_rows --rows 100000

Each row has to end as a failure of its own. Runs on fewer rows come first, so that the time and memory per row can be
separated from those of the start.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.process_tree import measure


class Run(NamedTuple):
    """One whole process."""

    rows: int
    wall_s: float
    cpu_s: float
    peak_mib: float


def main() -> None:
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        runs = [_score(Path(scratch), count) for count in (1_000, arguments.rows // 10, arguments.rows)]
    for run in runs:
        print(f"{run.rows:>9,} rows: {run.wall_s:8.2f} s wall, {run.cpu_s:8.2f} s CPU, {run.peak_mib:,.0f} MiB")
    first, last = runs[0], runs[-1]
    more = last.rows - first.rows
    print(
        f"{(last.cpu_s - first.cpu_s) / more * 1e6:.0f} µs of CPU and "
        f"{(last.peak_mib - first.peak_mib) * 2**20 / more:.0f} bytes more per row"
    )


def _score(scratch: Path, count: int) -> Run:
    """Score an image list with ``count`` rows, each of which must become a failure."""
    manifest, output = scratch / f"{count}.csv", scratch / f"tables-{count}"
    with manifest.open("w") as stream:
        stream.write("uri,site\n")
        stream.writelines(f"photos/{number // 1000}/{number:07d}.jpg,site {number % 7}\n" for number in range(count))
    arguments = ["--input", str(manifest), "--output", str(output), "--faces", "whole", "--quiet"]
    settings = ["--set", "source.keys=[site]", "--set", "failure_budget.max_ratio=1.0"]
    command = [sys.executable, "-m", "maskdet.cli.main", "score", *arguments, *settings]
    cost = measure(command, stdout=output.with_suffix(".out"), stderr=output.with_suffix(".err"))
    [record] = (output / "_runs").glob("*.json")
    run = json.loads(record.read_text())
    if cost.exit_code or run["failed_by_code"] != {"not_found": count}:
        sys.exit(f"{count} rows ended with {cost.exit_code}, {run['failed_by_code']}: {run['reason']}")
    return Run(count, cost.wall_s, cost.cpu_s, cost.peak_mib)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--scratch", help="folder for temporary lists and tables")
    return parser


if __name__ == "__main__":
    main()
