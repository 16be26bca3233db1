"""Every runner, and any number of threads and processes, writes the same tables, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_servers import free_port

from maskdet.cli.main import main
from maskdet.demo.faces import DEMO_TEMPLATE
from maskdet.tables.layout import COMPLIANCE, FAILURES, NO_FACE, PREDICTIONS
from tools.flink.programs import ROOT, NotInstallableError, ends_with_input, install_prism, listens

TABLES = (PREDICTIONS, FAILURES, NO_FACE, COMPLIANCE)
# Shards of at most twelve images, so that there is something to spread.
SETTINGS = (
    *("--template", DEMO_TEMPLATE, "--set", "packing.max_images=12", "--set", "failure_budget.max_ratio=0.5"),
    *("--set", "compliance.levels={site_hour: [site, date, hour], camera: [camera]}"),
)
ONE = ("--set", "scoring.threads=1", "--set", "scoring.inference_threads=1")
MANY = ("--set", "scoring.threads=5", "--set", "scoring.inference_threads=2", "--direct_num_workers=3")
FN_API = {
    "one thread": (*ONE, "--direct_num_workers=1"),
    "threads": (*MANY, "--direct_running_mode=multi_threading"),
    "processes": (*MANY, "--direct_running_mode=multi_processing"),
}


# Of the other mode, threads show that runners agree; work is distributed in the same ways.
MODES = [pytest.param("whole", marks=pytest.mark.thorough), "detect"]


def score(folder, output, *flags):
    """Every table that `maskdet score` writes, run in a process of its own: path below the output → bytes."""
    command = [sys.executable, "-m", "maskdet.cli.main", *arguments(folder, output, *flags)]
    # multi_processing starts `python` without a path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return tables_of(output)


def score_here(folder, output, *flags):
    """The same of a run in this process."""
    assert main(arguments(folder, output, *flags)) == 0
    return tables_of(output)


def arguments(folder, output, *flags):
    return ["score", "--input", str(folder), "--output", str(output), "--quiet", *SETTINGS, *flags]


def tables_of(output):
    files = [path for name in TABLES for path in (output / name).rglob("*.parquet")]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.fixture(scope="module", params=["whole", "detect"])
def faces(request) -> tuple[str, ...]:
    return ("--faces", request.param)


@pytest.fixture(scope="module")
def expected(demo, faces, tmp_path_factory) -> dict[str, bytes]:
    """The tables of one thread."""
    tables = score_here(demo.folder, tmp_path_factory.mktemp("one") / "tables", *faces, *FN_API["one thread"])
    assert len([name for name in tables if name.startswith(PREDICTIONS)]) > 4
    assert {name.split("/")[0] for name in tables} >= {PREDICTIONS, FAILURES, COMPLIANCE}
    return tables


@pytest.fixture(scope="module")
def prism() -> Iterator[str]:
    """The address where Beam's portable runner takes jobs."""
    try:
        program = install_prism()
    except NotInstallableError as error:
        pytest.skip(str(error))
    port = free_port()
    command = [program, f"--job_port={port}", "--serve_http=false", "--log_level=error"]
    watched = ends_with_input(*command)
    with subprocess.Popen(watched, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sh:
        deadline = time.monotonic() + 30
        while not listens(port):
            assert sh.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield f"localhost:{port}"
        sh.communicate(timeout=10)


def test_threads(demo, expected, faces, tmp_path):
    assert score_here(demo.folder, tmp_path / "tables", *faces, *FN_API["threads"]) == expected


@pytest.mark.parametrize("faces", MODES, indirect=True)
def test_processes(demo, expected, faces, tmp_path):
    assert score(demo.folder, tmp_path / "tables", *faces, *FN_API["processes"]) == expected


@pytest.mark.thorough  # Flink, too, runs jobs by way of Beam's portable form: make test-flink
def test_prism(demo, expected, faces, tmp_path, prism):
    flags = ("--runner=PortableRunner", f"--job_endpoint={prism}", "--environment_type=LOOPBACK")
    assert score(demo.folder, tmp_path / "tables", *faces, *MANY[:4], *flags) == expected


@pytest.mark.flink
@pytest.mark.thorough
def test_flink(demo, expected, faces, tmp_path, flink):
    flags = ("--runner-config", "configs/runners/flink.yaml", *flink.flags)
    assert score(demo.folder, tmp_path / "tables", *faces, *MANY[:4], *flags) == expected
