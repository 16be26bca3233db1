"""One writer at a time: who gets the lease of an output, who is refused, and when a holder counts as dead."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from maskdet import storage
from maskdet.errors import AccessDeniedError, HeldError
from maskdet.tables import lease
from maskdet.tables.layout import Layout
from maskdet.tables.lease import INTERVAL_S, STALE_S, Clock, Heartbeat, Holder

NOW = datetime(2026, 1, 5, 8, 15, tzinfo=UTC)


class FakeTime:
    """Time that passes only while someone sleeps; ``events`` happen once so many seconds have passed."""

    def __init__(self):
        self.passed_s = 0.0
        self.events = {}
        self.jump_s = 0.0

    @property
    def clock(self):
        return Clock(self.now, lambda: self.passed_s, self.sleep)

    def now(self):
        return NOW + timedelta(seconds=self.passed_s + self.jump_s)

    def sleep(self, seconds):
        self.passed_s += seconds
        for at in sorted(at for at in self.events if at <= self.passed_s):
            self.events.pop(at)()


@pytest.fixture
def layout(tmp_path):
    return Layout(str(tmp_path / "out"))


@pytest.fixture
def time():
    return FakeTime()


def local(run_id="mine", **changes):
    return Holder.here(run_id, NOW, ends_with_process=True).model_copy(update=changes)


def remote(run_id="theirs"):
    """A holder whose process is on another machine."""
    holder = Holder.here(run_id, NOW, ends_with_process=False)
    return holder.model_copy(update={"host": "elsewhere", "machine": "elsewhere/boot/ns"})


def put_lease(layout, holder, heartbeat_at=None):
    storage.write_bytes(layout.lease, holder.model_dump_json().encode())
    if heartbeat_at is not None:
        sign = Heartbeat(at=heartbeat_at, host="elsewhere", pid=1)
        storage.write_bytes(layout.heartbeat(holder.run_id), sign.model_dump_json().encode())


def test_a_free_output_is_taken_held_and_given_back(layout, time):
    lease.acquire(layout, local(), clock=time.clock)
    assert lease.holds(layout, "mine")
    assert lease.read_holder(layout) == local()
    assert lease.read_heartbeat(layout, "mine").at == NOW
    lease.release(layout, "someone else")
    assert lease.holds(layout, "mine")
    lease.release(layout, "mine")
    assert not [path for path in (layout.lease, layout.heartbeat("mine")) if storage.exists(path)]


def test_a_living_process_is_not_replaced_however_old_its_heartbeat(layout, time):
    put_lease(layout, local("theirs"), NOW - timedelta(days=1))
    with pytest.raises(HeldError) as caught:
        lease.acquire(layout, local(), clock=time.clock)
    text = str(caught.value)
    assert f"run theirs (process {os.getpid()} on " in text
    assert "since 2026-01-05 08:15:00 UTC" in text
    assert "--wait" in text
    assert lease.holds(layout, "theirs")


def test_a_dead_process_of_this_machine_is_replaced_at_once(layout, time):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        alive = lease._process_started(process.pid)
        process.wait()
    put_lease(layout, local("theirs", pid=process.pid, process_started=alive), NOW)
    lease.acquire(layout, local(), clock=time.clock)
    assert lease.holds(layout, "mine")
    assert time.passed_s == 0


def test_a_killed_process_that_nobody_has_waited_for_is_dead(layout, time):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        put_lease(layout, local("theirs", pid=process.pid, process_started=lease._process_started(process.pid)), NOW)
        with pytest.raises(HeldError):
            lease.acquire(layout, local(), clock=time.clock)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        lease.acquire(layout, local(), clock=time.clock)
        assert lease.holds(layout, "mine")


def test_another_process_of_the_same_number_is_not_the_holder(layout, time):
    put_lease(layout, local("theirs", process_started="1"), NOW)
    lease.acquire(layout, local(), clock=time.clock)
    assert lease.holds(layout, "mine")


@pytest.mark.parametrize("age_s", [0, 60, STALE_S - 1])
def test_a_run_elsewhere_with_a_fresh_heartbeat_is_not_replaced(layout, time, age_s):
    put_lease(layout, remote(), NOW - timedelta(seconds=age_s))
    with pytest.raises(HeldError, match="elsewhere"):
        lease.acquire(layout, local(), clock=time.clock)


@pytest.mark.parametrize("age_s", [STALE_S, 86_400, -60])
def test_a_heartbeat_that_looks_stopped_is_watched_and_then_replaced(layout, time, age_s):
    put_lease(layout, remote(), NOW - timedelta(seconds=age_s))
    lease.acquire(layout, local(), clock=time.clock)
    assert lease.holds(layout, "mine")
    assert time.passed_s > 2 * INTERVAL_S


@pytest.mark.parametrize("jump_s", [86_400, -86_400])
def test_a_jump_of_this_machine_s_clock_kills_nobody(layout, time, jump_s):
    put_lease(layout, remote(), NOW)
    time.jump_s = jump_s
    time.events[INTERVAL_S] = lambda: put_lease(layout, remote(), NOW + timedelta(seconds=INTERVAL_S))
    with pytest.raises(HeldError):
        lease.acquire(layout, local(), clock=time.clock)
    assert lease.holds(layout, "theirs")


def test_waiting_ends_when_the_holder_gives_the_lease_back(layout, time):
    put_lease(layout, local("theirs"), NOW)
    time.events[30] = lambda: lease.release(layout, "theirs")
    lease.acquire(layout, local(), wait_s=60, clock=time.clock)
    assert lease.holds(layout, "mine")
    assert time.passed_s == 30


def test_waiting_ends_after_the_time_given(layout, time):
    put_lease(layout, local("theirs"), NOW)
    with pytest.raises(HeldError):
        lease.acquire(layout, local(), wait_s=60, clock=time.clock)
    assert time.passed_s == 60


def test_of_many_who_begin_together_one_gets_it(layout):
    barrier, taken, refused = threading.Barrier(12), [], []

    def take(run_id):
        barrier.wait()
        try:
            lease.acquire(layout, local(run_id))
            taken.append(run_id)
        except HeldError:
            refused.append(run_id)

    threads = [threading.Thread(target=take, args=(f"run{i}",)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 11)
    assert lease.holds(layout, taken[0])


def test_a_lease_that_nobody_can_read_is_refused(layout, time):
    storage.write_bytes(layout.lease, b"torn")
    with pytest.raises(HeldError, match="torn"):
        lease.acquire(layout, local(), clock=time.clock)


def test_a_heartbeat_is_written_once_an_interval_by_whoever_comes_first(layout, time):
    lease.beat(layout, "mine", time.clock)
    first = lease.read_heartbeat(layout, "mine")
    time.passed_s = INTERVAL_S / 2 - 1
    lease.beat(layout, "mine", time.clock)
    assert lease.read_heartbeat(layout, "mine") == first
    time.passed_s = INTERVAL_S
    lease.beat(layout, "mine", time.clock)
    assert lease.read_heartbeat(layout, "mine").at == NOW + timedelta(seconds=INTERVAL_S)


def test_a_heartbeat_that_cannot_be_written_is_no_error(layout, time, monkeypatch, caplog):
    def full(uri, data):
        raise AccessDeniedError("disk full")

    monkeypatch.setattr(storage, "write_bytes", full)
    lease.beat(layout, "mine", time.clock)
    assert "disk full" in caplog.text


def test_heartbeats_come_by_themselves(layout):
    with lease.heartbeats(layout, "mine", interval_s=0.01):
        deadline = threading.Event()
        for _ in range(500):
            if lease.read_heartbeat(layout, "mine"):
                break
            deadline.wait(0.01)
    assert lease.read_heartbeat(layout, "mine").pid == os.getpid()


class TestLife:
    def test_of_a_run_without_a_lease(self, layout, time):
        assert lease.life_of(layout, "mine", time.clock) == "dead"
        put_lease(layout, remote(), NOW)
        assert lease.life_of(layout, "mine", time.clock) == "dead"

    def test_of_a_run_of_this_machine(self, layout, time):
        put_lease(layout, local())
        assert lease.life_of(layout, "mine", time.clock) == "alive"
        put_lease(layout, local(process_started="1"))
        assert lease.life_of(layout, "mine", time.clock) == "dead"

    def test_of_a_run_elsewhere(self, layout, time):
        put_lease(layout, remote(), NOW)
        assert lease.life_of(layout, "theirs", time.clock) == "alive"
        time.passed_s = STALE_S
        assert lease.life_of(layout, "theirs", time.clock) == "silent"
