"""What folders hold: files to score, and everything else with the reason why it is not scored."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from maskdet import storage
from maskdet.config import SourceSettings
from maskdet.errors import AccessDeniedError, FailureCode, NotFoundError, StorageError
from maskdet.images.containers import kind_of
from maskdet.storage import StoredFile

_EXCLUDED = "excluded"
_NO_STREAM = "extension .ts, not a video"
_STREAM, _SYNC = "ts", b"G"
_NO_EXTENSION = "no extension, not an image"
_LINK_TO_FOLDER = "link to a folder"
# Skipped files are counted by reason, so a reason names an extension only if it looks like one: there is no end of
# others.
_SAID_EXTENSION = re.compile(r"[a-z][a-z0-9]{0,5}")
# Reading the first bytes of a file in a store is mostly waiting, as a stat is.
_LOOK_THREADS = 16
_LOOK_BYTES = 32


class Found(NamedTuple):
    """Something that a folder holds."""

    file: StoredFile
    """Its size is −1 for anything but a file."""
    skipped: str = ""
    """Why it is not to be scored, whatever its extension; empty if it is."""
    problem: tuple[str, str] | None = None
    """Failure code and message of what cannot be read."""


class Exclusion:
    """Names and paths that are left out.

    Args:
        patterns: with ``*`` and ``?``, which match within a name. A pattern with a slash is matched with the path below
            the input, any other with each name in that path.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        names = [f"({_regex(pattern)})" for pattern in patterns]
        places = [r"\A" if "/" in pattern.strip("/") else r"(?:\A|/)" for pattern in patterns]
        parts = [f"{place}{name}(?=/|\\Z)" for place, name in zip(places, names, strict=True)]
        self._search = re.compile("|".join(parts), re.IGNORECASE | re.DOTALL).search if parts else None

    def reason(self, path: str) -> str:
        """Why a path below the input is excluded; empty if it is not."""
        found = self._search(path) if self._search is not None else None
        return f"{_EXCLUDED} {self._patterns[(found.lastindex or 1) - 1]}" if found else ""

    def without(self, names: Iterable[str]) -> Exclusion:
        """The same without the patterns that would exclude any of these names, which the user wrote out in full."""
        asked = list(names)
        return Exclusion([one for one in self._patterns if not any(Exclusion([one]).reason(name) for name in asked)])


@functools.lru_cache(maxsize=16)
def exclusion(patterns: tuple[str, ...]) -> Exclusion:
    """The exclusion of a run's settings."""
    return Exclusion(patterns)


def walk(folder: str, root: str, exclude: Exclusion) -> Iterator[Found]:
    """All that a local folder holds, at any depth.

    Args:
        folder: where to begin.
        root: the input that it belongs to.
        exclude: what is excluded.
    """
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            for entry in storage.entries(here):
                if entry.kind == "folder":
                    waiting.append(entry.file.uri)
                else:
                    yield _found(entry, root, exclude)
        except NotFoundError:
            continue  # it has vanished since it was found
        except AccessDeniedError:
            if here == root:
                raise
            reason = exclude.reason(_below(here, root))
            problem = (FailureCode.ACCESS_DENIED.value, "the folder cannot be read")
            yield Found(StoredFile(here, -1, ""), reason, None if reason else problem)


def files(folder: str, root: str, exclude: Exclusion) -> Iterator[Found]:
    """What a local folder itself holds, without its subfolders."""
    yield from (_found(entry, root, exclude) for entry in storage.entries(folder) if entry.kind != "folder")


def matching(pattern: str, exclude: Exclusion) -> Iterator[Found]:
    """Every file that a glob matches; names that the glob spells out are not excluded."""
    if not storage.has_glob(pattern):
        yield from map(Found, storage.list_matching(pattern))
        return
    root = storage.fixed_part(pattern)
    asked = exclude.without(name for name in _below(pattern, root).split("/") if not storage.has_glob(name))
    yield from (Found(file, asked.reason(_below(file.uri, root))) for file in storage.list_matching(pattern))


def below(prefix: str, exclude: Exclusion) -> Iterator[Found]:
    """Every object under a prefix of a store."""
    yield from (Found(file, exclude.reason(_below(file.uri, prefix))) for file in storage.list_folder(prefix))


def of_folder(folder: str, exclude: Exclusion) -> Iterator[Found]:
    """All that a folder of this machine or a prefix of a store holds, at any depth."""
    return walk(folder, folder, exclude) if storage.is_local(folder) else below(folder, exclude)


def wanted(
    found: Sequence[Found], source: SourceSettings, videos: frozenset[str] = frozenset()
) -> tuple[list[Found], Counter[str]]:
    """What is to be scored of a folder's content, and counts of what is not, by reason.

    A file without an extension is an image if its first bytes are those of one.

    Args:
        found: the content.
        source: extensions of images.
        videos: extensions of videos that are to be read.
    """
    extensions = {extension.lower().lstrip(".") for extension in source.extensions} | videos
    nameless = [one for one in found if not one.skipped and one.problem is None and not extension_of(one.file.uri)]
    images = _images_among([one.file.uri for one in nameless])
    # .ts is also the extension of TypeScript source.
    streams = [one for one in found if not one.skipped and extension_of(one.file.uri) == _STREAM and _STREAM in videos]
    no_videos = _without_sync([one.file.uri for one in streams])
    kept, skipped = [], Counter[str]()
    for one in found:
        reason = one.skipped or _reason(one, extensions, images) or _NO_STREAM * (one.file.uri in no_videos)
        if reason:
            skipped[reason] += 1
        else:
            kept.append(one)
    return kept, skipped


def extension_of(uri: str) -> str:
    """The extension of a name, in lower case, without its dot; empty if it has none."""
    name = uri.rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[-1].lower() if "." in name else ""


def _reason(found: Found, extensions: set[str], images: set[str]) -> str:
    extension = extension_of(found.file.uri)
    if extension in extensions or found.file.uri in images:
        return ""
    if found.problem is not None and (not extension or found.problem[0] == FailureCode.ACCESS_DENIED):
        return ""
    if not extension:
        return _NO_EXTENSION
    return f"extension .{extension}" if _SAID_EXTENSION.fullmatch(extension) else "another extension"


def _images_among(uris: Sequence[str]) -> set[str]:
    if not uris:
        return set()
    with ThreadPoolExecutor(min(_LOOK_THREADS, len(uris)), thread_name_prefix="look") as pool:
        return {uri for uri, is_image in zip(uris, pool.map(_begins_as_image, uris), strict=True) if is_image}


def _without_sync(uris: Sequence[str]) -> set[str]:
    """Those that do not begin as an MPEG transport stream."""
    if not uris:
        return set()
    with ThreadPoolExecutor(min(_LOOK_THREADS, len(uris)), thread_name_prefix="look") as pool:
        return {uri for uri, begins in zip(uris, pool.map(_begins_as_stream, uris), strict=True) if not begins}


def _begins_as_stream(uri: str) -> bool:
    try:
        with storage.open_binary(uri) as stream:
            head = stream.read(_LOOK_BYTES)
    except StorageError:
        return True  # reading it later will say why it cannot be read
    return not head or _SYNC in (head[:1], head[4:5])  # cameras put a time stamp of 4 bytes before each packet


def _begins_as_image(uri: str) -> bool:
    try:
        with storage.open_binary(uri) as stream:
            return kind_of(stream.read(_LOOK_BYTES)) is not None
    except StorageError:
        return True  # reading it later will say why it cannot be read


def _found(entry: storage.Entry, root: str, exclude: Exclusion) -> Found:
    reason = exclude.reason(_below(entry.file.uri, root))
    if reason or entry.kind == "file":
        return Found(entry.file, reason)
    if entry.kind == "link":  # it may lead back to a folder that it lies in
        return Found(entry.file, _LINK_TO_FOLDER)
    if entry.kind == "dangling":
        message = "the link leads nowhere: its target is missing, or the link itself"
        return Found(entry.file, problem=(FailureCode.NOT_FOUND.value, message))
    message = "a FIFO, a socket or a device is never opened"
    return Found(entry.file._replace(size_bytes=-1), problem=(FailureCode.NOT_A_FILE.value, message))


def _below(uri: str, root: str) -> str:
    return uri[len(root) :].lstrip("/")


def _regex(pattern: str) -> str:
    """A pattern as a regular expression; ``**`` crosses folders."""
    tokens = re.split(r"(\*\*|\*|\?)", pattern.strip("/"))
    known = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(token) or re.escape(token) for token in tokens)
