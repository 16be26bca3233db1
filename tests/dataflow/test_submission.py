"""A real submission through Beam's Dataflow client, to a service and a GCS server on loopback."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from google.cloud.dataflow import JobState, JobType

from maskdet.cli import main
from maskdet.tables.layout import COMPLIANCE, FAILURES, PREDICTIONS

LENIENT = ("--set", "failure_budget.max_ratio=0.5")


@pytest.fixture
def uploaded(bucket, demo):
    """One site of the demo tree under `photos/`."""
    for file in demo.tree.files:
        if file.path.startswith("demo-north/"):
            bucket.put(f"photos/{file.path}", (demo.folder / file.path).read_bytes())
    return bucket


def run_locally(bucket):
    """Run the pipeline as it was uploaded, except that its steps do not run in the container that it names."""
    (name,) = [name for name in bucket.names("tmp/") if name.endswith("/pipeline.pb")]
    pipeline = beam_runner_api_pb2.Pipeline.FromString(bucket.get(name))
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
    options = FileSystems._pipeline_options  # the submission set them: how to reach the bucket
    FnApiRunner().run_via_runner_api(pipeline, PipelineOptions.from_dictionary({"no_auth": True}))
    FileSystems.set_options(options)


def download(bucket, output, folder):
    for name in bucket.names("tables/"):
        path = folder / name.removeprefix("tables/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.get(name))
    return type(output)(output.code, folder)


def rows(output, table, root):
    found = output.table(table).to_pylist()
    return [{**row, "image_uri": row["image_uri"].removeprefix(root)} for row in found]


def test_what_is_submitted_runs_and_gives_the_tables_of_a_local_run(uploaded, dataflow, flags, demo, score, tmp_path):
    dataflow.on_create = lambda job: run_locally(uploaded)
    where = f"gs://{uploaded.name}"
    remote = score(f"{where}/tables", f"{where}/photos", flags=(*LENIENT, *flags))
    shutil.copytree(demo.folder / "demo-north", tmp_path / "photos" / "demo-north")
    local = score(tmp_path / "local", tmp_path / "photos", flags=LENIENT)
    remote = download(uploaded, remote, tmp_path / "remote")
    assert (remote.code, local.code) == (0, 0)
    assert remote.succeeded
    for table in (PREDICTIONS, FAILURES):
        assert rows(remote, table, f"{where}/photos/") == rows(local, table, f"{tmp_path}/photos/")
    assert remote.contents()[COMPLIANCE] == local.contents()[COMPLIANCE]


def test_what_is_uploaded_and_requested(uploaded, dataflow, flags, score, capfd):
    where = f"gs://{uploaded.name}"
    code = score(f"{where}/tables", f"{where}/photos", flags=(*LENIENT, *flags)).code
    assert code == 1  # the service says that the job is done, but nothing ran
    assert "without finishing" in capfd.readouterr().err
    (job,) = dataflow.created
    assert dataflow.paths[0].split("?")[0] == "/v1b3/projects/demo-project/locations/europe-west4/jobs"
    assert re.fullmatch(r"maskdet-\d{8}t\d{6}-\d{6}z-[0-9a-f]{6}", job["name"])
    assert job["type"] == JobType.JOB_TYPE_BATCH
    (pool,) = job["environment"]["workerPools"]
    assert (pool["machineType"], pool["diskSizeGb"], pool["numThreadsPerWorker"]) == ("n2-standard-8", 50, 4)
    assert "no_use_multiple_sdk_containers" in job["environment"]["experiments"]
    staged = job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    assert staged.startswith(f"{where}/tmp/{job['name']}.")
    assert staged.removeprefix(f"{where}/") in uploaded.names("tmp/")
    # The run is announced, but none of its work is done.
    assert [name for name in uploaded.names("tables/") if "/_runs/" not in name] == []


def test_a_template_s_launcher_writes_the_job_and_waits_for_nothing(uploaded, dataflow, flags, score, capfd):
    where = f"gs://{uploaded.name}"
    launched = ("--template_location", f"{where}/launches/job_object")
    assert score(f"{where}/tables", f"{where}/photos", flags=(*LENIENT, *flags, *launched)).code == 0
    assert f"maskdet status {where}/tables" in capfd.readouterr().out
    assert dataflow.created == []
    assert b"n2-standard-8" in uploaded.get("launches/job_object")
    assert main.main(["status", f"{where}/tables", "--no_auth"]) == 9
    assert "workers are starting" in capfd.readouterr().out


def test_paths_that_workers_cannot_reach_are_refused_before_anything_is_written(
    bucket, dataflow, flags, demo, score, tmp_path, capfd
):
    assert score(f"gs://{bucket.name}/tables", demo.folder, flags=tuple(flags)).code == 2
    assert "Dataflow's workers can reach" in capfd.readouterr().err
    assert (dataflow.created, bucket.names()) == ([], [])


def test_an_interrupt_cancels_the_job_and_says_what_is_kept(uploaded, dataflow, flags):
    dataflow.state = "JOB_STATE_RUNNING"
    where = f"gs://{uploaded.name}"
    command = ["score", "--input", f"{where}/photos", "--output", f"{where}/tables", "--faces", "whole", *flags]
    with subprocess.Popen(
        [sys.executable, "-m", "maskdet.cli.main", *command], stderr=subprocess.PIPE, text=True
    ) as client:
        _wait_until(lambda: dataflow.asked or client.poll() is not None)  # it waits for the job
        client.send_signal(signal.SIGINT)
        errors = client.communicate(timeout=60)[1]
    assert client.returncode == 130, errors
    assert [update["requestedState"] for update in dataflow.updated] == [JobState.JOB_STATE_CANCELLED]
    assert "cancelling the job" in errors
    assert "What is finished is kept" in errors
    assert f"maskdet status {where}/tables" in errors
    assert main.main(["status", f"{where}/tables", "--no_auth"]) == 130


def _wait_until(condition):
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
