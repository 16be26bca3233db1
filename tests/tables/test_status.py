"""How far a run has got, from its output alone: while it runs, after it was stopped, after it ended."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from maskdet import storage
from maskdet.cli import main
from maskdet.cli.summary import describe_kept, describe_status
from maskdet.errors import (
    EXIT_CODES,
    AccessDeniedError,
    DiedError,
    ModelError,
    SourceError,
    StorageError,
    Terminated,
    UnfinishedError,
)
from maskdet.inputs.references import ImageRef, Shard
from maskdet.sections import FailureBudget
from maskdet.storage import local
from maskdet.tables import lease
from maskdet.tables.layout import Layout
from maskdet.tables.lease import Heartbeat, Holder
from maskdet.tables.runs import INTERRUPTED, RunPlan, end_early, read_run, write_run
from maskdet.tables.status import PlannedShard, RunStatus, ShardPlan, read_status, write_plan

UNFINISHED = UnfinishedError.exit_code
LENIENT = ("--set", "failure_budget.max_ratio=0.5", "--set", "packing.max_images=10")


@pytest.fixture(scope="module")
def finished(demo, score, tmp_path_factory):
    """A run that succeeded; tests that change it copy it first."""
    output = score(tmp_path_factory.mktemp("status") / "tables", demo.folder, flags=LENIENT)
    assert output.code == 0
    return output


@pytest.fixture
def running(finished, tmp_path):
    """The same output as it was halfway: the manifest as at the start, and three finished shards."""
    folder = tmp_path / "tables"
    shutil.copytree(finished.folder, folder)
    layout = Layout(str(folder))
    run = read_run(layout)
    begun = {"status": "running", "finished_at": None, "images": {}, "shards": {}, "failed_by_code": {}}
    write_run(layout, type(run).model_validate({**run.model_dump(), **begun}))
    for receipt in sorted((folder / "_shards").rglob("*.json"))[3:]:
        receipt.unlink()
    lease.acquire(layout, Holder.here(run.run_id, run.started_at, ends_with_process=True))
    return layout


def plan_of(layout):
    return ShardPlan.model_validate_json(Path(layout.plan).read_text())


def test_a_plan_names_every_shard_of_the_run(finished):
    layout = Layout(str(finished.folder))
    plan = plan_of(layout)
    run = finished.run
    assert plan.run_id == run.run_id
    assert len(plan.shards) == run.shards["total"]
    assert sum(shard.images for shard in plan.shards) == run.images.listed - run.images.skipped
    assert list(plan.shards) == sorted(plan.shards)


def test_a_planned_shard_is_what_its_receipt_will_say():
    refs = (ImageRef("a.jpg", 1, "v"), ImageRef("b.jpg", 1, "v"), ImageRef("c.jpg", 1, "v", gone=True))
    assert PlannedShard.of(Shard("site-a/shard-all", "id", ("a",), refs)) == ("site-a/shard-all", "id", 3, 2)


def test_a_plan_is_the_same_bytes_in_any_order(tmp_path):
    layout, shards = Layout(str(tmp_path)), [PlannedShard("b", "2", 1, 1), PlannedShard("a", "1", 5, 5)]
    write_plan(layout, "run", shards)
    first = Path(layout.plan).read_text()
    write_plan(layout, "run", reversed(shards))
    assert Path(layout.plan).read_text() == first


def test_a_finished_run_says_what_the_command_said(finished):
    layout = Layout(str(finished.folder))
    status = read_status(layout)
    assert (status.finished, status.shards, status.exit_code) == (*[finished.run.shards["total"]] * 2, 0)
    text = describe_status(status, layout, datetime.now(UTC))
    assert "succeeded" in text
    assert "listed =" in text


def test_a_running_one_counts_the_shards_with_receipts(running, finished):
    status = read_status(running)
    assert (status.finished, status.shards) == (3, finished.run.shards["total"])
    images = {shard.slot: shard.images for shard in plan_of(running).shards}
    left = [
        path.relative_to(Path(running.folder("_shards"))) for path in Path(running.folder("_shards")).rglob("*.json")
    ]
    assert status.images.listed == sum(images.values())
    assert status.images.accounted == sum(images[str(path.with_suffix(""))] for path in left)
    assert status.exit_code == UNFINISHED
    text = describe_status(status, running, status.run.started_at + timedelta(minutes=90))
    assert f"  shards    3 of {status.shards} finished (" in text
    assert "90.0 minutes ago" in text


@pytest.mark.parametrize("change", ["shard_id", "fingerprint"])
def test_receipts_of_other_images_or_another_model_do_not_count(running, change, tmp_path):
    for path in (tmp_path / "tables" / "_shards").rglob("*.json"):
        text = path.read_text()
        start = text.index(f'"{change}":"') + len(change) + 4
        path.write_text(text[:start] + ("0" if text[start] != "0" else "1") + text[start + 1 :])
    status = read_status(running)
    assert (status.finished, status.images.accounted) == (0, 0)


def test_the_plan_of_an_earlier_run_is_not_this_one_s(running):
    write_plan(running, "earlier", [PlannedShard("a", "1", 5, 5)])
    status = read_status(running)
    assert (status.shards, status.exit_code) == (None, UNFINISHED)
    assert "workers are starting" in describe_status(status, running, datetime.now(UTC))


def test_an_aborted_one_says_why_and_what_is_kept(running):
    run = read_run(running)
    plan = RunPlan(running, run, FailureBudget())
    end_early(plan, RuntimeError("the cluster went away"), run.started_at + timedelta(seconds=30))
    status = read_status(running)
    text = describe_status(status, running, datetime.now(UTC))
    assert "failed — RuntimeError the cluster went away" in text
    assert "0.5 minutes before it ended" in text
    assert "finished shards are kept" in text
    assert status.exit_code == 1
    assert describe_kept(running, run.run_id).startswith(f"  shards    3 of {status.shards} finished")


def test_a_dead_one_says_so_with_a_code_of_its_own(running):
    lease.release(running, read_run(running).run_id)
    status = read_status(running)
    assert (status.life, status.exit_code) == ("dead", DiedError.exit_code)
    assert "the run died; run the same command again" in describe_status(status, running, datetime.now(UTC))


@pytest.mark.parametrize(("age_s", "life", "text"), [(7, "alive", "7 s ago, from far"), (700, "silent", "overdue")])
def test_one_elsewhere_is_told_by_its_heartbeat(running, age_s, life, text):
    run, now = read_run(running), datetime.now(UTC)
    holder = Holder.here(run.run_id, now, ends_with_process=False)
    storage.write_bytes(running.lease, holder.model_dump_json().encode())
    sign = Heartbeat(at=now - timedelta(seconds=age_s), host="far", pid=1)
    storage.write_bytes(running.heartbeat(run.run_id), sign.model_dump_json().encode())
    status = read_status(running)
    assert (status.life, status.exit_code) == (life, UNFINISHED)
    assert text in describe_status(status, running, now)


def test_an_interrupted_one_tells_by_what(running):
    run = read_run(running)
    for error, code in ((KeyboardInterrupt(), 130), (Terminated(), 143)):
        end_early(RunPlan(running, run, FailureBudget()), error, run.started_at)
        status = read_status(running)
        assert (status.run.status, status.run.interrupted_by, status.exit_code) == ("interrupted", code, code)


@pytest.mark.parametrize(("error", "code"), [(StorageError("s"), 5), (AccessDeniedError("s"), 5), (ModelError("m"), 4)])
def test_a_failed_one_ends_with_the_code_of_its_error(running, error, code):
    run = read_run(running)
    end_early(RunPlan(running, run, FailureBudget()), error, run.started_at)
    status = read_status(running)
    assert (status.run.status, status.run.failed_with, status.exit_code) == ("failed", code, code)


def test_a_failed_one_of_an_older_version_ends_with_1(running):
    run = read_run(running)
    end_early(RunPlan(running, run, FailureBudget()), StorageError("s"), run.started_at)
    path = Path(running.run(run.run_id))
    record = json.loads(path.read_text())
    del record["failed_with"]
    path.write_text(json.dumps(record))
    assert read_status(running).exit_code == 1


class TestFullDisk:
    """``local.write`` fails with ENOSPC, as on a full disk, for the files that a test names."""

    @pytest.fixture
    def fill(self, monkeypatch):
        def fill(is_full):
            def write(path, data):
                if is_full(Path(path)):
                    raise OSError(28, "No space left on device", str(path))
                real(path, data)

            monkeypatch.setattr(local, "write", write)

        real = local.write
        return fill

    def test_the_code_of_the_command_is_the_code_of_status_and_of_the_metric(self, demo, score, fill, tmp_path, capsys):
        fill(lambda path: path.name == "_plan.json")
        tables, metrics = tmp_path / "tables", tmp_path / "maskdet.prom"
        assert score(tables, demo.folder, flags=LENIENT).code == 5
        assert "No space left" in capsys.readouterr().err
        assert main.main(["status", str(tables), "--metrics", str(metrics)]) == 5
        assert "failed — " in (text := capsys.readouterr().out) and "No space left" in text
        assert [line.rsplit(" ", 1)[1] for line in metrics.read_text().splitlines() if "exit_code{" in line] == ["5.0"]

    def test_the_files_of_the_lease_make_room_for_the_record(self, running, fill, caplog):
        run, lease_file = read_run(running), Path(running.lease)
        fill(lambda path: lease_file.exists())
        end_early(RunPlan(running, run, FailureBudget()), StorageError("full"), run.started_at, releases=True)
        assert read_status(running).exit_code == 5
        assert not caplog.records

    def test_a_record_that_cannot_be_written_is_told_and_the_run_counts_as_dead(self, running, fill, caplog):
        run = read_run(running)
        fill(lambda path: True)
        end_early(RunPlan(running, run, FailureBudget()), StorageError("full"), run.started_at, releases=True)
        assert not Path(running.lease).exists()
        assert read_status(running).exit_code == DiedError.exit_code
        assert "maskdet status cannot tell that it ended with exit code 5: " in caplog.text
        assert "No space left" in caplog.text

    def test_a_prune_ends_with_its_own_code_too(self, finished, fill, tmp_path, capsys):
        folder = tmp_path / "tables"
        shutil.copytree(finished.folder, folder)
        fill(lambda path: path.name == "_snapshot.json")
        assert main.main(["prune", str(folder), "--before", "2026-03-03"]) == 5
        capsys.readouterr()
        assert main.main(["status", str(folder)]) == 5
        assert "it starts from the tables as they are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("running", UNFINISHED),
        ("interrupted", INTERRUPTED),
        ("failed", 1),
        ("empty", 3),
        ("over_budget", 6),
        ("unreconciled", 7),
        ("succeeded", 0),
    ],
)
def test_the_exit_code_is_the_run_s(finished, status, code):
    run = finished.run.model_copy(update={"status": status})
    assert RunStatus(run).exit_code == code
    assert code in EXIT_CODES


def test_the_command_prints_it_and_ends_with_that_code(running, finished, capsys):
    assert main.main(["status", running.root]) == UNFINISHED
    assert "3 of" in capsys.readouterr().out
    assert main.main(["status", str(finished.folder), "--run", finished.run.run_id]) == 0
    assert "succeeded" in capsys.readouterr().out


def test_a_place_without_runs_is_refused(tmp_path, capsys):
    assert main.main(["status", str(tmp_path)]) == SourceError.exit_code
    assert "Run maskdet score first" in capsys.readouterr().err
