"""Object stores on loopback that tests start and stop: moto for S3, fake-gcs-server for Google Cloud Storage."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import subprocess
import time
from abc import ABC, abstractmethod

from tools.flink.programs import ends_with_input, install_fake_gcs_server

_START_S = 30.0


class StoreServer(ABC):
    """A store on loopback.

    Attributes:
        scheme: of its URIs.
        url: where it answers.
    """

    scheme: str
    url: str

    @abstractmethod
    def stop(self) -> None:
        """End the server."""

    @abstractmethod
    def flags(self, url: str) -> tuple[str, ...]:
        """Flags with which `maskdet score` reaches the server, or a proxy in front of it."""

    def environment(self, url: str) -> dict[str, str]:
        """Environment variables with which it does."""
        return {}

    @abstractmethod
    def make_bucket(self, bucket: str) -> None:
        """Create a bucket."""

    @abstractmethod
    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Store an object."""

    @abstractmethod
    def get(self, bucket: str, key: str) -> bytes:
        """An object's bytes."""

    @abstractmethod
    def delete(self, bucket: str, key: str) -> None:
        """Remove an object."""

    @abstractmethod
    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys under a prefix, sorted."""


class S3Server(StoreServer):
    """moto's server, in a thread."""

    scheme = "s3"
    read = "GET"
    write = "PUT"

    def __init__(self) -> None:
        import boto3
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        port = free_port()
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self._server.start()
        self.url = f"http://127.0.0.1:{port}"
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        self._client = boto3.client("s3", endpoint_url=self.url, **keys)

    def stop(self) -> None:
        self._client.close()
        self._server.stop()

    def flags(self, url: str) -> tuple[str, ...]:
        return (
            f"--s3_endpoint_url={url}",
            "--s3_access_key_id=key",
            "--s3_secret_access_key=secret",
            "--s3_region_name=us-east-1",
        )

    def make_bucket(self, bucket: str) -> None:
        self._client.create_bucket(Bucket=bucket)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=data)

    def get(self, bucket: str, key: str) -> bytes:
        with self._client.get_object(Bucket=bucket, Key=key)["Body"] as body:
            return body.read()

    def delete(self, bucket: str, key: str) -> None:
        self._client.delete_object(Bucket=bucket, Key=key)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(found["Key"] for page in pages for found in page.get("Contents", ()))


class GcsServer(StoreServer):
    """fake-gcs-server, as a process that keeps its objects in memory."""

    scheme = "gs"
    read = "GET /download/"
    write = "POST /upload/"

    def __init__(self) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        flags = (
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-port",
            str(port),
            "-backend",
            "memory",
            "-log-level",
            "error",
        )
        watched = ends_with_input(install_fake_gcs_server(), *flags)
        self._process = subprocess.Popen(
            watched, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _await_answer(port)
        self._client = Client(
            "test", AnonymousCredentials(), client_options={"api_endpoint": self.url}, use_auth_w_custom_endpoint=False
        )

    def stop(self) -> None:
        self._client.close()
        self._process.communicate(timeout=10)

    def flags(self, url: str) -> tuple[str, ...]:
        return ("--no_auth",)

    def environment(self, url: str) -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": url}

    def make_bucket(self, bucket: str) -> None:
        self._client.create_bucket(bucket)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._client.bucket(bucket).blob(key).upload_from_string(data, "image/jpeg")

    def get(self, bucket: str, key: str) -> bytes:
        return self._client.bucket(bucket).blob(key).download_as_bytes()

    def delete(self, bucket: str, key: str) -> None:
        self._client.bucket(bucket).blob(key).delete()

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        return sorted(blob.name for blob in self._client.list_blobs(bucket, prefix=prefix))


def accounted(output) -> bool:
    """Whether a run's record accounts for every listed image, and the tables for every image of the data set."""
    images, whole = output.run.images, output.run.dataset
    tables = {name: output.table(name).num_rows for name in ("predictions", "failures")}
    return images.listed == images.scored + images.no_face + images.failed + images.skipped and tables == {
        "predictions": whole.scored,
        "failures": whole.failed,
    }


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _await_answer(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/storage/v1/b?project=test")
            connection.getresponse().read()
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"fake-gcs-server did not answer within {_START_S:g} s")
        time.sleep(0.05)
