"""List, read, write atomically and delete, on any filesystem that Beam knows.

The one place that opens a URI. Local paths take a direct route, because Beam's costs more per file than a small image
takes to decode; everything else goes through :class:`apache_beam.io.filesystems.FileSystems`. What goes wrong is raised
as one of three errors (not found, access denied, everything else) whatever the filesystem's own exception was.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import posixpath
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar, cast
from urllib.parse import unquote

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems

from maskdet.errors import AccessDeniedError, NotFoundError, StorageError

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)
# Beam's S3 client keeps the stream it reads from, so each thread has its own.
_CLIENTS = threading.local()

_SCHEME = re.compile(r"^([a-zA-Z][-a-zA-Z0-9+.]*)://")
_FILE_URI = re.compile(r"^file://(localhost(?=/))?", re.IGNORECASE)
_GLOB_CHARACTERS = re.compile(r"[*?\[]")
_EXTRAS = {"gs": "google-cloud-storage and google-auth-httplib2", "s3": "maskdet[s3]", "hdfs": "hdfs"}

# Anything that answers at all answers sooner; without a bound an unreachable store costs minutes of silence in the
# client library's own retries.
REACH_DEADLINE_S = 20.0


class StoredFile(NamedTuple):
    """A file found in storage."""

    uri: str
    size_bytes: int
    version: str
    """Changes whenever the content may have: size and time of last change."""


def is_local(uri: str) -> bool:
    """Whether a URI names a path on this machine."""
    match = _SCHEME.match(uri)
    return match is None or match[1].lower() == "file"


def local_path(uri: str) -> Path:
    """The absolute path of a local URI; percent signs are escapes in ``file://`` URIs only."""
    match = _FILE_URI.match(uri)
    path = unquote(uri[match.end() :]) if match else os.path.expanduser(uri)
    return Path(os.path.abspath(path))


def normalize(uri: str) -> str:
    """The form in which a URI is compared and stored: local paths absolute, no trailing slash."""
    return str(local_path(uri)) if is_local(uri) else uri.rstrip("/")


def join(base: str, *parts: str) -> str:
    """Append path segments to a URI."""
    return posixpath.join(base, *parts)


def parent(uri: str) -> str:
    """The folder that a URI lies in."""
    return posixpath.dirname(uri)


def has_glob(uri: str) -> bool:
    """Whether a URI holds wildcard characters."""
    return _GLOB_CHARACTERS.search(uri) is not None


def read_bytes(uri: str) -> bytes:
    """Read a whole file.

    Raises:
        StorageError: the file is missing, forbidden or unreadable.
    """
    with _translated(uri, "read"):
        if is_local(uri):
            return local_path(uri).read_bytes()
        with _open_remote(uri) as stream:
            return stream.read()


@contextlib.contextmanager
def open_binary(uri: str) -> Iterator[BinaryIO]:
    """Open a file to read it piecewise.

    Raises:
        StorageError: the file is missing, forbidden or unreadable.
    """
    with _translated(uri, "read"):
        stream = cast(BinaryIO, local_path(uri).open("rb")) if is_local(uri) else _open_remote(uri)
    with stream:
        yield stream


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file so that a reader sees the old content or the new, never a part.

    Local files are written beside their name and renamed; objects in a store appear when their upload ends.

    Raises:
        StorageError: the location cannot be written.
    """
    with _translated(uri, "write"):
        if is_local(uri):
            _write_local(local_path(uri), data)
            return
        stream = cast(BinaryIO, FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED))
        stream.write(data)
        stream.close()  # not in a `with`: closing after a failed write would make an object of what there is


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def exists(uri: str) -> bool:
    """Whether a file or local folder exists.

    Raises:
        StorageError: the store cannot be asked.
    """
    with _translated(uri, "look for"):
        return local_path(uri).exists() if is_local(uri) else bool(FileSystems.exists(uri))


def is_local_folder(uri: str) -> bool:
    """Whether a URI is a folder on this machine (object stores have none)."""
    return is_local(uri) and local_path(uri).is_dir()


def stat(uri: str) -> StoredFile:
    """Size and version of one file.

    Raises:
        NotFoundError: nothing exists there.
        StorageError: the store cannot be asked.
    """
    with _translated(uri, "look for"):
        if is_local(uri):
            return _local_file(str(local_path(uri)), os.stat(local_path(uri)))
        # Not FileSystems.match: it would take brackets in a name for a pattern.
        return _stored_file(_filesystem(uri).metadata(uri))


def list_folder(folder: str) -> Iterator[StoredFile]:
    """Every file under a folder or prefix, at any depth, lazily and in no particular order.

    A folder that does not exist holds no files.

    Raises:
        StorageError: the folder cannot be listed.
    """
    with _translated(folder, "list"):
        if is_local(folder):
            root = local_path(folder)
            yield from _walk_local(str(root)) if root.is_dir() else ()
            return
        prefix = folder.rstrip("/") + "/"
        # Consoles make empty objects that end in a slash stand for folders.
        yield from (_stored_file(found) for found in _filesystem(folder)._list(prefix) if found.path[-1:] != "/")


def list_files(folder: str) -> Iterator[StoredFile]:
    """The files of a local folder itself, without its subfolders."""
    with _translated(folder, "list"), os.scandir(local_path(folder)) as entries:
        for entry in entries:
            # A file that vanishes while its folder is read was never listed.
            with contextlib.suppress(FileNotFoundError):
                if _is_file(entry):
                    yield _local_file(entry.path, entry.stat())


def subfolders(folder: str) -> list[str]:
    """The subfolders of a local folder, sorted. Links to folders are not followed, which a warning says."""
    found = []
    with _translated(folder, "list"), os.scandir(local_path(folder)) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.path)
            elif entry.is_symlink() and Path(entry.path).is_dir():
                _LOGGER.warning("%s: a link to a folder is not followed; name it as an input of its own", entry.path)
    return sorted(found)


def list_matching(pattern: str) -> Iterator[StoredFile]:
    """Every file that a glob matches: ``*`` within a path segment, ``**`` across, ``?``, ``[…]``.

    A local file of exactly that name is meant before any pattern.

    Raises:
        StorageError: the location cannot be listed.
    """
    if not has_glob(pattern) or (is_local(pattern) and os.path.isfile(local_path(pattern))):
        with contextlib.suppress(NotFoundError):
            yield stat(pattern)
        return
    if is_local(pattern):
        pattern = str(local_path(pattern))
    root = posixpath.dirname(_GLOB_CHARACTERS.split(pattern, maxsplit=1)[0])
    # Beam's `**/` asks for at least one folder; people and shells mean any number.
    matches = re.compile(FileSystem.translate_pattern(pattern).replace(".*/", "(?:.*/)?")).match
    yield from (found for found in list_folder(root or "/") if matches(found.uri))


def delete(uris: Iterable[str]) -> None:
    """Delete files; one that is already gone is no error.

    Raises:
        StorageError: a file cannot be deleted.
    """
    for uri in uris:
        with contextlib.suppress(NotFoundError), _translated(uri, "delete"):
            if is_local(uri):
                local_path(uri).unlink()
            else:
                FileSystems.delete([uri])


def remove_empty_folders(folders: Iterable[str]) -> None:
    """Remove local folders without files, at any depth; object stores have none."""
    for folder in folders:
        if is_local_folder(folder):
            for path, _, _ in os.walk(local_path(folder), topdown=False):
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(path)


def within_deadline(action: Callable[[], T], uri: str, deadline_s: float | None = None) -> T:
    """Run a storage call, giving up on a store that does not answer.

    The abandoned call is left to its own time-outs, in a daemon thread: a pool's would hold up the end of the process.

    Raises:
        StorageError: no answer within the deadline, or the call's own error.
    """
    deadline_s = REACH_DEADLINE_S if deadline_s is None else deadline_s
    answer: Future[T] = Future()

    def reach() -> None:
        try:
            answer.set_result(action())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=reach, name="reach", daemon=True).start()
    if not wait([answer], timeout=deadline_s).done:
        raise StorageError(
            uri,
            f"an answer within {deadline_s:g} s",
            "none",
            "Check the network, the bucket's name, the region or endpoint, and the credentials.",
        )
    return answer.result()


def _walk_local(folder: str) -> Iterator[StoredFile]:
    folders = [folder]
    while folders:
        folder = folders.pop()
        yield from list_files(folder)
        folders.extend(subfolders(folder))


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):  # a link that leads nowhere, as a dangling one
            return False
        raise


def _local_file(path: str, status: os.stat_result) -> StoredFile:
    return StoredFile(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def _stored_file(found: FileMetadata) -> StoredFile:
    return StoredFile(found.path, found.size_in_bytes, f"{found.size_in_bytes}-{found.last_updated_in_seconds:.6f}")


def _open_remote(uri: str) -> BinaryIO:
    filesystem = _filesystem(uri)
    if filesystem.scheme() == "s3":
        # Beam makes a client for every file, which takes longer than to read a small image: 0.3 s against 0.02 s.
        from apache_beam.io.aws.s3io import S3IO

        options = FileSystems._pipeline_options
        if getattr(_CLIENTS, "options", None) is not options:
            _CLIENTS.options, _CLIENTS.s3 = options, S3IO(options=options)
        return cast(BinaryIO, _CLIENTS.s3.open(uri, "rb"))
    return cast(BinaryIO, FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED))


def _filesystem(uri: str) -> FileSystem:
    return FileSystems.get_filesystem(uri)


@contextlib.contextmanager
def _translated(uri: str, action: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        raise _translate(error, uri, action) from error


def _translate(error: BaseException, uri: str, action: str) -> StorageError:
    """The storage error for a filesystem's own exception."""
    cause = _root_cause(error)
    status = getattr(cause, "code", None)
    number = getattr(cause, "errno", None)
    if number == errno.ENOENT or status == 404 or (number == errno.ENOTDIR and action != "write"):
        return NotFoundError(f"cannot {action} {uri}: nothing exists there")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) or status in (401, 403):
        return AccessDeniedError(f"cannot {action} {uri}: access denied. Check the credentials and their permissions")
    scheme = (_SCHEME.match(uri) or ("", "file"))[1]
    if isinstance(cause, ValueError) and "filesystem from specified path" in str(cause):
        return StorageError(
            f"cannot {action} {uri}",
            "a scheme with a filesystem installed",
            scheme,
            f"Install {_EXTRAS[scheme]}." if scheme in _EXTRAS else "Use a local path, gs://, s3:// or hdfs://.",
        )
    return StorageError(f"cannot {action} {uri}: {type(cause).__name__}: {cause}")


def _root_cause(error: BaseException) -> BaseException:
    """The innermost exception that says what happened, under Beam's wrappers."""
    while isinstance(error, BeamIOError) and error.exception_details:
        inner = next(iter(error.exception_details.values()))
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error
