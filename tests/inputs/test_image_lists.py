"""Image lists: the content of CSV, Parquet and text files, and what can be wrong with it."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import lzma
import os
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdet import storage
from maskdet.config import SourceSettings
from maskdet.errors import NotFoundError, SourceError
from maskdet.inputs.image_lists import Row, check_columns, kind_of_list, read_rows, row_group_count
from maskdet.inputs.listing import check_input, input_tasks, list_images, split_task

SITE = SourceSettings(keys=("site",))
TIMED = SourceSettings(captured_at_column="taken")


def ms(time: datetime) -> int:
    return round((time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)


def read(uri: Path | str, source: SourceSettings = SITE, part: int = -1) -> list[Row]:
    check_columns(str(uri), source)
    return list(read_rows(str(uri), part, source))


def read_csv(folder: Path, content: bytes | str, source: SourceSettings = SITE, name: str = "m.csv") -> list[Row]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(folder / name, source)


def read_parquet(folder: Path, columns: dict[str, Any], source: SourceSettings, **options: Any) -> list[Row]:
    pq.write_table(pa.table(columns), folder / "m.parquet", **options)
    return read(folder / "m.parquet", source)


def read_list(folder: Path, content: bytes) -> list[str]:
    (folder / "images.txt").write_bytes(content)
    rows = list(read_rows(str(folder / "images.txt"), -1, SITE))
    assert all(row == Row(row.uri, keys=(None,)) for row in rows)
    return [row.uri for row in rows]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("uri,site\n/a.jpg,x\n", [("/a.jpg", "x")]),
        ("\ufeffuri,site\n/a.jpg,x\n", [("/a.jpg", "x")]),
        ("uri,site\r\n/a.jpg,x\r\n/b.jpg,y", [("/a.jpg", "x"), ("/b.jpg", "y")]),
        ('"uri","site"\n"/a, b.jpg","x ""y"""\n', [("/a, b.jpg", 'x "y"')]),
        ('uri,site\n/a.jpg,"two\nlines"\n/b.jpg,y\n', [("/a.jpg", "two\nlines"), ("/b.jpg", "y")]),
        ("site,other,uri\nx,1,/a.jpg\n", [("/a.jpg", "x")]),
        ('uri,site\n/a.jpg,\n/b.jpg,""\n', [("/a.jpg", None), ("/b.jpg", None)]),
        ("uri,site\n/a.jpg,NA\n/b.jpg,null\n/c.jpg,nan\n", [("/a.jpg", "NA"), ("/b.jpg", "null"), ("/c.jpg", "nan")]),
        ("uri,site\n/a.jpg,007\n/b.jpg,1.50\n", [("/a.jpg", "007"), ("/b.jpg", "1.50")]),
        ("uri,site\n/a.jpg,7.0\n/b.jpg,\n/c.jpg,-1.0\n", [("/a.jpg", "7"), ("/b.jpg", None), ("/c.jpg", "-1")]),
        ("uri,site\n/a.jpg,2026-01-01\n/b.jpg,true\n", [("/a.jpg", "2026-01-01"), ("/b.jpg", "true")]),
        ("uri,site\n/a.jpg,x\n\n\n/b.jpg,y\n", [("/a.jpg", "x"), ("/b.jpg", "y")]),
        ("uri,site\ngs://b/a%20b#1?.jpg,日本\n", [("gs://b/a%20b#1?.jpg", "日本")]),
        ("uri,site\n", []),
    ],
)
def test_a_csv_is_read_as_it_is_written(tmp_path: Path, content: str, expected: list[tuple[str, str | None]]) -> None:
    assert [(row.uri, *row.keys) for row in read_csv(tmp_path, content)] == expected


TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r"), min_size=1, max_size=8)


@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=8))
def test_a_csv_of_the_standard_library_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerows([("uri", "site"), *((f"/{name.replace('/', '')}x", site) for name, site in rows)])
    found = read_csv(tmp_path_factory.mktemp("csv"), stream.getvalue())
    # 7.0 is how programs write 7 in a column with gaps.
    sites = [re.sub(r"\A(-?\d+)\.0\Z", r"\1", site.strip(" \t\u00a0")) or None for _, site in rows]
    expected = [(f"/{name.replace('/', '')}x", (site,)) for (name, _), site in zip(rows, sites, strict=True)]
    assert [(row.uri, row.keys) for row in found] == expected


@pytest.mark.parametrize("name", ["m.csv", "M.CSV", "m.Csv"])
def test_the_case_of_an_extension_does_not_matter(tmp_path: Path, name: str) -> None:
    assert read_csv(tmp_path, "uri,site\n/a.jpg,x\n", name=name) == [Row("/a.jpg", ("x",))]


def test_the_kind_in_the_settings_beats_the_extension(tmp_path: Path) -> None:
    source = SourceSettings(kind="image_list", keys=("site",))
    assert read_csv(tmp_path, "uri,site\n/a.jpg,x\n", source, name="m.txt") == [Row("/a.jpg", ("x",))]
    (tmp_path / "images.csv").write_text("/a.jpg\n/b,c.jpg\n")
    as_list = SourceSettings(kind="list")
    rows = read_rows(str(tmp_path / "images.csv"), -1, as_list)
    assert [row.uri for row in rows] == ["/a.jpg", "/b,c.jpg"]


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "not readable as CSV: it is empty"),
        (b"\n \n", "not readable as CSV: it is empty"),
        (b"uri", "expected a column 'site' (source.keys), received ['uri']"),
        (b"uri,Site,SITE\n/a.jpg,x,y\n", "expected one column 'site', received ['uri', 'Site', 'SITE']"),
        (b"PK\x03\x04 xlsx", "received 'a workbook or an archive'. Save the sheet as CSV"),
        (b"\x1f\x8b damaged", "not readable as text"),
        (b"BZh\n", "not readable as text: Invalid data stream"),
        (b"BZh9 damaged", "not readable as text: Invalid data stream"),
        (b"/a.jpg,x\n/b.jpg,y\n", "expected a column 'uri'"),
        (b"uri,site,site\n/a.jpg,x,y\n", "expected one column 'site'"),
        (b"uri,uri,site\n/a.jpg,x,y\n", "expected one column 'uri'"),
    ],
)
def test_a_csv_that_is_not_as_promised_is_refused(tmp_path: Path, content: bytes, fragment: str) -> None:
    with pytest.raises(SourceError) as refused:
        read_csv(tmp_path, content)
    assert fragment in str(refused.value)
    assert str(tmp_path / "m.csv") in str(refused.value)


@pytest.mark.parametrize("before", [3, 30_000])
def test_a_broken_row_costs_itself_alone_wherever_it_is(tmp_path: Path, before: int) -> None:
    good = "".join(f"/images/{i:08d}.jpg,some-site\n" for i in range(before)).encode()
    rows = read_csv(tmp_path, b"uri,site\n" + good + b"/short.jpg\n/long.jpg,x,y\n/late.jpg,x\n")
    assert len(rows) == before + 3
    assert [row.problem for row in rows[:before]] == [None] * before
    assert rows[-3] == Row(
        f"{tmp_path}/m.csv#part=0&row={before + 1}",
        (None,),
        problem=("bad_manifest_row", f"line {before + 2}: 1 fields, where the header names 2 columns"),
    )
    assert rows[-2].problem == ("bad_manifest_row", f"line {before + 3}: 3 fields, where the header names 2 columns")
    assert rows[-1] == Row("/late.jpg", ("x",))


def test_bytes_of_another_encoding_late_in_a_file_cost_their_row(tmp_path: Path) -> None:
    good = "".join(f"/images/{i:08d}.jpg,some-site\n" for i in range(5_000)).encode()
    rows = read_csv(tmp_path, b"uri,site\n" + good + b"/a.jpg,n\xf6rd\n/b.jpg,x\n")
    problem = rows[-2].problem
    assert problem is not None
    assert problem[0] == "bad_manifest_row"
    assert problem[1] == r"line 5002: bytes that are not valid in the file's encoding: /a.jpg n\xf6rd"
    assert rows[-1] == Row("/b.jpg", ("x",))


def test_a_quote_that_is_never_closed_swallows_no_more_than_a_stretch(tmp_path: Path) -> None:
    good = "".join(f"/images/{i:08d}.jpg,some-site\n" for i in range(20_000))
    rows = read_csv(tmp_path, f'uri,site\n/a.jpg,"x\n{good}')
    broken = [row for row in rows if row.problem]
    assert 1 <= len(broken) <= 3
    assert len(rows) > 15_000
    assert rows[-1] == Row("/images/00019999.jpg", ("some-site",))
    assert "a quote that is not closed" in str(broken[0].problem)


TABLE = 'uri,site\n"/p 0,x.jpg",north\n"/p 1,x.jpg",s\u00fcd\n'
WRITTEN = {
    "plain.csv": TABLE.encode(),
    "mark, returns.csv": TABLE.replace("\n", "\r\n").encode("utf-8-sig"),
    "returns alone.csv": TABLE.replace("\n", "\r").encode(),
    "semicolons.csv": TABLE.replace('",', '";').replace("uri,", "uri;").encode(),
    "semicolons, unquoted.csv": TABLE.replace('",', ";").replace('"', "").replace("uri,", "uri;").encode(),
    "excel.csv": b"sep=;\r\n" + TABLE.replace('",', '";').replace("uri,", "uri;").encode(),
    "excel, commas.csv": b"sep=,\n" + TABLE.encode(),
    "tabs.csv": TABLE.replace('",', '"\t').replace("uri,", "uri\t").encode(),
    "tabs.tsv": TABLE.replace('",', '"\t').replace("uri,", "uri\t").encode(),
    "pipes.csv": TABLE.replace('",', '"|').replace("uri,", "uri|").encode(),
    "capitals.csv": TABLE.replace("uri,site", "URI,Site").encode(),
    "spaces.csv": TABLE.replace("uri,", "uri, ").replace('",', '" , ').encode(),
    "windows.csv": TABLE.encode("cp1252"),
    "utf16.csv": TABLE.encode("utf-16"),
    "utf16, other end.csv": b"\xfe\xff" + TABLE.encode("utf-16-be"),
    "packed.csv.gz": gzip.compress(TABLE.encode("utf-8-sig")),
    "packed.tsv.bz2": bz2.compress(TABLE.replace('",', '"\t').replace("uri,", "uri\t").encode()),
    "packed.csv.xz": lzma.compress(TABLE.encode("utf-16")),
    "CAPITALS.CSV": TABLE.encode(),
    "blank rows.csv": TABLE.replace("\n", "\n\n").encode() + b"\n\n,\n",
    "index.csv": b",uri,site\n"
    + b"".join(b"%d," % i + row for i, row in enumerate(TABLE.encode().splitlines(True)[1:])),
    "filled up.csv": TABLE.replace("north\n", "north,,,\n").encode(),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_table_is_read_however_a_spreadsheet_wrote_it(tmp_path: Path, name: str) -> None:
    assert kind_of_list(name) == "image_list"
    rows = read_csv(tmp_path, WRITTEN[name], name=name)
    assert [(row.uri, *row.keys, row.problem) for row in rows] == [
        ("/p 0,x.jpg", "north", None),
        ("/p 1,x.jpg", "s\u00fcd", None),
    ]


def test_a_column_of_exactly_that_name_beats_one_in_capitals(tmp_path: Path) -> None:
    assert read_csv(tmp_path, "URI,uri,site\n/no.jpg,/a.jpg,x\n") == [Row("/a.jpg", ("x",))]


def test_paths_of_windows_are_read_or_said_to_lie_elsewhere(tmp_path: Path) -> None:
    inside, drive, share = read_csv(tmp_path, "uri,site\nimg\\a.jpg,x\nC:\\photos\\a.jpg,y\n\\\\nas\\a.jpg,z\n")
    assert inside == Row(f"{tmp_path}/img/a.jpg", ("x",))
    for row, key in ((drive, "y"), (share, "z")):
        assert row.keys == (key,)
        assert "lies on a drive of another machine" in str(row.problem)


def test_a_folder_of_parquet_files_is_one_manifest_with_its_folders_as_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"uri": ["a.jpg", "b.jpg", "c.jpg"], "site": ["n\u00f6rd/1", "s", None], "n": [1.0, None, 3.0]}
    )
    frame.to_parquet(tmp_path / "m.parquet", partition_cols=["site"])
    (tmp_path / "m.parquet" / "_SUCCESS").touch()
    source = SourceSettings(keys=("site", "n"))
    for written in (f"{tmp_path}/m.parquet", f"{tmp_path}/m.parquet/"):
        tasks = input_tasks([written], source)
        assert [task.kind for task in tasks] == ["image_list"] * len(tasks)
        for task in tasks:
            check_input(task, source)
        parts = [part for task in tasks for part in split_task(task)]
        refs = [ref for part in parts for batch in list_images(part, source) for ref in batch.refs]
        assert {(Path(ref.uri).name, *ref.keys) for ref in refs} == {
            ("a.jpg", "n\u00f6rd/1", "1"),
            ("b.jpg", "s", None),
            ("c.jpg", None, "3"),
        }
        assert {str(Path(ref.uri).parent) for ref in refs} == {str(tmp_path)}


def test_a_missing_manifest_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read(tmp_path / "none.csv")


def test_other_names_of_columns_come_from_the_settings(tmp_path: Path) -> None:
    source = SourceSettings(uri_column="image.path", keys=("camera", "version"))
    table = {"image.path": ["/a.jpg"], "version": ["v"], "camera": [3], "image": ["no"]}
    assert read_parquet(tmp_path, table, source) == [Row("/a.jpg", ("3", "v"))]
    assert read_csv(tmp_path, "version,camera,image.path\nv,3,/a.jpg\n", source) == [Row("/a.jpg", ("3", "v"))]


@pytest.mark.parametrize("group_rows", [1, 2, 10])
def test_a_parquet_read_by_row_groups_gives_the_rows_of_the_whole(tmp_path: Path, group_rows: int) -> None:
    uris = ["/a.jpg", None, "/b.jpg", "", "/c.jpg"]
    whole = read_parquet(tmp_path, {"uri": uris, "site": list("vwxyz")}, SITE, row_group_size=group_rows)
    path = str(tmp_path / "m.parquet")
    count = row_group_count(path)
    assert count == -(-5 // group_rows)
    assert [row for part in range(count) for row in read_rows(path, part, SITE)] == whole
    assert [row.uri for row in whole if row.problem is None] == ["/a.jpg", "/b.jpg", "/c.jpg"]
    assert [row.keys for row in whole] == [("v",), ("w",), ("x",), ("y",), ("z",)]
    assert len({row.uri for row in whole}) == 5


def test_an_empty_parquet_names_no_images(tmp_path: Path) -> None:
    columns = {"uri": pa.array([], pa.string()), "site": pa.array([], pa.string())}
    assert read_parquet(tmp_path, columns, SITE) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array(["a", ""], pa.large_string()), ["a", None]),
        (pa.array([b"a", b"\xe9"]), ["a", r"\xe9"]),
        (pa.array([7, None]), ["7", None]),
        (pa.array([7.0, None]), ["7", None]),
        (pa.array([7.5, float("nan")]), ["7.5", None]),
        (pa.array([date(2026, 1, 31), None]), ["2026-01-31", None]),
        (pa.array([Decimal("1.50"), None]), ["1.50", None]),
        (pa.array([None, None], pa.null()), [None, None]),
    ],
)
def test_keys_of_any_type_become_text(tmp_path: Path, values: pa.Array, expected: list[str | None]) -> None:
    rows = read_parquet(tmp_path, {"uri": ["/a.jpg", "/b.jpg"], "site": values}, SITE)
    assert [row.keys for row in rows] == [(value,) for value in expected]


def test_uris_that_a_writer_left_as_bytes_are_text(tmp_path: Path) -> None:
    assert read_parquet(tmp_path, {"uri": ["/ä.jpg".encode()]}, SourceSettings()) == [Row("/ä.jpg")]


@pytest.mark.parametrize("name", ["m.parquet", "M.PARQUET"])
def test_what_is_not_parquet_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1 but not really, PAR1")
    for action in (lambda: row_group_count(str(tmp_path / name)), lambda: read(tmp_path / name)):
        with pytest.raises(SourceError, match="not readable as Parquet"):
            action()


def test_a_parquet_damaged_in_its_pages_is_refused(tmp_path: Path) -> None:
    uris = [f"/{i * 7919 % 10_007}.jpg" for i in range(10_000)]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet", compression="zstd", use_dictionary=False)
    content = bytearray((tmp_path / "m.parquet").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    (tmp_path / "m.parquet").write_bytes(content)
    with pytest.raises(SourceError, match="not readable as Parquet"):
        read(tmp_path / "m.parquet", SourceSettings())


def test_a_parquet_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["/a.jpg"]), pa.array(["/b.jpg"])], names=["uri", "uri"])
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(SourceError, match="one column 'uri'"):
        read(tmp_path / "m.parquet", SourceSettings())


MOMENT = datetime(2026, 7, 1, 8, 15, 30, 250_000, tzinfo=UTC)
BERLIN_WALL = datetime(2026, 7, 1, 10, 15, 30, 250_000)


@pytest.mark.parametrize(
    "text",
    [
        "2026-07-01T08:15:30.250Z",
        "2026-07-01T08:15:30.250+00:00",
        "2026-07-01 10:15:30.250+02:00",
        "2026-07-01T10:15:30.250",
        "2026-07-01 10:15:30.250999",
        "20260701T101530.250",
        " 2026-07-01T10:15:30.250 ",
    ],
)
def test_times_of_a_csv_are_local_unless_they_say_their_offset(tmp_path: Path, text: str) -> None:
    source = SourceSettings(captured_at_column="taken", timezone="Europe/Berlin")
    assert read_csv(tmp_path, f"uri,taken\n/a.jpg,{text}\n", source) == [Row("/a.jpg", captured_at_ms=ms(MOMENT))]


@pytest.mark.parametrize(
    "values",
    [
        *(pa.array([MOMENT], pa.timestamp(unit, tz)) for unit in ("ms", "us", "ns") for tz in ("UTC", "+02:00")),
        pa.array([MOMENT], pa.timestamp("us", "America/New_York")),
        *(pa.array([BERLIN_WALL], pa.timestamp(unit)) for unit in ("ms", "us", "ns")),
        pa.array([pd.Timestamp(BERLIN_WALL) + pd.Timedelta(999, "ns")], pa.timestamp("ns")),
        pa.array([BERLIN_WALL.isoformat()]),
        pa.array([BERLIN_WALL.isoformat()]).dictionary_encode(),
    ],
    ids=lambda values: str(values.type),
)
def test_times_of_a_parquet_are_local_unless_they_say_their_zone(tmp_path: Path, values: pa.Array) -> None:
    source = SourceSettings(captured_at_column="taken", timezone="Europe/Berlin")
    rows = read_parquet(tmp_path, {"uri": ["/a.jpg"], "taken": values}, source)
    assert rows == [Row("/a.jpg", captured_at_ms=ms(MOMENT))]


def test_a_manifest_written_by_pandas_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "uri": ["/a.jpg", "/b.jpg"],
            "site": pd.Categorical(["x", None]),
            "taken": pd.to_datetime(["2026-01-31 08:00", None]).tz_localize("Asia/Tokyo"),
        },
        index=[5, 6],
    )
    frame.to_parquet(tmp_path / "m.parquet")
    source = SourceSettings(keys=("site",), captured_at_column="taken")
    first, second = read(tmp_path / "m.parquet", source)
    tokyo = timezone(timedelta(hours=9))
    assert first == Row("/a.jpg", ("x",), ms(datetime(2026, 1, 31, 8, tzinfo=tokyo)))
    assert second == Row("/b.jpg", (None,), None)


def test_a_date_is_its_midnight_in_the_sources_time_zone(tmp_path: Path) -> None:
    source = SourceSettings(captured_at_column="taken", timezone="America/New_York")
    expected = [Row("/a.jpg", captured_at_ms=ms(datetime(2026, 1, 31, 5, tzinfo=UTC)))]
    assert read_parquet(tmp_path, {"uri": ["/a.jpg"], "taken": [date(2026, 1, 31)]}, source) == expected
    for text in ("2026-01-31", "20260131"):
        assert read_csv(tmp_path, f"uri,taken\n/a.jpg,{text}\n", source) == expected


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "31.01.2026",
        "2026-02-30",
        "2026-01-31T25:00",
        "2026-01-31T08:00+99:00",
        "1712011200",
        "1712011200000",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
    ],
)
def test_a_time_that_cannot_be_read_costs_its_own_row_only(tmp_path: Path, text: str) -> None:
    source = SourceSettings(keys=("site",), captured_at_column="taken")
    rows = read_csv(tmp_path, f"uri,site,taken\n/a.jpg,x,{text}\n/b.jpg,y,2026-01-31T00:00Z\n", source)
    assert rows[0].uri == "/a.jpg"
    assert rows[0].keys == ("x",)
    assert rows[0].problem is not None
    assert rows[0].problem[0] == "bad_manifest_row"
    assert repr(text) in rows[0].problem[1]
    assert rows[1] == Row("/b.jpg", ("y",), ms(datetime(2026, 1, 31, tzinfo=UTC)))


def test_numbers_are_not_taken_for_times(tmp_path: Path) -> None:
    [row] = read_parquet(tmp_path, {"uri": ["/a.jpg"], "taken": [1_712_011_200_000]}, TIMED)
    assert row.problem is not None


def test_a_row_without_a_uri_is_named_by_its_place(tmp_path: Path) -> None:
    rows = read_csv(tmp_path, "uri,site\n,x\n/a.jpg,y\n,x\n")
    assert [row.problem and row.problem[0] for row in rows] == ["bad_manifest_row", None, "bad_manifest_row"]
    assert [row.uri for row in rows] == [
        f"{tmp_path}/m.csv#part=0&row=1",
        "/a.jpg",
        f"{tmp_path}/m.csv#part=0&row=3",
    ]


CLAIMS = SourceSettings(version_column="etag", size_column="size")


@pytest.mark.parametrize(
    ("size", "version", "expected"),
    [
        ("12", "v1", (12, "manifest:v1")),
        ("0", "v1", (0, "manifest:v1")),
        ("12", "", (-1, "")),
        ("", "v1", (-1, "manifest:v1")),
        ("-5", "v1", (-1, "manifest:v1")),
    ],
)
def test_versions_and_sizes_are_those_of_the_columns_that_settings_name(
    tmp_path: Path, size: str, version: str, expected: tuple[int, str]
) -> None:
    [row] = read_csv(tmp_path, f"uri,size,etag\n/a.jpg,{size},{version}\n", CLAIMS)
    assert (row.size_bytes, row.version) == expected
    assert row.problem is None


@pytest.mark.parametrize("names", ["size_bytes,version", "size,etag", "SIZE_BYTES,VERSION"])
def test_columns_that_no_setting_names_are_never_taken_for_versions(tmp_path: Path, names: str) -> None:
    assert read_csv(tmp_path, f"uri,{names}\n/a.jpg,12,v\n", SourceSettings()) == [Row("/a.jpg")]


@pytest.mark.parametrize("size", ["1.5", "big", "inf", "1e3"])
def test_a_size_that_is_no_number_of_bytes_costs_its_own_row_only(tmp_path: Path, size: str) -> None:
    bad, good = read_csv(tmp_path, f"uri,size,etag\n/a.jpg,{size},v\n/b.jpg,3,v\n", CLAIMS)
    assert bad.problem is not None
    assert good == Row("/b.jpg", size_bytes=3, version="manifest:v")


def test_sizes_may_be_floats_and_infinite_ones_cost_their_own_row(tmp_path: Path) -> None:
    columns = {"uri": ["/a.jpg", "/b.jpg", "/c.jpg"], "size": [12.0, None, float("inf")], "etag": [1, 2, 3]}
    rows = read_parquet(tmp_path, columns, CLAIMS)
    assert [(row.size_bytes, row.version) for row in rows] == [(12, "manifest:1"), (-1, "manifest:2"), (-1, "")]
    assert [row.problem is None for row in rows] == [True, True, False]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"/a.jpg\n/b.jpg\n", ["/a.jpg", "/b.jpg"]),
        (b"/a.jpg\r\n/b.jpg", ["/a.jpg", "/b.jpg"]),
        (b"\xef\xbb\xbf/a.jpg\n", ["/a.jpg"]),
        (b"\xef\xbb\xbf# comment\n/a.jpg\n", ["/a.jpg"]),
        (b"# comment\n\n   \n  /a b.jpg  \n#/c.jpg\n", ["/a b.jpg"]),
        ('/straße,"x".jpg\ngs://b/日本.jpg\n'.encode(), ['/straße,"x".jpg', "gs://b/日本.jpg"]),
        (b"/a.jpg\n/a.jpg\n", ["/a.jpg", "/a.jpg"]),
        (b"", []),
    ],
)
def test_a_list_file_has_one_uri_a_line(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    assert read_list(tmp_path, content) == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_a_list_file_may_be_in_the_encodings_that_editors_write(tmp_path: Path, encoding: str) -> None:
    assert read_list(tmp_path, "/a.jpg\r\n/caf\u00e9.jpg\r\n".encode(encoding)) == ["/a.jpg", "/caf\u00e9.jpg"]
    assert read_list(tmp_path, gzip.compress("/caf\u00e9.jpg\n".encode(encoding))) == ["/caf\u00e9.jpg"]


def test_a_line_of_another_encoding_costs_its_own_row_only(tmp_path: Path) -> None:
    good = b"".join(b"/%08d.jpg\n" % number for number in range(10_000))
    (tmp_path / "images.txt").write_bytes(good + b"/caf\xe9.jpg\n/a\0b.jpg\n/last.jpg\n")
    *_, bad, zero, last = read_rows(str(tmp_path / "images.txt"), -1, SITE)
    assert bad.uri == f"{tmp_path}/images.txt#part=0&row=10001"
    assert bad.problem == ("bad_manifest_row", r"bytes that are not UTF-8: /caf\xe9.jpg")
    assert zero.problem == ("bad_manifest_row", "a zero byte, which no path can contain")
    assert last == Row("/last.jpg", (None,))


def test_relative_uris_count_from_the_manifests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    lines = ["a.jpg", "./b c.jpg", "../up.jpg", "x/[1]%20#.jpg", "~/home.jpg", "~tilde.jpg", "file:///f%20g.jpg"]
    expected = [
        f"{tmp_path}/a.jpg",
        f"{tmp_path}/b c.jpg",
        f"{tmp_path.parent}/up.jpg",
        f"{tmp_path}/x/[1]%20#.jpg",
        "/home/someone/home.jpg",
        f"{tmp_path}/~tilde.jpg",
        "/f g.jpg",
    ]
    assert read_list(tmp_path, "\n".join(lines).encode()) == expected
    rows = "".join(f"{line}\n" for line in lines)
    assert [row.uri for row in read_csv(tmp_path, f"uri\n{rows}", SourceSettings())] == expected


def test_relative_uris_of_a_manifest_in_a_store_name_its_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"a.jpg\n./b.jpg\n../c.jpg\n../d/./e f%20#.jpg\ngs://other//x.jpg\n/local.jpg\n"
    monkeypatch.setattr(storage, "open_binary", lambda uri: contextlib.closing(io.BytesIO(lines)))
    rows = list(read_rows("gs://bucket/lists/all.txt", -1, SourceSettings()))
    assert [row.uri for row in rows] == [
        "gs://bucket/lists/a.jpg",
        "gs://bucket/lists/b.jpg",
        "gs://bucket/c.jpg",
        "gs://bucket/d/e f%20#.jpg",
        "gs://other//x.jpg",
        "/local.jpg",
    ]


@pytest.mark.parametrize(
    "uri",
    [
        *("/a/b.jpg", "/a//b.jpg", "/a/./b.jpg", "/a/../b.jpg", "/a/", "//a/b.jpg", "/", "/~b.jpg", "/a/~/b.jpg"),
        *("/a b/ü%20?#[1].jpg", "/a/..b.jpg", "/a/.b.jpg", "/a/b.", "/a/.../b.jpg", "/..", "/a/.."),
    ],
)
def test_an_absolute_path_is_named_as_storage_names_it(tmp_path: Path, uri: str) -> None:
    [row] = read_csv(tmp_path, f"uri,site\n{uri},x\n")
    assert row.uri == storage.normalize(uri) == str(Path(os.path.abspath(uri)))
