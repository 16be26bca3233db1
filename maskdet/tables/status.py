"""How far a run has come, read from its output alone: shards planned, shards finished, and how the run ended.

Neither client nor runner is asked, so it works for any runner, from any machine, during a run and after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from maskdet import storage
from maskdet.errors import DiedError, NotFoundError, UnfinishedError
from maskdet.inputs.references import Shard
from maskdet.tables.layout import RECEIPTS, Layout
from maskdet.tables.lease import Heartbeat, Life, life_of, read_heartbeat
from maskdet.tables.receipts import Receipt, read_receipt
from maskdet.tables.runs import INTERRUPTED, ImageCounts, RunRecord, read_run

_READERS = 32  # receipts are small: over a network, a read is nearly all waiting


class PlannedShard(NamedTuple):
    """A shard of a run, before it is scored."""

    slot: str
    shard_id: str
    images: int
    listed: int
    """Images that the run listed; the others are gone, and their rows are valid for any model."""

    @classmethod
    def of(cls, shard: Shard) -> PlannedShard:
        """What the plan says about a shard."""
        return cls(shard.slot, shard.shard_id, shard.images, shard.listed)


class ShardPlan(BaseModel):
    """The content of ``_plan.json``: every shard of the latest run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    shards: tuple[PlannedShard, ...]


@dataclass(frozen=True)
class RunStatus:
    """How far a run has come.

    Attributes:
        run: its record.
        shards: how many it has; ``None`` until its input is listed and packed.
        finished: how many of them have valid receipts.
        images: ``listed`` is images in all shards, the rest those of finished shards.
        failed_by_code: of finished shards.
        life: for a run that has not ended: ``dead`` if it never will, ``silent`` if its heartbeat is overdue.
        heartbeat: its latest sign of life.
    """

    run: RunRecord
    shards: int | None = None
    finished: int = 0
    images: ImageCounts = ImageCounts()
    failed_by_code: tuple[tuple[str, int], ...] = ()
    life: Life = "alive"
    heartbeat: Heartbeat | None = None

    @property
    def exit_code(self) -> int:
        """The run's exit code once it has ended."""
        if self.run.status == "running":
            return DiedError.exit_code if self.life == "dead" else UnfinishedError.exit_code
        if self.run.status == "interrupted":
            return self.run.interrupted_by or INTERRUPTED
        error = self.run.outcome()
        return error.exit_code if error else 0


def write_plan(layout: Layout, run_id: str, shards: Iterable[PlannedShard]) -> None:
    """Write which shards a run has; repeated calls write the same bytes.

    Raises:
        StorageError: the output cannot be written.
    """
    plan = ShardPlan(run_id=run_id, shards=tuple(sorted(shards)))
    storage.write_bytes(layout.plan, (plan.model_dump_json() + "\n").encode())


def read_status(layout: Layout, run_id: str | None = None) -> RunStatus:
    """How far a run has come; without an id, the latest run.

    Raises:
        SourceError: there is no such run.
        StorageError: the output cannot be read.
    """
    run = read_run(layout, run_id)
    life, heartbeat = _life(layout, run)
    plan = _read_plan(layout)
    if plan is None or plan.run_id != run.run_id:
        return RunStatus(run, life=life, heartbeat=heartbeat)
    receipts = _receipts_that_hold(layout, plan, run.fingerprint)
    failed: Counter[str] = Counter()
    for receipt in receipts:
        failed.update(receipt.failed)
    return RunStatus(
        run,
        shards=len(plan.shards),
        finished=len(receipts),
        images=ImageCounts(
            listed=sum(shard.images for shard in plan.shards),
            scored=sum(receipt.scored for receipt in receipts),
            no_face=sum(receipt.no_face for receipt in receipts),
            failed=failed.total(),
        ),
        failed_by_code=tuple(sorted(failed.items())),
        life=life,
        heartbeat=heartbeat,
    )


def _life(layout: Layout, run: RunRecord) -> tuple[Life, Heartbeat | None]:
    if run.status != "running":
        return "alive", None
    return life_of(layout, run.run_id), read_heartbeat(layout, run.run_id)


def _read_plan(layout: Layout) -> ShardPlan | None:
    try:
        return ShardPlan.model_validate_json(storage.read_bytes(layout.plan))
    except (NotFoundError, ValidationError):
        return None


def _receipts_that_hold(layout: Layout, plan: ShardPlan, fingerprint: str) -> list[Receipt]:
    """Receipts of the plan's shards, without those of other images, models or settings."""
    present = {file.uri for file in storage.list_folder(layout.folder(RECEIPTS))}
    wanted = {shard.slot: shard for shard in plan.shards if layout.receipt(shard.slot) in present}
    with ThreadPoolExecutor(_READERS, thread_name_prefix="status") as pool:
        found = pool.map(lambda slot: read_receipt(layout, slot), wanted)
        return [
            receipt
            for receipt in found
            if receipt
            and receipt.shard_id == wanted[receipt.slot].shard_id
            and (receipt.fingerprint == fingerprint or wanted[receipt.slot].listed == 0)
        ]
