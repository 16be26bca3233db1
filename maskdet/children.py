"""Child processes for untrusted decoders, limited in time and memory, and replaced when they die.

A decoder is native code that reads files from anyone. If it hangs, aborts or takes all memory, that ends one of these
processes and costs what it was working on, and nothing else. They are started when they are needed, as many as there
are concurrent tasks, and kept for the next task.

A header in JSON and a block of bytes cross each way. Nothing that a child says is unpickled or trusted beyond the
limits of its task: it may be under the control of whoever made the file. It is not a sandbox, though, but a process of
the same user, which just does not get the environment's secrets.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import importlib
import json
import math
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from maskdet.cores import available_cores
from maskdet.errors import ConfigError, FailureCode, ImageFault
from maskdet.process_limits import MIB, set_limit

COMMAND = (sys.executable, "-m", "maskdet.children")

# A busy machine may give a process a small part of a core, so that the clock runs this much faster than its own time.
_CLOCK_FACTOR = 6
_START_S = 120.0
_MOST_TASKS = 5_000  # then a child is replaced, with whatever its libraries leaked
_MOST_HEADER_BYTES = MIB
_PIPE_BYTES = MIB
_F_SETPIPE_SZ = 1031
_LENGTHS = struct.Struct("<IQ")
_ALIVE_EVERY_S = 1.0
# Address space for stacks and arenas of a decoder's threads, of which there may be one per core.
_THREAD_BYTES = 32 * MIB
_MOST_ADDRESSES = 1 << 46
# What a child needs of the environment; credentials are not among it.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "MALLOC_PERTURB_", "OMP_NUM_THREADS")

READY, END, FAULT, RAISED, ALIVE, EXCLUSIVE, READ, GO = (
    "ready",
    "end",
    "fault",
    "raised",
    "alive",
    "exclusive",
    "read",
    "go",
)


class Limits(NamedTuple):
    """What a task may take."""

    seconds: float
    """Processor time between two signs of life."""
    memory_bytes: int
    """Address space beyond what the process has when the task begins."""
    answer_bytes: int
    """Most bytes of one answer."""


class DiedError(Exception):
    """A child ended, or was ended, before it had answered."""

    def __init__(self, how: str, *, timed_out: bool) -> None:
        super().__init__(how, timed_out)
        self.how = how
        """The reason in a few words that are the same for the same file: the name of a signal, or the limit."""
        self.timed_out = timed_out


class Answer(NamedTuple):
    """One answer of a task."""

    header: Mapping[str, Any]
    data: memoryview


class Children:
    """Child processes that wait for tasks; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Child] = []

    def ask(
        self,
        task: str,
        argument: Mapping[str, Any],
        data: bytes | memoryview,
        limits: Limits,
        *,
        exclusive: contextlib.AbstractContextManager[object] | None = None,
        read: Callable[[int, int], bytes] | None = None,
    ) -> Iterator[Answer]:
        """Have a child work on something.

        Args:
            task: module and function, ``"package.module:function"``; see :class:`Talk`.
            argument: what JSON can hold.
            data: what it works on.
            limits: of the task.
            exclusive: held while the child needs it.
            read: answers a child that asks for some bytes at an offset.

        Yields:
            Its answers.

        Raises:
            DiedError: the child crashed, or reached a limit.
            ImageFault: the task raised it.
            MemoryError: there was not enough.
            RuntimeError: the task raised something else, which it names.
            ConfigError: no child can be started.
        """
        child = self._borrow()
        child.is_done = False
        try:
            child.send({"task": task, "argument": argument, "limits": limits._asdict()}, data, limits.seconds)
            yield from child.answers(limits, exclusive or contextlib.nullcontext(), read)
        finally:  # also if nobody wants the rest of the answers
            if child.is_done:
                self._give_back(child)
            else:  # what it still sends would pass for the answer to the next task
                child.kill()

    def end(self) -> None:
        """End all waiting processes."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def forget(self) -> None:
        """Leave them to the process that this one was forked from."""
        self._lock, self._idle = threading.Lock(), []

    def _borrow(self) -> _Child:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.is_alive:
                    return child
        return _start()

    def _give_back(self, child: _Child) -> None:
        child.tasks += 1
        if child.tasks >= _MOST_TASKS:
            child.kill()
            return
        with self._lock:
            self._idle.append(child)


class TaskError(RuntimeError):
    """What a task raised, by the name of its class."""


CHILDREN = Children()
atexit.register(CHILDREN.end)
os.register_at_fork(after_in_child=CHILDREN.forget)


def _start() -> _Child:
    """A child that is ready.

    Raises:
        ConfigError: it does not start.
    """
    child = _Child()
    try:
        header, _ = child.receive(time.monotonic() + _START_S, 0)
        if READY in header:
            return child
        received = "another answer than that it is ready"
    except DiedError as error:
        received = error.how
    child.kill()
    raise ConfigError(
        "scoring.decoder_seconds",
        "a process of its own for decoders",
        received,
        f"Does {' '.join(COMMAND)} start here? Else set it to null, to decode in the worker's own process.",
    )


class _Child:
    """A process, and the pipes to it."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
        # The same modules as here, wherever this process found them.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        environment["MALLOC_ARENA_MAX"] = "2"  # otherwise each thread of a decoder reserves 64 MiB of addresses
        self._process = subprocess.Popen(
            COMMAND,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is meant for this process
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._to, self._from):
            os.set_blocking(pipe, False)
            _widen(pipe)
        self.tasks = 0
        self.is_done = True
        """Whether it has sent the last answer to its task."""

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, header: Mapping[str, Any], data: bytes | memoryview, seconds: float) -> None:
        """Send a message."""
        deadline = time.monotonic() + _CLOCK_FACTOR * seconds
        for part in _parts(header, data):
            rest = part
            while rest:
                self._await(self._to, select.POLLOUT, deadline)
                try:
                    rest = rest[os.write(self._to, rest) :]
                except BrokenPipeError:
                    raise self._died() from None

    def receive(self, deadline: float, most_bytes: int) -> Answer:
        """The next message."""
        lengths = _LENGTHS.unpack(self._exactly(_LENGTHS.size, deadline))
        if lengths[0] > _MOST_HEADER_BYTES or lengths[1] > most_bytes:
            raise DiedError("an answer that is too long", timed_out=False)
        try:
            header = json.loads(bytes(self._exactly(lengths[0], deadline)))
        except ValueError:
            header = None
        if not isinstance(header, dict):
            raise DiedError("an answer that cannot be read", timed_out=False)
        return Answer(header, self._exactly(lengths[1], deadline))

    def answers(
        self,
        limits: Limits,
        exclusive: contextlib.AbstractContextManager[object],
        read: Callable[[int, int], bytes] | None,
    ) -> Iterator[Answer]:
        """All answers to a task, until its end."""
        with contextlib.ExitStack() as held:
            while True:
                answer = self.receive(time.monotonic() + _CLOCK_FACTOR * limits.seconds, limits.answer_bytes)
                header = answer.header
                if END in header:
                    self.is_done = True
                    return
                if FAULT in header:
                    fault = _fault(header[FAULT])
                    self.is_done = isinstance(fault, ImageFault)
                    raise fault
                if RAISED in header:
                    self.is_done = True
                    raise MemoryError if header[RAISED] == "MemoryError" else TaskError(str(header[RAISED])[:100])
                if EXCLUSIVE in header:
                    held.close()
                    held.enter_context(exclusive)
                    self.send({GO: True}, b"", limits.seconds)
                elif READ in header and read is not None:
                    place, size = header[READ]
                    size = max(0, min(int(size), limits.answer_bytes))  # a task may be under hostile control
                    self.send({GO: True}, read(int(place), size), limits.seconds)
                elif ALIVE not in header:
                    yield answer

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # unwritten data are lost with it
                assert pipe is not None
                pipe.close()

    def _exactly(self, size: int, deadline: float) -> memoryview:
        found = memoryview(np.empty(size, np.uint8).data)  # not cleared first
        rest = found
        while rest:
            self._await(self._from, select.POLLIN, deadline)
            count = os.readv(self._from, [rest])
            if not count:
                raise self._died()
            rest = rest[count:]
        return found

    def _await(self, pipe: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise DiedError("the clock", timed_out=True)

    def _died(self) -> DiedError:
        """How the process, which closed its pipe, ended."""
        try:
            code = self._process.wait(_CLOCK_FACTOR)
        except subprocess.TimeoutExpired:
            return DiedError("silence", timed_out=False)
        if code == -signal.SIGXCPU:
            return DiedError("processor time", timed_out=True)
        return DiedError(signal.Signals(-code).name if code < 0 else f"exit code {code}", timed_out=False)


def _fault(told: object) -> Exception:
    """The fault that a child reports, if it is one."""
    if isinstance(told, list) and len(told) == 2 and told[0] in set(FailureCode):
        return ImageFault(FailureCode(told[0]), str(told[1])[:1000])
    return DiedError("an answer that cannot be read", timed_out=False)


def _widen(pipe: int) -> None:
    with contextlib.suppress(OSError):  # if this is not allowed, it is only slower
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)


class Talk:
    """The task's side: a task is a function of its argument, its data and this, through which it sends its answers."""

    def __init__(self, given: int, taken: int, limits: Limits) -> None:
        self._given, self._taken, self._limits = given, taken, limits
        self._told = time.monotonic()

    def send(self, header: Mapping[str, Any], data: bytes | memoryview = b"") -> None:
        """Answer."""
        for part in _parts(header, data):
            rest = part
            while rest:
                rest = rest[os.write(self._taken, rest) :]
        self._told = time.monotonic()
        self._limit_time()

    def alive(self) -> None:
        """Report that the task is going on, which restarts its limit of time."""
        self._limit_time()
        if time.monotonic() - self._told >= _ALIVE_EVERY_S:
            self.send({ALIVE: True})

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until no other task is exclusive; this one is until its next answer."""
        self.send({EXCLUSIVE: True})
        _receive(self._given)
        yield

    def read(self, place: int, size: int) -> bytes:
        """Bytes that the parent process reads."""
        self.send({READ: [place, size]})
        answer = _receive(self._given)
        return b"" if answer is None else bytes(answer.data)

    def begin(self) -> None:
        """Apply the limits from here on."""
        with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as statm:  # Linux alone has it
            now = int(statm.read().split()[0]) * resource.getpagesize()
            most = now + self._limits.memory_bytes + _thread_bytes()
            set_limit(resource.RLIMIT_AS, min(most, _MOST_ADDRESSES))
        self._limit_time()

    def _limit_time(self) -> None:
        set_limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + self._limits.seconds))


@functools.cache
def _thread_bytes() -> int:
    return available_cores() * _THREAD_BYTES


def _parts(header: Mapping[str, Any], data: bytes | memoryview) -> tuple[memoryview, ...]:
    """A message as it crosses: lengths, header, data."""
    text, block = json.dumps(header).encode(), memoryview(data).cast("B")
    return memoryview(_LENGTHS.pack(len(text), len(block))), memoryview(text), block


def _receive(pipe: int) -> Answer | None:
    """The next message; ``None`` where the other side is gone."""
    lengths = _read(pipe, _LENGTHS.size)
    if lengths is None:
        return None
    header, data = (_read(pipe, length) for length in _LENGTHS.unpack(lengths))
    return None if header is None or data is None else Answer(json.loads(bytes(header)), data)


def _read(pipe: int, size: int) -> memoryview | None:
    found = memoryview(np.empty(size, np.uint8).data)
    rest = found
    while rest:
        count = os.readv(pipe, [rest])
        if not count:
            return None
        rest = rest[count:]
    return found


@functools.cache
def _function(task: str) -> Callable[[Mapping[str, Any], memoryview, Talk], None]:
    module, _, name = task.partition(":")
    found: Callable[[Mapping[str, Any], memoryview, Talk], None] = getattr(importlib.import_module(module), name)
    return found


def _work(order: Answer, given: int, taken: int) -> None:
    talk = Talk(given, taken, Limits(**order.header["limits"]))
    function = _function(order.header["task"])
    talk.begin()
    try:
        function(order.header["argument"], order.data, talk)
    except ImageFault as fault:
        talk.send({FAULT: [fault.code.value, fault.message]})
    except Exception as error:  # whatever it is, the next task must not suffer
        talk.send({RAISED: type(error).__name__})
    else:
        talk.send({END: True})


def main() -> None:
    """Work on tasks from standard input until it ends."""
    given, taken, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # what libraries print would pass for answers
        os.dup2(nothing, stream)
    set_limit(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("1000")  # if memory is short, this process should be the one to end
    os.write(taken, b"".join(_parts({READY: True}, b"")))
    while (order := _receive(given)) is not None:
        _work(order, given, taken)


if __name__ == "__main__":
    from maskdet.children import main as run  # as the module that others import, not as __main__

    run()
