"""Measure what a change of thresholds costs: stored rows are relabelled and counted again, and no image is read.

    .venv/bin/python -m benchmarks.relabelling
    .venv/bin/python -m benchmarks.relabelling --faces 100000

An image list names images that do not exist, with versions, so that the store is not asked. Their rows are written as
scoring would leave them; every fourth face is the second of its image. `maskdet score` makes an output of them, and
then, measured, makes it again with other thresholds. Every label and every count must follow from the thresholds and
the probabilities.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.process_tree import Cost, measure
from maskdet.config import ScoreSettings
from maskdet.inputs.columns import columns_of
from maskdet.inputs.listing import list_images
from maskdet.inputs.references import ImageRef, Shard
from maskdet.inputs.sharding import cut_shards
from maskdet.labels import label_codes, label_names
from maskdet.scoring.setup import Launch, check_run
from maskdet.tables.images import SCORED, Ending
from maskdet.tables.layout import FAILURES, NO_FACE, PREDICTIONS

SITES, CAMERAS, DAYS = 10, 4, 30
_START = datetime(2026, 3, 2, tzinfo=UTC)
_THRESHOLDS = {"mask_from": 0.9, "no_mask_below": 0.3, "incorrect_from": 0.7, "incorrect_odds": 1}


def main() -> None:
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        _write_list(folder / "images.parquet", arguments.faces)
        _write_shards(check_run(_settings(folder), datetime.now(UTC)))
        first = _score(folder, "first")
        second = _score(folder, "second", *(f"model.{name}={value}" for name, value in _THRESHOLDS.items()))
        faces, changed = _check(folder)
    print(f"{faces:,} faces, {changed:,} with another label; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name, cost in (("nothing changed", first), ("other thresholds", second)):
        print(f"{name:<17} {cost.wall_s:7.1f} s wall, {cost.cpu_s:7.1f} s CPU, {cost.peak_mib:,.0f} MiB")


def _settings(folder: Path) -> ScoreSettings:
    return ScoreSettings.model_validate(
        {
            "input": [str(folder / "images.parquet")],
            "output": str(folder / "tables"),
            "source": {
                "keys": ["site", "camera"],
                "captured_at_column": "taken_at",
                "version_column": "version",
                "allowed": ["/photographs"],
            },
            "model": {"backend": "litert"},
            "faces": {"mode": "detect"},
        }
    )


def _write_list(file: Path, faces: int) -> None:
    """Write a row for each image; of four faces, three have an image of their own and the fourth shares one."""
    number = np.arange(faces - faces // 4)
    site, camera = number % SITES, number // SITES % CAMERAS
    day = number // (SITES * CAMERAS) % DAYS
    minute = number // (SITES * CAMERAS * DAYS) % (24 * 60)
    taken = (
        np.datetime64(_START.replace(tzinfo=None), "ms")
        + day.astype("timedelta64[D]")
        + minute * np.timedelta64(1, "m")
    )
    columns = {
        "uri": [f"/photographs/{one:09d}.jpg" for one in number.tolist()],
        "site": [f"site-{one}" for one in site.tolist()],
        "camera": [f"camera-{one}" for one in camera.tolist()],
        "taken_at": pa.array(taken, pa.timestamp("ms", tz="UTC")),
        "version": ["1"] * len(number),
    }
    pq.write_table(pa.table(columns), file)


def _write_shards(launch: Launch) -> None:
    """Write shards with rows and receipts, as a run leaves them that was killed at its end."""
    generator, rule = np.random.default_rng(0), launch.options.rule
    partitions: dict[tuple[str | None, ...], list[ImageRef]] = {}
    for ref in _listed(launch):
        partitions.setdefault(rule.partition(ref), []).append(ref)
    for refs in partitions.values():
        for shard in cut_shards(columns_of(refs), rule, launch.limit):
            tables = {name: schema.empty_table() for name, schema in launch.job.schemas.items()}
            tables[PREDICTIONS] = _rows(shard, launch, generator)
            endings = {ref.name: Ending(SCORED, launch.job.scored_by) for ref in shard.refs}
            launch.job.write(shard, {name: tables[name] for name in (PREDICTIONS, FAILURES, NO_FACE)}, endings, 0)


def _listed(launch: Launch) -> Iterator[ImageRef]:
    for task in launch.tasks:
        for batch in list_images(task, launch.settings.source):
            yield from batch.refs


def _rows(shard: Shard, launch: Launch, generator: np.random.Generator) -> pa.Table:
    rule, schema = launch.options.rule, launch.job.schemas[PREDICTIONS]
    images = np.arange(len(shard.refs))
    # One image in three, whatever its partition, has two faces: so a fourth of all faces is the second of its image.
    two = np.array([int(ref.uri[-13:-4]) // (SITES * CAMERAS * DAYS) % 3 == 0 for ref in shard.refs])
    of = np.repeat(images, np.where(two, 2, 1))
    index = np.concatenate([[0], (of[1:] == of[:-1]).astype(int)])
    refs, count = [shard.refs[place] for place in of.tolist()], len(of)
    mask, incorrect = _probabilities(generator, count)
    captured = [ref.captured_at_ms for ref in refs]
    columns = {
        "image_uri": [ref.uri for ref in refs],
        "captured_at": pa.array(captured, pa.int64()).cast(pa.timestamp("ms", tz="UTC")),
        "content_sha256": [f"{place:064x}" for place in of.tolist()],
        "width_px": np.full(count, 1920, np.int32),
        "height_px": np.full(count, 1080, np.int32),
        "damaged": [False] * count,
        "face_index": index.astype(np.int32),
        **{f"face_{side}_px": generator.uniform(20, 160, count).astype(np.float32) for side in _SIDES},
        "face_score": generator.uniform(0.4, 1, count).astype(np.float32),
        "probability_mask": mask,
        "probability_incorrect": incorrect,
        "probability_no_mask": 1 - mask - incorrect,
        "label": label_names(label_codes(mask, incorrect, launch.options.decision)),
        "model_id": [launch.manifest.model_id] * count,
    }
    keys = {name: pa.array([rule.value(ref, name) for ref in refs]) for name in rule.all_names}
    keys |= {name: keys[name].cast(schema.field(name).type) for name in keys}
    arrays = [pa.array({**columns, **keys}.get(name, [None] * count), schema.field(name).type) for name in schema.names]
    return pa.table(arrays, schema=schema)


_SIDES = ("left", "top", "width", "height")


def _probabilities(generator: np.random.Generator, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    worn = generator.beta(0.5, 0.4, count).astype(np.float32)
    incorrect = worn * generator.beta(0.3, 2, count).astype(np.float32)
    return worn - incorrect, incorrect


def _score(folder: Path, name: str, *settings: str) -> Cost:
    """Run `maskdet score`, which must not read any image."""
    given = folder / "settings.json"
    given.write_text(json.dumps(_settings(folder).model_dump(mode="json", exclude_unset=True)))
    command = [sys.executable, "-m", "maskdet.cli.main", "score", "--config", str(given), "--quiet"]
    flags = [flag for one in settings for flag in ("--set", one)]
    cost = measure([*command, *flags], stdout=folder / f"{name}.out", stderr=folder / f"{name}.err")
    record = json.loads(max((folder / "tables" / "_runs").glob("*.json")).read_text())
    if cost.exit_code or record["status"] != "succeeded" or record["images_scored_now"]:
        sys.exit(
            f"{name}: {cost.exit_code}, {record['images_scored_now']} read; {(folder / f'{name}.err').read_text()}"
        )
    return cost


def _check(folder: Path) -> tuple[int, int]:
    """Check labels and counts with the thresholds in double precision; returns how many faces and changed labels."""
    columns = ["probability_mask", "probability_incorrect", "label"]
    rows = ds.dataset(folder / "tables" / "predictions", format="parquet").to_table(columns=columns)
    mask, incorrect = (rows[name].to_numpy().astype(np.float64) for name in columns[:2])
    worn = mask + incorrect
    expected = np.where(incorrect >= _THRESHOLDS["incorrect_from"] * worn, "incorrect", "mask")
    expected = np.where(worn >= _THRESHOLDS["mask_from"], expected, "uncertain")
    expected = np.where(worn < _THRESHOLDS["no_mask_below"], "no_mask", expected)
    found = np.array(rows["label"].to_pylist())
    if wrong := int((found != expected).sum()):
        sys.exit(f"{wrong} of {len(found)} labels are not those of the thresholds")
    [counts] = pq.read_table(folder / "tables" / "compliance" / "level=all").to_pylist()
    if {name: counts[f"faces_{name}"] for name in set(expected.tolist())} != Counter(expected.tolist()):
        sys.exit(f"the compliance table counts {counts}, the labels {Counter(expected.tolist())}")
    before = check_run(_settings(folder), datetime.now(UTC) + timedelta(days=1)).options.decision
    old = label_names(label_codes(mask.astype(np.float32), incorrect.astype(np.float32), before))
    return len(found), int((found != np.array(old)).sum())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--scratch", help="folder for temporary lists and tables")
    return parser


if __name__ == "__main__":
    main()
