"""One writer at a time: who holds an output, since when, and whether that run is alive.

    _lease.json                       the run that writes this output
    _runs/<run_id>.heartbeat          its latest sign of life, written by its client and its workers

The lease is taken by a conditional write, so one of two runs that begin together gets it. Each run writes only its own
heartbeat, so a run that was thought dead cannot take the lease back by going on. A run that ends with its process, on
the machine that asks, is dead when the process is; any other is dead when its heartbeat has stopped. Clocks of two
machines may differ, and clocks jump: a heartbeat that looks old is watched for a while before it counts as stopped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from maskdet import storage
from maskdet.background import running_beside
from maskdet.errors import HeldError, NotFoundError, StorageError
from maskdet.tables.layout import Layout

_LOGGER = logging.getLogger(__name__)

INTERVAL_S = 15.0
"""Seconds between two heartbeats of a run."""
STALE_S = 120.0
"""A heartbeat older than this, after eight misses, is watched. Beam's shuffles between our steps take seconds."""
_WATCH_S = 2 * INTERVAL_S + 5
_POLL_S = 1.0

Life = Literal["alive", "silent", "dead"]


class Holder(BaseModel):
    """The content of ``_lease.json``: who writes an output."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str
    host: str
    pid: int
    machine: str
    """Distinguishes machines, their restarts and containers; process ids are only meaningful within one."""
    process_started: str
    """Distinguishes a process from a later one with the same id."""
    ends_with_process: bool
    """Whether the run cannot outlive the process; false where a cluster does the work."""
    since: datetime

    @classmethod
    def here(cls, run_id: str, since: datetime, *, ends_with_process: bool) -> Holder:
        """This process as the holder."""
        pid = os.getpid()
        return cls(
            run_id=run_id,
            host=socket.gethostname(),
            pid=pid,
            machine=_machine(),
            process_started=_process_started(pid),
            ends_with_process=ends_with_process,
            since=since,
        )

    def describe(self) -> str:
        """Who it is, in words."""
        return f"run {self.run_id} (process {self.pid} on {self.host}), since {self.since:%Y-%m-%d %H:%M:%S} UTC"


class Heartbeat(BaseModel):
    """The content of a heartbeat file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: datetime
    host: str
    pid: int


@dataclass(frozen=True)
class Clock:
    """The time of day, elapsed time, and waiting; tests supply their own."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def acquire(layout: Layout, holder: Holder, *, wait_s: float = 0.0, clock: Clock | None = None) -> None:
    """Take the lease of an output, if it is free or its holder is dead.

    Args:
        layout: the output.
        holder: who takes it.
        wait_s: how long to wait for a holder that is alive, in seconds.
        clock: tells the time.

    Raises:
        HeldError: another run holds the output.
        StorageError: the output cannot be read or written.
    """
    clock = clock or Clock()
    wanted = (holder.model_dump_json(indent=2) + "\n").encode()
    deadline = clock.monotonic_s() + wait_s
    while True:
        found = _read(layout.lease)
        if found == wanted:
            beat(layout, holder.run_id, clock)
            return
        other = None if found is None else _holder_of(layout, found)
        if other is None or _is_over(layout, other, clock):
            if other is not None:
                _LOGGER.warning("%s: taking over from %s, which is dead", layout.root, other.describe())
            storage.write_if(layout.lease, found, wanted)  # the next iteration sees who won
        elif clock.monotonic_s() >= deadline:
            raise HeldError(
                f"--output {layout.root}",
                "no other run at work",
                other.describe(),
                "Wait for it (--wait), stop it, or choose another output; a holder that died is replaced by itself.",
            )
        else:
            clock.sleep(_POLL_S)


def holds(layout: Layout, run_id: str) -> bool:
    """Whether the lease is still this run's."""
    found = _read(layout.lease)
    return found is not None and _holder_of(layout, found).run_id == run_id


def release(layout: Layout, run_id: str) -> None:
    """Release the lease, if it is still this run's."""
    if holds(layout, run_id):
        storage.delete([layout.lease])
    storage.delete([layout.heartbeat(run_id)])


def read_holder(layout: Layout) -> Holder | None:
    """Who holds the output, if anyone does."""
    found = _read(layout.lease)
    return None if found is None else _holder_of(layout, found)


def beat(layout: Layout, run_id: str, clock: Clock | None = None) -> None:
    """Leave a sign of life, unless another process of the run just did.

    It never fails: a full disk or a store's bad minute must not end a run that is going on.
    """
    now = (clock or Clock()).now()
    try:
        latest = read_heartbeat(layout, run_id)
        if latest is not None and 0 <= (now - latest.at).total_seconds() < INTERVAL_S / 2:
            return
        sign = Heartbeat(at=now, host=socket.gethostname(), pid=os.getpid())
        storage.write_bytes(layout.heartbeat(run_id), sign.model_dump_json().encode())
    except StorageError as error:
        _LOGGER.warning("no heartbeat written: %s", error)


def read_heartbeat(layout: Layout, run_id: str) -> Heartbeat | None:
    """A run's latest sign of life, if there is any."""
    found = _read(layout.heartbeat(run_id))
    with contextlib.suppress(ValidationError):
        return None if found is None else Heartbeat.model_validate_json(found)
    return None


def life_of(layout: Layout, run_id: str, clock: Clock | None = None) -> Life:
    """Whether an unfinished run is alive, judged at once: ``silent`` if its heartbeat is old or from the future."""
    holder = read_holder(layout)
    if holder is None or holder.run_id != run_id:
        return "dead"  # it gave the lease back, or lost it
    known = _process_lives(holder)
    if known is not None:
        return "alive" if known else "dead"
    return "alive" if _is_fresh(read_heartbeat(layout, run_id), holder, clock or Clock()) else "silent"


@contextlib.contextmanager
def heartbeats(layout: Layout, run_id: str, interval_s: float = INTERVAL_S) -> Iterator[None]:
    """Leave signs of life while the body runs."""

    def keep_beating(stop: threading.Event) -> None:
        while not stop.wait(interval_s):
            beat(layout, run_id)

    with running_beside(keep_beating, "heartbeat"):
        yield


def _is_over(layout: Layout, other: Holder, clock: Clock) -> bool:
    """Whether another holder is dead; a heartbeat that seems to have stopped is watched for a while."""
    known = _process_lives(other)
    if known is not None:
        return not known
    before = read_heartbeat(layout, other.run_id)
    if _is_fresh(before, other, clock):
        return False
    until = clock.monotonic_s() + _WATCH_S
    while clock.monotonic_s() < until:
        clock.sleep(_POLL_S)
        if read_heartbeat(layout, other.run_id) != before:
            return False
    return True


def _is_fresh(latest: Heartbeat | None, holder: Holder, clock: Clock) -> bool:
    """Whether the latest sign of life is recent by this machine's clock; one from the future says nothing."""
    age_s = (clock.now() - (holder.since if latest is None else latest.at)).total_seconds()
    return 0 <= age_s < STALE_S


def _process_lives(holder: Holder) -> bool | None:
    """Whether the process that a run ends with is alive; ``None`` where this machine cannot know."""
    if not holder.ends_with_process or holder.machine != _machine():
        return None
    return _process_started(holder.pid) == holder.process_started and _exists(holder.pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def _process_started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where the system does not tell, or for a dead one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # a zombie has ended, but its parent has not collected it yet


def _machine() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def _read(uri: str) -> bytes | None:
    try:
        return storage.read_bytes(uri)
    except NotFoundError:
        return None


def _holder_of(layout: Layout, content: bytes) -> Holder:
    try:
        return Holder.model_validate_json(content)
    except ValidationError as error:
        raise HeldError(
            layout.lease, "a lease of this version", content[:80].decode(errors="replace"), "See who writes there."
        ) from error
