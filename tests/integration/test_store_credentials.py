"""Missing or unusable credentials are reported at once; those of a Google Cloud machine are found."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems
from fault_proxy import Fault

from maskdet import storage
from maskdet.beam.options import parse_beam_options
from maskdet.cli import main
from maskdet.storage import gcs

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def silence():
    """An address that accepts connections and never answers, like the metadata server's where there is none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def bare(store, silence, tmp_path, monkeypatch):
    """A machine without credentials, whose stores are behind the test's proxy; returns the flags for these stores."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "GCE_", "NO_GCE")) or name == "STORAGE_EMULATOR_HOST":
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_IP", silence)
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", store.proxy.url)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{silence}")
    gcs.missing_credentials.cache_clear()
    monkeypatch.setattr(gcs, "_PRODUCT_NAME", tmp_path / "none")
    yield () if store.server.scheme == "gs" else (f"--s3_endpoint_url={store.proxy.url}", "--s3_region_name=us-east-1")
    gcs.missing_credentials.cache_clear()


def refused(capfd, photos, flags):
    """The command's message, and how many seconds it takes."""
    capfd.readouterr()
    started = time.monotonic()
    assert main.main(["score", "--input", photos, "--output", "unused", *flags]) == 5
    return capfd.readouterr().err, time.monotonic() - started


def test_missing_credentials_are_said_at_once(store, bare, capfd):
    store.proxy.plan("", "", Fault(401))
    said, took_s = refused(capfd, store.photos, bare)
    name = {"gs": "Google", "s3": "AWS"}[store.server.scheme]
    assert f"no {name} credentials were found" in said
    assert said.count("\n") == 1
    # A metadata server is given 1.5 s, AWS's 1 s and a second try; the rest is this machine's.
    assert took_s < 8
    print(f"{name}: {took_s:.2f} s")


def test_credentials_that_cannot_be_used_are_said_at_once(store, bare, capfd, monkeypatch):
    if store.server.scheme == "s3":
        pytest.skip("a key of S3's is not known to be wrong before the store says so")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/key.json")
    store.proxy.plan("", "", Fault(401))
    said, took_s = refused(capfd, store.photos, bare)
    assert "the Google credentials cannot be used: File /no/such/key.json was not found" in said
    assert took_s < 5


def test_a_public_bucket_needs_no_credentials(store, bare):
    if store.server.scheme == "s3":
        pytest.skip("S3 is asked without credentials by no option of Beam's")
    FileSystems.set_options(parse_beam_options(bare))
    store.server.put(store.bucket, "public", b"content")
    assert storage.read_bytes(store.uri("public")) == b"content"


class _GoogleMachine(BaseHTTPRequestHandler):
    """A metadata server, and a store that asks for the token that it gives."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        answers = {"/token": {"access_token": "granted", "expires_in": 3600, "token_type": "Bearer"}}
        body = json.dumps(
            next((answer for end, answer in answers.items() if self.path.split("?")[0].endswith(end)), {})
        )
        if self.path.startswith("/download/"):
            body = self.headers.get("Authorization", "none")
        elif self.path.endswith("project-id"):
            body = "project"
        elif "/service-accounts/" in self.path and "/token" not in self.path:
            body = json.dumps({"email": "a@b.iam.gserviceaccount.com", "scopes": [], "aliases": []})
        self.send_response(200)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", "application/json" if body.startswith("{") else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.mark.xdist_group("gs")
def test_the_credentials_of_a_google_machine_are_found(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _GoogleMachine)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    address = f"127.0.0.1:{server.server_address[1]}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "GCE_", "NO_"))}
    environment |= {"GCE_METADATA_HOST": address, "GCE_METADATA_IP": address, "CLOUDSDK_CONFIG": str(tmp_path)}
    environment |= {"API_ENDPOINT_OVERRIDE": f"http://{address}"}
    environment.pop("STORAGE_EMULATOR_HOST", None)
    script = "from maskdet import storage; print(storage.read_bytes('gs://bucket/a').decode())"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    server.shutdown()
    server.server_close()
    assert ended.stdout.strip() == "Bearer granted"
