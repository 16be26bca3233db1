"""The tables as other programs read them: by folder outside of runs, by snapshot at any time, with or without rows."""

from __future__ import annotations

import random
import re
import threading
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from maskdet.cli import main
from maskdet.schemas import predictions_schema
from maskdet.tables.layout import COMPLIANCE, PREDICTIONS, SHARD_TABLES
from maskdet.tables.snapshot import table_files
from maskdet.testing import solid_image

# Texts that readers tend to take for numbers, dates, booleans, nulls and paths.
SITES = [
    "007",
    "7",
    "7.0",
    "1e5",
    "2026-03-02",
    "true",
    "null",
    "NaN",
    None,
    "été 日本",
    "x=y",
    "a/b",
    "../up",
    ".",
]
TAKEN = {True: "2026-03-02T08:15:30+00:00", False: ""}


@pytest.fixture(scope="module")
def output(score, tmp_path_factory):
    """Scores of one image per site, every other one with a capture time."""
    folder = tmp_path_factory.mktemp("readers")
    rows = {"uri": [], "site": [], "taken": []}
    for number, site in enumerate(SITES):
        (folder / f"{number:02d}.png").write_bytes(solid_image(10 * number))
        rows["uri"].append(str(folder / f"{number:02d}.png"))
        rows["site"].append(site)
        rows["taken"].append(datetime.fromisoformat(TAKEN[True]) if number % 2 == 0 else None)
    pq.write_table(pa.table(rows), folder / "images.parquet")
    flags = ("--set", "source.keys=[site]", "--set", "source.captured_at_column=taken")
    scored = score(folder / "tables", folder / "images.parquet", flags=flags, template=None)
    assert scored.code == 0
    return scored


@pytest.fixture(scope="module")
def empty(score, tmp_path_factory):
    """An output without any face, and without failures."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "photos" / "007").mkdir(parents=True)
    (folder / "photos" / "007" / "wall.png").write_bytes(solid_image(200, side_px=64))
    scored = score(
        folder / "tables", folder / "photos", flags=("--template", "{site}/*"), template=None, faces="detect"
    )
    assert scored.code == 0
    return scored


EXPECTED = dict(enumerate(SITES))
INSTANT = datetime(2026, 3, 2, 8, 15, 30, tzinfo=UTC)


def by_number(rows):
    """Number of the image → its site, date and capture time."""
    return {int(row["image_uri"][-6:-4]): (row["site"], row["date"], row["captured_at"]) for row in rows}


def expected():
    times = {True: (date(2026, 3, 2), INSTANT), False: (None, None)}
    return {number: (site, *times[number % 2 == 0]) for number, site in EXPECTED.items()}


def nulls(frame):
    """A frame's rows with None for what is missing."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def pandas_rows(frame):
    rows = nulls(frame)
    for row in rows:
        row["captured_at"] = row["captured_at"] and row["captured_at"].to_pydatetime()
    return rows


def duckdb_rows(source):
    duckdb.sql("SET TimeZone = 'UTC'")
    found = duckdb.sql(f"SELECT * REPLACE (captured_at::TIMESTAMP AS captured_at) FROM {source}")
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    return [{**row, "captured_at": row["captured_at"] and row["captured_at"].replace(tzinfo=UTC)} for row in rows]


def folder_readers(folder):
    """Each reader's rows of a table's folder, given only its place."""
    return {
        "pandas": lambda: pandas_rows(pd.read_parquet(folder)),
        "polars": lambda: pl.read_parquet(folder).to_dicts(),
        "polars, glob": lambda: pl.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=True).collect().to_dicts(),
        "duckdb": lambda: duckdb_rows(f"read_parquet('{folder}/**/*.parquet')"),
        "duckdb, hive": lambda: duckdb_rows(f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"),
        "arrow": lambda: ds.dataset(folder, partitioning="hive").to_table().to_pylist(),
    }


def list_readers(files):
    """Each reader's rows of the files that a snapshot lists."""
    return {
        "pandas": lambda: pandas_rows(pd.concat(map(pd.read_parquet, files))),
        "polars": lambda: pl.read_parquet(files).to_dicts(),
        "duckdb": lambda: duckdb_rows(f"read_parquet({files!r})"),
        "arrow": lambda: ds.dataset(files).to_table().to_pylist(),
    }


READERS = ["pandas", "polars", "polars, glob", "duckdb", "duckdb, hive", "arrow"]


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_gives_keys_as_they_were_written_and_times(output, reader):
    assert by_number(folder_readers(output.folder / PREDICTIONS)[reader]()) == expected()


@pytest.mark.parametrize("reader", ["pandas", "polars", "duckdb", "arrow"])
def test_a_snapshot_s_files_give_the_same(output, reader):
    assert by_number(list_readers(table_files(str(output.folder)))[reader]()) == expected()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("table", SHARD_TABLES)
def test_tables_without_rows_are_read_as_empty_ones(empty, reader, table):
    rows = folder_readers(empty.folder / table)[reader]()
    assert len(rows) == (1 if table == "no_face" else 0)
    assert all(row["site"] == "007" for row in rows)


@pytest.mark.parametrize("table", SHARD_TABLES)
def test_tables_without_rows_have_the_columns_of_those_with(empty, output, table):
    [path] = (empty.folder / table).rglob("*.parquet")
    names = pq.read_schema(path).names
    assert names[:3] == ["image_uri", "captured_at", "site"]
    assert table_files(str(empty.folder), table)


def test_readme_s_query_of_faces_by_site_and_day_works_with_rows_and_without(output, empty):
    query = """SELECT site, captured_at::DATE AS day, count(*) FILTER (label = 'no_mask') AS no_mask, count(*) AS faces
               FROM read_parquet('{}/predictions/**/*.parquet') GROUP BY ALL ORDER BY ALL"""
    assert len(duckdb.sql(query.format(output.folder)).fetchall()) == len(SITES)
    assert duckdb.sql(query.format(empty.folder)).fetchall() == []


def test_compliance_has_a_row_of_everything_where_there_is_no_face(empty):
    frame = pd.read_parquet(empty.folder / COMPLIANCE)
    assert frame["images_no_face"].tolist() == [1]
    assert table_files(str(empty.folder), COMPLIANCE, "all")


def test_excel_takes_a_table_once_its_times_have_no_zone(output, tmp_path):
    frame = pd.read_parquet(output.folder / PREDICTIONS)
    frame["captured_at"] = frame["captured_at"].dt.tz_localize(None)  # as README says
    frame.to_excel(tmp_path / "predictions.xlsx", index=False)
    back = pd.read_excel(
        tmp_path / "predictions.xlsx", dtype={"site": str}, keep_default_na=False, na_values={"date": [""]}
    )
    assert back["site"].tolist()[:4] == frame["site"].tolist()[:4]
    times = set(pd.to_datetime(back["captured_at"].replace("", None)).dropna())
    assert times == {pd.Timestamp("2026-03-02 08:15:30")}


def test_the_command_names_the_same_files(output, capsys):
    assert main.main(["files", str(output.folder)]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == table_files(str(output.folder))
    assert main.main(["files", str(output.folder), "--table", "compliance", "--level", "all"]) == 0
    assert capsys.readouterr().out.strip() == table_files(str(output.folder), COMPLIANCE, "all")[0]
    assert main.main(["files", str(output.folder), "--table", "compliance", "--level", "none"]) == 2
    assert main.main(["files", str(output.folder.parent / "none")]) == 3


def test_readers_by_snapshot_see_one_run_s_tables_while_others_replace_them(score, tmp_path):
    """All images have the same content within a run, and another in the next: a mixed set would show two hashes."""
    photos = tmp_path / "photos"
    photos.mkdir()
    flags = ("--set", "packing.max_images=2")

    def paint(run):
        for number in range(12):
            (photos / f"{number:02d}.png").write_bytes(solid_image(10 + 20 * run, side_px=24 + run))

    paint(0)
    assert score(tmp_path / "tables", photos, flags=flags, template=None).code == 0
    done, mixed, seen = threading.Event(), [], []
    pause = random.Random(20260302)

    def poll():
        while not done.is_set():
            files = table_files(str(tmp_path / "tables"))
            done.wait(pause.uniform(0, 0.3))  # what a reader does between opening one file and the next
            hashes = pd.concat(map(pd.read_parquet, files))["content_sha256"]
            seen.append(hashes.iloc[0])
            if len(hashes) != 12 or hashes.nunique() != 1:
                mixed.append(hashes.value_counts().to_dict())

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        for run in range(1, 6):
            paint(run)
            assert score(tmp_path / "tables", photos, flags=flags, template=None).code == 0
    finally:
        done.set()
        reader.join()
    assert len(set(seen)) >= 3
    assert not mixed


ATHENA = {
    pa.string(): "string",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.bool_(): "boolean",
    pa.date32(): "date",
}


def test_the_columns_that_the_guide_names_for_athena_are_those_of_the_files():
    text = (Path(__file__).parents[2] / "docs" / "guides" / "read-tables.md").read_text(encoding="utf-8")
    keys, columns = re.search(r"<!-- schema: predictions (.+?) -->\n```sql\n.*?\((.*?)\n\)", text, re.DOTALL).groups()
    named = [tuple(column.replace("`", "").split()) for column in columns.split(",")]
    schema = predictions_schema(keys.split())
    assert named == [(field.name, ATHENA.get(field.type, "timestamp")) for field in schema]
