"""Where a run's files lie under its output, and how its tables are written.

    predictions/site-a/date-2026-01-05/shard-all.parquet        one row per face
    failures/3f2a9c51d07be864.parquet                           one row per failed image; a file a shard that has any
    no_face/3f2a9c51d07be864.parquet                            the same of images without a face
    compliance/level=site_hour/groups.parquet                   one row per group
    tracks/3f.parquet                                           one row per person in a video
    track_rates/level=site_hour/groups.parquet                  one row per group
    _snapshot.json                                              the set of tables as of the last run that finished
    _files/predictions/site-a/…/shard-all-<sha256>.pq           the same tables under names that never change
    _files/images/site-a/…/shard-all-<sha256>.pq                what a shard remembers of its images
    _shards/site-a/date-2026-01-05/shard-all.json               receipt of a finished shard, written after its tables
    _runs/20260105T081500Z-3f2a9c.json                          run record
    _runs/20260105T081500Z-3f2a9c.heartbeat                     its latest sign of life
    _lease.json                                                 who writes this output, while someone does
    _plan.json                                                  the shards of the latest run
    _delta.json                                                 the run whose tables the Delta tables show
    corrections.parquet                                         labels that people gave, where they did
    _SUCCESS                                                    the last run's id, once everything above is complete

A run writes its tables below ``_files``, under names made from their content, so that nothing changes under a
reader. At its end it replaces the snapshot in one step and then brings the tables' own folders in line with it. The
files of the set before stay below ``_files`` until the next run ends. Their names do not end in ``.parquet``, so that a
reader who globs the whole output does not see rows twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from maskdet import storage
from maskdet.errors import NotFoundError
from maskdet.inputs.references import partition_path

PREDICTIONS = "predictions"
FAILURES = "failures"
NO_FACE = "no_face"
SHARD_TABLES = (PREDICTIONS, FAILURES, NO_FACE)
COMPLIANCE = "compliance"
TRACKS = "tracks"
TRACK_RATES = "track_rates"
VIDEO_TABLES = (TRACKS, TRACK_RATES)
"""Tables that only outputs with videos have."""
RECEIPTS = "_shards"
RUNS = "_runs"
SUCCESS = "_SUCCESS"
SNAPSHOT = "_snapshot.json"
FILES = "_files"
IMAGES = "images"
NO_ROWS = "no-rows"
"""Name of a table's file without rows, from which readers learn its columns."""
PLAN = "_plan.json"
LEASE = "_lease.json"
DELTA_MARK = "_delta.json"


@dataclass(frozen=True)
class Layout:
    """The names of an output's files.

    Attributes:
        root: the output's location.
    """

    root: str

    def table(self, table: str, slot: str) -> str:
        """A shard's file of the predictions, which are partitioned, or of another table, which is not."""
        name = slot if table == PREDICTIONS else hashlib.sha256(slot.encode()).hexdigest()[:16]
        return storage.join(self.root, table, f"{name}.parquet")

    def no_rows(self, table: str) -> str:
        """The file of a table for which no shard has rows."""
        return storage.join(self.root, table, f"{NO_ROWS}.parquet")

    def version(self, table: str, name: str, sha256: str) -> str:
        """A file of the set of tables, under a name whose content never changes.

        Args:
            table: a shard's table, or the compliance tables.
            name: the shard's slot, the compliance level, or :data:`NO_ROWS`.
            sha256: of the file.
        """
        return storage.join(self.root, FILES, table, f"{name}-{sha256[:20]}.pq")

    def receipt(self, slot: str) -> str:
        """A shard's receipt."""
        return storage.join(self.root, RECEIPTS, f"{slot}.json")

    def compliance(self, level: str) -> str:
        """The compliance table of a level."""
        return storage.join(self.root, COMPLIANCE, partition_path(["level"], [level]), "groups.parquet")

    def tracks(self, name: str) -> str:
        """A file of tracks."""
        return storage.join(self.root, TRACKS, f"{name}.parquet")

    def track_rates(self, level: str) -> str:
        """The rates of tracks of a level."""
        return storage.join(self.root, TRACK_RATES, partition_path(["level"], [level]), "groups.parquet")

    def run(self, run_id: str) -> str:
        """A run's record."""
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
    def snapshot(self) -> str:
        """The current set of tables."""
        return storage.join(self.root, SNAPSHOT)

    @property
    def plan(self) -> str:
        """The shards of the latest run."""
        return storage.join(self.root, PLAN)

    @property
    def delta_mark(self) -> str:
        """Which run's tables the Delta tables show, where there are any."""
        return storage.join(self.root, DELTA_MARK)

    def folder(self, name: str) -> str:
        """A top-level folder."""
        return storage.join(self.root, name)


# Names that runs give their files; a local write that is killed leaves `.NAME.<hex>.tmp`.
_SHARD_NAME = r"shard-(?:all|[01]+)"
_NAMES = {
    PREDICTIONS: rf"(?:{_SHARD_NAME}|{NO_ROWS})\.parquet",
    FAILURES: rf"(?:[0-9a-f]{{16}}|{NO_ROWS})\.parquet",
    NO_FACE: rf"(?:[0-9a-f]{{16}}|{NO_ROWS})\.parquet",
    COMPLIANCE: r"groups\.parquet",
    TRACKS: rf"(?:[0-9a-f]{{2}}|{NO_ROWS})\.parquet",
    TRACK_RATES: r"groups\.parquet",
    RECEIPTS: rf"{_SHARD_NAME}\.json",
    FILES: r"[a-z0-9_-]+-[0-9a-f]{20}\.pq",
}
_OURS = {folder: re.compile(name) for folder, name in _NAMES.items()}
_LEFT_BY_KILLS = {folder: re.compile(rf"\.{name}\.[0-9a-f]+\.tmp") for folder, name in _NAMES.items()}

_RECORD_LEFT = re.compile(
    r"\.(?:_SUCCESS|_(?:plan|snapshot|lease|delta)\.json|[0-9TZ.]+-[0-9a-f]{6}\.(?:json|heartbeat))\.[0-9a-f]+\.tmp"
)


def is_ours(folder: str, uri: str) -> bool:
    """Whether a file in one of an output's folders has a name that runs give."""
    return _OURS[folder].fullmatch(uri.rsplit("/", 1)[-1]) is not None or is_left_by_kill(folder, uri)


def is_record_left_by_kill(uri: str, run_id: str) -> bool:
    """Whether a file beside the tables' folders, or among run records, was left by a killed write of another run."""
    name = uri.rsplit("/", 1)[-1]
    return _RECORD_LEFT.fullmatch(name) is not None and run_id not in name


def is_left_by_kill(folder: str, uri: str) -> bool:
    """Whether a file was left by a write of ours that was killed halfway."""
    return _LEFT_BY_KILLS[folder].fullmatch(uri.rsplit("/", 1)[-1]) is not None


def encode_table(table: pa.Table, row_group_rows: int, metadata: Mapping[str, str] | None = None) -> bytes:
    """A table as Parquet: zstd, row groups of a fixed size, statistics; the same bytes for the same rows.

    Args:
        table: the table.
        row_group_rows: rows per row group.
        metadata: more entries for the schema's metadata.
    """
    described = table.replace_schema_metadata({**(table.schema.metadata or {}), **(metadata or {})})
    sink = pa.BufferOutputStream()
    pq.write_table(
        described, sink, compression="zstd", row_group_size=row_group_rows, write_statistics=True, store_schema=True
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_table(uri: str, table: pa.Table, row_group_rows: int, metadata: Mapping[str, str] | None = None) -> str:
    """Write a table as :func:`encode_table` encodes it, atomically.

    Args:
        uri: where to.
        table: the table; never empty, since some readers stumble over files without rows.
        row_group_rows: rows per row group.
        metadata: more entries for the schema's metadata.

    Returns:
        SHA-256 of the file, in hexadecimal.

    Raises:
        StorageError: the location cannot be written.
    """
    assert table.num_rows > 0, f"{uri}: a table without rows is not written"
    data = encode_table(table, row_group_rows, metadata)
    storage.write_bytes(uri, data)
    return hashlib.sha256(data).hexdigest()


def write_version(
    layout: Layout,
    table: str,
    name: str,
    rows: pa.Table,
    row_group_rows: int,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Write a file of the set of tables, like :func:`write_table`, where :meth:`Layout.version` says.

    Raises:
        StorageError: the location cannot be written.
    """
    data = encode_table(rows, row_group_rows, metadata)
    sha256 = hashlib.sha256(data).hexdigest()
    storage.write_bytes(layout.version(table, name, sha256), data)
    return sha256


def read_version(
    layout: Layout, table: str, name: str, sha256: str, columns: list[str] | None = None
) -> pa.Table | None:
    """Read a file of the set of tables; ``None`` if it is gone, or not the one that was written.

    Raises:
        StorageError: the location cannot be read.
    """
    try:
        data = storage.read_bytes(layout.version(table, name, sha256))
    except NotFoundError:
        return None
    # Parsing damaged Parquet instead would raise errors of many kinds, or raise none and give wrong rows.
    if hashlib.sha256(data).hexdigest() != sha256:
        return None
    return pq.ParquetFile(pa.BufferReader(data)).read(columns)


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file without turning its folders into columns.

    Raises:
        StorageError: the file is missing or cannot be read.
        pyarrow.ArrowException: the file is not Parquet.
    """
    with storage.open_binary(uri) as stream:
        return pq.ParquetFile(stream).read(columns=columns)
