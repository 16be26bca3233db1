"""Names of the files and the form of the Parquet in them, as other readers see it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from maskdet.errors import NotFoundError, StorageError
from maskdet.inputs.references import HIVE_NULL, ImageRef, partition_path
from maskdet.inputs.sharding import KeyRule, Size, pack
from maskdet.schemas import failures_schema
from maskdet.tables.layout import Layout, read_table, write_table

SITES = [
    "plain",
    "with space",
    "été 日本",
    "x=y",
    "a/b",
    "../up",
    "100%",
    "a%2Fb",
    "a+b&c#d;?",
    "*[x]",
    "q\"u'o",
    "b\\s",
    "c:d",
    ".",
]


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
    assert layout.table("predictions", "site=a/shard-all") == "gs://bucket/out/predictions/site=a/shard-all.parquet"
    # SHA-256 of the slot, cut: failures are one table, without folders.
    name = hashlib.sha256(b"site=a/shard-all").hexdigest()[:16]
    assert layout.table("failures", "site=a/shard-all") == f"gs://bucket/out/failures/{name}.parquet"
    assert layout.receipt("site=a/shard-0") == "gs://bucket/out/_shards/site=a/shard-0.json"
    assert layout.compliance("site hour/x") == "gs://bucket/out/compliance/level=site hour%2Fx/groups.parquet"
    assert layout.run("20260105T081500Z-3f2a9c") == "gs://bucket/out/_runs/20260105T081500Z-3f2a9c.json"
    assert layout.success == "gs://bucket/out/_SUCCESS"
    assert layout.dataset == "gs://bucket/out/_dataset.json"
    assert layout.folder("failures") == "gs://bucket/out/failures"


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
        assert schema.metadata[b"maskdet.schema_version"] == b"1"
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


class TestPartitions:
    """Hive folders as DuckDB, pandas, polars and Arrow read them."""

    def write(self, folder, sites):
        for i, site in enumerate(sites):
            refs = [ImageRef(f"/images/{i}", 1, "1", (site,))]
            [shard] = pack(refs, KeyRule(("site",), ("site",)), Size(10, 10**9))
            write_table(Layout(str(folder)).table("predictions", shard.slot), failures(1, start=i), 10)
        return folder / "predictions"

    def expected(self, sites):
        return {f"/images/{i}": site for i, site in enumerate(sites)}

    def readers(self, folder):
        string = ds.partitioning(pa.schema([("site", pa.string())]), flavor="hive")
        query = f"SELECT image_uri, site FROM read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
        typed = pd.read_parquet(folder, partitioning=string)[["image_uri", "site"]]
        return {
            "duckdb": dict(duckdb.sql(query).fetchall()),
            "polars": dict(
                pl.read_parquet(f"{folder}/**/*.parquet", hive_partitioning=True).select("image_uri", "site").rows()
            ),
            "pandas": dict(typed.astype(object).where(typed.notna(), None).itertuples(index=False)),
            "arrow": {
                r["image_uri"]: r["site"] for r in ds.dataset(folder, partitioning=string).to_table().to_pylist()
            },
        }

    @pytest.mark.parametrize("extra", [[], [None], ["", None]])
    def test_every_reader_gives_the_values_back(self, tmp_path, extra):
        sites = [*SITES, *extra]
        for reader, found in self.readers(self.write(tmp_path, sites)).items():
            assert found == self.expected(sites), reader

    def test_pandas_reads_strings_without_being_told(self, tmp_path):
        table = pd.read_parquet(self.write(tmp_path, SITES))
        assert dict(zip(table["image_uri"], table["site"].astype(str), strict=True)) == self.expected(SITES)

    def test_a_value_s_slashes_and_dots_make_no_folders(self, tmp_path):
        folder = self.write(tmp_path, SITES)
        assert sorted(path.parent.parent for path in folder.rglob("*.parquet")) == [folder] * len(SITES)

    def test_null_has_hive_s_own_name(self):
        assert partition_path(["site"], [None]) == f"site={HIVE_NULL}" == "site=__HIVE_DEFAULT_PARTITION__"
