"""The operations of a remote store, and the same on those of Beam's filesystems that have no client here."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from time import sleep
from types import SimpleNamespace
from typing import BinaryIO, Generic, Protocol, TypeVar, cast

from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from maskdet.errors import NotFoundError
from maskdet.storage.faults import persist, status_of
from maskdet.storage.names import StoredFile

C = TypeVar("C")

# For an unreachable address, and for a server that sends nothing. Neither limits a transfer that makes progress.
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0

_PIECE_BYTES = 8 * 1024 * 1024
# Longer than two writers take who both found one small object as expected.
_SETTLE_S = 1.0


class Store(Protocol):
    """One request per call; none is tried again in here. Anything may be raised: :mod:`faults` sorts it out."""

    def read(self, uri: str) -> bytes:
        """A whole object."""

    def open(self, uri: str) -> BinaryIO:
        """An object to be read in pieces."""

    def write(self, uri: str, data: bytes) -> None:
        """Make an object appear, or replace it, whole or not at all."""

    def write_if(self, uri: str, expected: bytes | None, data: bytes) -> bool:
        """Replace an object that holds what is expected, or make one where there is none; tells whether it did."""

    def stat(self, uri: str) -> StoredFile:
        """Size and version of an object."""

    def exists(self, uri: str) -> bool:
        """Whether there is such an object."""

    def delete(self, uri: str) -> None:
        """Remove an object."""

    def files(self, prefix: str) -> Iterator[StoredFile]:
        """Every object whose URI begins so; each page is asked for until it comes."""


class KeptClient(Generic[C]):
    """A client library's client, made anew only when Beam's options change or the process forks.

    Beam makes one for every call, which takes longer than to read a small image.

    Args:
        make: makes a client for some options.
        shared: whether threads may share a client; otherwise each gets its own.
    """

    def __init__(self, make: Callable[[PipelineOptions], C], *, shared: bool) -> None:
        self._make = make
        self._shared = shared
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def get(self) -> C:
        """The client for the current options."""
        options = FileSystems._pipeline_options
        with self._lock:
            if getattr(self._slot, "made_for", self) is not options:
                self._slot.client = self._make(PipelineOptions() if options is None else options)
                self._slot.made_for = options
            return cast(C, self._slot.client)

    def _forget(self) -> None:
        # Two processes must not share a connection, and the lock may have been held at the fork.
        self._lock = threading.Lock()
        self._slot = SimpleNamespace() if self._shared else threading.local()


class ObjectStream(io.RawIOBase):
    """An object's bytes in ranges, each requested until it arrives."""

    def __init__(self, size_bytes: int, read_range: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size = size_bytes
        self._read_range = read_range
        self._position = 0

    @classmethod
    def buffered(cls, size_bytes: int, read_range: Callable[[int, int], bytes]) -> BinaryIO:
        """A stream that requests large pieces.

        Args:
            size_bytes: of the object.
            read_range: returns the bytes from one offset up to, and without, another.
        """
        return cast(BinaryIO, io.BufferedReader(cls(size_bytes, read_range), _PIECE_BYTES))

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer, or as much of it as the object has bytes for."""
        start, end = self._position, min(self._position + len(buffer), self._size)
        if start >= end:
            return 0
        data = persist(lambda: self._read_range(start, end))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset in bytes."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._position

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True


def has(store: Store, uri: str) -> bool:
    """Whether an object can be asked for its size."""
    try:
        store.stat(uri)
    except Exception as error:
        if isinstance(error, NotFoundError) or status_of(error) == 404:
            return False
        raise
    return True


class BeamStore:
    """One of Beam's filesystems."""

    def read(self, uri: str) -> bytes:
        """As :class:`Store`."""
        with self.open(uri) as stream:
            return stream.read()

    def open(self, uri: str) -> BinaryIO:
        """As :class:`Store`."""
        return cast(BinaryIO, FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED))

    def write(self, uri: str, data: bytes) -> None:
        """As :class:`Store`."""
        stream = cast(BinaryIO, FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED))
        stream.write(data)
        # not in a `with`: closing after a failed write would turn what was written so far into an object
        stream.close()

    def write_if(self, uri: str, expected: bytes | None, data: bytes) -> bool:
        """As :class:`Store`, without a condition that the filesystem would hold: the last of two writers wins."""
        if (self.read(uri) if self.exists(uri) else None) != expected:
            return False
        self.write(uri, data)
        sleep(_SETTLE_S)
        return self.read(uri) == data

    def stat(self, uri: str) -> StoredFile:
        """As :class:`Store`."""
        # Not FileSystems.match: it would take brackets in a name for a pattern.
        return _stored_file(_filesystem(uri).metadata(uri))

    def exists(self, uri: str) -> bool:
        """As :class:`Store`."""
        return bool(FileSystems.exists(uri))

    def delete(self, uri: str) -> None:
        """As :class:`Store`."""
        FileSystems.delete([uri])

    def files(self, prefix: str) -> Iterator[StoredFile]:
        """As :class:`Store`."""
        yield from (_stored_file(found) for found in _filesystem(prefix)._list(prefix))


def _filesystem(uri: str) -> FileSystem:
    return FileSystems.get_filesystem(uri)


def _stored_file(found: FileMetadata) -> StoredFile:
    return StoredFile(found.path, found.size_in_bytes, f"{found.size_in_bytes}-{found.last_updated_in_seconds:.6f}")
