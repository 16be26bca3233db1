"""Finished shards: score one or keep it, write its tables, and leave a receipt.

The receipt is written last, so a shard with a receipt is complete; one without is scored again, to the same names.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from maskdet import storage
from maskdet.compliance.groups import Counts, GroupKey, count_groups
from maskdet.errors import FailureCode, NotFoundError
from maskdet.inputs.references import Shard
from maskdet.inputs.sharding import KeyRule
from maskdet.schemas import failures_schema, no_face_schema, predictions_schema
from maskdet.tables.layout import FAILURES, NO_FACE, PREDICTIONS, Layout, write_table
from maskdet.tables.results import ShardResult, StageSeconds


class Receipt(BaseModel):
    """What is known of a finished shard without opening its tables; the same bytes whichever run wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slot: str
    shard_id: str
    fingerprint: str
    """Of the model and settings; see :func:`maskdet.scoring.fingerprint.scoring_fingerprint`."""
    images: int
    scored: int
    no_face: int
    failed: dict[str, int]
    """Images failed, by code."""
    rows: dict[str, int]
    """Rows of each table that has any."""
    sha256: dict[str, str] = {}
    """Of each table's file."""
    size_bytes: int

    @property
    def retryable(self) -> bool:
        """Whether some images failed in a way that another try may mend."""
        return any(FailureCode(code).transient for code in self.failed)


@dataclass(frozen=True)
class ShardReport:
    """What a shard adds to its run: one element of the pipeline.

    Attributes:
        receipt: the shard's counts.
        kept: whether an earlier run had finished it.
        groups: counts of every group of every level.
        seconds: thread-seconds by stage, 0 for a kept shard.
    """

    receipt: Receipt
    kept: bool
    groups: Mapping[GroupKey, Counts]
    seconds: StageSeconds = field(default_factory=StageSeconds)


@dataclass(frozen=True)
class ShardJob:
    """Everything a worker needs to finish shards, beside the scorer.

    Attributes:
        layout: where the tables go.
        fingerprint: of the model and settings.
        rule: the run's keys.
        levels: groups to count.
        row_group_rows: rows a Parquet row group.
    """

    layout: Layout
    fingerprint: str
    rule: KeyRule
    levels: Mapping[str, Sequence[str]]
    row_group_rows: int

    def finish(self, shard: Shard, score: Callable[[Shard], ShardResult]) -> ShardReport:
        """Keep the shard if it is finished already, else score it, write its tables and its receipt.

        Raises:
            StorageError: the output cannot be read or written.
        """
        return self._kept(shard) or self._scored(shard, score(shard))

    def is_finished(self, shard: Shard) -> bool:
        """Whether an earlier run left a receipt that holds for the shard as it is now."""
        receipt = read_receipt(self.layout, shard.slot)
        return receipt is not None and self._holds(receipt, shard)

    def _holds(self, receipt: Receipt, shard: Shard) -> bool:
        same = receipt.shard_id == shard.shard_id and receipt.fingerprint == self.fingerprint
        return same and not receipt.retryable

    def _kept(self, shard: Shard) -> ShardReport | None:
        receipt = read_receipt(self.layout, shard.slot)
        if receipt is None or not self._holds(receipt, shard):
            return None
        columns = ["captured_at", *self.rule.column_names]
        predictions = self._read(receipt, PREDICTIONS, [*columns, "face_index", "label"])
        failures, no_face = (self._read(receipt, name, columns) for name in (FAILURES, NO_FACE))
        if predictions is None or failures is None or no_face is None:
            return None
        groups = count_groups(predictions, failures, no_face, shard.partition, self.rule, self.levels)
        return ShardReport(receipt, True, groups)

    def _read(self, receipt: Receipt, name: str, columns: list[str]) -> pa.Table | None:
        """Columns of a finished shard's table; ``None`` if the file is not the one the receipt speaks of."""
        if not receipt.rows.get(name):
            return self._schemas[name].empty_table().select(columns)
        try:
            data = storage.read_bytes(self.layout.table(name, receipt.slot))
        except NotFoundError:
            return None  # someone removed it
        # Other bytes: someone damaged it, or a run died between writing a newer table and its receipt. Parsing damaged
        # Parquet instead would raise errors of many kinds, or none and give other counts.
        if hashlib.sha256(data).hexdigest() != receipt.sha256.get(name):
            return None
        return pq.ParquetFile(pa.BufferReader(data)).read(columns)

    @property
    def _schemas(self) -> dict[str, pa.Schema]:
        rule = self.rule
        return {
            PREDICTIONS: predictions_schema(rule.column_names),
            FAILURES: failures_schema(rule.all_names),
            NO_FACE: no_face_schema(rule.all_names),
        }

    def _marks(self, shard: Shard) -> dict[str, str]:
        """What a shard's tables carry in their schema metadata."""
        # In whole: folders' names may be cut.
        partition = dict(zip(self.rule.partition_by, shard.partition, strict=True))
        return {
            "maskdet.slot": shard.slot,
            "maskdet.shard_id": shard.shard_id,
            "maskdet.fingerprint": self.fingerprint,
            "maskdet.partition": json.dumps(partition, ensure_ascii=False),
        }

    def _scored(self, shard: Shard, result: ShardResult) -> ShardReport:
        started = time.perf_counter()
        sha256 = {}
        for name, table in _tables(result).items():
            uri = self.layout.table(name, shard.slot)
            if table.num_rows:
                sha256[name] = write_table(uri, table, self.row_group_rows, self._marks(shard))
            else:
                storage.delete([uri])
        receipt = self._receipt(shard, result, sha256)
        storage.write_bytes(self.layout.receipt(shard.slot), (receipt.model_dump_json() + "\n").encode())
        groups = count_groups(
            result.predictions, result.failures, result.no_face, shard.partition, self.rule, self.levels
        )
        seconds = result.seconds + StageSeconds(write=time.perf_counter() - started)
        return ShardReport(receipt, False, groups, seconds)

    def _receipt(self, shard: Shard, result: ShardResult, sha256: dict[str, str]) -> Receipt:
        rows = {name: table.num_rows for name, table in _tables(result).items()}
        return Receipt(
            slot=shard.slot,
            shard_id=shard.shard_id,
            fingerprint=self.fingerprint,
            images=len(shard.refs),
            scored=len(set(result.predictions["image_uri"].to_pylist())),
            no_face=result.no_face.num_rows,
            failed=dict(sorted(Counter(result.failures["code"].to_pylist()).items())),
            rows={name: count for name, count in rows.items() if count},
            sha256=sha256,
            size_bytes=result.size_bytes,
        )


def _tables(result: ShardResult) -> dict[str, pa.Table]:
    return {PREDICTIONS: result.predictions, FAILURES: result.failures, NO_FACE: result.no_face}


def read_receipt(layout: Layout, slot: str) -> Receipt | None:
    """The receipt in a slot, or ``None`` if there is none that can be read."""
    try:
        return Receipt.model_validate_json(storage.read_bytes(layout.receipt(slot)))
    except (NotFoundError, ValidationError):
        return None


def output_files(layout: Layout, receipts: Iterable[Receipt]) -> set[str]:
    """Every file that finished shards own."""
    files = set()
    for receipt in receipts:
        files.add(layout.receipt(receipt.slot))
        files.update(layout.table(table, receipt.slot) for table in receipt.rows)
    return files
