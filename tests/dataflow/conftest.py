"""A GCS server and a Dataflow service on loopback; the service runs submitted jobs on this machine."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from store_servers import GcsServer

from tools.flink.programs import NotInstallableError

ROOT = Path(__file__).parents[2]
PROJECT, REGION = "demo-project", "europe-west4"
RUNNER_CONFIG = ROOT / "configs" / "runners" / "dataflow.yaml"
IMAGE = "europe-west4-docker.pkg.dev/demo-project/maskdet/maskdet:1"


@dataclass(frozen=True)
class Bucket:
    """A bucket on the GCS server."""

    server: GcsServer
    name: str

    def put(self, name: str, data: bytes) -> None:
        self.server.put(self.name, name, data)

    def get(self, name: str) -> bytes:
        return self.server.get(self.name, name)

    def names(self, prefix: str = "") -> list[str]:
        return self.server.keys(self.name, prefix)


@pytest.fixture(scope="session")
def gcs() -> Iterator[GcsServer]:
    """A GCS server."""
    try:
        server = GcsServer()
    except NotInstallableError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture
def bucket(gcs: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, and an environment in which Google's clients find it."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    found = Bucket(gcs, f"dataflow-{time.monotonic_ns()}")
    gcs.make_bucket(found.name)
    return found


@dataclass
class DataflowService:
    """A Dataflow service's state: the requests that it received, and how it answers.

    Attributes:
        url: its endpoint.
        state: that of every job.
        created: jobs it was asked to create.
        paths: of those requests.
        updated: job updates it was asked for.
        asked: how often it was asked for a job's state.
        on_create: told each job before it is answered.
    """

    url: str = ""
    state: str = "JOB_STATE_DONE"
    created: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    updated: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    on_create: Callable[[dict[str, Any]], None] = lambda job: None

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        job = {"id": "job-1", "projectId": PROJECT, "location": REGION}
        self.asked += method == "GET"
        if method == "POST":
            self.paths.append(path)
            self.created.append(body)
            self.on_create(body)
            job |= {"name": body["name"], "clientRequestId": body["clientRequestId"]}
        if method == "PUT":
            self.updated.append(body)
            self.state = body["requestedState"]
        return {} if re.search(r"/(messages|metrics)", path) else {**job, "currentState": self.state}


@pytest.fixture
def dataflow() -> Iterator[DataflowService]:
    """A Dataflow service. Beam's check of the endpoint accepts the name localhost, but not the address."""
    service = DataflowService()

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = json.dumps(service.answer(self.command, self.path, json.loads(body or b"{}"))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = reply  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    service.url = f"http://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield service
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def flags(bucket: Bucket, dataflow: DataflowService) -> list[str]:
    """Beam options for a submission to the two servers, in addition to those in the runner's file."""
    return [
        f"--runner-config={RUNNER_CONFIG}",
        f"--project={PROJECT}",
        f"--region={REGION}",
        f"--temp_location=gs://{bucket.name}/tmp",
        f"--sdk_container_image={IMAGE}",
        f"--dataflow_endpoint={dataflow.url}",
        "--no_auth",
    ]
