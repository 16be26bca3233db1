"""Keeps packed references in a temporary file where one process runs a whole pipeline.

A runner in memory holds the outputs of every step until the steps after it are done. Within :func:`spooling`, packed
references lie in a temporary file of the process instead, and elements of the pipeline hold only their place in it, so
memory does not grow with the number of images. The file has no name and disappears with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

# Less than this is not worth a read, and is small compared with the element that holds it.
_SMALL_BYTES = 256


class Spooled(NamedTuple):
    """Where packed references are in this process's file."""

    offset: int
    size: int

    def read(self) -> bytes:
        """The references, packed.

        Raises:
            OSError: the file cannot be read.
        """
        return _SPOOL.read(self)


class _Spool:
    """A process's file: appended to and read at any place, by any thread and any number of pipelines."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipelines = 0
        self._file: BinaryIO | None = None
        self._end = 0

    def open(self) -> None:
        with self._lock:
            self._pipelines += 1
            if self._file is None:
                with contextlib.suppress(OSError):  # without a place for it, references stay in memory
                    self._file, self._end = tempfile.TemporaryFile(prefix="maskdet-", buffering=0), 0  # noqa: SIM115

    def close(self) -> None:
        with self._lock:
            self._pipelines -= 1
            if self._file is not None and self._pipelines == 0:
                self._file.close()
                self._file = None

    def put(self, data: bytes) -> bytes | Spooled:
        with self._lock:
            if self._file is None or len(data) < _SMALL_BYTES:
                return data
            place = Spooled(self._end, len(data))
            try:
                is_whole = os.pwrite(self._file.fileno(), data, place.offset) == place.size
            except OSError:  # the disk takes no more
                is_whole = False
            self._end += place.size if is_whole else 0
            return place if is_whole else data

    def read(self, place: Spooled) -> bytes:
        assert self._file is not None, "references are read within the pipeline, and in the process, that packed them"
        return os.pread(self._file.fileno(), place.size, place.offset)


_SPOOL = _Spool()


@contextlib.contextmanager
def spooling() -> Iterator[None]:
    """Write packed references to a temporary file while the body runs; ``TMPDIR`` says in which folder."""
    _SPOOL.open()
    try:
        yield
    finally:
        _SPOOL.close()


def put(data: bytes) -> bytes | Spooled:
    """Write packed references to the file, and return their place; return them as they are if the disk is full."""
    return _SPOOL.put(data)
