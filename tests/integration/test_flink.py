"""A real Flink cluster gives the same tables as a run without one, whatever is killed meanwhile; `make test-flink`."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_proxy import Fault, FaultProxy
from store_servers import GcsServer

from maskdet.tables.layout import COMPLIANCE, FAILURES, NO_FACE, PREDICTIONS
from tests.hostile.corpus import corpus
from tools.flink.cluster import BOOT, FlinkCluster
from tools.flink.programs import ROOT, NotInstallableError

pytestmark = [pytest.mark.flink, pytest.mark.timeout(280)]

TABLES = tuple(f"{name}/" for name in (PREDICTIONS, FAILURES, NO_FACE, COMPLIANCE))
SETTINGS = ("--faces", "whole", "--set", "failure_budget.max_ratio=0.5", "--no_auth")
PATIENCE_S = 90.0
MUTANTS = 300


@dataclass
class Photos:
    """A store on loopback with images to score, reached through a proxy that can hold reads back."""

    server: GcsServer
    proxy: FaultProxy
    images: int

    @property
    def settings(self) -> tuple[str, ...]:
        """About thirty shards, so that there is work left when something is killed."""
        return (*SETTINGS, "--set", f"packing.max_images={max(2, self.images // 25)}")

    def tables(self, prefix: str) -> dict[str, bytes]:
        """Every table of an output by its key, byte for byte."""
        keys = [key for key in self.server.keys("tables", f"{prefix}/") if key.split("/", 1)[1].startswith(TABLES)]
        return {key.removeprefix(f"{prefix}/"): self.server.get("tables", key) for key in keys}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "maskdet.cli.main", *words]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "NO_GCE_CHECK": "true", **self.server.environment(self.proxy.url)}

    def status(self, prefix: str) -> subprocess.CompletedProcess[str]:
        """The output of `maskdet status`."""
        command = self.command("status", f"gs://tables/{prefix}", "--no_auth")
        return subprocess.run(command, env=self.environment(), cwd=ROOT, capture_output=True, text=True, check=False)


class HeldBack:
    """Reads of images after the first few, held back until they are released."""

    def __init__(self, photos: Photos, after: int) -> None:
        self._reached, self._go = threading.Event(), threading.Event()
        photos.proxy.plan("GET", "/download/.*/photos/", Fault(), times=after)
        photos.proxy.plan("GET", "/download/.*/photos/", Fault(first=self._hold))

    def await_reads(self) -> None:
        """Wait until reads are held back: the run is in the middle of its images."""
        assert self._reached.wait(PATIENCE_S)

    def let_go(self) -> None:
        self._go.set()

    def _hold(self) -> None:
        self._reached.set()
        self._go.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def photos(demo) -> Iterator[Photos]:
    """k12/Test where the real images are available, else drawn ones; and broken images of every kind."""
    try:
        server = GcsServer()
    except NotInstallableError as error:
        pytest.skip(str(error))
    folder = Path(os.environ.get("MASKDET_DATA", ROOT.parent / "shared" / "data")) / "k12" / "Test"
    sound = sorted(path for path in folder.rglob("*") if path.suffix == ".png")
    for bucket in ("photos", "tables"):
        server.make_bucket(bucket)
    for i, path in enumerate(sound):
        server.put("photos", f"k12/{path.parent.name}/{i:04d}.png", path.read_bytes())
    for file in demo.tree.files:
        if not sound or file.failure is not None:
            server.put("photos", file.path, (demo.folder / file.path).read_bytes())
    proxy = FaultProxy(server.url)
    yield Photos(server, proxy, len(server.keys("photos")))
    proxy.stop()
    server.stop()


@pytest.fixture(scope="module")
def expected(photos) -> dict[str, bytes]:
    """The tables of a run without a cluster."""
    command = photos.command(
        "score", "--input", "gs://photos", "--output", "gs://tables/local", *photos.settings, "--quiet"
    )
    done = subprocess.run(command, env=photos.environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tables = photos.tables("local")
    assert {key.split("/")[0] for key in tables} >= {PREDICTIONS, FAILURES, COMPLIANCE}
    return tables


@pytest.fixture
def flink_run(flink, photos, tmp_path):
    """Start `maskdet score` on the cluster; it is ended after the test if necessary."""
    clients: list[subprocess.Popen[str]] = []
    photos.proxy.clear()

    def start(prefix: str, bucket: str = "photos", settings: tuple[str, ...] = photos.settings) -> Run:
        environment = {"command": BOOT, "env": photos.server.environment(photos.proxy.url)}
        runner = ["--runner-config", "configs/runners/flink.yaml", *flink.flags]
        where = ["--input", f"gs://{bucket}", "--output", f"gs://tables/{prefix}"]
        command = photos.command("score", *where, *settings, *runner, "--quiet")
        log = open(tmp_path / f"{prefix}.log", "w+", encoding="utf-8")  # noqa: SIM115
        # What a shell starts in the background ignores Ctrl-C, and so would the client, which inherits that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        client = subprocess.Popen(
            [*command, f"--environment_config={json.dumps(environment)}"],
            env=photos.environment(),
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        clients.append(client)
        log.close()
        known = {job["jid"] for job in flink.rest("/jobs/overview")["jobs"]}
        return Run(flink, client, Path(log.name), known)

    yield start
    for client in clients:
        if client.poll() is None:
            client.kill()
        client.wait()
    flink.cancel_jobs()


@dataclass
class Run:
    """A run on the cluster, and its client."""

    cluster: FlinkCluster
    client: subprocess.Popen[str]
    log: Path
    earlier: set[str]

    def code(self) -> int:
        """The client's exit code, once it has ended."""
        return self.client.wait(timeout=2 * PATIENCE_S)

    def job(self) -> dict[str, object]:
        """Flink's description of the job."""
        (found,) = [job for job in self.cluster.rest("/jobs/overview")["jobs"] if job["jid"] not in self.earlier]
        return found

    def restarts(self) -> int:
        """How often Flink has restarted the job, or a part of it."""
        exceptions = self.cluster.rest(f"/jobs/{self.job()['jid']}/exceptions")
        return len(exceptions["exceptionHistory"]["entries"])

    def counters(self) -> dict[str, int]:
        """Maskdet's counters, as Flink's REST API shows them."""
        accumulators = self.cluster.rest(f"/jobs/{self.job()['jid']}/accumulators")["user-task-accumulators"]
        (beam,) = [json.loads(found["value"]) for found in accumulators if found["name"] == "__metricscontainers"]
        totals: dict[str, int] = {}
        for metric in beam["metrics"]["attempted"]:
            labels = metric["labels"]
            if metric["urn"] == "beam:metric:user:sum_int64:v1" and labels["NAMESPACE"] == "maskdet":
                totals[labels["NAME"]] = totals.get(labels["NAME"], 0) + varint(base64.b64decode(metric["payload"]))
        return totals


def varint(data: bytes) -> int:
    """An integer in the base-128 form of protocol buffers."""
    return sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(data))


def until(what: str, holds) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_its_tables_are_those_of_a_run_without_a_cluster_and_its_counters_are_in_flink_s_api(
    photos, expected, flink_run
):
    run = flink_run("plain")
    assert run.code() == 0, run.log.read_text()
    assert run.job()["state"] == "FINISHED"
    assert run.restarts() == 0
    assert photos.tables("plain") == expected
    assert manifest_of(photos, "plain")["images"] == manifest_of(photos, "local")["images"]
    manifest = manifest_of(photos, "plain")
    counters = run.counters()
    assert manifest["images"]["failed"] > 5
    assert counters["images_scored"] == manifest["images"]["scored"]
    assert counters["images_failed"] == manifest["images"]["failed"]
    assert counters["shards_scored"] == manifest["shards"]["scored"] > 4
    assert photos.status("plain").returncode == 0


def test_a_task_manager_that_is_killed_costs_nothing_but_time(photos, expected, flink, flink_run):
    held = HeldBack(photos, after=photos.images // 3)
    run = flink_run("manager")
    held.await_reads()
    assert photos.status("manager").returncode == 9
    os.kill(flink.task_manager(1), signal.SIGKILL)
    held.let_go()
    assert run.code() == 0, run.log.read_text()
    assert run.restarts() >= 1
    assert photos.tables("manager") == expected
    assert manifest_of(photos, "manager")["images"] == manifest_of(photos, "local")["images"]
    flink.start_task_manager(1)
    flink.await_task_managers(2)


@pytest.mark.thorough
def test_a_worker_that_is_killed_costs_nothing_but_time(photos, expected, flink, flink_run):
    held = HeldBack(photos, after=photos.images // 3)
    run = flink_run("worker")
    held.await_reads()
    # Workers of earlier jobs may still be there: take the last.
    os.kill(flink.workers(0)[-1], signal.SIGKILL)
    held.let_go()
    assert run.code() == 0, run.log.read_text()
    assert run.restarts() >= 1
    assert photos.tables("worker") == expected
    assert manifest_of(photos, "worker")["images"] == manifest_of(photos, "local")["images"]


def test_an_interrupted_client_cancels_its_job_and_says_what_is_kept(photos, expected, flink, flink_run):
    held = HeldBack(photos, after=photos.images // 2)
    run = flink_run("interrupted")
    held.await_reads()
    run.client.send_signal(signal.SIGINT)
    until("the job is cancelled", lambda: run.job()["state"] in ("CANCELLING", "CANCELED"))
    held.let_go()
    assert run.code() == 130, run.log.read_text()
    until("the job is gone", lambda: run.job()["state"] == "CANCELED")
    assert photos.status("interrupted").returncode == 130
    flink.await_task_managers(2)


@pytest.mark.parametrize("mode", ["whole", pytest.param("detect", marks=pytest.mark.thorough)])
def test_mutated_images_give_the_same_rows_with_and_without_a_cluster(photos, flink_run, mode):
    bucket, limit = f"mutants-{mode}", f"packing.max_images={MUTANTS // 12}"
    photos.server.make_bucket(bucket)
    for one in corpus(seed=5, count=MUTANTS):
        photos.server.put(bucket, one.name, one.data)
    settings = ("--faces", mode, "--set", "failure_budget.max_ratio=1", "--set", limit, "--no_auth")
    where = ["--input", f"gs://{bucket}", "--output", f"gs://tables/here-{mode}", *settings, "--quiet"]
    command = photos.command("score", *where)
    done = subprocess.run(command, env=photos.environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = flink_run(f"cluster-{mode}", bucket, settings)
    assert run.code() == 0, run.log.read_text()
    assert run.restarts() == 0
    expected = photos.tables(f"here-{mode}")
    assert {key.split("/")[0] for key in expected} >= {PREDICTIONS, FAILURES, COMPLIANCE}
    assert photos.tables(f"cluster-{mode}") == expected
    counts = manifest_of(photos, f"cluster-{mode}")["images"]
    assert counts == manifest_of(photos, f"here-{mode}")["images"]
    assert counts["listed"] == MUTANTS
    assert counts["failed"] > MUTANTS / 2
    assert counts["scored"] > MUTANTS / 8


def manifest_of(photos, prefix):
    (key,) = photos.server.keys("tables", f"{prefix}/_runs/")
    return json.loads(photos.server.get("tables", key))
