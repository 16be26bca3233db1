"""What went wrong, whichever client library reports it: one of three errors, and whether to try again."""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import re
import threading
from collections.abc import Callable, Iterator
from time import sleep
from typing import TypeVar

from apache_beam.io.filesystem import BeamIOError

from maskdet.errors import AccessDeniedError, NotFoundError, StorageError
from maskdet.storage.names import SCHEME, scheme_of

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)

# Six tries wait 6 s in all: long enough for a store's bad moment, within the launch's deadline of 20 s.
ATTEMPTS = 6
_FIRST_BACKOFF_S = 0.2
# Spreads the tries of many workers; no result depends on it. A generator of its own: client libraries use the global.
_JITTER = random.Random()
_COUNTED = threading.local()

_EXTRAS = {"gs": "google-cloud-storage and google-auth-httplib2", "s3": "maskdet[s3]", "hdfs": "hdfs"}
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# S3 answers 400 to a body that arrived too slowly or incomplete.
_TRANSIENT_CODES = {"RequestTimeout", "IncompleteBody", "SlowDown", "BadDigest"}


def backoff_s(attempt: int) -> float:
    """How long to wait after a failed try, in seconds: a fifth, doubled each time, spread by half either way."""
    return _FIRST_BACKOFF_S * float(2 ** (attempt - 1)) * _JITTER.uniform(0.5, 1.5)


@contextlib.contextmanager
def one_try() -> Iterator[None]:
    """Inside, this thread makes each request once: the caller tries again itself, and counts."""
    _COUNTED.elsewhere = True
    try:
        yield
    finally:
        _COUNTED.elsewhere = False


class _Names:
    withheld = False


def withhold_names() -> None:
    """From now on, this process writes no names of files to its log."""
    _Names.withheld = True


def shown_name(name: str) -> str:
    """A file's name, for the log."""
    return "a name that privacy.uri withholds" if _Names.withheld else name


def persist(call: Callable[[], T]) -> T:
    """Make one request to a store, and repeat it with back-off while its failures are temporary.

    Args:
        call: can be repeated at any time: a whole read, a whole write, one page of a listing.
    """
    attempts = 1 if getattr(_COUNTED, "elsewhere", False) else ATTEMPTS
    for attempt in range(1, attempts):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            pause = backoff_s(attempt)
            cause = _root_cause(error)
            what = type(cause).__name__ if _Names.withheld else _described(cause)
            _LOGGER.warning("%s; try %d of %d in %.1f s", what, attempt + 1, attempts, pause)
            sleep(pause)
    return call()


@contextlib.contextmanager
def write_errors(uri: str) -> Iterator[None]:
    """Raise the operating system's errors inside, of writing local files, as storage errors that name the URI."""
    try:
        yield
    except OSError as error:
        raise _translate(error, uri, "write") from error


@contextlib.contextmanager
def translated(uri: str, action: str) -> Iterator[None]:
    """Raise whatever goes wrong inside as a storage error that names the action and the URI."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        raise _translate(error, uri, action) from error


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a client library's exception holds."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "code", None)
    return int(status) if isinstance(status, int) else None


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: the connection failed, or the store is busy or broken."""
    cause = _root_cause(error)
    if isinstance(cause, StorageError | ValueError | TypeError | NotImplementedError):
        return False
    status = status_of(cause)
    if status is None:
        return getattr(cause, "errno", None) not in (errno.ENOENT, errno.EACCES, errno.EPERM)
    return status in (408, 429) or status >= 500 or _store_code(cause) in _TRANSIENT_CODES


def _translate(error: BaseException, uri: str, action: str) -> StorageError:
    cause = _root_cause(error)
    status = status_of(cause)
    number = getattr(cause, "errno", None)
    if number == errno.ENOENT or status == 404 or (number == errno.ENOTDIR and action != "write"):
        return NotFoundError(f"cannot {action} {uri}: nothing exists there")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) or status in (401, 403):
        return AccessDeniedError(f"cannot {action} {uri}: access denied. Check the credentials and their permissions")
    if isinstance(cause, ImportError) or (isinstance(cause, ValueError) and "filesystem from specified" in str(cause)):
        scheme = scheme_of(uri) if SCHEME.match(uri) else "file"
        return StorageError(
            f"cannot {action} {uri}",
            "a scheme with a filesystem installed",
            scheme,
            f"Install {_EXTRAS[scheme]}." if scheme in _EXTRAS else "Use a local path, gs://, s3:// or hdfs://.",
        )
    if action == "write" and number == errno.EISDIR:
        return StorageError(f"cannot write {uri}", "the name of a file", "a folder", "Name a file in it.")
    if action == "write" and number in (errno.EEXIST, errno.ENOTDIR):
        return StorageError(f"cannot write {uri}", "folders above it", "a file among them", "Name another place.")
    return StorageError(f"cannot {action} {uri}: {_described(cause)}")


def _described(cause: BaseException) -> str:
    """A store's fault in words that never vary: failure rows are compared between runs."""
    status = status_of(cause)
    if status is not None and (status == 429 or status >= 500):
        return f"the store answered {status}"
    if isinstance(cause, OSError) and cause.strerror:  # without its file's name, which may be a temporary one
        return f"{type(cause).__name__}: {cause.strerror}"
    return f"{type(cause).__name__}: {_ADDRESS.sub('', ' '.join(str(cause).split()))}"


def _store_code(cause: BaseException) -> object:
    response = getattr(cause, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def _root_cause(error: BaseException) -> BaseException:
    """The innermost exception that says what happened, inside Beam's wrappers."""
    while isinstance(error, BeamIOError) and error.exception_details:
        inner = next(iter(error.exception_details.values()))
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error
