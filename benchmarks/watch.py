"""Measure `maskdet watch` over half an hour: latency, frames dropped, memory, and a stream that is cut and restored.

    python -m benchmarks.watch [--minutes 30] [--film camera.mp4] [--frames-per-second 10] [--cuts 2]

A camera on loopback sends a film over and over as MPEG-TS, in real time; without --film, one is made: 720p, 25 frames
per second, photographed faces ($MASKDET_DATA) that cross a blurred photograph. `maskdet watch` runs in a process of its
own and looks at ten frames per second. At even intervals the stream is cut, alternately by a reset in the middle of a
packet and by silence, which watch gives up on after ten seconds. Prints latency (from when a frame was decoded, and
from when it was sent, until its faces had labels), frames looked at and dropped, resident memory in each quarter of the
time after a minute of warm-up, CPU time, and the machine's load. Exits with 1 if the process ended before it was
stopped, or if a frame is not accounted for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.contestants import ROOT

SAMPLE_S = 5.0
WARM_UP_S = 60.0
STOP_S = 30.0


@dataclass
class Watched:
    """What was measured of a process of `maskdet watch`.

    Attributes:
        lines: the JSON lines that it printed.
        memory: seconds since the start and resident bytes, every few seconds.
        loads: the machine's load average, at the same times.
        cpu_s: CPU time of the process.
        exit_code: exit code of the process.
        said: the last line of its standard error.
        sent: how many frames the camera sent.
        connected_at: Unix time of each connection.
        wall_s: how long it ran, in seconds.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    exit_code: int = 0
    said: str = ""
    sent: int = 0
    connected_at: list[float] = field(default_factory=list)
    wall_s: float = 0.0


def watch(film: Path, seconds: float, frames_per_second: float, cuts: int) -> Watched:
    """Run `maskdet watch` on a camera that sends a film, for some time."""
    from tests.live.streams import Camera

    found = Watched()
    moments = [seconds * (number + 1) / (cuts + 1) for number in range(cuts)]
    with Camera(film) as camera, tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        command = [sys.executable, "-m", "maskdet.cli.main", "watch", camera.uri]
        process = subprocess.Popen(
            [*command, "--frames-per-second", str(frames_per_second)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        reader = threading.Thread(target=_read, args=(process, found.lines), daemon=True)
        reader.start()
        seen, started = psutil.Process(process.pid), time.monotonic()
        while (passed := time.monotonic() - started) < seconds and process.poll() is None:
            if moments and passed > moments[0]:
                moments.pop(0)
                (camera.cut if len(moments) % 2 else camera.fall_silent)()
            found.memory.append((passed, seen.memory_info().rss))
            found.loads.append(os.getloadavg()[0])
            found.cpu_s = sum(seen.cpu_times()[:2])
            time.sleep(SAMPLE_S)
        found.wall_s = time.monotonic() - started
        process.terminate()
        found.exit_code = process.wait(STOP_S)
        reader.join(STOP_S)
        errors.seek(0)
        found.said = errors.read().strip().rpartition("\n")[2]
        found.sent, found.connected_at = camera.sent, camera.connected_at
    return found


def report(found: Watched, cuts: int) -> tuple[str, bool]:
    """The text to print, and whether the process lived to the end and every frame is accounted for."""
    lines, last = found.lines, found.lines[-1]
    latencies = [line["latency_ms"] for line in lines]
    whole = [one for line in lines if (one := _since_sent_ms(line, found.connected_at)) is not None]
    # At the end one frame may have been decoded but not yet looked at.
    waiting = last["decoded"] - last["dropped"] - len(lines)
    sound = found.exit_code == 0 and waiting in (0, 1) and len(found.connected_at) == cuts + 1
    memory = ", ".join(f"{statistics.median(one):.0f} ({max(one):.0f})" for one in _quarters(found) if one)
    connections = f"{len(found.connected_at)} connections, {cuts} cuts"
    text = [
        f"watched     {found.wall_s / 60:.1f} minutes, exit code {found.exit_code}: {found.said}",
        f"frames      {found.sent:,} sent, {last['decoded']:,} decoded, {len(lines):,} looked at, "
        f"{last['dropped']:,} dropped, {waiting} waiting; {connections}, {last['reconnects']} reconnects",
        f"latency     {_spread(latencies)}",
        f"since sent  {_spread(whole)}",
        f"memory      {memory or 'too short to tell'} MiB resident by quarter, median and (largest)",
        f"processor   {found.cpu_s / found.wall_s:.2f} of a core; load of the machine {_spread(found.loads, '')}",
    ]
    return "\n".join(text), sound


def _quarters(found: Watched) -> list[list[float]]:
    """Resident MiB in each quarter of the time after the warm-up."""
    step = (found.wall_s - WARM_UP_S) / 4
    starts = [WARM_UP_S + number * step for number in range(4)]
    return [[rss / 2**20 for passed, rss in found.memory if start <= passed < start + step] for start in starts]


def _read(process: subprocess.Popen[str], lines: list[dict[str, Any]]) -> None:
    assert process.stdout is not None
    lines.extend(json.loads(line) for line in process.stdout)


def _since_sent_ms(line: dict[str, Any], connected_at: Sequence[float]) -> float | None:
    """Milliseconds from when a frame was due to leave the camera until its faces had labels."""
    arrived = datetime.fromisoformat(line["at"]).timestamp()
    begun = max((moment for moment in connected_at if moment <= arrived), default=None)
    if begun is None or line["time_us"] is None:
        return None
    return 1000 * (arrived - begun - line["time_us"] / 1e6) + float(line["latency_ms"])


def _spread(values: Sequence[float], unit: str = " ms") -> str:
    cuts = statistics.quantiles(values, n=100)
    return f"median {cuts[49]:.3g}, p95 {cuts[94]:.3g}, p99 {cuts[98]:.3g}, at most {max(values):.4g}{unit}"


def camera_film(source: Path | None, path: Path) -> Path:
    """A film as a camera sends it, in which no frame has to wait for a later one."""
    from benchmarks.videos import make_film

    if source is not None:
        return source
    make_film(path, 60.0, {"preset": "veryfast", "tune": "zerolatency"})
    return path


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--film", type=Path, help="what the camera sends (default: one is made)")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--frames-per-second", type=float, default=10.0, help="frames per second that are looked at")
    parser.add_argument("--cuts", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        film = camera_film(arguments.film, Path(folder, "camera.ts"))
        found = watch(film, arguments.minutes * 60, arguments.frames_per_second, arguments.cuts)
    if len(found.lines) < 2:
        print(f"no frame was looked at: {found.said}", file=sys.stderr)
        return 1
    text, sound = report(found, arguments.cuts)
    print(text)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
