"""Where a run's files lie under its output, and how its tables are written.

    predictions/site=a/date=2026-01-05/shard-all.parquet    one row a face
    failures/3f2a9c51d07be864.parquet                       one row a failed image; a file a shard that has any
    no_face/3f2a9c51d07be864.parquet                        one row an image without a face; a file a shard that has any
    compliance/level=site_hour/groups.parquet               one row a group
    _shards/site=a/date=2026-01-05/shard-all.json           receipt of a finished shard, written after its tables
    _runs/20260105T081500Z-3f2a9c.json                      run manifest
    _runs/20260105T081500Z-3f2a9c.heartbeat                 its latest sign of life
    _lease.json                                             who writes this output, while someone does
    _plan.json                                              the shards of the latest run
    _dataset.json                                           what the tables are made of
    _SUCCESS                                                the last run's id, once everything above is complete

A shard's files are named by its slot, so that a shard whose images changed replaces its rows in one step, file by file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from maskdet import storage
from maskdet.inputs.references import partition_path

PREDICTIONS = "predictions"
FAILURES = "failures"
NO_FACE = "no_face"
SHARD_TABLES = (PREDICTIONS, FAILURES, NO_FACE)
COMPLIANCE = "compliance"
RECEIPTS = "_shards"
RUNS = "_runs"
SUCCESS = "_SUCCESS"
DATASET = "_dataset.json"
PLAN = "_plan.json"
LEASE = "_lease.json"


@dataclass(frozen=True)
class Layout:
    """Names of the files of one output.

    Attributes:
        root: the output's location.
    """

    root: str

    def table(self, table: str, slot: str) -> str:
        """A shard's file of the predictions, which are partitioned, or of another table, which is not."""
        name = slot if table == PREDICTIONS else hashlib.sha256(slot.encode()).hexdigest()[:16]
        return storage.join(self.root, table, f"{name}.parquet")

    def receipt(self, slot: str) -> str:
        """A shard's receipt."""
        return storage.join(self.root, RECEIPTS, f"{slot}.json")

    def compliance(self, level: str) -> str:
        """The compliance table of a level."""
        return storage.join(self.root, COMPLIANCE, partition_path(["level"], [level]), "groups.parquet")

    def run(self, run_id: str) -> str:
        """A run's manifest."""
        return storage.join(self.root, RUNS, f"{run_id}.json")

    def heartbeat(self, run_id: str) -> str:
        """A run's latest sign of life."""
        return storage.join(self.root, RUNS, f"{run_id}.heartbeat")

    @property
    def lease(self) -> str:
        """Who writes the output."""
        return storage.join(self.root, LEASE)

    @property
    def success(self) -> str:
        """The mark of a complete output."""
        return storage.join(self.root, SUCCESS)

    @property
    def dataset(self) -> str:
        """What the tables are made of."""
        return storage.join(self.root, DATASET)

    @property
    def plan(self) -> str:
        """The shards of the latest run."""
        return storage.join(self.root, PLAN)

    def folder(self, name: str) -> str:
        """A top-level folder."""
        return storage.join(self.root, name)


# Names that runs give files in the tables' folders; a local write leaves `.NAME.<hex>.tmp` when it is killed.
_NAMES = {
    PREDICTIONS: r"shard-(all|[01]+)\.parquet",
    FAILURES: r"[0-9a-f]{16}\.parquet",
    NO_FACE: r"[0-9a-f]{16}\.parquet",
    COMPLIANCE: r"groups\.parquet",
    RECEIPTS: r"shard-(all|[01]+)\.json",
}
_OURS = {folder: re.compile(rf"{name}|\.{name}\.[0-9a-f]+\.tmp") for folder, name in _NAMES.items()}


def is_ours(folder: str, uri: str) -> bool:
    """Whether a file in one of the tables' folders has a name that a run gives it."""
    return _OURS[folder].fullmatch(uri.rsplit("/", 1)[-1]) is not None


def write_table(uri: str, table: pa.Table, row_group_rows: int, metadata: Mapping[str, str] | None = None) -> str:
    """Write a table as Parquet, atomically: zstd, sized row groups, statistics.

    Args:
        uri: where to.
        table: what; never empty, since some readers stumble over files without rows.
        row_group_rows: rows a row group.
        metadata: more entries for the schema's metadata.

    Returns:
        SHA-256 of the file, in hexadecimal.

    Raises:
        StorageError: the location cannot be written.
    """
    assert table.num_rows > 0, f"{uri}: a table without rows is not written"
    described = table.replace_schema_metadata({**(table.schema.metadata or {}), **(metadata or {})})
    sink = pa.BufferOutputStream()
    pq.write_table(
        described, sink, compression="zstd", row_group_size=row_group_rows, write_statistics=True, store_schema=True
    )
    data = sink.getvalue().to_pybytes()
    storage.write_bytes(uri, data)
    return hashlib.sha256(data).hexdigest()


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file, without taking its folders for columns.

    Raises:
        StorageError: the file is missing or cannot be read.
        pyarrow.ArrowException: the file is no Parquet.
    """
    with storage.open_binary(uri) as stream:
        return pq.ParquetFile(stream).read(columns=columns)
