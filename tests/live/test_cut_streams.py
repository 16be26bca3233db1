"""`maskdet watch` of a camera whose connection is cut and restored: it goes on, and accounts for every frame."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.live.streams import Camera
from tests.video.clips import film, numbered

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
FACES = ("--set", "faces.mode=whole")


class Watching:
    """The command in a process of its own, and the lines that it has printed so far."""

    def __init__(self, source: str, *flags: str) -> None:
        command = [sys.executable, "-m", "maskdet.cli.main", "watch", source, *FACES, *flags]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def await_lines(self, reconnects: int, count: int = 5) -> None:
        """Wait for a number of lines after at least a number of reconnects."""
        deadline = time.monotonic() + PATIENCE_S
        while sum(line["reconnects"] >= reconnects for line in self.lines) < count:
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, (reconnects, self.lines[-1:])
            time.sleep(0.05)

    def stop(self) -> str:
        """End it as an operator does; returns what it printed."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        with self.process.stderr as stderr:
            said = stderr.read()
        self.process.stdout.close()
        assert code == 0, said
        return said


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """A film of two seconds as cameras send it, without frames that depend on later ones."""
    path = tmp_path_factory.mktemp("camera") / "camera.ts"
    return film(path, [numbered(number) for number in range(50)], options={"tune": "zerolatency"})


def test_a_stream_that_is_cut_and_restored_twice_costs_no_process_and_no_count(second, tmp_path):
    with Camera(second) as camera:
        watching = Watching(camera.uri, "--parquet", str(tmp_path / "p"))
        watching.await_lines(0)
        camera.cut()  # in the middle of a packet
        watching.await_lines(1)
        first = max(line["reconnects"] for line in watching.lines)
        camera.go_away()
        time.sleep(1.2)  # so that at least one try is refused
        camera.come_back()
        watching.await_lines(first + 2)
        said = watching.stop()
    lines = watching.lines
    assert len(camera.connected_at) == 3
    for name in ("decoded", "dropped", "reconnects"):
        counts = [line[name] for line in lines]
        assert counts == sorted(counts), name
    # What was decoded was looked at or dropped; one frame may have come after the last look.
    assert all(line["decoded"] - line["dropped"] - number in (0, 1) for number, line in enumerate(lines, 1))
    decoded, dropped, reconnects = map(
        int, re.search(r"(\d+) frames decoded, (\d+) dropped, (\d+) reconnects", said).groups()
    )
    assert decoded - dropped - len(lines) in (0, 1)
    assert reconnects >= 3
    assert camera.sent * 0.5 < decoded <= camera.sent
    assert said.count("opened again in 0.5 s") == 2
    assert "Connection refused; opened again in 1 s" in said
    assert all(len(line["faces"]) == 1 and line["latency_ms"] > 0 for line in lines)
    assert list((tmp_path / "p" / "predictions").glob("watch-*.parquet"))
