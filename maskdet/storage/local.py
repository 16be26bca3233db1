"""Files of this machine, directly: Beam's route costs more per file than a small image takes to decode."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from maskdet.storage.names import StoredFile, local_path

_LOGGER = logging.getLogger(__name__)
_PIECE_BYTES = 1024 * 1024


def read(uri: str) -> bytes:
    """A whole file.

    A path as listed is opened as it is, since path objects take as long as reading a small file; and without a file
    object, which makes twice the calls, at each of which threads that decode wait for Python's lock.
    """
    descriptor = os.open(uri if uri[:1] == "/" else local_path(uri), os.O_RDONLY)
    try:
        size_bytes = os.fstat(descriptor).st_size
        data = os.read(descriptor, size_bytes + 1)
        if len(data) == size_bytes:  # it ended where it was to end
            return data
        parts = [data]
        while parts[-1]:
            parts.append(os.read(descriptor, _PIECE_BYTES))
        return b"".join(parts)
    finally:
        os.close(descriptor)


def write(path: Path, data: bytes) -> None:
    """Write a file beside its name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, by way of a temporary one; copy it where the filesystem knows no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        try:
            os.link(source, temporary)
        except FileNotFoundError:
            raise
        except OSError:
            temporary.write_bytes(source.read_bytes())
        # Renaming one of two names of a file onto the other does nothing, and leaves the temporary one.
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_if(path: Path, expected: bytes | None, data: bytes) -> bool:
    """Write a file if it holds what is expected; those who ask so take turns, by a lock on its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network filesystem without locks: the comparison alone has to do
            fcntl.flock(folder, fcntl.LOCK_EX)
        try:
            found: bytes | None = path.read_bytes()
        except FileNotFoundError:
            found = None
        if found != expected:
            return False
        write(path, data)
        return True
    finally:
        os.close(folder)  # and with it the lock


def stat(path: Path) -> StoredFile:
    """Size and version of a file."""
    return _stored_file(str(path), os.stat(path))


def files(folder: str | Path) -> Iterator[StoredFile]:
    """The files of a folder itself."""
    with os.scandir(folder) as entries:
        for entry in entries:
            # A file that vanishes while its folder is read was never listed.
            with contextlib.suppress(FileNotFoundError):
                if _is_file(entry):
                    yield _stored_file(entry.path, entry.stat())


def walk(folder: str) -> Iterator[StoredFile]:
    """The files of a folder at any depth."""
    folders = [folder]
    while folders:
        folder = folders.pop()
        yield from files(folder)
        folders.extend(subfolders(folder))


def subfolders(folder: str | Path) -> list[str]:
    """The subfolders of a folder, sorted. Links to folders are not followed, which a warning says."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.path)
            elif entry.is_symlink() and Path(entry.path).is_dir():
                _LOGGER.warning("%s: a link to a folder is not followed; name it as an input of its own", entry.path)
    return sorted(found)


def remove_empty(folder: Path) -> None:
    """Remove a folder, and those in it, as far as they hold no files."""
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(path)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):  # a link that leads nowhere, as a dangling one
            return False
        raise


def _stored_file(path: str, status: os.stat_result) -> StoredFile:
    return StoredFile(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")
