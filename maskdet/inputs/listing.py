"""Lists inputs as image references: folders, globs, list files and image lists, with partition keys and capture times.

Listing is divided into instances of :class:`ListTask`, so that workers can share it: one for a glob or a prefix of an
object store, one for each subfolder of a local folder, one for each row group of a Parquet image list.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from maskdet import storage
from maskdet.config import SourceSettings
from maskdet.errors import ConfigError, FailureCode, NotFoundError, SourceError, StorageError
from maskdet.inputs import columns, folders, image_lists
from maskdet.inputs.folders import Exclusion, Found, exclusion, extension_of
from maskdet.inputs.list_columns import ListRule, columns_of_batch
from maskdet.inputs.references import ImageRef, RefBatch
from maskdet.video.sampling import UNCUT, Segment

T = TypeVar("T")
Told = tuple[storage.StoredFile | None, bool]  # the file as the store knows it, and whether the store has none there

BATCH_IMAGES = 5_000
DUPLICATE = "duplicate"

_ANYWHERE = "*"
_LOOK_AT_ROWS = 1_000
_NO_TABLES = (".*", "_*")  # marker and temporary files of the program that wrote the table
# A stat is a round trip: it waits rather than works. Beam's clients take this many at once.
_STAT_THREADS = 16


class ListTask(NamedTuple):
    """A part of the input that one worker lists."""

    kind: Literal["folder", "files", "glob", "list", "image_list"]
    """``files`` lists a local folder's own files, without its subfolders."""
    uri: str
    root: str = ""
    """The folder that paths are relative to when they are matched with the template; for an image list, the folder of
    Parquet files that it belongs to, if any."""
    part: int = -1
    """Row group of a Parquet image list; −1 for the whole file."""


def input_tasks(inputs: Iterable[str], source: SourceSettings) -> list[ListTask]:
    """The listing to do: one task per input, or one per image list where an input is a glob of them.

    Looks only at names and, for a local path, at whether it is a file or a folder.

    Raises:
        ConfigError: there is no input.
    """
    named = list(inputs)
    for uri in named or [""]:
        # An empty name comes from a shell variable that is not set; it does not mean the working directory.
        if not uri.strip():
            raise ConfigError("--input", "a folder, glob, list file or image list", uri, "Name at least one.")
    return [task for uri in named for task in _tasks_of(uri, source)]


def check_input(task: ListTask, source: SourceSettings) -> None:
    """Refuse an input that is missing or empty, at launch.

    Raises:
        SourceError: the input matches no file, or an image list lacks a column.
        StorageError: the store does not answer.
    """
    if task.kind in ("list", "image_list"):
        if not storage.exists(task.uri):
            remedy = f"Nothing exists there; {storage.did_you_mean(task.uri)}"
            raise SourceError("--input", "a list file or image list", task.uri, remedy)
        if task.kind == "image_list":
            image_lists.check_columns(task.uri, source, task.root)
        _refuse_if_all_outside(task, source)
        return
    exclude = exclusion(source.exclude)
    if task.kind == "folder" and not storage.is_local(task.uri):
        listing = folders.below(task.uri, exclude)
    elif task.kind == "folder":
        listing = folders.walk(task.uri, task.uri, exclude) if storage.is_local_folder(task.uri) else iter(())
    else:
        listing = folders.matching(task.uri, exclude)
    if next(listing, None) is None:
        what = "a folder with files" if task.kind == "folder" else "a glob or path that matches files"
        raise SourceError("--input", what, task.uri, _remedy_for(task.uri))


def _remedy_for(uri: str) -> str:
    if storage.is_local_folder(uri):
        return "It is empty; check the path."
    if storage.has_glob(uri):
        return "Nothing is there; check the path and, for globs, the quotes."
    return f"Nothing is there; {storage.did_you_mean(uri)}"


def may_repeat(tasks: Sequence[ListTask]) -> bool:
    """Whether an image can be listed twice: by several inputs, or by a list."""
    return len(tasks) > 1 or any(task.kind in ("list", "image_list") for task in tasks)


def split_task(task: ListTask) -> list[ListTask]:
    """Cut a task into parts that workers list concurrently."""
    if task.kind == "folder" and storage.is_local_folder(task.uri):
        parts = [ListTask("folder", path, task.root) for path in storage.subfolders(task.uri)]
        return [task._replace(kind="files"), *parts]
    if task.kind == "image_list" and image_lists.is_parquet(task.uri):
        return [task._replace(part=i) for i in range(image_lists.row_group_count(task.uri))]
    return [task]


def list_images(task: ListTask, source: SourceSettings, videos: frozenset[str] = frozenset()) -> Iterator[RefBatch]:
    """List one task, in batches of at most :data:`BATCH_IMAGES`.

    Args:
        task: what to list.
        source: how paths and image lists are read.
        videos: extensions of files that are listed as videos; see :mod:`maskdet.inputs.videos`.

    Raises:
        SourceError: a path does not fit the template and the settings refuse such runs, or an image list is damaged.
        StorageError: the location cannot be listed.
    """
    if task.kind in ("list", "image_list"):
        yield from _list_rows(task, source, videos)
        return
    content = _content(task, exclusion(source.exclude))
    yield from batched(content, lambda found: _folder_batch(found, task, source, videos))


def refuse_images_in(output: str, batch: RefBatch) -> None:
    """Refuse images that lie in the output of their run, however the input names them.

    Raises:
        ConfigError: an image lies there; the error names the first.
    """
    if not output:
        return
    uris = batch.columns["uri"]
    inside = pc.index(pc.starts_with(uris, f"{output}/"), True).as_py()
    if inside >= 0:
        remedy = "Choose an output beside them."
        raise ConfigError("--input", f"images outside the output {output}", uris[inside].as_py(), remedy)


def with_versions(found: pa.RecordBatch) -> pa.RecordBatch:
    """Ask the store for the size and version of images that a list names.

    Where the store does not answer they stay unknown; reading the image later will say why, in a failure row.

    Args:
        found: columns of references.
    """
    # Also for a path that does not fit the template: it may be that of an image that earlier runs know.
    may_be_read = pc.or_(
        found["problem_code"].is_null(), pc.equal(found["problem_code"], FailureCode.PATH_MISMATCH.value)
    )
    is_unknown = pc.and_(pc.equal(found["version"], ""), pc.fill_null(may_be_read, True))
    unknown = found.filter(is_unknown)
    if not unknown.num_rows:
        return found
    places = pc.coalesce(unknown["location"], unknown["uri"]).to_pylist()
    told = look_up(places)
    sizes = [
        known if file is None else file.size_bytes
        for known, (file, _) in zip(unknown["size_bytes"].to_pylist(), told, strict=True)
    ]
    versions = ["" if file is None else file.version for file, _ in told]
    absent = [is_absent for _, is_absent in told]
    return columns.replaced(
        found,
        {
            "size_bytes": pc.replace_with_mask(found["size_bytes"], is_unknown, pa.array(sizes, pa.int64())),
            "version": pc.replace_with_mask(found["version"], is_unknown, pa.array(versions, pa.string())),
            "absent": pc.replace_with_mask(found["absent"], is_unknown, pa.array(absent, pa.bool_())),
        },
    )


def look_up(places: Sequence[str]) -> list[Told]:
    """What stores know of files, in the order of ``places``."""
    if not places:
        return []
    # Handing files to the pool one by one would take longer than all the rest of listing them.
    size = max(1, len(places) // (4 * _STAT_THREADS))
    chunks = [places[start : start + size] for start in range(0, len(places), size)]
    with ThreadPoolExecutor(_STAT_THREADS, thread_name_prefix="stat") as pool:
        return [one for chunk in pool.map(lambda some: list(map(_stat, some)), chunks) for one in chunk]


def _stat(place: str) -> Told:
    try:
        return storage.stat(place), False
    except NotFoundError:
        return None, True
    except StorageError:
        return None, False


def batched(items: Iterable[T], make: Callable[[tuple[T, ...]], RefBatch]) -> Iterator[RefBatch]:
    """Make a batch of every :data:`BATCH_IMAGES` items."""
    iterator = iter(items)
    while chunk := tuple(itertools.islice(iterator, BATCH_IMAGES)):
        yield make(chunk)


def merge_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add up counts by name."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _tasks_of(written: str, source: SourceSettings) -> list[ListTask]:
    uri = storage.normalize(written)
    kind = source.kind if source.kind != "auto" else _guess_kind(uri, is_folder=written.endswith("/"))
    if kind in ("list", "image_list") and storage.has_glob(uri):
        found = sorted(file.uri for file in storage.list_matching(uri))
        return [ListTask(kind, file) for file in found] or [ListTask(kind, uri)]
    if kind == "image_list" and (storage.is_local_folder(uri) or written.endswith("/")):
        # Spark, Dask and others write a table as a folder of files.
        tables = (found for found in folders.of_folder(uri, exclusion(_NO_TABLES)) if not found.skipped)
        files = sorted(found.file.uri for found in tables if image_lists.is_parquet(found.file.uri))
        return [ListTask(kind, file, root=uri) for file in files] or [ListTask(kind, uri)]
    return [ListTask(kind, uri, root=uri if kind == "folder" else "")]


def _guess_kind(uri: str, is_folder: bool) -> Literal["folder", "glob", "list", "image_list"]:
    if is_folder and not storage.has_glob(uri):
        return "image_list" if image_lists.is_parquet(uri) else "folder"
    # A bucket's name may hold dots.
    extension = "" if storage.parent(uri).endswith(":") else extension_of(uri)
    if extension and (kind := image_lists.kind_of_list(uri)) is not None:
        return kind
    if storage.is_local_folder(uri):
        return "folder"
    if storage.has_glob(uri):
        return "glob"
    # An object store has no folders: a last segment with an extension is an object, anything else a prefix.
    return "glob" if extension or storage.is_local(uri) else "folder"


def _content(task: ListTask, exclude: Exclusion) -> Iterator[Found]:
    """What a folder or glob holds."""
    root = task.root or task.uri
    if task.kind == "files":
        return folders.files(task.uri, root, exclude)
    if task.kind == "glob":
        return folders.matching(task.uri, exclude)
    return folders.walk(task.uri, root, exclude) if storage.is_local(task.uri) else folders.below(task.uri, exclude)


def _folder_batch(found: tuple[Found, ...], task: ListTask, source: SourceSettings, videos: frozenset[str]) -> RefBatch:
    if task.kind == "glob":  # a glob names its files, whatever their extension
        kept = [one for one in found if not one.skipped]
        skipped = Counter(one.skipped for one in found if one.skipped)
    else:
        kept, skipped = folders.wanted(found, source, videos)
    return RefBatch(tuple(_ref_of_found(one, task.root, source, videos) for one in kept), dict(skipped))


def _list_rows(task: ListTask, source: SourceSettings, videos: frozenset[str]) -> Iterator[RefBatch]:
    """The images that a list names."""
    places = _allowed_places(task, source)
    if not image_lists.is_parquet_list(task.uri, source):
        rows = image_lists.read_rows(task.uri, task.part, source, task.root)
        yield from batched((_ref_of_row(row, source, places, videos) for row in rows), RefBatch)
        return
    rule = ListRule(source, image_lists.base_of(task.uri, task.root), places, videos)
    for batch in image_lists.read_batches(task.uri, task.part, source, task.root):
        found = columns_of_batch(batch, rule)
        if found is None:
            rows = image_lists.rows_of_batch(batch, task.uri, source, task.root)
            yield from batched((_ref_of_row(row, source, places, videos) for row in rows), RefBatch)
            continue
        for start in range(0, found.num_rows, BATCH_IMAGES):
            yield RefBatch.of_columns(found.slice(start, BATCH_IMAGES))


def _ref_of_found(found: Found, root: str, source: SourceSettings, videos: frozenset[str]) -> ImageRef:
    file = found.file
    ref = ImageRef(file.uri, file.size_bytes, file.version, segment=_uncut(file.uri, videos))
    if not _is_utf8(file.uri):
        shown = file.uri.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        problem = (FailureCode.PATH_MISMATCH.value, "the path is not UTF-8; rename the file")
        ref = ref._replace(uri=shown, problem=problem)
    ref = _with_template(ref, root, source)
    return ref if found.problem is None or ref.problem is not None else ref._replace(problem=found.problem)


def _is_utf8(path: str) -> bool:
    """Whether a path is free of surrogates, Python's stand-ins for bytes that are not UTF-8; no table can hold them."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _uncut(uri: str, videos: frozenset[str]) -> Segment | None:
    """:data:`UNCUT` for a video, told by its extension; else ``None``."""
    return UNCUT if videos and extension_of(uri) in videos else None


def _ref_of_row(
    row: image_lists.Row, source: SourceSettings, places: tuple[str, ...], videos: frozenset[str]
) -> ImageRef:
    ref = ImageRef(row.uri, row.size_bytes, row.version, problem=row.problem, segment=_uncut(row.uri, videos))
    if ref.problem is None and not _is_allowed(ref.uri, places):
        message = f"outside the list's own folder and source.allowed = {list(source.allowed)}"
        ref = ref._replace(problem=(FailureCode.NOT_ALLOWED.value, message))
    ref = _with_template(ref, "", source)
    keys = (*ref.keys[: len(ref.keys) - len(row.keys)], *row.keys)
    return ref._replace(
        keys=tuple(key if key is None or key.isascii() else unicodedata.normalize("NFC", key) for key in keys),
        captured_at_ms=row.captured_at_ms if row.captured_at_ms is not None else ref.captured_at_ms,
    )


def _allowed_places(task: ListTask, source: SourceSettings) -> tuple[str, ...]:
    """Prefixes of the URIs that a list may name."""
    own = storage.normalize(image_lists.folder_of(task.uri, task.root) or ".")
    places = [own, *(storage.normalize(place) for place in source.allowed if place != _ANYWHERE)]
    return ("",) if _ANYWHERE in source.allowed else tuple(f"{place.rstrip('/')}/" for place in places)


def _is_allowed(uri: str, places: tuple[str, ...]) -> bool:
    return uri.startswith(places)


def _refuse_if_all_outside(task: ListTask, source: SourceSettings) -> None:
    """Refuse a list whose first images all lie where it may not name any, rather than fail each of them."""
    places = _allowed_places(task, source)
    first = itertools.islice(image_lists.read_rows(task.uri, -1, source, task.root), _LOOK_AT_ROWS)
    uris = [row.uri for row in first if row.problem is None]
    if uris and not any(_is_allowed(uri, places) for uri in uris):
        where = storage.parent(uris[0])
        raise SourceError(
            f"--input {task.uri}",
            f"images in {places[0]}" + (f" or source.allowed = {list(source.allowed)}" if source.allowed else ""),
            uris[0],
            f"If the list is to be trusted, allow the place: --set 'source.allowed=[\"{where}\"]'.",
        )


def _with_template(ref: ImageRef, root: str, source: SourceSettings) -> ImageRef:
    """Read keys and capture time from the image's path; without a template they stay unknown."""
    template = source.path_template
    unknown = (None,) * len(source.key_names)
    if template is None or ref.problem is not None:
        return ref._replace(keys=unknown)
    timezone = ZoneInfo(source.timezone)
    path = ref.uri[len(root) :].lstrip("/") if root else ref.uri
    found = template.match(path, timezone) if root else template.match_tail(path, timezone)
    if found is not None:
        return ref._replace(keys=(*found.keys, *unknown[len(found.keys) :]), captured_at_ms=found.captured_at_ms)
    if source.on_mismatch == "refuse_run":
        raise SourceError(
            "source.template",
            f"every path to fit {template.text!r}",
            path,
            "Move the file, widen the template, or set source.on_mismatch to failure_row.",
        )
    message = f"{path!r} does not fit source.template {template.text!r}"
    return ref._replace(keys=unknown, problem=(FailureCode.PATH_MISMATCH.value, message))
