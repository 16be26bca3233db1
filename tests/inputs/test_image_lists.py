"""Manifests: what CSV, Parquet and list files say, and what is wrong with them."""

from __future__ import annotations

import contextlib
import csv
import io
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
from maskdet.inputs.image_lists import Row, check_columns, read_rows, row_group_count

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
        ("uri,site\n/a.jpg,007\n/b.jpg,1.0\n", [("/a.jpg", "007"), ("/b.jpg", "1.0")]),
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
    assert [(row.uri, row.keys) for row in found] == [(f"/{name.replace('/', '')}x", (site,)) for name, site in rows]


@pytest.mark.parametrize("name", ["m.csv", "M.CSV", "m.Csv"])
def test_the_case_of_an_extension_does_not_matter(tmp_path: Path, name: str) -> None:
    assert read_csv(tmp_path, "uri,site\n/a.jpg,x\n", name=name) == [Row("/a.jpg", ("x",))]


def test_the_kind_in_the_settings_beats_the_extension(tmp_path: Path) -> None:
    source = SourceSettings(kind="manifest", keys=("site",))
    assert read_csv(tmp_path, "uri,site\n/a.jpg,x\n", source, name="m.txt") == [Row("/a.jpg", ("x",))]
    (tmp_path / "images.csv").write_text("/a.jpg\n/b,c.jpg\n")
    as_list = SourceSettings(kind="list")
    rows = read_rows(str(tmp_path / "images.csv"), -1, as_list)
    assert [row.uri for row in rows] == ["/a.jpg", "/b,c.jpg"]


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "not readable as CSV"),
        (b"uri", "not readable as CSV"),
        (b"uri,site\n/a.jpg\n", "Expected 2 columns, got 1"),
        (b"uri,site\n/a.jpg,x,y\n", "Expected 2 columns, got 3"),
        (b"uri,site\n/a.jpg,caf\xe9\n", "invalid UTF8"),
        (b"uri,caf\xe9\n/a.jpg,1\n", "not readable as CSV"),
        (b"uri;site\n/a.jpg;x\n", "expected a column 'uri' (source.uri_column), received ['uri;site']"),
        (b"uri,Site\n/a.jpg,x\n", "expected a column 'site' (source.keys), received ['uri', 'Site']"),
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


def test_a_fault_far_down_a_csv_is_refused_too(tmp_path: Path) -> None:
    rows = "".join(f"/images/{i:08d}.jpg,some-site\n" for i in range(60_000))
    with pytest.raises(SourceError, match="Expected 2 columns, got 1"):
        read_csv(tmp_path, f"uri,site\n{rows}broken\n")


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


@pytest.mark.parametrize(
    ("size", "version", "expected"),
    [
        ("12", "v1", (12, "v1")),
        ("0", "v1", (0, "v1")),
        ("12", "", (-1, "")),
        ("", "v1", (-1, "")),
        ("", "", (-1, "")),
        ("-5", "v1", (-1, "")),
    ],
)
def test_size_and_version_are_believed_together_only(
    tmp_path: Path, size: str, version: str, expected: tuple[int, str]
) -> None:
    [row] = read_csv(tmp_path, f"uri,size_bytes,version\n/a.jpg,{size},{version}\n", SourceSettings())
    assert (row.size_bytes, row.version) == expected
    assert row.problem is None


@pytest.mark.parametrize("size", ["1.5", "big", "inf", "1e3"])
def test_a_size_that_is_no_number_of_bytes_costs_its_own_row_only(tmp_path: Path, size: str) -> None:
    content = f"uri,size_bytes,version\n/a.jpg,{size},v\n/b.jpg,3,v\n"
    bad, good = read_csv(tmp_path, content, SourceSettings())
    assert bad.problem is not None
    assert good == Row("/b.jpg", size_bytes=3, version="v")


def test_sizes_may_be_floats_and_infinite_ones_cost_their_own_row(tmp_path: Path) -> None:
    columns = {"uri": ["/a.jpg", "/b.jpg", "/c.jpg"], "size_bytes": [12.0, None, float("inf")], "version": [1, 2, 3]}
    rows = read_parquet(tmp_path, columns, SourceSettings())
    assert [(row.size_bytes, row.version) for row in rows] == [(12, "1"), (-1, ""), (-1, "")]
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


@pytest.mark.parametrize("content", [b"/a.jpg\n/caf\xe9.jpg\n", "/a.jpg\n/b.jpg\n".encode("utf-16")])
def test_a_list_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceError, match=r"images\.txt, line \d.*Save it as UTF-8"):
        read_list(tmp_path, content)


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
