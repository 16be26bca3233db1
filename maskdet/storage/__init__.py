"""List, read, atomically write and delete files, on this machine and in any store.

The one place that opens a URI. Local paths take a direct route; Google Cloud Storage and S3 have clients that are kept;
everything else goes through Beam's filesystems. Temporary failures (429, 5xx, a broken connection) are tried again
with back-off. Permanent ones are raised as one of three errors (not found, access denied, everything else)
whatever the client library's own exception was.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import BinaryIO, TypeVar, cast

from apache_beam.io.filesystem import FileSystem

from maskdet.errors import NotFoundError, StorageError
from maskdet.storage import local
from maskdet.storage.faults import backoff_s, one_try, persist, translated, withhold_names, write_errors
from maskdet.storage.gcs import GcsStore
from maskdet.storage.local import Entry
from maskdet.storage.names import (
    StoredFile,
    fixed_part,
    has_glob,
    is_local,
    join,
    local_path,
    normalize,
    parent,
    scheme_of,
)
from maskdet.storage.s3 import S3Store
from maskdet.storage.stores import BeamStore, Store

__all__ = [
    "Entry",
    "StoredFile",
    "backoff_s",
    "check_writable",
    "delete",
    "did_you_mean",
    "entries",
    "exists",
    "fixed_part",
    "glob_matcher",
    "has_glob",
    "is_local",
    "is_local_folder",
    "is_same_file",
    "join",
    "link_or_copy",
    "list_files",
    "list_folder",
    "list_matching",
    "local_path",
    "normalize",
    "one_try",
    "open_binary",
    "parent",
    "read_bytes",
    "remove_empty_folders",
    "stat",
    "subfolders",
    "withhold_names",
    "within_deadline",
    "write_bytes",
    "write_errors",
    "write_if",
]

T = TypeVar("T")

# Any store that answers at all does so sooner; an unreachable one would mean minutes of silence.
REACH_DEADLINE_S = 20.0

_STORES: dict[str, Store] = {"gs": GcsStore(), "s3": S3Store()}
_OTHER_STORES: Store = BeamStore()


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """Read a whole file.

    Args:
        uri: the file.
        limit: most bytes of a local file to read; for an object in a store, ask :func:`stat` first.

    Raises:
        NotAFileError: it is a folder, a FIFO, a socket or a device.
        TooLargeError: the file has more bytes than the limit.
        StorageError: the file is missing, forbidden or unreadable.
    """
    with translated(uri, "read"):
        if is_local(uri):
            return local.read(uri, limit)
        return persist(lambda: _store(uri).read(uri))


@contextlib.contextmanager
def open_binary(uri: str) -> Iterator[BinaryIO]:
    """Open a file to read it in pieces.

    Raises:
        StorageError: the file is missing, forbidden or unreadable.
    """
    with translated(uri, "read"):
        if is_local(uri):
            local.refuse_special(local_path(uri))
        stream = cast(BinaryIO, local_path(uri).open("rb")) if is_local(uri) else persist(lambda: _store(uri).open(uri))
    with stream:
        yield stream


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file so that readers see either the old content or the new, never a mixture.

    Local files are written under a temporary name and renamed; objects in a store appear when their upload ends.

    Raises:
        StorageError: the location cannot be written.
    """
    with translated(uri, "write"):
        if is_local(uri):
            local.write(local_path(uri), data)
        else:
            persist(lambda: _store(uri).write(uri, data))


def write_if(uri: str, expected: bytes | None, data: bytes) -> bool:
    """Write a whole file only if it still holds what the caller last saw.

    One of several writers who expect the same content wins, on this machine, on Google Cloud Storage and on S3. Beam's
    other filesystems have no conditional write: there the content is checked again after a moment, which leaves a gap.

    Args:
        uri: where to.
        expected: the content that the file has to have; ``None``: there must be no such file.
        data: the new content.

    Returns:
        Whether it was written. If the store's answer was lost, this may be ``False`` although it was: read it again.

    Raises:
        StorageError: the location cannot be read or written.
    """
    with translated(uri, "write"):
        if is_local(uri):
            return local.write_if(local_path(uri), expected, data)
        return persist(lambda: _store(uri).write_if(uri, expected, data))


def check_writable(folder: str) -> None:
    """Make sure that a local folder can be made where it is to appear, before the work that it is for.

    Nothing is left there. Stores are not tried: what is written there cannot always be removed.

    Raises:
        StorageError: it cannot be made.
    """
    if is_local(folder):
        with translated(folder, "write"):
            local.try_beside(local_path(folder))


def link_or_copy(source: str, target: str) -> None:
    """Make a small file appear under a second name of the same store, replacing what is there in one step.

    On this machine both names are one file where the filesystem allows that.

    Raises:
        StorageError: the first cannot be read, or the second cannot be written.
    """
    if is_local(target):
        with translated(target, "write"):
            local.link_or_copy(local_path(source), local_path(target))
    else:
        write_bytes(target, read_bytes(source))


def is_same_file(one: str, other: str) -> bool:
    """Whether two names belong to one local file; always ``True`` for objects, which have one name each."""
    with translated(one, "look for"):
        return not is_local(one) or os.path.samefile(local_path(one), local_path(other))


def exists(uri: str) -> bool:
    """Whether a file or local folder exists.

    Raises:
        StorageError: the store cannot be asked.
    """
    with translated(uri, "look for"):
        return local_path(uri).exists() if is_local(uri) else persist(lambda: _store(uri).exists(uri))


def did_you_mean(uri: str) -> str:
    """The end of a remedy for a name that does not exist: a similar local name that exists, if there is one."""
    near = local.near_name(local_path(uri)) if is_local(uri) and not has_glob(uri) else None
    return "check the path." if near is None else f"did you mean {str(near)!r}?"


def is_local_folder(uri: str) -> bool:
    """Whether a URI is a folder on this machine (object stores have none)."""
    return is_local(uri) and local_path(uri).is_dir()


def stat(uri: str) -> StoredFile:
    """Size and version of one file.

    Raises:
        NotFoundError: nothing exists there.
        StorageError: the store cannot be asked.
    """
    with translated(uri, "look for"):
        return local.stat(local_path(uri)) if is_local(uri) else persist(lambda: _store(uri).stat(uri))


def list_folder(folder: str) -> Iterator[StoredFile]:
    """Every file under a folder or prefix, at any depth, lazily and in no particular order.

    A folder that does not exist holds no files.

    Raises:
        StorageError: the folder cannot be listed.
    """
    with translated(folder, "list"):
        if is_local(folder):
            root = local_path(folder)
            yield from local.walk(str(root)) if root.is_dir() else ()
            return
        prefix = folder.rstrip("/") + "/"
        # Consoles create empty objects whose names end in a slash to stand for folders.
        yield from (found for found in _store(prefix).files(prefix) if found.uri[-1:] != "/")


def list_files(folder: str) -> Iterator[StoredFile]:
    """The files directly in a local folder."""
    with translated(folder, "list"):
        yield from local.files(local_path(folder))


def entries(folder: str) -> Iterator[Entry]:
    """Everything directly in a local folder, of every kind: files, folders, dangling links, FIFOs.

    Raises:
        StorageError: the folder cannot be listed.
    """
    with translated(folder, "list"):
        yield from local.entries(local_path(folder))


def subfolders(folder: str) -> list[str]:
    """The subfolders of a local folder, sorted. Links to folders are not followed, which a warning says."""
    with translated(folder, "list"):
        return local.subfolders(local_path(folder))


def list_matching(pattern: str) -> Iterator[StoredFile]:
    """Every file that a glob matches: ``*`` within a path segment, ``**`` across, ``?``, ``[…]``.

    A local file of exactly that name takes precedence over the pattern.

    Raises:
        StorageError: the location cannot be listed.
    """
    if not has_glob(pattern) or (is_local(pattern) and os.path.isfile(local_path(pattern))):
        with contextlib.suppress(NotFoundError):
            yield stat(pattern)
        return
    if is_local(pattern):
        pattern = str(local_path(pattern))
    matches = glob_matcher(pattern)
    yield from (found for found in list_folder(fixed_part(pattern) or "/") if matches(found.uri))


def glob_matcher(pattern: str) -> Callable[[str], bool]:
    """Tells whether a URI is one that :func:`list_matching` finds."""
    if is_local(pattern):
        pattern = str(local_path(pattern))
    # Beam's `**/` matches one folder or more; people and shells mean any number.
    compiled = re.compile(FileSystem.translate_pattern(pattern).replace(".*/", "(?:.*/)?"))
    return lambda uri: uri == pattern or compiled.match(uri) is not None


def delete(uris: Iterable[str]) -> None:
    """Delete files; a file that is already gone is not an error.

    Raises:
        StorageError: a file cannot be deleted.
    """
    for uri in uris:
        with contextlib.suppress(NotFoundError), translated(uri, "delete"):
            if is_local(uri):
                local_path(uri).unlink()
            else:
                persist(lambda uri=uri: _store(uri).delete(uri))  # type: ignore[misc]


def remove_empty_folders(folders: Iterable[str]) -> None:
    """Remove local folders that hold no files, at any depth; object stores have no folders."""
    for folder in folders:
        if is_local_folder(folder):
            local.remove_empty(local_path(folder))


def within_deadline(action: Callable[[], T], uri: str, deadline_s: float | None = None) -> T:
    """Run a storage call, but give up on a store that does not answer.

    The abandoned call is left to its own time-outs, in a daemon thread: a pool's thread would hold up the end of the
    process.

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


def _store(uri: str) -> Store:
    return _STORES.get(scheme_of(uri), _OTHER_STORES)
