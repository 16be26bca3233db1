"""Delta Lake tables over an output's files: what readers see, what a commit changes, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from maskdet.cli import main
from maskdet.errors import ConfigError, OutputError, SourceError
from maskdet.tables.delta import commit_delta
from maskdet.tables.delta_options import check_store_options
from maskdet.tables.layout import SHARD_TABLES
from maskdet.tables.snapshot import table_files
from maskdet.testing import solid_image

SITES = ["007", "été 日本", "x=y", "a/b", "50% off", "null"]
FLAGS = ("--set", "source.keys=[site]")


def write_list(folder, sites):
    """One image per site, each of another grey."""
    rows = {"uri": [], "site": []}
    for site in sites:
        path = folder / f"{SITES.index(site)}.png"
        if not path.exists():  # a new time of change is a new version
            path.write_bytes(solid_image(10 + 40 * SITES.index(site)))
        rows["uri"].append(str(path))
        rows["site"].append(site)
    pq.write_table(pa.table(rows), folder / "images.parquet")
    return folder / "images.parquet"


def run(score, folder, sites, *flags):
    scored = score(folder / "tables", write_list(folder, sites), flags=(*FLAGS, *flags), template=None)
    assert scored.code == 0
    return str(folder / "tables")


def rows_of(table: pa.Table):
    return sorted(table.to_pylist(), key=repr)


def by_delta(output, table, **options):
    delta = DeltaTable(f"{output}/_files/{table}", **options)
    return rows_of(pa.table(delta.to_pyarrow_table()))


def by_parquet(output, table, level=None):
    return rows_of(pa.concat_tables(pq.read_table(file) for file in table_files(output, table, level)))


def test_readers_of_delta_see_the_rows_of_the_files_whatever_the_keys_are_called(score, tmp_path):
    output = run(score, tmp_path, SITES)
    commits = commit_delta(output)
    assert [(commit.table, commit.version, commit.files_removed) for commit in commits] == [
        (table, 0, 0) for table in ("predictions", "failures", "no_face", "compliance")
    ]
    for table in SHARD_TABLES:
        assert by_delta(output, table) == by_parquet(output, table)
    assert sorted(row["site"] for row in by_delta(output, "predictions")) == sorted(SITES)
    levels = by_delta(output, "compliance")
    for level in {row.pop("level") for row in map(dict, levels)}:
        of_level = [{name: value for name, value in row.items() if name != "level"} for row in levels
                    if row["level"] == level]  # fmt: skip
        assert sorted(of_level, key=repr) == by_parquet(output, "compliance", level)


def test_a_commit_names_what_changed_and_nothing_else(score, tmp_path):
    output = run(score, tmp_path, SITES[:3])
    commit_delta(output)
    before = by_delta(output, "predictions")
    assert [commit.version for commit in commit_delta(output)] == [0, 0, 0, 0]
    run(score, tmp_path, [*SITES[:2], SITES[4]], "--set", "tables.on_gone=remove")
    first = commit_delta(output)[0]
    assert (first.version, first.files_added, first.files_removed) == (1, 1, 1)
    assert by_delta(output, "predictions") == by_parquet(output, "predictions")
    assert sorted(row["site"] for row in by_delta(output, "predictions")) == sorted([*SITES[:2], SITES[4]])
    assert by_delta(output, "predictions", version=0) == before  # until the run after the next


def test_other_columns_take_the_place_of_everything(score, tmp_path):
    output = run(score, tmp_path, SITES[:2])
    commit_delta(output)
    scored = score(output, write_list(tmp_path, SITES[:2]), flags=("--overwrite",), template=None)
    assert scored.code == 0
    first = commit_delta(output)[0]
    assert (first.version, first.files_added, first.files_removed) == (1, 1, 2)
    assert by_delta(output, "predictions") == by_parquet(output, "predictions")
    assert "site" not in by_delta(output, "predictions")[0]


def test_later_runs_and_readers_of_folders_are_not_disturbed(score, tmp_path):
    output = run(score, tmp_path, SITES[:2])
    commit_delta(output)
    run(score, tmp_path, SITES[:3])
    assert main.main(["inspect", output]) == 0
    assert pq.read_table(f"{output}/predictions").num_rows == 3
    assert commit_delta(output)[0][2:] == (1, 1, 0)


def test_summaries_remind_of_tables_that_lag_behind(score, tmp_path, capfd):
    output = run(score, tmp_path, SITES[:2])
    assert "Delta" not in capfd.readouterr().out  # nobody has asked for any
    assert main.main(["delta", output]) == 0
    first = set(DeltaTable(f"{output}/_files/predictions").file_uris())
    capfd.readouterr()
    one_behind = f"  delta     Delta tables show the tables of the run before: maskdet delta {output}\n"
    run(score, tmp_path, SITES[1:3], "--set", "tables.on_gone=remove")
    assert one_behind in capfd.readouterr().out
    assert all(Path(uri).exists() for uri in first)  # which is why it is not too late yet
    assert main.main(["status", output]) == 0
    assert one_behind in capfd.readouterr().out
    run(score, tmp_path, SITES[2:4], "--set", "tables.on_gone=remove")
    assert "Delta tables are 2 runs behind, and name files that are gone: maskdet delta" in capfd.readouterr().out
    assert not all(Path(uri).exists() for uri in first)
    assert main.main(["delta", output]) == main.main(["status", output]) == 0
    assert "Delta tables" not in capfd.readouterr().out
    assert by_delta(output, "predictions") == by_parquet(output, "predictions")


@pytest.mark.parametrize(
    ("root", "name", "remedy"),
    [
        ("s3://bucket/out", "AWS_REGOIN", "Did you mean 'AWS_REGION'?"),
        ("s3://bucket/out", "aws_acess_key_id", "Did you mean 'aws_access_key_id'?"),
        ("gs://bucket/out", "google_servce_account", "Did you mean 'google_service_account'?"),
        ("/out", "AWS_REGION", "Leave it out."),
    ],
)
def test_misspelt_options_are_refused(root, name, remedy):
    with pytest.raises(ConfigError, match=r"--store-option: expected an option that delta-rs takes for") as caught:
        check_store_options(root, ["allow_http", name] if "://" in root else [name])
    assert caught.value.received == name
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("root", "names"),
    [
        # As deltalake's own documentation writes them: https://delta-io.github.io/delta-rs/integrations/object-storage
        ("s3://b/o", ["AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "AWS_S3_ALLOW_UNSAFE_RENAME", "AWS_S3_LOCKING_PROVIDER"]),
        ("s3://b/o", ["DELTA_DYNAMO_TABLE_NAME", "aws_conditional_put", "region", "timeout", "max_retries"]),
        ("gs://b/o", ["GOOGLE_SERVICE_ACCOUNT", "service_account_key", "google_allow_http", "proxy_url"]),
        ("hdfs://h/o", ["dfs.ha.namenodes.cluster"]),
        ("s3://b/o", ["quite_another_name_of_a_later_version"]),
        ("/out", []),
    ],
)
def test_options_that_it_takes_are_taken_in_any_case(root, names):
    check_store_options(root, [*names, *map(str.upper, names), *map(str.lower, names)])


def test_an_unknown_option_is_a_wrong_flag(tmp_path, score, capsys):
    output = run(score, tmp_path, SITES[:1])
    assert main.main(["delta", output, "--store-option", "AWS_REGION=eu"]) == 2
    assert "a location on this machine" in capsys.readouterr().err


def test_without_a_run_without_its_files_and_without_deltalake_it_says_so(score, tmp_path, monkeypatch, capsys):
    with pytest.raises(SourceError, match=r"nothing.*does not exist"):
        commit_delta(str(tmp_path / "nothing"))
    assert main.main(["delta", str(tmp_path), "--store-option", "AWS_REGION"]) == 2
    assert "expected NAME=VALUE, received 'AWS_REGION'" in capsys.readouterr().err
    output = run(score, tmp_path, SITES[:2])
    log = tmp_path / "tables" / "_files" / "predictions" / "_delta_log"
    log.mkdir()
    (log / f"{0:020}.json").write_text("no JSON")
    with pytest.raises(OutputError, match="a Delta log that can be read"):
        commit_delta(output)
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(ConfigError, match=r"pip install 'maskdet\[delta\]'"):
        commit_delta(output)
