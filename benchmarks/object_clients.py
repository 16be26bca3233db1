"""Compare our own store clients with obstore and boto3: what reading an object costs, and how faults end.

    pip install obstore boto3; .venv/bin/python -m benchmarks.object_clients

Reads objects of 30 kB from a store on loopback (benchmarks/slow_store.py), each client in a process of its own, in
turn. The client's CPU time per read is what scoring loses to it. Then each client meets typical faults of a store,
through the tests' proxy; the result of each is printed with the number of requests.
docs/decisions/015-own-store-clients.md draws the conclusion.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import spread
from benchmarks.contestants import ROOT
from benchmarks.slow_store import BUCKET

CLIENTS = ("maskdet", "obstore", "boto3")
OBJECT_BYTES = 30_000
_KEYS = ("key", "secret", "us-east-1")

Read = Callable[[str], bytes]
"""From an object's key to its bytes."""


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.client:
        print(json.dumps(_timed(arguments.client, arguments.url, arguments.reads, arguments.threads)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(200):
            data = np.random.default_rng(number).integers(0, 256, OBJECT_BYTES).astype(np.uint8)
            (folder / f"{number:03d}.jpg").write_bytes(data.tobytes())
        for threads in (1, 16):
            _compare(folder, arguments.rounds, arguments.reads, threads)
    for client in CLIENTS:
        for fault, ended in _faults(client).items():
            print(f"  {client:<8} {fault:<32} {ended}")


def _compare(folder: Path, rounds: int, reads: int, threads: int) -> None:
    command = [sys.executable, "-m", "benchmarks.slow_store", "--folder", str(folder), "--delay-ms", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        url = server.stdout.readline().strip() if server.stdout else ""
        costs: dict[str, list[dict[str, float]]] = {client: [] for client in CLIENTS}
        for _ in range(rounds):
            for client, found in costs.items():
                job = [sys.executable, "-m", "benchmarks.object_clients", "--client", client, "--url", url]
                job += ["--reads", str(reads), "--threads", str(threads)]
                printed = subprocess.run(job, check=True, capture_output=True, text=True, cwd=ROOT).stdout
                found.append(json.loads(printed.splitlines()[-1]))
    print(f"{reads:,} reads of {OBJECT_BYTES:,} bytes, {threads} threads, {rounds} rounds; median (least–greatest)")
    for client, found in costs.items():
        cpu, wall = (spread(one[what] * 1e3 for one in found).show(".3f") for what in ("cpu_s", "wall_s"))
        print(f"  {client:<8} {cpu} ms of CPU time per read, {wall} ms of wall time")


def _timed(client: str, url: str, reads: int, threads: int) -> dict[str, float]:
    """Seconds per read, after a warm-up of 400 reads."""
    read = _READERS[client](url, BUCKET)
    keys = [f"{number % 200:03d}.jpg" for number in range(reads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, keys[:400]))
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        sizes = list(pool.map(read, keys, chunksize=50))
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    assert all(len(data) == OBJECT_BYTES for data in sizes)
    return {"cpu_s": cpu_s / reads, "wall_s": wall_s / reads}


def _ours(url: str, bucket: str) -> Read:
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    from maskdet import storage

    names = ("s3_access_key_id", "s3_secret_access_key", "s3_region_name")
    flags = [f"--s3_endpoint_url={url}", *(f"--{name}={value}" for name, value in zip(names, _KEYS, strict=True))]
    FileSystems.set_options(PipelineOptions(flags))
    return lambda key: storage.read_bytes(f"s3://{bucket}/{key}")


def _obstore(url: str, bucket: str) -> Read:
    from obstore.store import S3Store

    store = S3Store(
        bucket,
        endpoint=url,
        access_key_id=_KEYS[0],
        secret_access_key=_KEYS[1],
        region=_KEYS[2],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    return lambda key: bytes(store.get(key).bytes())


def _boto3(url: str, bucket: str) -> Read:
    import boto3
    from botocore.config import Config

    config = Config(max_pool_connections=32)
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=_KEYS[0],
        aws_secret_access_key=_KEYS[1],
        region_name=_KEYS[2],
        config=config,
    )
    return lambda key: bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())


_READERS: dict[str, Callable[[str, str], Read]] = {"maskdet": _ours, "obstore": _obstore, "boto3": _boto3}


def _faults(client: str) -> dict[str, str]:
    """Fault → how a read with it ended: requests, seconds, and the number of bytes or the error."""
    sys.path.insert(0, str(ROOT / "tests" / "integration"))  # the servers and the proxy of the tests
    import store_servers
    from fault_proxy import Fault, FaultProxy

    server = store_servers.S3Server()
    server.make_bucket(BUCKET)
    server.put(BUCKET, "a.jpg", bytes(OBJECT_BYTES))
    proxy = FaultProxy(server.url)
    read = _READERS[client](proxy.url, BUCKET)
    plans: dict[str, tuple[str, Any, int]] = {
        "missing": ("b.jpg", None, 0),
        "forbidden (403)": ("a.jpg", Fault(status=403), 99),
        "busy twice (503), then well": ("a.jpg", Fault(status=503), 2),
        "busy for good (503)": ("a.jpg", Fault(status=503), 99),
        "too many (429) twice, then well": ("a.jpg", Fault(status=429), 2),
        "broken off in half once": ("a.jpg", Fault(answer_share=0.5), 1),
        "broken off in half for good": ("a.jpg", Fault(answer_share=0.5), 99),
    }
    ended = {}
    for name, (key, fault, times) in plans.items():
        proxy.clear()
        if fault is not None:
            proxy.plan("GET", f"/{key}", fault, times=times)
        ended[name] = _ending(read, key, lambda: len(proxy.requests()))
    proxy.stop()
    server.stop()
    return ended


def _ending(read: Read, key: str, requests: Callable[[], int]) -> str:
    started, before = time.perf_counter(), requests()
    try:
        result = f"{len(read(key)):,} bytes"
    except Exception as error:
        result = f"{type(error).__module__}.{type(error).__name__}: {' '.join(str(error).split())[:110]}"
    return f"{requests() - before} requests, {time.perf_counter() - started:.1f} s: {result}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reads", type=int, default=5_000)
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
