"""Names of the files and the form of the Parquet in them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskdet.errors import NotFoundError, StorageError
from maskdet.inputs.references import HIVE_NULL, partition_folders
from maskdet.schemas import SCHEMA_VERSION, failures_schema
from maskdet.tables.layout import Layout, is_ours, read_table, read_version, write_table, write_version


def failures(count, keys=(), start=0):
    rows = [
        {
            "image_uri": f"/images/{start + i}",
            "captured_at": datetime(2026, 1, 5, tzinfo=UTC) if i % 2 else None,
            "stage": "fetch",
            "code": "not_found",
            "message": "x",
            "attempts": i,
        }
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=failures_schema(keys))


def test_files_lie_where_the_module_says():
    layout = Layout("gs://bucket/out")
    assert layout.table("predictions", "site-a/shard-all") == "gs://bucket/out/predictions/site-a/shard-all.parquet"
    # SHA-256 of the slot, cut: failures are one table, without folders.
    name = hashlib.sha256(b"site-a/shard-all").hexdigest()[:16]
    assert layout.table("failures", "site-a/shard-all") == f"gs://bucket/out/failures/{name}.parquet"
    assert layout.no_rows("failures") == "gs://bucket/out/failures/no-rows.parquet"
    version = layout.version("failures", "site-a/shard-all", "ab" * 32)
    assert version == "gs://bucket/out/_files/failures/site-a/shard-all-abababababababababab.pq"
    assert layout.receipt("site-a/shard-0") == "gs://bucket/out/_shards/site-a/shard-0.json"
    assert layout.compliance("site hour/x") == "gs://bucket/out/compliance/level=site hour%2Fx/groups.parquet"
    assert layout.run("20260105T081500Z-3f2a9c") == "gs://bucket/out/_runs/20260105T081500Z-3f2a9c.json"
    assert layout.heartbeat("20260105T081500Z-3f2a9c") == "gs://bucket/out/_runs/20260105T081500Z-3f2a9c.heartbeat"
    assert layout.success == "gs://bucket/out/_SUCCESS"
    assert layout.snapshot == "gs://bucket/out/_snapshot.json"
    assert layout.lease == "gs://bucket/out/_lease.json"
    assert layout.folder("failures") == "gs://bucket/out/failures"


@pytest.mark.parametrize(
    ("folder", "name", "ours"),
    [
        ("predictions", "shard-all.parquet", True),
        ("predictions", "shard-0110.parquet", True),
        ("predictions", "no-rows.parquet", True),
        ("predictions", ".shard-01.parquet.0123abcd.tmp", True),
        ("predictions", "shard-2.parquet", False),
        ("predictions", "photo.jpg", False),
        ("failures", "0123456789abcdef.parquet", True),
        ("failures", "shard-all.parquet", False),
        ("compliance", "groups.parquet", True),
        ("_shards", "shard-all.json", True),
        ("_files", "shard-01-0123456789abcdef0123.pq", True),
        ("_files", "site_hour-0123456789abcdef0123.pq", True),
        ("_files", "photo.pq", False),
    ],
)
def test_a_file_is_known_by_its_name(folder, name, ours):
    assert is_ours(folder, f"/out/{folder}/site-a/{name}") == ours


def test_a_version_is_read_as_it_was_written_or_not_at_all(tmp_path):
    layout = Layout(str(tmp_path))
    digest = write_version(layout, "failures", "site-a/shard-all", failures(3), 10)
    assert read_version(layout, "failures", "site-a/shard-all", digest).equals(failures(3))
    path = tmp_path / "_files" / "failures" / "site-a" / f"shard-all-{digest[:20]}.pq"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert read_version(layout, "failures", "site-a/shard-all", digest) is None
    path.unlink()
    assert read_version(layout, "failures", "site-a/shard-all", digest) is None


def test_folders_of_a_partition_are_no_columns_to_any_reader():
    folders = partition_folders(["site", "date"], ["007", "2026-03-02"])
    assert folders == "site-007/date-2026-03-02"
    assert partition_folders(["site"], [None]) == f"site-{HIVE_NULL}"
    values = [
        None,
        HIVE_NULL,
        "",
        "a/b",
        "../up",
        ".",
        "%",
        "été 日本",
        "x" * 300,
        "x" * 299 + "y",
        "日" * 200,
        "日" * 199,
    ]
    names = [partition_folders(["site"], [value]) for value in values]
    assert len(set(names)) == len(names)
    assert not any("/" in name or "=" in name or len(name.encode()) > 255 for name in names)


class TestParquet:
    @pytest.fixture
    def written(self, tmp_path):
        uri = str(tmp_path / "deep" / "er" / "t.parquet")
        digest = write_table(uri, failures(25), 10, {"maskdet.slot": "shard-all"})
        return uri, digest

    def test_zstd_statistics_and_row_groups_of_the_size_asked_for(self, written):
        meta = pq.ParquetFile(written[0]).metadata
        assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [10, 10, 5]
        for group in range(meta.num_row_groups):
            for column in range(meta.num_columns):
                chunk = meta.row_group(group).column(column)
                assert chunk.compression == "ZSTD"
                assert chunk.is_stats_set, chunk.path_in_schema

    def test_statistics_bound_the_values(self, written):
        chunk = pq.ParquetFile(written[0]).metadata.row_group(1).column(5)
        assert chunk.path_in_schema == "attempts"
        assert (chunk.statistics.min, chunk.statistics.max, chunk.statistics.null_count) == (10, 19, 0)

    def test_schema_version_marks_and_descriptions_are_in_the_file(self, written):
        schema = pq.read_schema(written[0])
        assert schema.metadata[b"maskdet.schema_version"] == str(SCHEMA_VERSION).encode()
        assert schema.metadata[b"maskdet.table"] == b"failures"
        assert schema.metadata[b"maskdet.slot"] == b"shard-all"
        assert all(field.metadata[b"description"] for field in schema)
        assert schema.remove_metadata().equals(failures_schema().remove_metadata())
        assert [field.nullable for field in schema] == [field.nullable for field in failures_schema()]

    def test_the_digest_is_that_of_the_file(self, written):
        with open(written[0], "rb") as stream:
            assert hashlib.sha256(stream.read()).hexdigest() == written[1]

    def test_the_same_table_gives_the_same_bytes(self, written, tmp_path):
        assert (
            write_table(str(tmp_path / "again.parquet"), failures(25), 10, {"maskdet.slot": "shard-all"}) == written[1]
        )

    def test_what_is_written_is_read_back(self, written):
        assert read_table(written[0]).equals(failures(25))
        assert read_table(written[0], ["attempts", "code"]).column_names == ["attempts", "code"]

    def test_folders_of_the_path_do_not_become_columns(self, tmp_path):
        uri = str(tmp_path / "site=a" / "t.parquet")
        write_table(uri, failures(2), 10)
        assert read_table(uri).column_names == failures_schema().names

    def test_a_table_without_rows_is_never_written(self, tmp_path):
        with pytest.raises(AssertionError, match="without rows"):
            write_table(str(tmp_path / "t.parquet"), failures(0), 10)

    def test_nothing_is_left_beside_the_file(self, written, tmp_path):
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["t.parquet"]

    def test_errors_are_those_of_storage(self, tmp_path):
        with pytest.raises(NotFoundError):
            read_table(str(tmp_path / "none.parquet"))
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot write"):
            write_table(str(tmp_path / "file" / "t.parquet"), failures(1), 10)
