"""Measure what a store's latency costs: score from a loopback store that adds 50 ms to each read, and from local files.

    .venv/bin/python -m benchmarks.latency
    .venv/bin/python -m benchmarks.latency --server gs --images 1000 --rounds 1

Three contestants run as whole processes, in turn: local files; the store without delay, which shows what any store
costs; and the store with the delay. Ratios of rates are taken within a round. The server shares the machine's CPU:
`light` (benchmarks/slow_store.py) needs little; `s3` (moto) and `gs` (fake-gcs-server) are complete servers behind the
tests' proxy, and need more than one core for themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks import datasets
from benchmarks.comparison import Run, ratios, spread
from benchmarks.contestants import ROOT
from benchmarks.process_tree import measure
from benchmarks.slow_store import BUCKET

sys.path.insert(0, str(ROOT / "tests" / "integration"))  # the servers and the proxy of the tests


@dataclass(frozen=True)
class Source:
    """Where images come from.

    Attributes:
        uri: folder or prefix.
        flags: flags that maskdet needs to read from there.
        environment: environment variables that it needs.
    """

    uri: str
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def main() -> None:
    arguments = _parser().parse_args()
    data = datasets.resolve(arguments.data, arguments.input)
    folder = datasets.build(data, arguments.images, arguments.input, arguments.work.absolute())
    datasets.warm(folder)
    delayed = f"store + {arguments.delay_ms:g} ms"
    with contextlib.ExitStack() as stack:
        sources = {"local": Source(str(folder))}
        for name, delay_ms in (("store", 0.0), (delayed, arguments.delay_ms)):
            sources[name] = stack.enter_context(_SERVERS[arguments.server](folder, delay_ms))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = [
            _score(name, round_, source, arguments.model, scratch)
            for round_ in range(arguments.rounds + 1)
            for name, source in sources.items()
        ]
    _report([run for run in runs if run.round], arguments.images, arguments.server)  # round 0 warms up


def _score(name: str, round_: int, source: Source, model: str, scratch: Path) -> Run:
    output = scratch / "tables"
    shutil.rmtree(output, ignore_errors=True)
    score = [sys.executable, "-m", "maskdet.cli.main", "score", "--quiet", "--faces", "whole", "--model", model]
    errors = scratch / "errors"
    cost = measure(
        [*score, "--input", source.uri, "--output", str(output), *source.flags],
        stdout=scratch / "printed",
        stderr=errors,
        environment=source.environment,
    )
    if cost.exit_code:
        sys.exit(f"{name}: maskdet score ended with {cost.exit_code}: {errors.read_text()[-2000:]}")
    [path] = (output / "_runs").glob("*.json")
    run = json.loads(path.read_text())
    begun, finished = (datetime.fromisoformat(run[name]) for name in ("started_at", "finished_at"))
    print(f"  round {round_} {name:<16} {cost.wall_s:6.2f} s, {run['images']['scored']:,} scored", flush=True)
    parts = {"run": (finished - begun).total_seconds()}
    return Run(name, round_, 0, cost.wall_s, cost.cpu_s, cost.peak_mib, scored=run["images"]["scored"], split=parts)


def _report(runs: list[Run], images: int, server: str) -> None:
    names = list(dict.fromkeys(run.contestant for run in runs))
    print(f"{images:,} images, server {server}; median (least–greatest)")
    for name in names:
        mine = [run for run in runs if run.contestant == name]
        wall = spread(run.wall_s for run in mine)
        inner = spread(run.split["run"] for run in mine)
        cpu, peak = spread(run.cpu_s for run in mine), spread(run.peak_mib for run in mine)
        print(
            f"  {name:<16} {wall.show()} s, {images / wall.median:,.0f} images/s; without start-up {inner.show()} s, "
            f"{images / inner.median:,.0f} images/s; CPU {cpu.show('.1f')} s, peak {peak.show('.0f')} MiB"
        )
    # Rates are the inverse of times: the local time over the store's is the store's rate over the local one.
    for over, under in ((names[1], names[0]), (names[2], names[0]), (names[2], names[1])):
        print(f"  rate, {over} / {under}: {spread(ratios(runs, under, over)).show()}")


@contextlib.contextmanager
def _light(folder: Path, delay_ms: float) -> Iterator[Source]:
    command = [sys.executable, "-m", "benchmarks.slow_store", "--folder", str(folder), "--delay-ms", str(delay_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        url = server.stdout.readline().strip() if server.stdout else ""
        keys = ("--s3_access_key_id=key", "--s3_secret_access_key=secret", "--s3_region_name=us-east-1")
        yield Source(f"s3://{BUCKET}", (f"--s3_endpoint_url={url}", *keys))


@contextlib.contextmanager
def _proxied(kind: str, folder: Path, delay_ms: float) -> Iterator[Source]:
    import store_servers
    from fault_proxy import Fault, FaultProxy

    server = {"s3": store_servers.S3Server, "gs": store_servers.GcsServer}[kind]()
    server.make_bucket(BUCKET)
    for path in folder.iterdir():
        server.put(BUCKET, f"photos/{path.name}", path.read_bytes())
    proxy = FaultProxy(server.url)
    read = f"/{BUCKET}/photos/" if kind == "s3" else "/download/"
    proxy.plan("GET", read, Fault(delay_s=delay_ms / 1000), times=10**9)
    yield Source(f"{server.scheme}://{BUCKET}/photos", server.flags(proxy.url), server.environment(proxy.url))
    proxy.stop()
    server.stop()


_SERVERS = {
    "light": _light,
    "s3": lambda folder, delay_ms: _proxied("s3", folder, delay_ms),
    "gs": lambda folder, delay_ms: _proxied("gs", folder, delay_ms),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="png", choices=sorted(datasets.DESCRIPTIONS))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay-ms", type=float, default=50.0)
    parser.add_argument("--server", default="light", choices=sorted(_SERVERS))
    parser.add_argument("--model", default="models/reference_cnn")
    parser.add_argument("--input", type=Path, default=datasets.data_folder(), help="folder of real images")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench")
    return parser


if __name__ == "__main__":
    main()
