"""The set of tables in an output: which files, of which images, and how they were made.

The snapshot is replaced in one step at the end of a run; a reader who follows it sees the tables from before or after
a run as one set, and can go on using that set until the run after the next ends.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from maskdet import storage
from maskdet.errors import NotFoundError, OutputError
from maskdet.schemas import SCHEMA_VERSION
from maskdet.tables.layout import COMPLIANCE, NO_ROWS, PREDICTIONS, SHARD_TABLES, TRACK_RATES, TRACKS, Layout
from maskdet.tables.missing import missing_tables
from maskdet.tables.receipts import Receipt


class Dataset(BaseModel):
    """What all runs over an output have in common; rows of a run that differs would not fit the others'."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    key_names: tuple[str, ...]
    partition_by: tuple[str, ...]
    timezone: str = "UTC"
    carried: tuple[str, ...] | None = None
    """The keys that do not say where an image is from; ``None`` if there are none."""
    uri_key: str | None = None
    """Fingerprint of the key with which names of images are hashed; ``None`` if they are plain."""

    @property
    def place_names(self) -> tuple[str, ...]:
        """The other keys."""
        return tuple(name for name in self.key_names if name not in (self.carried or ()))


class Snapshot(BaseModel):
    """The content of ``_snapshot.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    """The run that wrote it."""
    dataset: Dataset
    inputs: tuple[str, ...]
    """Inputs of all runs whose images it has."""
    shards: tuple[Receipt, ...]
    compliance: dict[str, str]
    """Level → SHA-256 of its table."""
    tracks: dict[str, str] | None = None
    """Name → SHA-256 of each file of tracks; ``None`` without videos."""
    track_rates: dict[str, str] | None = None
    """Level → SHA-256 of the rates of its tracks."""
    no_rows: dict[str, str]
    """Tables without rows → SHA-256 of a file with their columns."""
    previous: tuple[str, ...] = ()
    """Names below ``_files`` that only the set before has; kept for its readers until the next run."""
    leftover: tuple[str, ...] = ()
    """Files of earlier sets in the tables' folders that have not been removed yet, relative to the output."""
    published: bool = False
    """Whether the tables' folders are in line with the set."""

    def receipt(self, slot: str) -> Receipt | None:
        """The receipt of a shard."""
        return self._by_slot.get(slot)

    def versions(self, layout: Layout) -> set[str]:
        """Every file of the set, including what shards remember of their images."""
        files = {
            layout.version(table, shard.slot, digest) for shard in self.shards for table, digest in shard.sha256.items()
        }
        files.update(layout.version(COMPLIANCE, level, digest) for level, digest in self.compliance.items())
        files.update(layout.version(TRACKS, name, digest) for name, digest in (self.tracks or {}).items())
        files.update(layout.version(TRACK_RATES, level, digest) for level, digest in (self.track_rates or {}).items())
        files.update(layout.version(table, NO_ROWS, digest) for table, digest in self.no_rows.items())
        return files

    def tables(self, layout: Layout) -> dict[str, str]:
        """Every file in the tables' folders → the file of the set with the same content."""
        files = {
            layout.table(table, shard.slot): layout.version(table, shard.slot, digest)
            for shard in self.shards
            for table, digest in shard.sha256.items()
            if table in SHARD_TABLES
        }
        for level, digest in self.compliance.items():
            files[layout.compliance(level)] = layout.version(COMPLIANCE, level, digest)
        for name, digest in (self.tracks or {}).items():
            files[layout.tracks(name)] = layout.version(TRACKS, name, digest)
        for level, digest in (self.track_rates or {}).items():
            files[layout.track_rates(level)] = layout.version(TRACK_RATES, level, digest)
        for table, digest in self.no_rows.items():
            files[layout.no_rows(table)] = layout.version(table, NO_ROWS, digest)
        return files

    def files(self, layout: Layout, table: str = PREDICTIONS, level: str | None = None) -> list[str]:
        """The files of one table, sorted, under the names whose content never changes.

        Args:
            layout: the output.
            table: ``predictions``, ``failures``, ``no_face``, ``compliance``, ``tracks`` or ``track_rates``.
            level: for compliance tables and rates of tracks, one level; default: all.
        """
        levels = {COMPLIANCE: self.compliance, TRACK_RATES: self.track_rates or {}}.get(table)
        if levels is not None:
            return sorted(
                layout.version(table, name, digest) for name, digest in levels.items() if level in (None, name)
            )
        if table in self.no_rows:
            return [layout.version(table, NO_ROWS, self.no_rows[table])]
        if table == TRACKS:
            return sorted(layout.version(TRACKS, name, digest) for name, digest in (self.tracks or {}).items())
        found = ((shard.slot, shard.sha256.get(table)) for shard in self.shards)
        return sorted(layout.version(table, slot, digest) for slot, digest in found if digest)

    @functools.cached_property
    def _by_slot(self) -> dict[str, Receipt]:
        return {shard.slot: shard for shard in self.shards}

    def encode(self) -> bytes:
        """The file's content."""
        return (self.model_dump_json(exclude_none=True) + "\n").encode()


def read_snapshot(layout: Layout) -> Snapshot | None:
    """The current set of tables; ``None`` if no run has finished yet.

    Raises:
        OutputError: it was written by another version, or is damaged.
        StorageError: the output cannot be read.
    """
    found = read_snapshot_bytes(layout)
    return None if found is None else decode_snapshot(layout, found)


def current_snapshot(layout: Layout) -> Snapshot:
    """The current set of tables.

    Raises:
        SourceError: there is none.
        OutputError: it was written by another version, or is damaged.
        StorageError: the output cannot be read.
    """
    snapshot = read_snapshot(layout)
    if snapshot is None:
        raise missing_tables(layout, "tables of a run that finished")
    return snapshot


def read_snapshot_bytes(layout: Layout) -> bytes | None:
    """The snapshot's content, for a conditional write; ``None`` if there is none."""
    try:
        return storage.read_bytes(layout.snapshot)
    except NotFoundError:
        return None


def decode_snapshot(layout: Layout, content: bytes) -> Snapshot:
    """The snapshot in a file's content.

    Raises:
        OutputError: it was written by another version, or is damaged.
    """
    remedy = "Choose another output."
    try:
        snapshot = Snapshot.model_validate_json(content)
    except ValidationError as error:
        raise OutputError(layout.snapshot, "a snapshot of this version", error.errors()[0]["msg"], remedy) from error
    found = snapshot.dataset.schema_version
    if found != SCHEMA_VERSION:
        raise OutputError(layout.snapshot, f"schema version {SCHEMA_VERSION}", f"schema version {found}", remedy)
    return snapshot


@functools.lru_cache(maxsize=2)
def base_snapshot(layout: Layout, run_id: str) -> Snapshot:
    """The set that a run starts from, read once per process.

    Raises:
        OutputError: it is no longer the current one: another run has ended meanwhile.
    """
    snapshot = read_snapshot(layout)
    if snapshot is None or snapshot.run_id != run_id:
        received = "none" if snapshot is None else f"run {snapshot.run_id}"
        raise OutputError(layout.snapshot, f"the tables of run {run_id}", received, "Another run took the output over.")
    return snapshot


def receipts_of(shards: Sequence[Receipt]) -> tuple[Receipt, ...]:
    """Receipts in the order of their slots."""
    return tuple(sorted(shards, key=lambda shard: shard.slot))


def table_files(output: str, table: str = PREDICTIONS, level: str | None = None) -> list[str]:
    """The files of a table as of the last run that finished, for any reader of Parquet.

    Their content never changes, and they stay until the run after the next ends.

    Args:
        output: the output of scoring runs.
        table: ``predictions``, ``failures``, ``no_face``, ``compliance``, ``tracks`` or ``track_rates``.
        level: for compliance tables and rates of tracks, one level; default: all.

    Raises:
        SourceError: no run has finished there, or there is no such place.
        OutputError: its tables were written by another version, or are damaged.
        StorageError: the output cannot be read.
    """
    layout = Layout(storage.normalize(output))
    return current_snapshot(layout).files(layout, table, level)
