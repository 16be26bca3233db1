"""The job that a scoring run becomes on Dataflow, without submitting it."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, WorkerOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.internal.apiclient import Environment

from maskdet.beam.options import parse_beam_options
from maskdet.beam.running import build
from maskdet.config import ScoreSettings
from maskdet.scoring.setup import check_run

ROOT = Path(__file__).parents[2]
IMAGE = "europe-west4-docker.pkg.dev/demo-project/maskdet/maskdet:1"
CLOUD = [
    "--dry_run=True",
    "--no_auth",
    "--project=demo-project",
    "--region=europe-west4",
    "--temp_location=gs://demo/tmp",
]
STEPS = ["ListImages", "PackShards", "PlanShards", "ScoreShards", "WriteCompliance", "FinishRun"]


def config(name):
    return str(ROOT / "configs" / "runners" / name)


@pytest.fixture(scope="module")
def photos(demo):
    return demo.folder


def job_of(options: PipelineOptions, photos: Path):
    # Local paths, which Dataflow's workers could not reach; the graph does not depend on them, and no store is needed.
    settings = ScoreSettings(input=(str(photos),), output=str(photos.parent / "tables"), faces={"mode": "whole"})
    pipeline = beam.Pipeline(options=options)
    pipeline | "Score" >> build(check_run(settings, datetime(2026, 1, 5, tzinfo=UTC)))
    return pipeline.run().job


def request_of(job) -> Environment:
    """The environment that the submission would ask for."""
    return Environment([], job.options, "8", "gs://demo/tmp/pipeline.pb", job.proto_pipeline).proto


def environments(job):
    components = job.proto_pipeline.components
    used = {transform.environment_id for transform in components.transforms.values() if transform.environment_id}
    return [components.environments[name] for name in used]


def artifacts(job):
    """Name on the worker → content, of every file that the job brings along."""
    found = {}
    for environment in environments(job):
        for dependency in environment.dependencies:
            assert dependency.type_urn == common_urns.artifact_types.FILE.urn
            role = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(dependency.role_payload)
            path = beam_runner_api_pb2.ArtifactFilePayload.FromString(dependency.type_payload).path
            found[role.staged_name] = Path(path).read_bytes()
    return found


@pytest.fixture(scope="module")
def job(photos):
    return job_of(parse_beam_options([*CLOUD, f"--sdk_container_image={IMAGE}"], config("dataflow.yaml")), photos)


def test_the_steps_are_those_of_a_run_and_pixels_cross_no_shuffle(job):
    transforms = job.proto_pipeline.components.transforms.values()
    names = {transform.unique_name for transform in transforms}
    assert all(f"Score/{step}" in names for step in STEPS)
    shuffles = [
        transform.unique_name
        for transform in transforms
        if transform.spec.urn == common_urns.primitives.GROUP_BY_KEY.urn and "ScoreShards" in transform.unique_name
    ]
    assert shuffles == []


def test_every_step_runs_in_the_image_that_was_named(job):
    for environment in environments(job):
        assert environment.urn == common_urns.environments.DOCKER.urn
        payload = beam_runner_api_pb2.DockerPayload.FromString(environment.payload)
        assert payload.container_image == IMAGE


def test_an_image_that_holds_everything_brings_no_package_along(job):
    assert not [name for name in artifacts(job) if name.endswith((".tar.gz", ".whl"))]


def test_workers_are_what_the_file_asks_for(job):
    environment = request_of(job)
    (pool,) = environment.worker_pools
    assert (pool.machine_type, pool.disk_size_gb, pool.num_workers) == ("n2-standard-8", 50, 2)
    assert pool.autoscaling_settings.max_num_workers == 20
    assert pool.autoscaling_settings.algorithm.name == "AUTOSCALING_ALGORITHM_BASIC"
    assert pool.num_threads_per_worker == 4
    assert pool.ip_configuration.name == "WORKER_IP_PRIVATE"
    assert pool.worker_harness_container_image == IMAGE
    assert "no_use_multiple_sdk_containers" in environment.experiments
    assert "use_multiple_sdk_containers" not in environment.experiments
    assert "use_runner_v2" in environment.experiments


def test_flags_go_over_the_file(photos):
    flags = ["--machine_type=n2-standard-16", "--experiments=shuffle_mode=service", f"--sdk_container_image={IMAGE}"]
    environment = request_of(job_of(parse_beam_options([*CLOUD, *flags], config("dataflow.yaml")), photos))
    assert environment.worker_pools[0].machine_type == "n2-standard-16"
    assert {"no_use_multiple_sdk_containers", "shuffle_mode=service"} <= set(environment.experiments)


def test_the_gpu_variant_asks_for_a_card_and_for_one_process_a_machine(photos):
    options = parse_beam_options([*CLOUD, f"--sdk_container_image={IMAGE}"], config("dataflow_gpu.yaml"))
    environment = request_of(job_of(options, photos))
    assert environment.worker_pools[0].machine_type.startswith("g2-")
    assert [option for option in environment.service_options if option.startswith("worker_accelerator=type:nvidia-l4")]
    assert "no_use_multiple_sdk_containers" in environment.experiments


def test_resource_hints_reach_every_step(photos):
    flags = ["--resource_hint=min_ram=16GB", f"--sdk_container_image={IMAGE}"]
    job = job_of(parse_beam_options([*CLOUD, *flags], config("dataflow.yaml")), photos)
    hints = [dict(environment.resource_hints) for environment in environments(job)]
    assert hints
    assert all(hint == {common_urns.resource_hints.MIN_RAM_BYTES.urn: b"16000000000"} for hint in hints)


def test_without_an_image_the_package_is_staged_with_its_model(photos, monkeypatch):
    monkeypatch.chdir(ROOT)
    flags = [*CLOUD, "--runner=DataflowRunner", "--setup_file=./setup.py", "--sdk_location=container"]
    options = parse_beam_options(flags)
    options.view_as(WorkerOptions).sdk_container_image = "apache/beam_python3.11_sdk:2.77.0"
    package = artifacts(job_of(options, photos))["workflow.tar.gz"]
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "setup.py",
        "README.md",
        "maskdet/beam/transforms.py",
        "maskdet/model/builtin/compact/manifest.json",
    } <= names
    assert {"maskdet/cli/score.py", "maskdet/faces/builtin/centerface/manifest.json"} <= names
