"""The end of a run: its set of tables replaces the one before, and the tables' folders follow.

Whatever dies on the way, the snapshot names a complete set: the old one or the new one. What remains to be done in the
folders is recorded in the snapshot too, and the next run does it.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from maskdet import storage
from maskdet.tables.layout import (
    COMPLIANCE,
    FILES,
    RECEIPTS,
    RUNS,
    SHARD_TABLES,
    VIDEO_TABLES,
    Layout,
    is_left_by_kill,
    is_ours,
    is_record_left_by_kill,
)
from maskdet.tables.snapshot import Snapshot, decode_snapshot, read_snapshot_bytes

TABLE_FOLDERS = (*SHARD_TABLES, COMPLIANCE, *VIDEO_TABLES)
_WRITERS = 16  # files are small: over a network, a write is nearly all waiting


def missing_version(layout: Layout, snapshot: Snapshot) -> str | None:
    """A missing file of the set, if there is one.

    Raises:
        StorageError: the output cannot be listed.
    """
    present = {file.uri for file in storage.list_folder(layout.folder(FILES))}
    return min(snapshot.versions(layout) - present, default=None)


def commit(layout: Layout, snapshot: Snapshot, base_run: str | None) -> bool:
    """Make a set of tables, whose files all exist, the current one, if the base run's set still is.

    Args:
        layout: the output.
        snapshot: the new set.
        base_run: the run that left the set from which the new one was made; ``None`` if there was none.

    Returns:
        Whether it is the current set now; also true if the same set is committed again.

    Raises:
        StorageError: the output cannot be read or written.
    """
    content = read_snapshot_bytes(layout)
    found = None if content is None else decode_snapshot(layout, content)
    if found is not None and found.run_id == snapshot.run_id:
        return True
    if (None if found is None else found.run_id) != base_run:
        return False
    if found is not None:
        old, new = found.versions(layout), snapshot.versions(layout)
        tables = (*found.tables(layout), *(storage.join(layout.root, name) for name in found.leftover))
        snapshot = snapshot.model_copy(
            update={
                "previous": _relative(layout, old - new),
                "leftover": _relative(layout, set(tables) - set(snapshot.tables(layout))),
            }
        )
    if storage.write_if(layout.snapshot, content, snapshot.encode()):
        return True
    found_now = read_snapshot_bytes(layout)
    return found_now is not None and decode_snapshot(layout, found_now).run_id == snapshot.run_id


def publish(layout: Layout, base: Snapshot | None) -> int:
    """Bring the tables' folders in line with the current set, and remove what no reader needs any more.

    Only files that runs wrote are removed: those that a snapshot named, and those of an unfinished run.

    Args:
        layout: the output.
        base: the set that was current before.

    Returns:
        How many files of earlier sets were removed from the tables' folders.

    Raises:
        StorageError: the output cannot be read or written.
    """
    content = read_snapshot_bytes(layout)
    assert content is not None, "a set is current before it is published"
    snapshot = decode_snapshot(layout, content)
    wanted = snapshot.tables(layout)
    known = base.tables(layout) if base is not None and base.published else {}
    present = {file.uri: folder for folder in TABLE_FOLDERS for file in storage.list_folder(layout.folder(folder))}

    def is_current(table: str) -> bool:
        version = wanted[table]
        return table in present and known.get(table) == version and storage.is_same_file(table, version)

    todo = [table for table in wanted if not is_current(table)]
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="publish") as pool:
        list(pool.map(lambda table: storage.link_or_copy(wanted[table], table), todo))
    leftover = {storage.join(layout.root, name) for name in snapshot.leftover}
    stale = [uri for uri in present if uri in leftover and uri not in wanted]
    storage.delete([*stale, *(uri for uri, folder in present.items() if is_left_by_kill(folder, uri))])
    _collect(layout, snapshot)
    _sweep(layout, snapshot.run_id)
    storage.remove_empty_folders(layout.folder(folder) for folder in (*TABLE_FOLDERS, RECEIPTS, FILES))
    published = snapshot.model_copy(update={"leftover": (), "published": True})
    storage.write_if(layout.snapshot, content, published.encode())
    return len(stale)


def missing_table(layout: Layout, snapshot: Snapshot) -> str | None:
    """A file that is missing from the tables' folders, if there is one.

    Raises:
        StorageError: the output cannot be listed.
    """
    present = {file.uri for folder in TABLE_FOLDERS for file in storage.list_folder(layout.folder(folder))}
    return min(set(snapshot.tables(layout)) - present, default=None)


def _collect(layout: Layout, snapshot: Snapshot) -> None:
    """Remove versions that are in neither the current set nor the one before, and receipts of former shards."""
    kept = snapshot.versions(layout) | {storage.join(layout.root, name) for name in snapshot.previous}
    kept |= {layout.receipt(shard.slot) for shard in snapshot.shards}
    for folder in (FILES, RECEIPTS):
        found = storage.list_folder(layout.folder(folder))
        storage.delete([file.uri for file in found if file.uri not in kept and is_ours(folder, file.uri)])


def _sweep(layout: Layout, run_id: str) -> None:
    """Remove what killed writes left of records; object stores have none, since uploads are all or nothing."""
    if storage.is_local(layout.root):
        records = [*storage.list_files(layout.root), *storage.list_folder(layout.folder(RUNS))]
        storage.delete([file.uri for file in records if is_record_left_by_kill(file.uri, run_id)])


def _relative(layout: Layout, uris: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(uri[len(layout.root) + 1 :] for uri in uris))
