"""A run's tables as one Arrow table each, in whatever storage they are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from maskdet.schemas import conform
from maskdet.tables.layout import Layout, read_table
from maskdet.tables.snapshot import read_snapshot

_READERS = 16  # over a network, a read is nearly all waiting


def read_rows(layout: Layout, table: str, schema: pa.Schema) -> pa.Table:
    """All rows of one of an output's tables as of the last finished run, in the order of its files' names.

    Args:
        layout: the output.
        table: ``"predictions"``, ``"failures"`` or ``"no_face"``.
        schema: its files' schema.

    Returns:
        A table without rows where no run has finished.

    Raises:
        OutputError: the tables are of another version.
        StorageError: the output cannot be read.
    """
    snapshot = read_snapshot(layout)
    files = [] if snapshot is None else snapshot.files(layout, table)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="rows") as pool:
        parts = list(pool.map(read_table, files))
    return pa.concat_tables([conform(part, schema) for part in parts]) if parts else schema.empty_table()
