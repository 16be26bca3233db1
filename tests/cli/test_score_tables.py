"""A whole run's tables: every image accounted for, equal whatever the order, threads and shards, readable anywhere."""

import json
import random
from collections import Counter
from datetime import date

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from maskdet import storage
from maskdet.tables.layout import COMPLIANCE, FAILURES, PREDICTIONS

# The demo tree is small and holds one file for every fault.
LENIENT = ("--set", "failure_budget.max_ratio=0.5")


@pytest.fixture(scope="module")
def output(demo, score, tmp_path_factory):
    """One run over the demo tree that the tests of this module only read."""
    return score(tmp_path_factory.mktemp("run") / "tables", demo.folder, flags=LENIENT)


def test_every_file_of_the_demo_tree_is_accounted_for(demo, output):
    tree = demo.tree
    assert output.code == 0
    assert output.succeeded
    images = output.run.images
    assert images.listed == len(tree.files)
    assert (images.scored, images.no_face) == (tree.masked + tree.unmasked, 0)
    assert (images.failed, images.skipped) == (sum(tree.failures.values()), len(tree.skipped))
    assert output.run.failed_by_code == {code.value: count for code, count in sorted(tree.failures.items())}
    assert output.run.skipped_by_reason == {"extension .txt": len(tree.skipped)}


def test_each_file_has_its_own_row_with_its_own_outcome(demo, output):
    predictions = output.table(PREDICTIONS).to_pylist()
    failures = output.table(FAILURES).to_pylist()
    by_path = {row["image_uri"].removeprefix(f"{demo.folder}/"): row for row in predictions + failures}
    assert len(by_path) == len(predictions) + len(failures)
    for file in demo.tree.files:
        if file.skipped:
            assert file.path not in by_path
            continue
        row = by_path[file.path]
        assert row.get("code") == (None if file.failure is None else file.failure.value), file.path
        cell = file.cell
        assert row["site"] == (cell.site if cell else None)
        assert row["date"] == (date.fromisoformat(cell.date) if cell else None)
        if cell:
            assert (row["captured_at"].date(), row["captured_at"].hour) == (date.fromisoformat(cell.date), cell.hour)


def test_compliance_counts_are_those_of_the_predictions(output):
    groups = [row for row in output.table(COMPLIANCE).to_pylist() if row["level"] == "site_hour"]
    counted = Counter()
    for row in output.table(PREDICTIONS).to_pylist():
        counted[row["site"], row["captured_at"].date(), row["captured_at"].hour, row["label"]] += 1
    for group in groups:
        key = (group["site"], group["date"], group["hour"])
        assert group["faces_mask"] == counted[(*key, "mask")]
        assert group["faces_no_mask"] == counted[(*key, "no_mask")]
        assert group["faces_uncertain"] == counted[(*key, "uncertain")]
    assert sum(group["faces"] for group in groups) == counted.total()


def test_every_level_counts_every_image(output):
    images = output.run.images
    totals = Counter()
    for row in output.table(COMPLIANCE).to_pylist():
        totals[row["level"], "listed"] += row["images_listed"]
        totals[row["level"], "failed"] += row["images_failed"]
    for level in ("all", "site_hour", "camera"):
        assert totals[level, "listed"] == images.listed - images.skipped
        assert totals[level, "failed"] == images.failed


@pytest.mark.parametrize(
    "flags",
    [
        ("--direct_num_workers=4", "--direct_running_mode=multi_threading"),
        ("--set", "packing.max_images=3"),
        ("--set", "packing.max_images=1000", "--set", "packing.max_bytes=50000"),
        (
            "--set",
            "scoring.block_images=7",
            "--set",
            "scoring.threads=5",
            "--set",
            "scoring.inference_threads=3",
        ),
        ("--set", "tables.row_group_rows=2"),
    ],
    ids=["four workers", "small shards", "small shards by bytes", "odd blocks", "small row groups"],
)
def test_tables_do_not_depend_on_how_the_work_is_cut(demo, score, output, tmp_path, flags):
    other = score(tmp_path / "tables", demo.folder, flags=(*LENIENT, *flags))
    assert other.code == 0
    assert other.contents() == output.contents()


def test_tables_do_not_depend_on_the_order_of_listing(demo, score, output, tmp_path, monkeypatch):
    list_files = storage.list_files

    def shuffled(folder):
        files = list(list_files(folder))
        random.Random(folder).shuffle(files)
        return iter(files)

    monkeypatch.setattr(storage, "list_files", shuffled)
    assert score(tmp_path / "tables", demo.folder, flags=LENIENT).contents() == output.contents()


def test_a_glob_a_list_and_a_manifest_of_the_same_images_give_the_folder_s_rows(demo, score, output, tmp_path):
    scored = [file for file in demo.tree.files if file.failure is None and not file.skipped]
    (tmp_path / "images.txt").write_text("".join(f"{demo.folder}/{file.path}\n" for file in scored))
    rows = [
        {
            "uri": f"{demo.folder}/{f.path}",
            "site": f.cell.site,
            "camera": f.cell.camera,
            "at": f"{f.cell.date}T{f.cell.hour:02}:00",
        }
        for f in scored
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "images.csv", index=False)
    pd.DataFrame(rows).to_parquet(tmp_path / "images.parquet", row_group_size=7)
    named = ("--set", "source.keys=[site, camera]", "--set", "source.captured_at_column=at")
    anywhere = ("--set", "source.allowed=['*']")  # the lists do not lie in the images' folder
    levels = ("--set", "compliance.levels={site_hour: [site, date, hour], camera: [camera]}", *anywhere)
    runs = [
        score(tmp_path / "a", tmp_path / "images.txt", flags=anywhere),
        score(tmp_path / "b", tmp_path / "images.csv", template=None, flags=(*named, *levels)),
        score(tmp_path / "c", tmp_path / "images.parquet", template=None, flags=(*named, *levels)),
        score(tmp_path / "d", f"{demo.folder}/**/face-*", flags=LENIENT),
    ]
    wanted = {f"{demo.folder}/{file.path}" for file in scored}
    expected = [row for row in output.table(PREDICTIONS).to_pylist() if row["image_uri"] in wanted]
    for run in runs[:3]:
        assert run.code == 0
        assert run.table(PREDICTIONS).to_pylist() == expected
    globbed = runs[3].table(PREDICTIONS).to_pylist()
    assert globbed
    assert all(row in expected for row in globbed)


def test_an_image_named_twice_is_scored_once_and_counted_as_skipped(demo, score, tmp_path):
    site = demo.folder / demo.tree.files[0].path.split("/")[0]
    once = score(tmp_path / "once", f"{site}/**", flags=LENIENT)
    twice = score(tmp_path / "twice", f"{site}/**", f"{site}/**", flags=LENIENT)
    assert once.code == twice.code == 0
    assert twice.run.images.listed == 2 * once.run.images.listed
    assert twice.run.skipped_by_reason == {"duplicate": once.run.images.listed}
    assert twice.contents() == once.contents()


def test_duckdb_pandas_and_polars_read_the_tables_as_partitioned(output):
    for table in (PREDICTIONS, FAILURES, COMPLIANCE):
        folder = output.folder / table
        expected = output.table(table)
        by_duckdb = query(f"SELECT * FROM read_parquet('{folder}/**/*.parquet', hive_partitioning = true)")
        by_pandas = pd.read_parquet(folder)
        by_polars = pl.read_parquet(f"{folder}/**/*.parquet", hive_partitioning=True)
        for found in (by_duckdb, by_pandas, by_polars):
            assert set(found.columns) == set(expected.column_names)
            assert len(found) == expected.num_rows


def query(sql):
    with duckdb.connect() as connection:
        rows = connection.execute(sql)
        names = [column[0] for column in rows.description]
        return pd.DataFrame(rows.fetchall(), columns=names)


def test_a_group_by_partition_gives_the_same_counts_in_every_reader(output):
    folder = output.folder / PREDICTIONS
    expected = Counter(row["site"] for row in output.table(PREDICTIONS).to_pylist())
    files = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
    by_duckdb = query(f"SELECT site, count(*) AS images FROM {files} GROUP BY site")
    assert dict(zip(by_duckdb["site"], by_duckdb["images"], strict=True)) == expected
    assert pd.read_parquet(folder).groupby("site", observed=True).size().to_dict() == expected
    polars = pl.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=True).group_by("site").len().collect()
    assert dict(polars.rows()) == expected


def test_every_column_of_every_file_is_described_and_a_table_without_rows_has_one_file(output):
    files = list(output.folder.rglob("*.parquet"))
    assert files
    for path in files:
        file = pq.ParquetFile(path)
        assert (file.metadata.num_rows == 0) == (path.name == "no-rows.parquet")
        for field in file.schema_arrow:
            assert field.metadata and field.metadata[b"description"], f"{path.name}: {field.name}"
        if path.name == "no-rows.parquet":
            assert list(path.parent.rglob("*.parquet")) == [path]
            continue
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        assert file.metadata.row_group(0).column(0).is_stats_set


def test_predictions_never_hold_what_differs_between_runs(output):
    columns = output.table(PREDICTIONS).column_names
    assert not {"run_id", "scored_at", "latency_ms"} & set(columns)
    manifest = json.loads(next((output.folder / "_runs").glob("*.json")).read_text())
    assert {"run_id", "started_at", "finished_at"} <= set(manifest)


def test_litert_float_and_tensorflow_agree_with_the_default_to_their_precision(demo, score, output, tmp_path):
    expected = output.table(PREDICTIONS)["probability_mask"].to_numpy()
    float32 = score(tmp_path / "float", demo.folder, flags=(*LENIENT, "--precision", "float32"))
    tensorflow = score(tmp_path / "tf", demo.folder, flags=(*LENIENT, "--backend", "tensorflow"))
    by_litert = float32.table(PREDICTIONS)["probability_mask"].to_numpy()
    by_tensorflow = tensorflow.table(PREDICTIONS)["probability_mask"].to_numpy()
    assert abs(by_litert - by_tensorflow).max() < 1e-3
    assert abs(by_litert - expected).mean() < 0.05
