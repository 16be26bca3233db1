"""Readers poll an output by its snapshot while runs replace its tables: does any of them see parts of two sets?

.venv/bin/python -m tests.integration.polling --runs 20

Every run adds images, breaks one and moves the threshold, so that every file of every table changes. Two processes, one
with pandas and one with DuckDB, read the snapshot and then all tables it names, as fast as they can. What each reads of
a run has to be what is there when nothing runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from maskdet.errors import OutputError, SourceError
from maskdet.tables.layout import COMPLIANCE, FAILURES, NO_FACE, PREDICTIONS, Layout
from maskdet.tables.snapshot import Snapshot, current_snapshot

ROOT = Path(__file__).parents[2]
READERS = ("pandas", "duckdb")
_COUNTS = ("images_scored", "images_failed", "faces", "faces_mask", "faces_no_mask")


class Polls(NamedTuple):
    """What a reader has seen."""

    reader: str
    polls: int
    """How many times it read a complete set."""
    sets: int
    """How many different sets there were among them."""
    mixed: int
    """How many of its readings differ from what the run left."""
    late: int
    """How many readings it gave up, because two more runs had ended and removed files."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--read", nargs=3, metavar=("READER", "OUTPUT", "STOP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        _poll(*arguments.read)
        return
    with tempfile.TemporaryDirectory() as scratch:
        found = poll_during_runs(Path(scratch), arguments.runs)
    for polls in found:
        print(f"{polls.reader}: {polls.polls} polls of {polls.sets} sets, {polls.mixed} mixed, {polls.late} too late")
    sys.exit(any(polls.mixed for polls in found))


def poll_during_runs(scratch: Path, runs: int) -> list[Polls]:
    """Let readers poll during a series of runs.

    Args:
        scratch: an empty folder.
        runs: at least 2.
    """
    photos, output, stop = scratch / "photos", scratch / "tables", scratch / "stop"
    expected = {}
    _run(photos, output, 0)
    expected.update(_state(output))
    command = [sys.executable, "-m", "tests.integration.polling", "--read"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    readers = [
        subprocess.Popen([*command, name, output, stop], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for name in READERS
    ]
    try:
        for reader in readers:  # each says so when it has read its first set
            assert reader.stdout is not None
            assert reader.stdout.readline() == "begun\n"
        for number in range(1, runs):
            _run(photos, output, number)
            expected.update(_state(output))
    finally:
        stop.touch()
        said = [reader.communicate(timeout=120)[0] for reader in readers]
    assert len(expected) == runs
    return [judge(name, json.loads(text), expected) for name, text in zip(READERS, said, strict=True)]


def judge(reader: str, seen: dict[str, object], expected: dict[str, list[object]]) -> Polls:
    """Compare what a reader saw with what each run left."""
    readings = Counter({(run, json.dumps(state)): count for run, state, count in seen["readings"]})
    mixed = sum(count for (run, state), count in readings.items() if state != json.dumps(expected[run]))
    return Polls(reader, sum(readings.values()), len({run for run, _ in readings}), mixed, seen["late"])


def _run(photos: Path, output: Path, number: int) -> None:
    from maskdet.cli.score import main as score
    from maskdet.testing import solid_image

    folder = photos / f"site-{number % 3}"
    folder.mkdir(parents=True, exist_ok=True)
    for image in range(3):
        (folder / f"{number:03d}-{image}.png").write_bytes(solid_image((number * 37 + image * 80) % 256))
    (folder / f"{number:03d}.jpg").write_bytes(b"broken %d" % number)
    threshold = 0.3 + 0.4 * (number % 2) + number / 1000
    decision = [f"model.{name}={threshold}" for name in ("no_mask_below", "mask_from")]
    settings = ["failure_budget.max_ratio=1", "compliance.levels={site: [site]}", *decision]
    flags = [word for setting in settings for word in ("--set", setting)]
    where = ["--input", str(photos), "--output", str(output), "--template", "{site}/*", "--faces", "whole", "--quiet"]
    assert score([*where, *flags]) == 0


def _state(output: Path) -> dict[str, list[object]]:
    """The current set of tables, and the run that left it."""
    snapshot = current_snapshot(Layout(str(output)))
    return {snapshot.run_id: _read_with_pandas(snapshot, Layout(str(output)))}


def _poll(name: str, output: str, stop: str) -> None:
    read = {"pandas": _read_with_pandas, "duckdb": _read_with_duckdb}[name]
    layout, readings, late = Layout(output), Counter[tuple[str, str]](), 0
    while True:
        last = Path(stop).exists()  # one more reading after the last run
        snapshot = current_snapshot(layout)
        try:
            state = read(snapshot, layout)
        except (OSError, OutputError, SourceError) as error:
            assert "No such file" in str(error) or "No files found" in str(error), error
            late += 1
        else:
            if not readings:
                print("begun", flush=True)
            readings[snapshot.run_id, json.dumps(state)] += 1
        if last:
            break
        time.sleep(0.01)
    found = [[run, json.loads(state), count] for (run, state), count in readings.items()]
    print(json.dumps({"readings": found, "late": late}))


def _read_with_pandas(snapshot: Snapshot, layout: Layout) -> list[object]:
    import pandas

    def table(name: str, level: str | None = None) -> pandas.DataFrame:
        return pandas.concat([pandas.read_parquet(file) for file in snapshot.files(layout, name, level)])

    faces, failures, no_face = table(PREDICTIONS), table(FAILURES), table(NO_FACE)
    whole, sites = table(COMPLIANCE, "all"), table(COMPLIANCE, "site")
    return [
        sorted(zip(faces["image_uri"], faces["label"], strict=True)),
        sorted(failures["image_uri"]),
        len(no_face),
        [int(whole[name].iloc[0]) for name in _COUNTS],
        [int(sites[name].sum()) for name in _COUNTS],
    ]


def _read_with_duckdb(snapshot: Snapshot, layout: Layout) -> list[object]:
    import duckdb

    def rows(columns: str, name: str, level: str | None = None) -> list[tuple[object, ...]]:
        query = f"SELECT {columns} FROM read_parquet(?, union_by_name = true)"
        return connection.execute(query, [snapshot.files(layout, name, level)]).fetchall()

    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        sums = ", ".join(f"sum({name})::BIGINT" for name in _COUNTS)
        try:
            return [
                sorted(rows("image_uri, label", PREDICTIONS)),
                sorted(uri for (uri,) in rows("image_uri", FAILURES)),
                rows("count(*)", NO_FACE)[0][0],
                list(rows(sums, COMPLIANCE, "all")[0]),
                list(rows(sums, COMPLIANCE, "site")[0]),
            ]
        except duckdb.IOException as error:
            raise OSError(str(error)) from error


if __name__ == "__main__":
    main()
