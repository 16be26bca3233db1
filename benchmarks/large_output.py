"""Write an output as of scoring runs, but without scoring: millions of rows, to measure the programs that read them.

    python -m benchmarks.large_output build/large --faces 10000000

It has sites, cameras, and two months of hours. Each camera has a rate of its own, and each of its hours a rate near
that, so that faces come in clusters. There are no images, only tables, a snapshot and a run record, as a run leaves
them.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from maskdet import storage
from maskdet.config import ScoreSettings
from maskdet.labels import LABELS, THREE_CLASSES, ClassNames, Decision, label_codes, label_names
from maskdet.schemas import failures_schema, no_face_schema, predictions_schema
from maskdet.tables.layout import FAILURES, NO_FACE, NO_ROWS, PREDICTIONS, SHARD_TABLES, Layout, write_version
from maskdet.tables.receipts import Receipt
from maskdet.tables.run_records import ImageCounts, RunRecord, write_run
from maskdet.tables.snapshot import Dataset, Snapshot, receipts_of

RUN_ID = "20260601T000000.000000Z-0a0a0a"
DECISION = Decision(no_mask_below=0.4, mask_from=0.6, incorrect_from=0.5)
_KEYS = ("site", "camera")
_FIRST_DAY = date(2026, 3, 2)


class Rows(NamedTuple):
    """A shard's tables as Arrow tables; ``None`` for one without rows."""

    predictions: pa.Table | None
    no_face: pa.Table | None = None
    failures: pa.Table | None = None


def write_output(
    root: str,
    shards: Iterable[tuple[str, Rows]],
    keys: Sequence[str],
    *,
    partition_by: Sequence[str] = (),
    timezone: str = "UTC",
    classes: ClassNames = THREE_CLASSES,
    decision: Decision = DECISION,
    folders: bool = False,
    settings: Mapping[str, Any] | None = None,
    errors: Mapping[str, Any] | None = None,
) -> None:
    """Write the tables, snapshot and run record of a run that never took place.

    Args:
        root: the output.
        shards: slot and rows of each shard.
        keys: names of all keys.
        partition_by: the partition keys.
        timezone: time zone of the data set.
        classes: classes of the model.
        decision: thresholds of the model.
        folders: whether to fill the tables' own folders, too.
        settings: settings of the run that differ from the defaults, section by section.
        errors: the model's error rates, as the run's record has them.
    """
    layout = Layout(storage.normalize(root))
    receipts = [_write_shard(layout, slot, rows, folders) for slot, rows in shards]
    schemas = {PREDICTIONS: predictions_schema(keys), NO_FACE: no_face_schema(keys), FAILURES: failures_schema(keys)}
    bare = [table for table in SHARD_TABLES if not any(receipt.rows.get(table) for receipt in receipts)]
    empty = {table: write_version(layout, table, NO_ROWS, schemas[table].empty_table(), 1) for table in bare}
    dataset = Dataset(key_names=tuple(keys), partition_by=tuple(partition_by), timezone=timezone)
    snapshot = Snapshot(
        run_id=RUN_ID, dataset=dataset, inputs=(), shards=receipts_of(receipts), compliance={}, no_rows=empty
    )
    storage.write_bytes(layout.snapshot, snapshot.encode())
    manifest = _manifest(receipts, classes, decision)
    changed = ScoreSettings.model_validate(settings or {}).model_dump(mode="json")
    model = {**manifest.model, **({} if errors is None else {"errors": errors})}
    write_run(layout, manifest.model_copy(update={"settings": changed, "model": model}))


def _write_shard(layout: Layout, slot: str, rows: Rows, folders: bool) -> Receipt:
    tables = {PREDICTIONS: rows.predictions, NO_FACE: rows.no_face, FAILURES: rows.failures}
    present = {name: table for name, table in tables.items() if table is not None and table.num_rows}
    sha256 = {name: write_version(layout, name, slot, table, 100_000) for name, table in present.items()}
    if folders:
        for name in present:
            storage.link_or_copy(layout.version(name, slot, sha256[name]), layout.table(name, slot))
    scored = int(np.sum(present[PREDICTIONS]["face_index"].to_numpy() == 0)) if PREDICTIONS in present else 0
    codes = present[FAILURES]["code"].to_pylist() if FAILURES in present else []
    no_face = present[NO_FACE].num_rows if NO_FACE in present else 0
    return Receipt(
        slot=slot,
        shard_id="0",
        fingerprint="0",
        images=scored + no_face + len(codes),
        scored=scored,
        no_face=no_face,
        failed={code: codes.count(code) for code in sorted(set(codes))},
        rows={name: table.num_rows for name, table in present.items()},
        sha256=sha256,
        size_bytes=0,
    )


def _manifest(receipts: Sequence[Receipt], classes: ClassNames, decision: Decision) -> RunRecord:
    scored, no_face = (sum(getattr(receipt, name) for receipt in receipts) for name in ("scored", "no_face"))
    failed = sum(sum(receipt.failed.values()) for receipt in receipts)
    counts = ImageCounts(listed=scored + no_face + failed, scored=scored, no_face=no_face, failed=failed)
    model: dict[str, Any] = {"id": "drawn@000000000000", "fingerprint": "0", "runtime": "none", "classes": classes}
    return RunRecord(
        run_id=RUN_ID,
        status="succeeded",
        started_at=datetime(2026, 6, 1, tzinfo=UTC),
        finished_at=datetime(2026, 6, 1, 1, tzinfo=UTC),
        settings={},
        model={**model, "decision": decision.model_dump()},
        fingerprint="0",
        versions={"maskdet": "0.2.0"},
        images=counts,
        dataset=counts,
    )


def face_rows(
    generator: np.random.Generator, keys: Mapping[str, str], times_ms: np.ndarray[Any, Any], rates: np.ndarray[Any, Any]
) -> pa.Table:
    """Rows of the predictions: one image per face, except that every fourth face belongs to the image before.

    Args:
        generator: gives random numbers.
        keys: key → value, the same for all.
        times_ms: capture times, ``(faces,)``.
        rates: probability that a face is masked, ``(faces,)``.
    """
    count = len(times_ms)
    worn = np.where(generator.random(count) < rates, generator.beta(8, 0.6, count), generator.beta(0.6, 8, count))
    wrong = worn * generator.beta(0.3, 4, count)
    mask, incorrect = (worn - wrong).astype(np.float32), wrong.astype(np.float32)
    place = np.arange(count)
    index = (place % 4 == 3).astype(np.int32)
    image = place - index
    folder = "/".join(keys.values())
    uris = [f"/photographs/{folder}/{number:09d}.jpg" for number in image.tolist()]
    digests = [hashlib.sha256(uri.encode()).hexdigest() for uri in uris]
    size = generator.uniform(24, 160, count).astype(np.float32)
    columns: dict[str, Any] = {
        "image_uri": uris,
        "captured_at": pa.array(times_ms[image], pa.timestamp("ms", tz="UTC")),
        **{name: [value] * count for name, value in keys.items()},
        "content_sha256": digests,
        "width_px": np.full(count, 1920, np.int32),
        "height_px": np.full(count, 1080, np.int32),
        "damaged": pa.nulls(count, pa.bool_()),
        "face_index": index,
        "face_left_px": generator.uniform(0, 1700, count).astype(np.float32),
        "face_top_px": generator.uniform(0, 900, count).astype(np.float32),
        "face_width_px": size,
        "face_height_px": size * np.float32(1.25),
        "face_score": generator.uniform(0.4, 1, count).astype(np.float32),
        "probability_mask": mask,
        "probability_incorrect": incorrect,
        "probability_no_mask": (1 - mask - incorrect).astype(np.float32),
        "label": label_names(label_codes(mask, incorrect, DECISION)),
        "model_id": ["drawn@000000000000"] * count,
    }
    schema = predictions_schema(tuple(keys))
    arrays = [pa.array(columns.get(name, [None] * count), schema.field(name).type) for name in schema.names]
    return pa.table(arrays, schema=schema)


def large_shards(faces: int, sites: int, cameras: int, days: int, seed: int = 0) -> Iterable[tuple[str, Rows]]:
    """A shard for each site and day."""
    generator = np.random.default_rng(seed)
    per_camera = max(1, faces // (sites * cameras * days))
    camera_rates = generator.beta(20, 5, (sites, cameras))
    for site in range(sites):
        for number in range(days):
            day = _FIRST_DAY + timedelta(days=number)
            midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
            tables = []
            for camera in range(cameras):
                hours = np.sort(generator.integers(6, 20, per_camera))
                hourly = np.clip(camera_rates[site, camera] + generator.normal(0, 0.08, 24), 0.02, 0.98)
                times = midnight + hours * 3_600_000 + np.sort(generator.integers(0, 3_600_000, per_camera))
                keys = {"site": f"site-{site:02d}", "camera": f"camera-{camera:02d}"}
                tables.append(face_rows(generator, keys, times, hourly[hours]))
            together = pa.concat_tables(tables)
            faceless = together.slice(0, max(1, together.num_rows // 50)).select(no_face_schema(_KEYS).names)
            yield f"site-site-{site:02d}/date-{day}/shard-all", Rows(together.combine_chunks(), faceless)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--faces", type=int, default=10_000_000)
    parser.add_argument("--sites", type=int, default=40)
    parser.add_argument("--cameras", type=int, default=10)
    parser.add_argument("--days", type=int, default=60)
    given = parser.parse_args()
    write_output(given.output, large_shards(given.faces, given.sites, given.cameras, given.days), _KEYS)
    print(f"{given.faces:,} faces in {given.output}; labels: {', '.join(LABELS)}")


if __name__ == "__main__":
    main()
