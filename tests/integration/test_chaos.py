"""A short form of the chaos suite (`make chaos`): whatever happens to runs, the tables in the end do not show it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("chaos.py")
PARTS = 4
SCHEDULES = int(os.environ.get("CHAOS_SCHEDULES", "12"))


@pytest.mark.parametrize("part", range(PARTS))
def test_disturbed_runs_end_in_the_tables_of_an_undisturbed_one(part):
    count = SCHEDULES // PARTS
    command = [sys.executable, str(SCRIPT), "--first", str(1000 + part * count), "--schedules", str(count)]
    env = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    schedules = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(schedules) == count, done.stderr[-2000:]
    assert all(schedule["equal"] for schedule in schedules), [one for one in schedules if not one["equal"]]
    assert done.returncode == 0
