"""Delta Lake tables over the files of an output: one commit for each change of its set of tables, and no data copied.

The data files are those below ``_files``, whose content never changes; a commit names the files that joined or left the
table since the previous commit. Compliance tables and rates of tracks have one Delta table each for all levels,
partitioned by ``level``. The extra ``maskdet[delta]`` installs deltalake (delta-rs), which writes the logs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from maskdet import storage
from maskdet.errors import OutputError, missing_package
from maskdet.tables.layout import COMPLIANCE, FILES, SHARD_TABLES, TRACK_RATES, VIDEO_TABLES, Layout
from maskdet.tables.snapshot import Snapshot, current_snapshot

if TYPE_CHECKING:
    from deltalake import DeltaTable, PostCommitHookProperties
    from deltalake.transaction import AddAction, RemoveAction

_BY_LEVEL = "level"
_BY_LEVELS = (COMPLIANCE, TRACK_RATES)
_ATTEMPTS = 5  # another commit may come between reading a log and adding to it


class DeltaCommit(NamedTuple):
    """A Delta table, and what a commit changed in it."""

    table: str
    uri: str
    """Where readers open the table."""
    version: int
    files_added: int
    files_removed: int


_Partition = dict[str, str | None]


def commit_delta(output: str, store_options: Mapping[str, str] | None = None) -> list[DeltaCommit]:
    """Bring the Delta tables of an output in line with its current set of tables.

    A table whose files have not changed gets no commit.

    Args:
        output: the output of scoring runs.
        store_options: options of delta-rs, for stores that need more than the environment provides.

    Returns:
        One element for each table of the set.

    Raises:
        ConfigError: deltalake is not installed.
        SourceError: no run has finished there.
        OutputError: the log cannot be read or written.
        StorageError: the output cannot be read.
    """
    _require_deltalake()
    layout = Layout(storage.normalize(output))
    snapshot = storage.within_deadline(lambda: current_snapshot(layout), layout.root)
    files = {file.uri: file.size_bytes for file in storage.list_folder(layout.folder(FILES))}
    tables = [*SHARD_TABLES, COMPLIANCE]
    tables += [table for table in VIDEO_TABLES if snapshot.files(layout, table)]
    return [_commit(layout, snapshot, table, files, dict(store_options or {})) for table in tables]


def _commit(
    layout: Layout, snapshot: Snapshot, table: str, sizes: Mapping[str, int], options: dict[str, str]
) -> DeltaCommit:
    from deltalake.exceptions import CommitFailedError, DeltaError  # heavy, and an extra

    uri = delta_uri(layout, table)
    wanted = dict(_data_files(layout, snapshot, table))
    lost = min((path for path in wanted if storage.join(uri, path) not in sizes), default=None)
    if lost is not None:
        raise OutputError(
            storage.join(uri, lost), "a file of the current tables", "nothing", "Run maskdet score again."
        )
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _bring_in_line(table, uri, wanted, sizes, options)
        except CommitFailedError as error:
            if attempt == _ATTEMPTS:
                raise _log_fault(uri, error) from error
        except (DeltaError, OSError) as error:
            raise _log_fault(uri, error) from error
    raise AssertionError("the last attempt returns or raises")


def _bring_in_line(
    table: str, uri: str, wanted: Mapping[str, _Partition], sizes: Mapping[str, int], options: dict[str, str]
) -> DeltaCommit:
    from deltalake import DeltaTable, Schema  # heavy, and an extra
    from deltalake.transaction import create_table_with_add_actions

    partition_by = [_BY_LEVEL] if table in _BY_LEVELS else []
    schema = Schema.from_arrow(_schema(storage.join(uri, min(wanted)), partition_by))
    location = str(storage.local_path(uri)) if storage.is_local(uri) else uri
    if not DeltaTable.is_deltatable(location, options):
        adds = [_add(uri, path, partition, sizes) for path, partition in wanted.items()]
        create_table_with_add_actions(
            location, schema, adds, "error", partition_by, storage_options=options, post_commithook_properties=_hooks()
        )
        return DeltaCommit(table, uri, 0, len(adds), 0)
    delta = DeltaTable(location, storage_options=options)
    present = dict(_present(delta))
    # Where the columns differ, as after --overwrite with other keys, all files are replaced.
    anew = delta.schema().to_json() != schema.to_json()
    new = {path: partition for path, partition in wanted.items() if anew or path not in present}
    adds = [_add(uri, path, partition, sizes) for path, partition in new.items()]
    gone = sorted(path for path in present if anew or path not in wanted)
    if adds or gone:
        actions: list[AddAction | RemoveAction] = [*adds]
        actions += [] if anew else [_remove(path, *present[path]) for path in gone]
        mode = "overwrite" if anew else "append"
        delta.create_write_transaction(actions, mode, schema, partition_by, post_commithook_properties=_hooks())
        delta.update_incremental()
    return DeltaCommit(table, uri, delta.version(), len(adds), len(gone))


def _add(uri: str, path: str, partition: _Partition, sizes: Mapping[str, int]) -> AddAction:
    from deltalake.transaction import AddAction

    place = storage.join(uri, path)
    with storage.open_binary(place) as stream:
        rows = pq.ParquetFile(stream).metadata.num_rows
    return AddAction(path, sizes[place], partition, _now_ms(), True, json.dumps({"numRecords": rows}))


def _remove(path: str, size_bytes: int, partition: _Partition) -> RemoveAction:
    from deltalake.transaction import RemoveAction

    return RemoveAction(path, True, _now_ms(), size_bytes, partition)


def _hooks() -> PostCommitHookProperties:
    """No checkpoints: they are Parquet files, and readers that search folders for Parquet would take them for data."""
    from deltalake import PostCommitHookProperties

    return PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _require_deltalake() -> None:
    try:
        import deltalake  # noqa: F401
    except ImportError as error:
        raise missing_package("maskdet delta", "deltalake", "delta") from error


def _log_fault(uri: str, error: Exception) -> OutputError:
    # delta-rs colours its messages, breaks their lines, and may append a stack trace.
    received = " ".join(re.sub(r"\x1b\[\d+m|↳", "", str(error)).split())
    received = re.split(r" (?:stack )?backtrace:", received, maxsplit=1, flags=re.IGNORECASE)[0]
    remedy = (
        "Check write access to the folder, the credentials and --store-option. Only if the log itself is damaged, "
        "delete its _delta_log to begin anew."
    )
    return OutputError(uri, "a Delta log that can be read and added to", received, remedy)


def delta_uri(layout: Layout, table: str) -> str:
    """The location at which readers open a table's Delta table."""
    return storage.join(layout.root, FILES, table)


def _data_files(layout: Layout, snapshot: Snapshot, table: str) -> Iterator[tuple[str, _Partition]]:
    """Each file that the table should hold: its path below the table's folder, and its partition."""
    below = len(delta_uri(layout, table)) + 1
    if table not in _BY_LEVELS:
        yield from ((uri[below:], {}) for uri in snapshot.files(layout, table))
        return
    for level in snapshot.compliance if table == COMPLIANCE else snapshot.track_rates or {}:
        for uri in snapshot.files(layout, table, level):
            yield uri[below:], {_BY_LEVEL: level}


def _present(delta: DeltaTable) -> Iterator[tuple[str, tuple[int, _Partition]]]:
    """Each file that the log names: its path, and its size and partition."""
    for action in pa.table(delta.get_add_actions(flatten=True)).to_pylist():
        partition = {_BY_LEVEL: action[f"partition.{_BY_LEVEL}"]} if f"partition.{_BY_LEVEL}" in action else {}
        yield unquote(action["path"]), (action["size_bytes"], partition)


def _schema(uri: str, partition_by: Iterable[str]) -> pa.Schema:
    """Columns of a file and of the partition, without metadata that only Parquet can hold."""
    with storage.open_binary(uri) as stream:
        found = pq.ParquetFile(stream).schema_arrow
    fields = [pa.field(field.name, field.type, True) for field in found]
    return pa.schema([*fields, *(pa.field(name, pa.string(), True) for name in partition_by)])
