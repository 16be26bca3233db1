"""Runs over an output that already has tables: what is kept, what is scored again, what readers see meanwhile."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from maskdet import storage
from maskdet.demo.faces import DEMO_TEMPLATE
from maskdet.tables.layout import FAILURES, PREDICTIONS, Layout
from maskdet.tables.runs import read_run
from maskdet.testing import solid_image

# The tables mirror the input here; tests/cli/test_score_growing.py is about those that grow.
LENIENT = ("--set", "failure_budget.max_ratio=0.5", "--set", "tables.on_gone=remove")
SMALL_SHARDS = ("--set", "packing.max_images=3")


@pytest.fixture
def photos(put_back):
    """A copy of the demo tree to change."""
    return put_back()


def face(folder):
    return sorted(folder.rglob("face-*"))[0]


def added(folder):
    (face(folder).parent / "face-99999-mask.png").write_bytes(solid_image(50))


def removed(folder):
    face(folder).unlink()


def replaced(folder):
    face(folder).write_bytes(solid_image(90, file_format="JPEG"))


def broken(folder):
    face(folder).write_bytes(b"damaged since")


def mended(folder):
    next(folder.rglob("*empty*")).write_bytes(solid_image(30))


def test_a_second_run_over_unchanged_images_scores_none_and_changes_no_table(photos, score, first_run, tmp_path):
    first = first_run(tmp_path / "tables", photos, flags=LENIENT)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "tables" / PREDICTIONS).rglob("*.parquet")}
    before = first.contents()
    second = score(tmp_path / "tables", photos, flags=LENIENT)
    assert second.code == 0
    assert second.run.shards == {"total": first.run.shards["total"], "scored": 0, "kept": first.run.shards["total"]}
    assert second.run.images_scored_now == 0
    assert second.contents() == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert second.run.images == first.run.images


@pytest.mark.parametrize(
    "limits",
    [pytest.param((), id="large shards", marks=pytest.mark.thorough), pytest.param(SMALL_SHARDS, id="small shards")],
)
@pytest.mark.parametrize("change", [added, removed, replaced, broken, mended], ids=lambda change: change.__name__)
def test_after_a_change_only_its_shards_are_scored_and_the_tables_are_those_of_a_fresh_run(
    photos, score, first_run, tmp_path, change, limits
):
    first = first_run(tmp_path / "tables", photos, flags=(*LENIENT, *limits))
    change(photos)
    second = score(tmp_path / "tables", photos, flags=(*LENIENT, *limits))
    fresh = score(tmp_path / "fresh", photos, flags=(*LENIENT, *limits))
    assert second.code == fresh.code == 0
    assert second.run.shards["scored"] <= 2
    assert second.run.shards["kept"] >= first.run.shards["total"] - 2
    assert second.contents() == fresh.contents()
    assert table_files(second.folder) == table_files(fresh.folder)


def table_files(folder):
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not {"_runs", "_files"} & set(path.parts)
    }


def test_while_a_run_replaces_shards_no_image_is_missing_from_the_tables(
    photos, score, first_run, tmp_path, monkeypatch
):
    flags = (*LENIENT, *SMALL_SHARDS)
    first_run(tmp_path / "tables", photos, flags=flags)
    for change in (added, replaced):
        change(photos)
    still_there = {str(path) for path in photos.rglob("face-*")} - {str(face(photos)), str(photos)}
    still_there -= {uri for uri in still_there if "99999" in uri}
    missing = []

    def watch(action):
        def acted(*arguments):
            action(*arguments)
            missing.append(still_there - visible(tmp_path / "tables" / PREDICTIONS))

        return acted

    monkeypatch.setattr(storage, "write_bytes", watch(storage.write_bytes))
    monkeypatch.setattr(storage, "delete", watch(storage.delete))
    assert score(tmp_path / "tables", photos, flags=flags).code == 0
    assert len(missing) > 5
    assert not any(missing)


def visible(folder):
    return {
        uri
        for path in folder.rglob("*.parquet")
        for uri in pq.ParquetFile(path).read(["image_uri"])["image_uri"].to_pylist()
    }


# What is published has its content below _files; so have the rows of a shard without a receipt.
@pytest.mark.parametrize(
    ("victim", "scored"),
    [(PREDICTIONS, 0), (FAILURES, 0), ("_shards", 0), (f"_files/{PREDICTIONS}", 1), (f"_files/{FAILURES}", 1)],
)
def test_a_table_or_receipt_that_someone_removed_is_made_again(photos, score, first_run, tmp_path, victim, scored):
    first = first_run(tmp_path / "tables", photos, flags=LENIENT)
    before = first.contents()
    sorted(path for path in (tmp_path / "tables" / victim).rglob("*") if path.is_file())[0].unlink()
    second = score(tmp_path / "tables", photos, flags=LENIENT)
    assert second.run.shards["scored"] == scored
    assert second.contents() == before


def test_a_change_of_thresholds_or_of_levels_reads_no_image(photos, score, first_run, tmp_path):
    first = first_run(tmp_path / "tables", photos, flags=LENIENT)
    levels = score(tmp_path / "tables", photos, flags=(*LENIENT, "--set", "compliance.levels={site: [site]}"))
    assert levels.run.shards["kept"] == first.run.shards["total"]
    assert {row["level"] for row in levels.table("compliance").to_pylist()} == {"all", "site"}
    strict = score(tmp_path / "tables", photos, flags=(*LENIENT, "--set", "model.mask_from=0.999999"))
    fresh = score(tmp_path / "fresh", photos, flags=(*LENIENT, "--set", "model.mask_from=0.999999"))
    assert strict.run.images_scored_now == 0
    assert strict.contents() == fresh.contents()


def test_success_is_withdrawn_while_a_run_is_under_way(photos, score, first_run, tmp_path, monkeypatch):
    first_run(tmp_path / "tables", photos, flags=LENIENT)
    replaced(photos)
    seen = []
    read_bytes = storage.read_bytes

    def watch(uri):
        if uri.startswith(str(photos)):
            seen.append((tmp_path / "tables" / "_SUCCESS").exists())
        return read_bytes(uri)

    # Scorer takes its reader as a default at definition time, so the module's function is what listing and tables use.
    monkeypatch.setattr("maskdet.scoring.scorer.Scorer.__init__.__kwdefaults__", {"read": watch, "sleep": time.sleep})
    assert score(tmp_path / "tables", photos, flags=LENIENT).succeeded
    assert seen and not any(seen)


def test_an_input_that_lost_all_its_images_leaves_the_tables_as_they_are(photos, score, first_run, tmp_path, capfd):
    first = first_run(tmp_path / "tables", photos, flags=LENIENT)
    before = first.contents()
    for path in photos.rglob("*"):
        if path.is_file() and path.suffix != ".txt":
            path.unlink()
    emptied = score(tmp_path / "tables", photos, flags=LENIENT)
    assert emptied.code == 3
    assert "--input" in capfd.readouterr().err
    assert emptied.contents() == before
    assert not emptied.succeeded


@contextlib.contextmanager
def started(photos, tables, signal_at):
    """A run in a process of its own, one image a shard, once it has written some receipts."""
    code = "import sys; from maskdet.cli.score import main; sys.exit(main(sys.argv[1:]))"
    keyed = [
        "--template",
        DEMO_TEMPLATE,
        "--set",
        "compliance.levels={site_hour: [site, date, hour], camera: [camera]}",
    ]
    flags = [*keyed, *LENIENT, "--set", "packing.max_images=1"]
    command = [sys.executable, "-c", code, "--faces", "whole", "--input", str(photos), "--output", str(tables), *flags]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while len(list(tables.rglob("*.json"))) < signal_at and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        yield process


def test_a_run_killed_half_way_is_finished_by_the_next(photos, score, first_run, tmp_path):
    expected = first_run(tmp_path / "fresh", photos, flags=(*LENIENT, "--set", "packing.max_images=1")).contents()
    tables = tmp_path / "tables"
    with started(photos, tables, signal_at=8) as process:
        process.kill()
        process.communicate(timeout=60)
    assert not (tables / "_SUCCESS").exists()
    # What a kill leaves: a half-written file under a name no reader takes for a table.
    done = next((tables / "_files" / PREDICTIONS).rglob("*.pq"))
    half = done.with_name(f".{done.name}.0123.tmp")
    half.write_bytes(b"half")
    resumed = score(tables, photos, flags=(*LENIENT, "--set", "packing.max_images=1"))
    assert resumed.code == 0
    assert resumed.run.shards["kept"] >= 1
    assert resumed.contents() == expected
    assert not half.exists()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupted_run_says_so_and_keeps_what_it_finished(photos, score, first_run, tmp_path, number, code, word):
    flags = (*LENIENT, "--set", "packing.max_images=1")
    expected = first_run(tmp_path / "fresh", photos, flags=flags).contents()
    tables = tmp_path / "tables"
    with started(photos, tables, signal_at=8) as process:
        process.send_signal(number)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in shown
    assert word in shown
    left = read_run(Layout(str(tables)))
    assert (left.status, left.interrupted_by) == ("interrupted", code)
    assert not (tables / "_lease.json").exists()
    resumed = score(tables, photos, flags=flags)
    assert resumed.run.shards["kept"] >= 1
    assert resumed.contents() == expected


def test_a_second_run_is_refused_while_the_first_is_at_work_or_waits_for_it(photos, score, first_run, tmp_path, capfd):
    tables = tmp_path / "tables"
    expected = first_run(tmp_path / "fresh", photos, flags=(*LENIENT, "--set", "packing.max_images=1")).contents()
    with started(photos, tables, signal_at=8) as first:
        assert score(tables, photos, flags=(*LENIENT, "--overwrite")).code == 10
        assert f"(process {first.pid} on " in capfd.readouterr().err
        waited = score(tables, photos, flags=(*LENIENT, "--set", "packing.max_images=1", "--wait"))
        first.communicate(timeout=60)
    assert (first.returncode, waited.code) == (0, 0)
    assert waited.run.shards["scored"] == 0
    assert waited.contents() == expected


@pytest.mark.parametrize("place", ["folder", "glob", "list", "link"])
def test_an_input_inside_the_output_is_refused_and_no_image_is_deleted(demo, score, tmp_path, capfd, place):
    output = tmp_path / "set"
    shutil.copytree(demo.folder, output / "predictions")
    before = {path: path.read_bytes() for path in (output / "predictions").rglob("*") if path.is_file()}
    link = tmp_path / "link"
    link.symlink_to(output / "predictions")
    names = tmp_path / "images.txt"
    names.write_text("".join(f"{path}\n" for path in sorted(before)))
    source = {"folder": output / "predictions", "glob": output / "*" / "**", "list": names, "link": link}[place]
    assert score(output, source, flags=("--overwrite",), template=None).code in (2, 8)
    assert str(output) in capfd.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    # The same where the images lie beside the tables' folders.
    shutil.move(output / "predictions", output / "photos")
    source = {"folder": output / "photos", "glob": output / "*" / "**", "list": names, "link": output / "photos"}[place]
    names.write_text("".join(f"{path}\n" for path in sorted((output / "photos").rglob("*.png"))))
    assert score(output, source, flags=("--overwrite",), template=None).code == 2
    assert len([path for path in (output / "photos").rglob("*") if path.is_file()]) == len(before)
