"""Native libraries write to stderr on their own; this leaves out their notes that help nobody.

LiteRT, TensorFlow and gRPC write past Python's logging, and most of it cannot be switched off: TensorFlow's own switch
comes too late for what it says while it is imported, and LiteRT has none. A separate process reads their lines and
passes on everything but the notes below, so that the last words of a crashing process still come through. What Python
writes, including the progress line, goes to the terminal directly.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import BinaryIO

_NOTES = re.compile(
    rb"INFO: Created TensorFlow Lite XNNPACK delegate"
    rb"|WARNING: All log messages before absl::InitializeLog\(\) is called"
    rb"|I\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.]+:\d+\] "  # notes of severity "info" from TensorFlow and gRPC
    rb"|I0000 00:00:\d+\.\d+ +\d+ [\w.]+:\d+\] "
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: I "
    rb"|To enable the following instructions: .* rebuild TensorFlow"
    rb"|.*(failed call to cuInit|Unable to register cu\w+ factory|could not find TensorRT)"  # a machine without a GPU
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LAST_LINES_S = 1.0


def is_note(line: bytes) -> bool:
    """Whether a line is one of the notes that are left out."""
    return _NOTES.match(line) is not None


def leave_out_notes() -> Callable[[], None]:
    """Leave the notes out of this process's stderr and its children's.

    Call it before any thread is started.

    Returns:
        A function that restores stderr once every line has been passed on.
    """
    try:
        terminal = os.dup(2)
        reading, writing = os.pipe()
    except OSError:  # there is no stderr
        return lambda: None
    child = os.fork()
    if child == 0:
        os.close(writing)
        _filter(reading, terminal)
    os.close(reading)
    os.dup2(writing, 2)
    os.close(writing)
    sys.stderr = os.fdopen(terminal, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)

    def put_back() -> None:
        os.dup2(terminal, 2)
        _await(child)

    return put_back


def _filter(reading: int, terminal: int) -> None:
    """Pass lines on until nobody can write any more, then end this process."""
    try:
        for number in _SIGNALS:  # Ctrl-C is meant for the command, whose last lines are still to come
            signal.signal(number, signal.SIG_IGN)
        for descriptor in (0, 1, 2):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        with open(reading, "rb", buffering=0) as lines:
            pass_on(lines, lambda line: os.write(terminal, line))
    finally:
        os._exit(0)


def pass_on(lines: BinaryIO, write: Callable[[bytes], object]) -> None:
    """Write every line that is not such a note as soon as it is complete."""
    held = b""
    while piece := lines.read(65536):
        *whole, held = (held + piece).split(b"\n")
        kept = b"".join(line + b"\n" for line in whole if not is_note(line))
        if kept:
            write(kept)
    if held and not is_note(held):
        write(held)


def _await(child: int) -> None:
    """Wait for the last lines, but not forever, since a child of this process may keep stderr open."""
    deadline = time.monotonic() + _LAST_LINES_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG) == (0, 0):
                time.sleep(0.005)
                continue
        return
