"""Measure the report and the explorer over a large output.

    python -m benchmarks.large_output build/large --faces 10000000
    python -m benchmarks.pages build/large

Prints wall time and CPU time. On a machine that is busy with something else, only the latter is meaningful.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from maskdet.explore.questions import Asked, Question
from maskdet.report.database import Selection, Tables


def measured(name: str, action: Callable[[], object]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    action()
    print(f"{name:<42} {time.perf_counter() - began:6.2f} s  {time.process_time() - cpu:6.2f} s of CPU time")


def report(output: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "maskdet.cli.main", "report", output, "--output", f"{folder}/report.html"]
        began, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, capture_output=True)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        kilobytes = os.path.getsize(f"{folder}/report.html") / 1000
    name = f"maskdet report, {kilobytes:,.0f} kB"
    print(f"{name:<42} {time.perf_counter() - began:6.2f} s  {cpu:6.2f} s of CPU time")


def first_view(asked: Asked) -> None:
    """All that the page requests when it is opened."""
    question = Question(Selection(), by=asked.tables.keys[0])
    asked.start()
    with ThreadPoolExecutor(3) as pool:
        for answer in [pool.submit(ask, question) for ask in (asked.view, asked.histogram, asked.faces)]:
            answer.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="output of benchmarks.large_output or of any run")
    output = parser.parse_args().output
    report(output)
    opened: list[Tables] = []
    measured("explorer: open the tables", lambda: opened.append(Tables(output)))
    (tables,) = opened
    asked = Asked(tables)
    measured("explorer: count all cells, once", asked.prepare)
    measured("explorer: first view", lambda: first_view(asked))
    first = tables.rows(f"SELECT {tables.keys[0]} FROM cells ORDER BY 1 LIMIT 1")[0][0]
    one = Selection({tables.keys[0]: (first,)}, labels=("no_mask",))
    doubtful = Question(one, by=tables.keys[-1], order="unsure")
    measured("explorer: one site, no mask, least sure", lambda: asked.faces(doubtful))
    measured("explorer: all, least sure", lambda: asked.faces(Question(Selection(), order="unsure")))
    tables.close()


if __name__ == "__main__":
    main()
