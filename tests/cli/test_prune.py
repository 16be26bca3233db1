"""Retention of rows: after a prune, the tables equal those of a run over what is left."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime

import pytest

from maskdet.cli import main
from maskdet.compliance.corrections import Corrections
from maskdet.inputs.earlier import OUTSIDE, REMOVED, UNCHANGED
from maskdet.tables import lease
from maskdet.tables.layout import COMPLIANCE, SHARD_TABLES, Layout
from maskdet.tables.lease import Holder
from maskdet.tables.prune import prune as prune_tables
from maskdet.tables.recount import correct_faces
from maskdet.tables.runs import read_run, write_run

FIRST, SECOND = "2026-03-02", "2026-03-03"  # the demo's days
LENIENT = ("--set", "failure_budget.max_ratio=0.9")
LAYOUTS = {
    "a folder a day": (),
    "days in one shard": ("--set", "tables.partition_by=[site]"),
    "small shards": ("--set", "tables.partition_by=[]", "--set", "packing.max_images=3"),
}


@pytest.fixture(scope="module")
def photos(demo, tmp_path_factory):
    """The demo's images that have a capture time."""
    folder = tmp_path_factory.mktemp("prune") / "photos"
    shutil.copytree(demo.folder, folder)
    for path in folder.rglob("*"):
        if path.is_file() and not {FIRST, SECOND} & set(path.parts):
            path.unlink()
    return folder


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def tables(request, photos, first_run, tmp_path):
    output = first_run(tmp_path / "tables", photos, flags=(*LENIENT, *request.param))
    assert output.code == 0
    return output, request.param


def prune(folder, *flags):
    return main.main(["prune", str(folder), *flags])


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for table in (*SHARD_TABLES, COMPLIANCE)
        for path in (folder / table).rglob("*")
        if path.is_file()
    }


def test_rows_and_counts_are_those_of_a_run_over_what_is_left(tables, photos, score, tmp_path, capsys):
    output, flags = tables
    total = output.run.dataset.listed
    fresh = score(tmp_path / "fresh", f"{photos}/*/*/{SECOND}/**", flags=(*LENIENT, *flags))
    capsys.readouterr()
    assert prune(output.folder, "--before", SECOND) == 0
    shown = capsys.readouterr().out
    left = fresh.run.dataset.listed
    assert f"{total - left} images taken before {SECOND}; {left} images in" in shown
    assert output.contents() == fresh.contents()
    run = output.run
    assert run.changes == {REMOVED: total - left, OUTSIDE: left}
    assert (run.dataset, run.faces) == (fresh.run.dataset, fresh.run.faces)
    assert (output.folder / "_SUCCESS").read_text() == f"{run.run_id}\n"
    assert not (output.folder / "_lease.json").exists()
    # A run over the rest reads no image, and forms the shards of an output that never had more.
    again = score(output.folder, f"{photos}/*/*/{SECOND}/**", flags=(*LENIENT, *flags))
    assert again.run.images_scored_now == 0
    assert again.run.changes == {UNCHANGED: left}
    assert files(again.folder) == files(fresh.folder)


def test_a_day_before_all_images_changes_no_table(tables, capsys):
    output, _ = tables
    before = files(output.folder)
    assert prune(output.folder, "--before", FIRST) == 0
    assert "0 images taken before" in capsys.readouterr().out
    assert files(output.folder) == before


def test_a_day_after_all_images_leaves_tables_without_rows(tables):
    output, _ = tables
    levels = {path.parent.name for path in (output.folder / COMPLIANCE).rglob("*.parquet")}
    columns = {table: output.table(table).column_names for table in (*SHARD_TABLES, COMPLIANCE)}
    assert prune(output.folder, "--before", "2030-01-01") == 0
    assert all(output.table(table).num_rows == 0 for table in columns)
    assert {table: output.table(table).column_names for table in columns} == columns
    assert {path.parent.name for path in (output.folder / COMPLIANCE).rglob("*.parquet")} == levels


def test_a_dry_run_counts_and_changes_nothing(tables, capsys):
    output, _ = tables
    before = {path: path.read_bytes() for path in output.folder.rglob("*") if path.is_file()}
    older = sum(FIRST in row["image_uri"] for name in SHARD_TABLES for row in output.table(name).to_pylist())
    capsys.readouterr()
    assert prune(output.folder, "--before", SECOND, "--dry-run") == 0
    assert f"{older} of {output.run.dataset.listed} images were taken before {SECOND}" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in output.folder.rglob("*") if path.is_file()} == before


def test_images_without_a_capture_time_stay(demo, score, tmp_path):
    output = score(tmp_path / "tables", demo.folder, flags=LENIENT)
    undated = [
        row["image_uri"]
        for name in SHARD_TABLES
        for row in output.table(name).to_pylist()
        if row["captured_at"] is None
    ]
    assert undated
    assert prune(output.folder, "--before", "2030-01-01") == 0
    assert [row["image_uri"] for name in SHARD_TABLES for row in output.table(name).to_pylist()] == undated


def test_days_are_those_of_the_data_set_s_time_zone(score, tmp_path):
    from maskdet.testing import solid_image

    (tmp_path / "a.png").write_bytes(solid_image(50))
    manifest = tmp_path / "images.csv"
    manifest.write_text(f"uri,taken\n{tmp_path / 'a.png'},2026-03-02T23:30:00+00:00\n")  # half past midnight in Berlin
    flags = ("--set", "source.captured_at_column=taken", "--set", "source.timezone=Europe/Berlin")
    output = score(tmp_path / "tables", manifest, flags=flags, template=None)
    assert prune(output.folder, "--before", "2026-03-03") == 0
    assert output.run.dataset.listed == 1
    assert prune(output.folder, "--before", "2026-03-04") == 0
    assert output.run.dataset.listed == 0


def test_an_output_that_is_being_written_or_is_none_is_refused(tables, tmp_path, capsys):
    output, _ = tables
    lease.acquire(Layout(str(output.folder)), Holder.here("other", datetime.now(UTC), ends_with_process=True))
    assert prune(output.folder, "--before", SECOND) == 10
    assert "run other (process" in capsys.readouterr().err
    assert prune(tmp_path / "none", "--before", SECOND) == 3
    assert prune(output.folder, "--before", "2026-02-30") == 2


def died(output, monkeypatch):
    """A prune that died before it had written tables, after it had removed the success marker."""
    with monkeypatch.context() as patch:
        patch.setattr("maskdet.tables.rewriting.write_levels", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prune_tables(Layout(str(output.folder)), date.fromisoformat(SECOND), datetime.now(UTC))
    assert not (output.folder / "_SUCCESS").exists()


def test_a_prune_after_one_that_died_gives_the_mark_of_success_back(tables, monkeypatch):
    output, _ = tables
    died(output, monkeypatch)
    died(output, monkeypatch)
    assert prune(output.folder, "--before", SECOND) == 0
    assert (output.folder / "_SUCCESS").read_text() == f"{output.run.run_id}\n"


def test_a_prune_after_one_that_died_gives_no_mark_to_a_run_over_budget(photos, score, tmp_path, monkeypatch):
    flags = ("--set", "failure_budget.max_ratio=0", "--set", "failure_budget.max_images=0")
    output = score(tmp_path / "tables", photos, flags=flags)
    assert output.code == 6
    died(output, monkeypatch)
    assert prune(output.folder, "--before", SECOND) == 6
    assert not (output.folder / "_SUCCESS").exists()


def test_what_scores_nothing_leaves_tables_over_budget_over_budget(photos, score, tmp_path, capsys):
    flags = ("--set", "failure_budget.max_ratio=0", "--set", "failure_budget.max_images=0")
    output = score(tmp_path / "tables", photos, flags=flags)
    scored, layout = output.run, Layout(str(output.folder))
    assert prune(output.folder, "--before", FIRST) == 6
    assert correct_faces(layout, Corrections(), datetime.now(UTC)).status == "over_budget"
    assert prune(output.folder, "--before", SECOND) == 6
    records = [read_run(layout, path.stem) for path in (output.folder / "_runs").glob("*.json")]
    assert {run.status for run in records} == {"over_budget"} and len(records) == 4
    assert {run.reason for run in records} == {scored.reason, f"as run {scored.run_id} left it: {scored.reason}"}
    assert not (output.folder / "_SUCCESS").exists()
    assert main.main(["status", str(output.folder)]) == 6
    assert "over budget" in capsys.readouterr().out
    # As older versions wrote it: the next prune corrects it.
    latest = read_run(layout)
    write_run(layout, latest.model_copy(update={"status": "succeeded", "reason": ""}))
    assert prune(output.folder, "--before", SECOND) == 6
    # A run within its budget writes the marker again, and so do those after it.
    again = score(output.folder, photos, flags=LENIENT)
    assert (again.code, prune(output.folder, "--before", SECOND)) == (0, 0)
    assert (output.folder / "_SUCCESS").read_text() == f"{output.run.run_id}\n"


def test_the_mark_of_success_is_not_given_to_tables_that_had_none(tables):
    output, _ = tables
    (output.folder / "_SUCCESS").unlink()
    assert prune(output.folder, "--before", SECOND) == 0
    assert not (output.folder / "_SUCCESS").exists()


def test_status_and_inspect_speak_of_a_prune(tables, capsys):
    output, _ = tables
    prune(output.folder, "--before", SECOND)
    capsys.readouterr()
    assert main.main(["status", str(output.folder)]) == 0
    assert main.main(["inspect", str(output.folder)]) == 0
    assert capsys.readouterr().out.count(f"taken before {SECOND}") == 2
    run = read_run(Layout(str(output.folder)))
    assert json.loads(run.model_dump_json())["pruned_before"] == SECOND
