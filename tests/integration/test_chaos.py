"""A short form of the chaos suite (`make chaos`): whatever happens to runs, the final tables are the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

from chaos import KINDS

SCRIPT = Path(__file__).with_name("chaos.py")
SEEDS = (57, 90, 94, 98)  # four schedules that hold every kind of disturbance between them


def test_disturbed_runs_end_in_the_tables_of_an_undisturbed_one():
    command = [sys.executable, str(SCRIPT), "--seed", *map(str, SEEDS)]
    env = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    schedules = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(schedules) == len(SEEDS), done.stderr[-2000:]
    assert all(schedule["equal"] for schedule in schedules), [one for one in schedules if not one["equal"]]
    told = [run for schedule in schedules for run in schedule["runs"]]
    names = {kind: "first of two" if kind == "two runs" else kind for kind in KINDS}
    assert not [kind for kind, name in names.items() if not any(run.startswith(name) for run in told)], told
    assert done.returncode == 0
