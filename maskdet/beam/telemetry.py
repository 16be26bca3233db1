"""What a worker reports of each finished shard: Beam metrics, which every runner shows, and a line of JSON in its log.

Metrics count the work of this run alone; shards kept from earlier runs have counters of their own. A runner that
retries a shard may count it twice; the run record does not.
"""

from __future__ import annotations

import dataclasses
import json
import logging

from apache_beam.metrics import Metrics

from maskdet.errors import FailureCode
from maskdet.tables.receipts import ShardReport
from maskdet.tables.results import StageSeconds

NAMESPACE = "maskdet"
# The console leaves these lines out unless told to log JSON; workers on other machines log them all.
_LOGGER = logging.getLogger("maskdet.shards")
_STAGES = tuple(field.name for field in dataclasses.fields(StageSeconds))
_COUNTERS = (
    *("shards_scored", "shards_kept", "images_kept", "images_scored", "images_no_face", "images_failed"),
    *(f"images_failed_{code.value}" for code in FailureCode),
    "bytes_scored",
)


class ShardTelemetry:
    """Counters, distributions and log lines of one run's shards.

    Distributions have one value per shard, in milliseconds: ``shard_ms`` from start to receipt, and thread time by
    stage, ``fetch_ms``, ``decode_ms`` and so on, whose sum exceeds ``shard_ms`` where threads work concurrently.

    Args:
        run_id: names the run in log lines.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._counters = {name: Metrics.counter(NAMESPACE, name) for name in _COUNTERS}
        self._distributions = {name: Metrics.distribution(NAMESPACE, f"{name}_ms") for name in ("shard", *_STAGES)}

    def record(self, report: ShardReport, seconds: float) -> None:
        """Count a finished shard and log it.

        Args:
            report: the shard's.
            seconds: from start to receipt.
        """
        if report.kept:
            self._counters["shards_kept"].inc()
            self._counters["images_kept"].inc(report.receipt.images)
        else:
            self._count(report, seconds)
        _LOGGER.info("%s", json.dumps(_event(report, self._run_id, seconds)))

    def _count(self, report: ShardReport, seconds: float) -> None:
        receipt = report.receipt
        counts = {
            "shards_scored": 1,
            "images_scored": receipt.scored,
            "images_no_face": receipt.no_face,
            "images_failed": sum(receipt.failed.values()),
            **{f"images_failed_{code}": count for code, count in receipt.failed.items()},
            "bytes_scored": receipt.size_bytes,
        }
        for name, count in counts.items():
            if count:
                self._counters[name].inc(count)
        for name, value in {"shard": seconds, **vars(report.seconds)}.items():
            self._distributions[name].update(round(1000 * value))


def _event(report: ShardReport, run_id: str, seconds: float) -> dict[str, object]:
    receipt = report.receipt
    return {
        "event": "shard_kept" if report.kept else "shard_scored",
        "run": run_id,
        "shard": receipt.slot,
        "shard_id": receipt.shard_id,
        "images": receipt.images,
        "failed": receipt.failed,
        "bytes": receipt.size_bytes,
        "seconds": round(seconds, 3),
        "thread_seconds": {name: round(value, 3) for name, value in vars(report.seconds).items() if value},
    }
