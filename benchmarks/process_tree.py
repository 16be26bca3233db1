"""What a command costs with everything it starts: wall time, CPU time and memory of the whole process tree.

Linux only. While a command runs, this process adopts the orphans of its tree (``PR_SET_CHILD_SUBREAPER``), so daemons
that a framework leaves behind are counted, and ended after it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SAMPLE_S = 0.25
_GRACE_S = 10.0
_SET_CHILD_SUBREAPER = 36
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """A process as ``/proc/<pid>/stat`` shows it."""

    pid: int
    parent: int
    ticks: int
    """CPU time of its own, user and system, in clock ticks; without its children."""
    start: int
    """When it began; with the id it names a process for good, since ids are used again."""


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes:
        exit_code: negative: the signal that ended it.
        wall_s: until the command itself had ended.
        cpu_s: user and system time of the tree.
        peak_mib: memory of the tree: the highest sum of proportional set sizes among samples, or the highest resident
            set of one process, which the kernel keeps, if that is more.
        begun_at: Unix time.
    """

    exit_code: int
    wall_s: float
    cpu_s: float
    peak_mib: float
    begun_at: float


@dataclass
class TreeUsage:
    """CPU and memory of a tree, from samples."""

    peak_kib: int = 0
    _ticks: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def cpu_s(self) -> float:
        """CPU time of every process seen, up to its last sample."""
        return sum(self._ticks.values()) / _TICKS_PER_S

    def add(self, processes: Iterable[Process], kib: Mapping[int, int]) -> None:
        """Take a sample in.

        Args:
            processes: those of the tree.
            kib: memory by process id; those that are missing have ended.
        """
        total = 0
        for process in processes:
            self._ticks[process.pid, process.start] = process.ticks
            total += kib.get(process.pid, 0)
        self.peak_kib = max(self.peak_kib, total)


def parse_stat(text: str) -> Process:
    """Read a ``/proc/<pid>/stat``; the command's name in it may hold spaces and brackets."""
    pid, rest = text.split(" (", 1)
    fields = rest.rpartition(")")[2].split()
    return Process(int(pid), int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[19]))


def parse_pss(text: str) -> int:
    """Kibibytes of a ``/proc/<pid>/smaps_rollup``; 0 if it names none."""
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def descendants(processes: Iterable[Process], root: int) -> list[Process]:
    """Every process below ``root``, without it."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [root]
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += [process.pid for process in below]
    return found


def measure(
    command: Sequence[str],
    *,
    stdout: Path,
    stderr: Path,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 1800.0,
    folder: Path | None = None,
) -> Cost:
    """Run a command to its end.

    Args:
        command: program and arguments.
        stdout: file for its output.
        stderr: file for its errors.
        environment: variables beside this process' own.
        timeout_s: then the tree is killed.
        folder: where it runs; default: here.
    """
    before = frozenset((process.pid, process.start) for process in descendants(_processes(), os.getpid()))
    usage, stopped = TreeUsage(), threading.Event()
    own_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with _adopting_orphans(), stdout.open("wb") as out, stderr.open("wb") as err:
        begun_at, started = time.time(), time.perf_counter()
        child = subprocess.Popen(
            command,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            cwd=folder,
        )
        sampler = threading.Thread(target=_sample, args=(usage, before, stopped), daemon=True)
        sampler.start()
        killer = threading.Timer(timeout_s, _kill_tree, (before,))
        killer.start()
        _, status, spent = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        killer.cancel()
        reaped_s, reaped_kib = _end_orphans(before)
        stopped.set()
        sampler.join()
    # Exact where parents wait for their children; some daemons let the kernel reap theirs, which only samples see.
    waited_s = spent.ru_utime + spent.ru_stime + reaped_s
    # The kernel's own peak of one process is exact, too. But a child starts with its parent's: what is not above ours
    # may be ours.
    one_kib = max(spent.ru_maxrss, reaped_kib)
    peak_kib = max(usage.peak_kib, one_kib if one_kib > own_kib else 0)
    return Cost(child.returncode, wall_s, max(waited_s, usage.cpu_s), peak_kib / 1024, begun_at)


def _sample(usage: TreeUsage, before: frozenset[tuple[int, int]], stopped: threading.Event) -> None:
    while True:
        tree = _tree(before)
        usage.add(tree, {process.pid: parse_pss(_read(process.pid, "smaps_rollup")) for process in tree})
        if stopped.wait(SAMPLE_S):
            return


def _tree(before: frozenset[tuple[int, int]]) -> list[Process]:
    found = descendants(_processes(), os.getpid())
    return [process for process in found if (process.pid, process.start) not in before]


def _processes() -> Iterator[Process]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (text := _read(int(name), "stat")):
            yield parse_stat(text)


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:  # it has ended
        return ""


def _end_orphans(before: frozenset[tuple[int, int]]) -> tuple[float, int]:
    """Wait for what the command left running, kill it after a while; its CPU seconds and peak KiB."""
    deadline, seconds, peak_kib = time.monotonic() + _GRACE_S, 0.0, 0
    while left := _tree(before):
        for process in left:
            if process.parent == os.getpid():
                pid, _, spent = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    seconds += spent.ru_utime + spent.ru_stime
                    peak_kib = max(peak_kib, spent.ru_maxrss)
        if time.monotonic() > deadline:
            _kill_tree(before)
        time.sleep(0.05)
    return seconds, peak_kib


def _kill_tree(before: frozenset[tuple[int, int]]) -> None:
    for process in _tree(before):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    control = ctypes.CDLL(None, use_errno=True).prctl
    if control(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed; it needs Linux")
    try:
        yield
    finally:
        control(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
