"""Measures what a command costs with everything that it starts: wall time, CPU time and memory of the process tree.

Linux only. While a command runs, this process adopts the orphans of its tree (``PR_SET_CHILD_SUBREAPER``), so daemons
that a framework leaves behind are counted, too, and are ended afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SAMPLE_S = 0.25
_GRACE_S = 10.0
_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes:
        exit_code: if negative, the number of the signal that ended it.
        wall_s: wall time until the command itself ended.
        cpu_s: user and system time of the tree.
        peak_mib: peak memory of the tree: the highest sum of proportional set sizes among samples or, if that is more,
            the highest resident set of one process, which the kernel records.
        begun_at: Unix time of its start.
    """

    exit_code: int
    wall_s: float
    cpu_s: float
    peak_mib: float
    begun_at: float


@dataclass
class _Usage:
    """CPU and memory of a tree, from samples."""

    peak_bytes: int = 0
    seconds: dict[psutil.Process, float] = field(default_factory=dict)
    """CPU time of every process seen, up to its last sample; id and start time identify a process."""

    def sample(self, processes: Collection[psutil.Process]) -> None:
        total = 0
        for process in processes:
            with contextlib.suppress(psutil.Error):  # it has ended
                times = process.cpu_times()
                self.seconds[process] = times.user + times.system
                total += process.memory_full_info().pss
        self.peak_bytes = max(self.peak_bytes, total)


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
        environment: environment variables in addition to this process's own.
        timeout_s: seconds after which the tree is killed.
        folder: the working directory; default: this process's.
    """
    before = frozenset(_tree())
    usage, stopped = _Usage(), threading.Event()
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
        sampler = threading.Thread(target=_keep_sampling, args=(usage, before, stopped), daemon=True)
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
    # Exact where parents wait for their children; where daemons let the kernel reap theirs, only samples see them.
    waited_s = spent.ru_utime + spent.ru_stime + reaped_s
    # The kernel's record of one process's peak is exact, too. But a child starts with its parent's, so a value that is
    # not above ours may be ours.
    one_kib = max(spent.ru_maxrss, reaped_kib)
    peak_kib = max(usage.peak_bytes / 1024, one_kib if one_kib > own_kib else 0)
    return Cost(child.returncode, wall_s, max(waited_s, sum(usage.seconds.values())), peak_kib / 1024, begun_at)


def _keep_sampling(usage: _Usage, before: Collection[psutil.Process], stopped: threading.Event) -> None:
    while True:
        usage.sample(_tree(before))
        if stopped.wait(SAMPLE_S):
            return


def _tree(before: Collection[psutil.Process] = ()) -> list[psutil.Process]:
    """Every process below this one that was not there before."""
    return [process for process in psutil.Process().children(recursive=True) if process not in before]


def _end_orphans(before: Collection[psutil.Process]) -> tuple[float, int]:
    """Wait for processes that the command left running, and kill them after a while; their CPU seconds and peak KiB."""
    deadline, seconds, peak_kib = time.monotonic() + _GRACE_S, 0.0, 0
    while left := _tree(before):
        for process in left:
            with contextlib.suppress(ChildProcessError):  # it is a child of one of the others
                pid, _, spent = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    seconds += spent.ru_utime + spent.ru_stime
                    peak_kib = max(peak_kib, spent.ru_maxrss)
        if time.monotonic() > deadline:
            _kill_tree(before)
        time.sleep(0.05)
    return seconds, peak_kib


def _kill_tree(before: Collection[psutil.Process]) -> None:
    for process in _tree(before):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    control = ctypes.CDLL(None, use_errno=True).prctl
    if control(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed; it needs Linux")
    try:
        yield
    finally:
        control(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
