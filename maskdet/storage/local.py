"""Files on this machine, read directly: Beam's route costs more per file than decoding a small image."""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import logging
import os
import stat as stat_module
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from maskdet.errors import NotAFileError, TooLargeError
from maskdet.storage.faults import shown_name
from maskdet.storage.names import StoredFile, local_path

_LOGGER = logging.getLogger(__name__)
_PIECE_BYTES = 1024 * 1024
_KINDS = {
    stat_module.S_IFDIR: "a folder",
    stat_module.S_IFIFO: "a FIFO",
    stat_module.S_IFSOCK: "a socket",
    stat_module.S_IFCHR: "a device",
    stat_module.S_IFBLK: "a device",
}


EntryKind = Literal["file", "folder", "link", "dangling", "special"]


class Entry(NamedTuple):
    """One entry of a folder."""

    kind: EntryKind
    """``link`` leads to a folder, ``dangling`` nowhere; ``special`` is a FIFO, a socket or a device."""
    file: StoredFile
    """Size and version are known for files alone."""


def read(uri: str, limit: int | None = None) -> bytes:
    """A whole file.

    A path as listed is opened as it is, since path objects take as long as reading a small file; and without a file
    object, which makes twice the calls, at each of which threads that decode wait for Python's lock.
    """
    path = uri if uri[:1] == "/" else str(local_path(uri))
    refuse_special(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size_bytes = os.fstat(descriptor).st_size
        _refuse_large(uri, size_bytes, limit)
        data = os.read(descriptor, size_bytes + 1)
        if len(data) == size_bytes:  # the file ended where it should
            return data
        parts, total = [data], len(data)
        while parts[-1]:
            _refuse_large(uri, total, limit)
            parts.append(os.read(descriptor, _PIECE_BYTES))
            total += len(parts[-1])
        return b"".join(parts)
    finally:
        os.close(descriptor)


def refuse_special(path: str | Path) -> None:
    """Refuse what is not a file before it is opened: a FIFO waits for a writer, ``/dev/zero`` has no end.

    Raises:
        NotAFileError: it is a folder, a FIFO, a socket or a device.
        OSError: nothing is there, or it cannot be inspected.
    """
    mode = os.stat(path).st_mode
    if not stat_module.S_ISREG(mode):
        kind = _KINDS.get(stat_module.S_IFMT(mode), "something else")
        raise NotAFileError(f"{path}", "a file", kind)


def _refuse_large(uri: str, size_bytes: int, limit: int | None) -> None:
    if limit is not None and size_bytes > limit:
        raise TooLargeError(uri, f"at most {limit} bytes", size_bytes)


def write(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside its own, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def try_beside(path: Path) -> None:
    """Make a folder beside a path, and the folders above it that are missing, and remove what was made.

    Raises:
        OSError: nothing can be made there.
    """
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(prefix=".maskdet-", dir=path.parent))
    finally:
        for parent in made:
            with contextlib.suppress(OSError):  # was not made, or is in use by someone else
                parent.rmdir()


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, by way of a temporary one; copy it where the filesystem has no hard links."""
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
    """Write a file if it holds what is expected; such writers take turns, by a lock on its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network filesystem without locks: the comparison has to suffice
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


def near_name(path: Path) -> Path | None:
    """The existing path that was probably meant by one that does not exist.

    Returns:
        The path with its first missing part replaced by the most similar name, and with the remaining parts if they
        exist below it; ``None`` if no name is similar.
    """
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    try:
        names = sorted(entry.name for entry in os.scandir(missing.parent))
    except OSError:  # a file, or a folder that may not be listed
        return None
    for name in difflib.get_close_matches(missing.name, names, n=1):
        near = missing.with_name(name)
        whole = near / path.relative_to(missing)
        return whole if whole.exists() else near
    return None


def files(folder: str | Path) -> Iterator[StoredFile]:
    """The files directly in a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            # A file that vanishes while its folder is read was never listed.
            with contextlib.suppress(FileNotFoundError):
                if _is_file(entry):
                    yield _stored_file(entry.path, entry.stat())


def entries(folder: str | Path) -> Iterator[Entry]:
    """Everything directly in a folder, of every kind, in no particular order; nothing is opened."""
    with os.scandir(folder) as found:
        for entry in found:
            # What vanishes while its folder is read was never there.
            with contextlib.suppress(FileNotFoundError):
                yield _entry(entry)


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
                name = shown_name(entry.path)
                _LOGGER.warning("%s: a link to a folder is not followed; name it as an input of its own", name)
    return sorted(found)


def remove_empty(folder: Path) -> None:
    """Remove a folder and its subfolders where they hold no files."""
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(path)


def _entry(entry: os.DirEntry[str]) -> Entry:
    if entry.is_dir(follow_symlinks=False):
        return Entry("folder", StoredFile(entry.path, -1, ""))
    linked = entry.is_symlink()
    try:
        status = entry.stat()
    except OSError as error:
        if linked and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return Entry("dangling", StoredFile(entry.path, -1, ""))
        if isinstance(error, PermissionError):
            return Entry("file", StoredFile(entry.path, -1, ""))  # whoever reads it will say so
        raise
    if stat_module.S_ISDIR(status.st_mode):
        return Entry("link", StoredFile(entry.path, -1, ""))
    kind: EntryKind = "file" if stat_module.S_ISREG(status.st_mode) else "special"
    return Entry(kind, _stored_file(entry.path, status))


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):  # a link to nowhere, like a dangling one
            return False
        raise


def _stored_file(path: str, status: os.stat_result) -> StoredFile:
    return StoredFile(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")
