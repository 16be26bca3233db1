"""Outputs of scoring runs with made-up rows, for which no image is drawn, decoded or scored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from maskdet.compliance.groups import Grouping, count_groups
from maskdet.compliance.rates import RateRule
from maskdet.compliance.state import merge_counts, merge_states
from maskdet.compliance.table import compliance_table
from maskdet.inputs.columns import columns_of
from maskdet.inputs.references import ImageRef
from maskdet.inputs.sharding import KeyRule, Size, cut_shards
from maskdet.labels import THREE_CLASSES
from maskdet.sections import FailureBudget
from maskdet.tables import lease
from maskdet.tables.images import NO_FACE_FOUND, SCORED, Ending
from maskdet.tables.layout import COMPLIANCE, FAILURES, NO_FACE, PREDICTIONS, Layout, write_version
from maskdet.tables.lease import Holder
from maskdet.tables.receipts import ShardJob
from maskdet.tables.reconciliation import LevelTotal
from maskdet.tables.runs import RunPlan, RunRecord, begin_run, hold_output, replace_tables, write_run
from maskdet.tables.snapshot import Dataset

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def face(label: str, probability: float | None = None) -> dict[str, object]:
    """The prediction row of one face, with the probabilities of a model that is sure."""
    usual = {"mask": 0.9, "incorrect": 0.8, "no_mask": 0.1, "uncertain": 0.5}
    worn = usual[label] if probability is None else probability
    incorrect = worn * (0.7 if label == "incorrect" else 0.1)
    return {
        "label": label,
        "probability_mask": worn - incorrect,
        "probability_incorrect": incorrect,
        "probability_no_mask": 1 - worn,
    }


def write_output(
    folder: Path,
    images: Sequence[tuple[str, Sequence[str | None], datetime | None, Sequence[dict[str, object]] | str]],
    key_names: Sequence[str] = ("site", "camera"),
    *,
    timezone: str = "UTC",
    model: str = "m@1",
    run_id: str = "r1",
    content: dict[str, bytes] | None = None,
    levels: dict[str, tuple[str, ...]] | None = None,
    max_images: int = 200,
    settings: dict[str, object] | None = None,
) -> Layout:
    """Write an output.

    Args:
        folder: where to.
        images: URI, values of the keys, capture time, and faces (see :func:`face`), or ``"failed"``, or ``"no_face"``.
        key_names: names of the keys.
        timezone: of dates and hours.
        model: its id.
        run_id: of the run that wrote it.
        content: bytes of the images that are there, for their SHA-256.
        levels: of the compliance tables, beside ``all``.
        max_images: of a shard.
        settings: more sections of the run's settings. The compliance tables hide nothing: see ``correct_faces``.
    """
    layout, rule = Layout(str(folder)), KeyRule(tuple(key_names), (), timezone)
    compliance = {"levels": levels or {}, "cluster": [*key_names, "date", "hour"], "time_zone": timezone}
    grouping = Grouping({"all": (), **(levels or {})}, tuple(compliance["cluster"]), timezone)
    job = ShardJob(layout, "f", rule, grouping, 1000, "f")
    run = RunRecord(
        run_id=run_id,
        status="succeeded",
        started_at=NOW,
        settings={"compliance": {**compliance, "confidence": 0.95}, "tables": {}, **(settings or {})},
        model={
            "id": model,
            "runtime": "made up",
            "classes": list(THREE_CLASSES),
            "decision": {"no_mask_below": 0.5, "mask_from": 0.5, "incorrect_from": 0.5},
        },
        fingerprint="f",
        versions={},
    )
    plan = RunPlan(layout, run, FailureBudget(), Dataset(key_names=rule.key_names, partition_by=(), timezone=timezone))
    hold_output(layout, Holder.here(run_id, NOW, ends_with_process=True))
    begin_run(plan)
    rows = {uri: (keys, at, found) for uri, keys, at, found in images}
    refs = [
        ImageRef(uri, 1, "1", tuple(keys), None if at is None else round(at.timestamp() * 1000))
        for uri, keys, at, _ in images
    ]
    receipts, states = [], []
    for shard in cut_shards(columns_of(refs), rule, Size(max_images, 10**12)):
        tables, endings = _tables(shard.refs, rows, job, key_names, content or {}, model)
        receipts.append(job.write(shard, tables, endings, len(shard.refs)))
        states.append(count_groups(*(tables[n] for n in (PREDICTIONS, FAILURES, NO_FACE)), (), rule, grouping))
    totals = {}
    for level, names in grouping.levels.items():
        keys = {key for part in states for key in part if key.level == level}
        groups = {key.values: merge_states(part[key] for part in states if key in part) for key in keys}
        table = compliance_table(
            groups, names, tuple(key_names), RateRule(0.95, THREE_CLASSES, clustered=True), timezone
        )
        sha256 = write_version(layout, COMPLIANCE, level, table, 1000)
        totals[level] = LevelTotal(merge_counts(state.counts for state in groups.values()), sha256)
    status, reason, _ = replace_tables(plan, receipts, totals, "succeeded", "")
    assert status == "succeeded", reason
    write_run(layout, run.model_copy(update={"finished_at": NOW}))
    lease.release(layout, run_id)
    return layout


def _tables(refs, rows, job, key_names, content, model):
    parts, endings = {PREDICTIONS: [], FAILURES: [], NO_FACE: []}, {}
    for ref in refs:
        keys, at, found = rows[ref.uri]
        identity = {"image_uri": ref.uri, "captured_at": at, **dict(zip(key_names, keys, strict=True))}
        sha256 = hashlib.sha256(content.get(ref.uri, ref.uri.encode())).hexdigest()
        image = {"content_sha256": sha256, "width_px": 640, "height_px": 480, "damaged": False}
        if found == "failed":
            failed = {"stage": "decode", "code": "not_an_image", "message": "made up", "attempts": 1}
            parts[FAILURES].append({**identity, **failed})
            endings[ref.uri] = Ending("not_an_image", "f")
        elif found == "no_face":
            parts[NO_FACE].append({**identity, **image})
            endings[ref.uri] = Ending(NO_FACE_FOUND, "f")
        else:
            endings[ref.uri] = Ending(SCORED, "f")
            for index, one in enumerate(found):
                box = {"face_left_px": 4.0, "face_top_px": 4.0, "face_width_px": 16.0, "face_height_px": 16.0}
                row = {**identity, **image, **box, "face_index": index, "face_score": 0.9, "model_id": model, **one}
                parts[PREDICTIONS].append(row)
    tables = {name: pa.Table.from_pylist(some, schema=job.schemas[name]) for name, some in parts.items()}
    return tables, endings
