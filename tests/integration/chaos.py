"""Kills, starves, races and deceives runs by schedules that a seed repeats; the tables must not show any of it.

    python tests/integration/chaos.py [--schedules 200] [--first 0] [--seed N ...]

A schedule is a small input, some disturbed runs over it, with changes of the input between and during them, and one run
that is not disturbed. The oracle: the tables' folders then hold, byte for byte, what one undisturbed run over the final
input leaves in a new place; and after every disturbed run the snapshot still names a complete set of files, each with
the content that it says. Prints one line of JSON per schedule; the exit code is that of the worst.

Runs are forks of this process, which has imported everything and run nothing, so that one takes about a second.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import maskdet.beam.running
import maskdet.cli.prune
import maskdet.cli.score
from maskdet import storage
from maskdet.cli.main import main
from maskdet.model.backends import RuntimeSpec, load_model  # noqa: F401 - forked runs find it imported
from maskdet.scoring.scorer import Scorer
from maskdet.storage import local
from maskdet.tables import lease
from maskdet.tables.layout import COMPLIANCE, SHARD_TABLES, Layout
from maskdet.tables.snapshot import read_snapshot
from maskdet.testing import solid_image

# All changes of an output go through these functions.
WRITES = ("write_bytes", "write_if", "link_or_copy", "delete")
# Exit codes that a disturbed run may have: success; storage; the failure budget (images that vanished); an output
# that is held, or was taken over; files of images that are gone; the signals.
EXPECTED_CODES = {0, 3, 5, 6, 7, 8, 10, 143, -signal.SIGKILL}
TIMEOUT_S = 120
KINDS = (
    *(
        "die before",
        "die after",
        "die torn",
        "die any time",
        "die in publishing",
        "terminate",
        "disk full",
        "read-only",
    ),
    *("input changes", "two runs", "clock", "harm"),
)
SITES = ("007", "north")
BASE = ("--faces", "whole", "--template", "{site}/*", "--quiet", "--set", "packing.max_images=3")
MIRROR = ("--set", "tables.on_gone=remove", "--set", "tables.max_gone_ratio=1", "--set", "failure_budget.max_ratio=1")

Fault = Callable[[], contextlib.AbstractContextManager[None]]


class Input:
    """A folder of images that changes as a schedule says."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        for number in range(rng.randint(8, 16)):
            self._put(SITES[number % 2], f"{number:02d}.png")

    def change(self) -> str:
        """Change one file; returns how."""
        files = sorted(path for path in self.folder.rglob("*.png"))
        path = self.rng.choice(files)
        how = self.rng.choice(["added", "replaced", "truncated", "grown", "vanished", "broken", "moved"])
        if how == "added" or len(files) < 4:
            self._put(self.rng.choice(SITES), f"new-{self.rng.randrange(10**6):06d}.png")
            return "added"
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            if how == "vanished":
                path.unlink()
            elif how == "moved":
                path.rename(path.with_name(f"moved-{self.rng.randrange(10**6):06d}.png"))
            elif how == "replaced":
                self._put(path.parent.name, path.name)
            else:
                path.write_bytes(
                    {"truncated": data[: len(data) // 2], "grown": data + bytes(100), "broken": b"not an image"}[how]
                )
        return how

    def _put(self, site: str, name: str) -> None:
        path = self.folder / site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(solid_image(self.rng.randrange(256), side_px=self.rng.randint(10, 40)))


def at_call(name: str, number: int, act: Callable[..., object]) -> contextlib.AbstractContextManager[None]:
    """Do something in place of the n-th call of a storage function, counted over all threads."""
    real, lock, calls = getattr(storage, name), threading.Lock(), [0]

    def called(*arguments: object, **named: object) -> object:
        with lock:
            calls[0] += 1
            mine = calls[0] == number
        return act(real, *arguments, **named) if mine else real(*arguments, **named)

    return mock.patch.object(storage, name, called)


def die(*_: object, **__: object) -> None:
    """End the process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_before(name: str, number: int) -> Fault:
    return lambda: at_call(name, number, die)


def die_after(name: str, number: int) -> Fault:
    def act(real: Callable[..., object], *arguments: object, **named: object) -> None:
        real(*arguments, **named)
        die()

    return lambda: at_call(name, number, act)


def die_torn(number: int) -> Fault:
    """Imitate a crash of the machine: half a file under its final name, as a file system without barriers leaves it."""

    def act(_: object, uri: str, data: bytes) -> None:
        path = Path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # not through a hard link
        path.write_bytes(data[: len(data) // 2])
        die()

    return lambda: at_call("write_bytes", number, act)


def die_in(seconds: float, number: int = signal.SIGKILL) -> Fault:
    """Send a signal some time after the run has begun to write."""

    @contextlib.contextmanager
    def fault() -> Iterator[None]:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()
        yield
        timer.cancel()

    return fault


def failing_writes(code: int, first: int, last: int) -> Fault:
    """Imitate a disk that is full or read-only from one write on, perhaps until another; what fits is written."""
    real, lock, calls = local.write, threading.Lock(), [0]

    def write(path: Path, data: bytes) -> None:
        with lock:
            calls[0] += 1
            fails = first <= calls[0] < last
        if not fails:
            real(path, data)
            return
        if code == errno.ENOSPC:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.0123456789abcdef.tmp").write_bytes(data[: len(data) // 2])
        raise OSError(code, os.strerror(code), str(path))

    return lambda: mock.patch.object(local, "write", write)


def changing_input(change: Callable[[], str], number: int) -> Fault:
    """Change the input while it is read."""
    real, lock, calls = storage.read_bytes, threading.Lock(), [0]

    def read(uri: str) -> bytes:
        with lock:
            calls[0] += 1
            if calls[0] % number == 0:
                change()
        return real(uri)

    defaults = {**(Scorer.__init__.__kwdefaults__ or {}), "read": read}
    return lambda: mock.patch.object(Scorer.__init__, "__kwdefaults__", defaults)


def other_clock(seconds: float) -> Fault:
    """Set this machine's clock wrong by a number of seconds."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def]
            return datetime.now(tz) + timedelta(seconds=seconds)

    @contextlib.contextmanager
    def fault() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for module in (
                lease,
                maskdet.beam.running,
                sys.modules["maskdet.api"],
                sys.modules["maskdet.beam.transforms"],
            ):
                stack.enter_context(mock.patch.object(module, "datetime", Shifted))
            yield

    return fault


def slow_reads(seconds: float) -> Fault:
    """Slow down reads, so that two runs overlap."""

    def read(uri: str) -> bytes:
        time.sleep(seconds)
        return storage.read_bytes(uri)

    defaults = {**(Scorer.__init__.__kwdefaults__ or {}), "read": read}
    return lambda: mock.patch.object(Scorer.__init__, "__kwdefaults__", defaults)


def start(arguments: list[str], fault: Fault | None, log: Path) -> int:
    """Fork a run; returns its process."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with log.open("ab") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        with fault() if fault else contextlib.nullcontext():
            code = main(arguments)
        sys.stdout.flush()
    except BaseException as error:  # what escapes a command is a finding
        print(f"ESCAPED {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        code = 99
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """Wait for a run's exit code; a negative one is a signal's. A run that hangs counts as 98."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 98


class Schedule:
    """The schedule of one seed."""

    def __init__(self, seed: int, scratch: Path) -> None:
        self.rng = random.Random(seed)
        self.log = scratch / "log.txt"
        self.scratch, self.output = scratch, scratch / "tables"
        self.input = Input(scratch / "photos", self.rng)
        self.told: list[str] = []
        self.problems: list[str] = []

    def play(self) -> None:
        """Disturb some runs, leave one undisturbed, and compare."""
        for _ in range(self.rng.randint(1, 3)):
            for _ in range(self.rng.randint(0, 2)):
                self.told.append(f"input {self.input.change()}")
            self._disturb()
            self._check_snapshot()
        self._end(self._score(self.output, "last", None), "last", {0})
        self._end(self._score(self.scratch / "fresh", "fresh", None), "fresh", {0})
        found, expected = tables_of(self.output), tables_of(self.scratch / "fresh")
        if found != expected:
            names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            self.problems.append(f"tables differ: {names}")
        left = [str(path) for path in self.output.rglob("*.tmp")] + [
            str(path) for path in self.output.iterdir() if path.name == "_lease.json"
        ]
        if left:
            self.problems.append(f"left behind: {left}")

    def _disturb(self) -> None:
        rng = self.rng
        kind = rng.choice(KINDS)
        name = rng.choice(WRITES)
        number = rng.randint(1, {"write_bytes": 30, "write_if": 3, "link_or_copy": 8, "delete": 5}[name])
        if kind == "two runs":
            self._race()
            return
        if kind == "harm":
            self._harm()
            return
        first = rng.randint(1, 40)
        faults: dict[str, Fault] = {
            "die before": die_before(name, number),
            "die after": die_after(name, number),
            "die torn": die_torn(rng.randint(3, 30)),
            "die in publishing": die_after("link_or_copy", rng.randint(1, 8)),
            "die any time": die_in(rng.uniform(0, 2)),
            "terminate": die_in(rng.uniform(0, 2), signal.SIGTERM),
            "disk full": failing_writes(errno.ENOSPC, first, first + rng.choice([1, 3, 10**6])),
            "read-only": failing_writes(errno.EROFS, first, first + rng.choice([1, 10**6])),
            "input changes": changing_input(self.input.change, rng.randint(2, 6)),
            "clock": other_clock(rng.choice([-86_400, -3_600, 3_600, 86_400, 40 * 365 * 86_400])),
        }
        self._end(self._score(self.output, kind, faults[kind]), f"{kind} {name} {number} {first}", EXPECTED_CODES)

    def _race(self) -> None:
        flags = self.rng.choice([(), ("--wait",)])
        one = self._score(self.output, "first of two", slow_reads(0.05))
        time.sleep(self.rng.uniform(0, 0.8))
        other = self._score(self.output, "second of two", None, *flags)
        self._end(other, "second of two", {0, 10})
        self._end(one, "first of two", {0, 10})

    def _harm(self) -> None:
        """Delete or damage a file of the output, as somebody else might."""
        # Not shards' images tables: a run that cannot tell what is gone is refused (exit code 8).
        spared = (
            self.output / "_snapshot.json",
            self.output / "_lease.json",
            *(self.output / "_files/images").rglob("*"),
        )
        files = sorted(path for path in self.output.rglob("*") if path.is_file() and path not in spared)
        if not files:
            self.told.append("harm: nothing there")
            return
        path = self.rng.choice(files)
        self.told.append(f"harm {path.relative_to(self.output)}")
        data = path.read_bytes()
        path.unlink()
        if self.rng.random() < 0.5 and path.suffix in (".parquet", ".pq"):
            path.write_bytes(data[: len(data) // 2])

    def _score(self, output: Path, name: str, fault: Fault | None, *flags: str) -> int:
        with self.log.open("a") as stream:
            stream.write(f"--- {name}\n")
        where = ["--input", str(self.input.folder), "--output", str(output)]
        return start(["score", *where, *BASE, *MIRROR, *flags], fault, self.log)

    def _end(self, pid: int, name: str, expected: set[int]) -> None:
        code = wait(pid)
        self.told.append(f"{name}: {code}")
        if code not in expected:
            self.problems.append(f"{name} ended with {code}, expected one of {sorted(expected)}")

    def _check_snapshot(self) -> None:
        """Check that the snapshot names a complete set of files, unless one of them was harmed."""
        if any(told.startswith("harm") for told in self.told):
            return
        layout = Layout(str(self.output))
        snapshot = read_snapshot(layout)
        if snapshot is None:
            return
        for shard in snapshot.shards:
            for table, digest in shard.sha256.items():
                path = Path(layout.version(table, shard.slot, digest))
                if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                    self.problems.append(f"the snapshot's {path.relative_to(self.output)} is missing or torn")


def tables_of(output: Path) -> dict[str, str]:
    """Every file of the tables' folders, by name, as SHA-256."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for table in (*SHARD_TABLES, COMPLIANCE)
        for path in (output / table).rglob("*")
        if path.is_file()
    }


def play(seed: int) -> bool:
    """Play one schedule and print how it went."""
    scratch = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    started = time.monotonic()
    schedule = Schedule(seed, scratch)
    schedule.play()
    good = not schedule.problems
    told = {"seed": seed, "equal": good, "seconds": round(time.monotonic() - started, 1), "runs": schedule.told}
    print(
        json.dumps({**told, **({} if good else {"problems": schedule.problems, "log": str(schedule.log)})}), flush=True
    )
    if good:
        shutil.rmtree(scratch)
    return good


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, nargs="+", help="play these alone")
    arguments = parser.parse_args(argv)
    seeds = arguments.seed or range(arguments.first, arguments.first + arguments.schedules)
    began = datetime.now(UTC)
    results = [play(seed) for seed in seeds]
    minutes = (datetime.now(UTC) - began).total_seconds() / 60
    print(
        f"{sum(results)} of {len(results)} schedules ended with equal tables, in {minutes:.1f} minutes", file=sys.stderr
    )
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
