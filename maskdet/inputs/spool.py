"""References in a temporary file, where one process runs a whole pipeline.

A runner in memory holds what every step handed out until the steps after it are done. Within :func:`spooling`, packed
references lie in a file of that process instead, and elements of the pipeline hold their place in it: so memory does
not grow with the number of images. The file has no name, and is gone with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

# Less is not worth a read, and small beside the element that holds it.
_SMALL_BYTES = 256


class Spooled(NamedTuple):
    """Where packed references are in the file of this process."""

    offset: int
    size: int

    def read(self) -> bytes:
        """The references, packed.

        Raises:
            OSError: the file cannot be read.
        """
        return _SPOOL.read(self)


class _Spool:
    """The file of a process, written from its end on, and read anywhere; by any thread and any number of pipelines."""

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
    """Within, packed references go to a temporary file, which lies where Python's others do (``TMPDIR``)."""
    _SPOOL.open()
    try:
        yield
    finally:
        _SPOOL.close()


def put(data: bytes) -> bytes | Spooled:
    """Packed references, or their place in the file; what the disk does not take stays in memory."""
    return _SPOOL.put(data)
