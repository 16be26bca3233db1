"""A run's tables as one Arrow table each, whatever storage they lie on and whatever keys are folders."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

import pyarrow as pa

from maskdet import storage
from maskdet.inputs.references import HIVE_NULL
from maskdet.tables.layout import Layout, read_table

_READERS = 16  # over a network nearly all of a read is waiting


def read_rows(layout: Layout, table: str, schema: pa.Schema, folder_keys: Sequence[str] = ()) -> pa.Table:
    """All rows of one of an output's tables, in the order of its files' names.

    Args:
        layout: the output.
        table: ``"predictions"``, ``"failures"`` or ``"no_face"``.
        schema: that of its files.
        folder_keys: keys that are folders; they become the last columns, as text.

    Returns:
        A table without rows where no file is there.

    Raises:
        StorageError: the output cannot be read.
    """
    files = [file.uri for file in storage.list_folder(layout.folder(table)) if file.uri.endswith(".parquet")]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="rows") as pool:
        parts = list(pool.map(lambda uri: _with_keys(read_table(uri), uri, folder_keys), sorted(files)))
    empty = pa.schema([*schema, *(pa.field(name, pa.string()) for name in folder_keys)]).empty_table()
    return pa.concat_tables([part.cast(empty.schema) for part in parts]) if parts else empty


def _with_keys(rows: pa.Table, uri: str, folder_keys: Sequence[str]) -> pa.Table:
    folders = dict(folder.split("=", 1) for folder in uri.split("/") if "=" in folder)
    for name in folder_keys:
        value = None if folders[name] == HIVE_NULL else unquote(folders[name])
        rows = rows.append_column(name, pa.array([value] * rows.num_rows, pa.string()))
    return rows
