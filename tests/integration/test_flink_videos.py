"""Videos and images on a real Flink cluster: same rows and tracks as in a run without one; `make test-flink`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from maskdet.tables.layout import COMPLIANCE, FAILURES, NO_FACE, PREDICTIONS, TRACK_RATES, TRACKS
from tests.cli.test_video_cuts import ROWS, SEGMENTS, files_of, rows_of, write_places
from tests.conftest import Output
from tools.flink.cluster import BOOT
from tools.flink.programs import ROOT

pytestmark = [pytest.mark.flink, pytest.mark.timeout(280)]

EVERY = (PREDICTIONS, FAILURES, NO_FACE, COMPLIANCE, TRACKS, TRACK_RATES)
SETTINGS = ("video.frames_per_second=3.5", "packing.max_images=2", "failure_budget.max_ratio=1", "faces.mode=detect")


@pytest.fixture(scope="module")
def places(tmp_path_factory, demo):
    folder = tmp_path_factory.mktemp("places")
    write_places(folder, sorted(demo.folder.rglob("*.jpg"))[:4])
    return folder


def run(places, folder, seconds, *flags) -> Output:
    """`maskdet score` in a process of its own."""
    settings = [part for one in (*SETTINGS, f"video.segment_seconds={seconds}") for part in ("--set", one)]
    command = [sys.executable, "-m", "maskdet.cli.main", "score", "--input", str(places), "--output", str(folder)]
    done = subprocess.run(
        [*command, *settings, "--quiet", *flags], cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Output(done.returncode, folder)


@pytest.mark.parametrize(
    "seconds", [0.8, pytest.param(3.1, marks=pytest.mark.thorough), pytest.param(1000, marks=pytest.mark.thorough)]
)
def test_rows_and_tracks_are_those_of_a_run_without_a_cluster(flink, places, tmp_path, seconds):
    worker = json.dumps({"command": BOOT})
    runner = ("--runner-config", "configs/runners/flink.yaml", *flink.flags, f"--environment_config={worker}")
    whole = run(places, tmp_path / "whole", 1000, "--runner=FnApiRunner", "--direct_num_workers=1")
    alike = run(places, tmp_path / "alike", seconds, "--runner=FnApiRunner", "--direct_num_workers=1")
    flinks = run(places, tmp_path / "flink", seconds, *runner)
    assert flinks.run.runner["name"] == "PortableRunner"
    assert flinks.run.videos.segments == sum(SEGMENTS[seconds])
    assert (flinks.run.images, flinks.run.tracks) == (whole.run.images, whole.run.tracks)
    assert files_of(flinks, *EVERY) == files_of(alike, *EVERY)
    assert files_of(flinks, TRACKS, TRACK_RATES) == files_of(whole, TRACKS, TRACK_RATES) != {}
    for table in ROWS:
        assert rows_of(flinks, table) == rows_of(whole, table), table
