"""A store of each kind behind a proxy, and helpers to read what a run left there."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystems import FileSystems
from fault_proxy import FaultProxy
from store_servers import GcsServer, S3Server, StoreServer

from maskdet.beam.options import parse_beam_options
from maskdet.storage import faults
from tools.flink.cluster import FlinkCluster, Ports, running
from tools.flink.programs import NotInstallableError

SERVERS = {"gs": GcsServer, "s3": S3Server}
PHOTOS = "photos"
_NUMBERS = itertools.count()


@dataclasses.dataclass
class Store:
    """A server, a proxy in front of it, and a prefix for one test's outputs."""

    server: StoreServer
    proxy: FaultProxy
    bucket: str

    @property
    def photos(self) -> str:
        """The demo tree's northern site, which has images with every fault; not to be changed."""
        return f"{self.server.scheme}://{PHOTOS}/north"

    @property
    def sound(self) -> str:
        """The southern site, which has only sound images; not to be changed."""
        return f"{self.server.scheme}://{PHOTOS}/south"

    @property
    def tables(self) -> str:
        """The output of this test's runs."""
        return self.uri("tables")

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags with which `maskdet score` reaches the store through the proxy."""
        return self.server.flags(self.proxy.url)

    def uri(self, key: str) -> str:
        """The URI of an object in this test's bucket."""
        return f"{self.server.scheme}://{self.bucket}/{key}"

    def contents(self, prefix: str = "tables") -> dict[str, bytes]:
        """Every object under a prefix, by its key below that."""
        keys = self.server.keys(self.bucket, f"{prefix}/")
        return {key.removeprefix(f"{prefix}/"): self.server.get(self.bucket, key) for key in keys}

    def download(self, output, folder: Path):
        """Copy an output to a local folder, as the object that tests read."""
        for key, data in self.contents().items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return dataclasses.replace(output, folder=folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """A headless Chromium."""
    from browsing import started_browser  # most tests here need neither it nor the explorer

    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def address(output) -> str:
    """The address of the explorer of a module's own ``output``."""
    from browsing import explorer_link

    return explorer_link(str(getattr(output, "folder", output)))


@pytest.fixture
def opened(browser, address, request) -> Iterator[Callable[..., Any]]:
    """A function that opens pages of that explorer and waits for them with the module's own ``settle``."""
    from browsing import explorer_visits

    with explorer_visits(browser, address, request.module.settle) as visit:
        yield visit


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in SERVERS])
def server(request, demo) -> Iterator[StoreServer]:
    """A store of each kind, with the demo tree's images."""
    try:
        server = SERVERS[request.param]()
    except NotInstallableError as error:
        pytest.skip(str(error))
    server.make_bucket(PHOTOS)
    for file in demo.tree.files:
        side = "north" if file.path.startswith("demo-north/") else "south"
        server.put(PHOTOS, f"{side}/{file.path}", (demo.folder / file.path).read_bytes())
    yield server
    server.stop()


@pytest.fixture(scope="module")
def proxy(server) -> Iterator[FaultProxy]:
    proxy = FaultProxy(server.url)
    yield proxy
    proxy.stop()


@pytest.fixture
def store(server, proxy, monkeypatch) -> Iterator[Store]:
    """The store as this process reaches it: through a proxy, which passes everything on until a test plans a fault."""
    proxy.clear()
    monkeypatch.setattr(faults, "_FIRST_BACKOFF_S", 0.01)
    for name, value in server.environment(proxy.url).items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{os.getpid()}-{next(_NUMBERS)}"
    server.make_bucket(bucket)
    store = Store(server, proxy, bucket)
    before = FileSystems._pipeline_options
    FileSystems.set_options(parse_beam_options(store.flags))
    yield store
    FileSystems.set_options(before)


@pytest.fixture(scope="session")
def flink(tmp_path_factory) -> Iterator[FlinkCluster]:
    """A Flink cluster of two task managers."""
    try:
        cluster = FlinkCluster(tmp_path_factory.mktemp("flink"), Ports.free())
    except NotInstallableError as error:
        pytest.skip(str(error))
    with running(cluster):
        yield cluster
