"""URIs: which are local, how they are compared and joined, and what is known of a file."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

SCHEME = re.compile(r"^([a-zA-Z][-a-zA-Z0-9+.]*)://")
GLOB_CHARACTERS = re.compile(r"[*?\[]")
_FILE_URI = re.compile(r"^file://(localhost(?=/))?", re.IGNORECASE)


class StoredFile(NamedTuple):
    """A file found in storage."""

    uri: str
    size_bytes: int
    version: str
    """Changes whenever the content may have: size, time of last change, and the store's own mark where it has one."""


def is_local(uri: str) -> bool:
    """Whether a URI names a path on this machine."""
    return scheme_of(uri) == "file"


def scheme_of(uri: str) -> str:
    """The scheme of a URI; ``file`` where none is written."""
    match = SCHEME.match(uri)
    return match[1].lower() if match else "file"


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
    return GLOB_CHARACTERS.search(uri) is not None


def fixed_part(pattern: str) -> str:
    """The folder that holds every match of a glob: what comes before its first wildcard."""
    return posixpath.dirname(GLOB_CHARACTERS.split(pattern, maxsplit=1)[0])


def bucket_and_key(uri: str) -> tuple[str, str]:
    """The two parts of an object's URI; the second may be empty.

    Raises:
        ValueError: the URI does not name a bucket.
    """
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not bucket:
        raise ValueError(f"{uri!r} names no bucket")
    return bucket, key
