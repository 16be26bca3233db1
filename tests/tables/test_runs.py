"""A run from start to finish: every way it can end, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from maskdet import storage
from maskdet.compliance.state import Counts
from maskdet.errors import BudgetError, HeldError, MaskdetError, OutputError, ReconciliationError, SourceError
from maskdet.sections import FailureBudget
from maskdet.tables import lease
from maskdet.tables.layout import Layout
from maskdet.tables.lease import Holder
from maskdet.tables.receipts import Outcomes, Receipt, ShardReport
from maskdet.tables.results import StageSeconds
from maskdet.tables.runs import (
    ImageCounts,
    LevelTotal,
    RunPlan,
    RunRecord,
    begin_run,
    claim_output,
    finish_run,
    hold_output,
    new_run_id,
    read_run,
    write_run,
)
from maskdet.tables.snapshot import Dataset, read_snapshot

SHA = "5" * 64
START = datetime(2026, 1, 5, 8, 15, tzinfo=UTC)
END = START + timedelta(minutes=2)


DATASET = Dataset(key_names=("site",), partition_by=("site",))


def manifest(run_id="20260105T081500Z-000001", **changes):
    fields = {"run_id": run_id, "started_at": START, "settings": {}, "fingerprint": "f", "versions": {}}
    model = {"id": "m@1", "runtime": "litert", "decision": {"no_mask_below": 0.5, "mask_from": 0.5}}
    return RunRecord(**{**fields, "model": model, **changes})


def report(slot, scored=0, failed=None, kept=False, no_face=0):
    failed = failed or {}
    rows = {"predictions": scored, "failures": sum(failed.values())}
    receipt = Receipt(
        slot=slot,
        shard_id="s",
        fingerprint="f",
        images=scored + no_face + sum(failed.values()),
        scored=scored,
        no_face=no_face,
        failed=failed,
        rows={name: count for name, count in rows.items() if count},
        sha256={name: SHA for name, count in {**rows, "images": 1}.items() if count},
        size_bytes=100 * scored,
    )
    seconds = StageSeconds() if kept else StageSeconds(1, 2, 5, 3, 0.25)
    return ShardReport(receipt, kept, {}, seconds, 0 if kept else receipt.images)


def totals(reports, **changes):
    """The counts of the level ``all``, unless a test gives others; two of three faces wear masks."""
    receipts = [r.receipt for r in reports]
    scored = sum(r.scored for r in receipts)
    failed = sum(sum(r.failed.values()) for r in receipts)
    counts = Counts(scored, sum(r.no_face for r in receipts), failed, scored - scored // 3, scored // 3, 0)
    return {"all": LevelTotal(counts._replace(**changes), "0" * 64)}


class Run:
    """A run over an output, with files such as its shards would leave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = Layout(str(folder))

    def put(self, name, text="x"):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def put_shards(self, reports, level="all"):
        """The files that shards and compliance leave, before they are published."""
        for receipt in (r.receipt for r in reports):
            self.put(f"_shards/{receipt.slot}.json")
            for table in receipt.sha256:
                self.put(self.layout.version(table, receipt.slot, SHA))
        self.put(self.layout.version("compliance", level, "0" * 64))

    def hold(self, run_id):
        """Take the lease, as a run does before it starts."""
        lease.acquire(self.layout, Holder.here(run_id, START, ends_with_process=True))

    def finish(self, reports, listing=None, levels=None, changes=None, run_id="20260105T081500Z-000001", **budget):
        images = sum(r.receipt.images for r in reports)
        max_gone_ratio = budget.pop("max_gone_ratio", 1.0)
        plan = self.plan(run_id, budget=FailureBudget(**budget), max_gone_ratio=max_gone_ratio)
        self.hold(run_id)
        self.put_shards(reports)
        plan, _ = claim_output(plan, overwrite=False)
        begin_run(plan)
        return finish_run(
            plan,
            {"listed": images} if listing is None else listing,
            changes or {},
            reports,
            totals(reports) if levels is None else levels,
            END,
        )

    def plan(self, run_id="20260105T081500Z-000001", **changes):
        """A run over one input, keyed by site."""
        fields = {"budget": FailureBudget(), "dataset": DATASET, "inputs": ("/in",), **changes}
        return RunPlan(self.layout, manifest(run_id), **fields)

    @property
    def succeeded(self):
        return (self.folder / "_SUCCESS").exists()

    def files(self):
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "out")


OTHERS = ["_runs/20260101T000000Z-abcdef.json", "notes.txt", "other/table.parquet", "_files/photo.jpg", "_shards/a.txt"]


class TestOutcomes:
    def test_success_counts_everything_and_marks_it(self, run):
        reports = [
            report("site-a/shard-all", 10, kept=True),
            report("site-b/shard-0", 3, {"not_found": 1, "empty_file": 2}),
            report("site-b/shard-1", 5, {"empty_file": 1}, no_face=2),
        ]
        listing = {"listed": 31, "extension": 4, "duplicate": 3}
        result = run.finish(reports, listing, max_ratio=1.0)
        assert result.status == "succeeded"
        assert result.reason == ""
        assert result.outcome() is None
        assert result.images == ImageCounts(listed=31, scored=18, no_face=2, failed=4, skipped=7)
        assert result.failed_by_code == {"empty_file": 3, "not_found": 1}
        assert result.skipped_by_reason == {"duplicate": 3, "extension": 4}
        assert list(result.failed_by_code) == sorted(result.failed_by_code)
        assert result.shards == {"total": 3, "scored": 2, "kept": 1}
        assert result.images_scored_now == 6 + 8
        assert result.size_bytes == 1800
        assert result.faces == {"mask": 12, "no_mask": 6, "uncertain": 0}
        assert result.thread_seconds == {"fetch": 2, "decode": 4, "detect": 10, "infer": 6, "write": 0.5}
        assert result.finished_at == END
        assert (run.folder / "_SUCCESS").read_text() == f"{result.run_id}\n"
        assert read_run(run.layout) == result

    @pytest.mark.parametrize(
        ("failed", "of", "budget", "succeeds"),
        [
            (5, 100, {}, True),  # the default: 5 %
            (6, 100, {}, False),
            (0, 7, {"max_ratio": 0}, True),
            (1, 7, {"max_ratio": 0}, False),
            (3, 100, {"max_images": 3}, True),
            (4, 100, {"max_images": 3}, False),
            (1, 100, {"max_images": 0}, False),
            (6, 100, {"max_images": 50}, False),  # both hold
            (7, 7, {"max_ratio": 1}, True),
            # Products that come out just below a whole number in binary fractions.
            (29, 100, {"max_ratio": 0.29}, True),
            (30, 100, {"max_ratio": 0.29}, False),
            (57, 100, {"max_ratio": 0.57}, True),
            (1001, 1100, {"max_ratio": 0.91}, True),
            (1, 3, {"max_ratio": 0.3333}, False),
        ],
    )
    def test_the_budget_holds_up_to_its_limits(self, run, failed, of, budget, succeeds):
        result = run.finish([report("shard-all", of - failed, {"empty_file": failed})], **budget)
        assert result.status == ("succeeded" if succeeds else "over_budget")
        assert run.succeeded == succeeds
        if not succeeds:
            error = result.outcome()
            assert isinstance(error, BudgetError)
            limits = [int(of * budget.get("max_ratio", 0.05) + 1e-9), budget.get("max_images", of)]
            assert f"at most {min(limits)} failed images of {of} " in str(error)
            assert f"received {failed} " in str(error)

    def test_skipped_images_do_not_count_in_the_ratio(self, run):
        reports = [report("shard-all", 9, {"empty_file": 1})]
        assert run.finish(reports, {"listed": 100, "extension": 90}).status == "over_budget"

    @pytest.mark.parametrize("listed", [9, 11])
    def test_lost_or_surplus_images_are_unreconciled(self, run, listed):
        result = run.finish([report("shard-all", 10)], {"listed": listed})
        assert result.status == "unreconciled"
        assert isinstance(result.outcome(), ReconciliationError)
        assert f"received {listed} listed, 10 accounted for" in result.reason

    def test_two_shards_in_one_slot_are_unreconciled(self, run):
        result = run.finish([report("a/shard-0", 3), report("b", 3), report("a/shard-0", 4)])
        assert result.status == "unreconciled"
        assert "'a/shard-0'" in result.reason

    @pytest.mark.parametrize("field", ["images_scored", "images_no_face", "images_failed"])
    def test_compliance_that_disagrees_is_unreconciled(self, run, field):
        reports = [report("shard-all", 10, {"empty_file": 1}, no_face=1)]
        levels = {**totals(reports), "day": totals(reports, **{field: 5})["all"]}
        result = run.finish(reports, levels=levels, max_ratio=1)
        assert result.status == "unreconciled"
        assert "level 'day'" in result.reason

    @pytest.mark.parametrize("listing", [{}, {"listed": 0}, {"listed": 5, "extension": 5}])
    def test_nothing_to_score_is_an_empty_input(self, run, listing):
        result = run.finish([], listing, {})
        assert result.status == "empty"
        error = result.outcome()
        assert isinstance(error, SourceError)
        assert f"among {listing.get('listed', 0)} files listed" in str(error)

    def test_a_run_that_lost_the_lease_leaves_the_tables_to_the_other(self, run):
        reports = [report("shard-all", 10)]
        run.put_shards(reports)
        run.hold("another")
        before = run.files()
        result = finish_run(run.plan(), {"listed": 10}, {}, reports, totals(reports), END)
        assert result.status == "superseded"
        assert "run another (process" in result.reason
        assert isinstance(result.outcome(), HeldError)
        new = {name for name in run.files() - before if "no-rows" not in name}
        assert new == {f"_runs/{result.run_id}.json"}

    def test_a_run_whose_base_another_run_replaced_leaves_the_tables_as_they_are(self, run):
        run.finish([report("shard-all", 10)], run_id="r1")
        reports = [report("shard-all", 11)]
        run.put_shards(reports)
        run.hold("r3")
        stale = run.plan("r3", base_run="r0")
        assert finish_run(stale, {"listed": 11}, {}, reports, totals(reports), END).status == "superseded"
        assert read_snapshot(run.layout).run_id == "r1"

    def test_a_step_that_a_runner_repeats_ends_as_the_first_time(self, run):
        run.finish([report("shard-all", 3)], run_id="r1")
        reports = [report("shard-0", 3), report("shard-1", 4)]
        first = run.finish(reports, run_id="r2")
        files = run.files()
        again = finish_run(run.plan("r2", base_run="r1"), {"listed": 7}, {}, reports, totals(reports), END)
        assert (first.status, again.status) == ("succeeded", "succeeded")
        assert run.files() == files

    @pytest.mark.parametrize(("removed", "succeeds"), [(5, True), (6, False)])
    def test_a_run_may_remove_up_to_its_share(self, run, removed, succeeds):
        changes = {"added": 90, "unchanged": 3, "changed": 10 - removed - 3 + 0, "removed": removed, "outside": 50}
        if changes["changed"] < 0:
            changes |= {"changed": 0, "unchanged": 10 - removed}
        result = run.finish([report("shard-all", 10)], changes=changes, max_gone_ratio=0.5)
        assert result.status == ("succeeded" if succeeds else "shrunk")
        assert succeeds or isinstance(result.outcome(), OutputError)

    def test_images_of_earlier_runs_count_in_the_data_set_and_not_in_the_run(self, run):
        whole = report("shard-all", 10, {"empty_file": 3, "not_found": 1}, no_face=2)
        mixed = dataclasses.replace(whole, carried=Outcomes(4, 1, {"empty_file": 2}))
        result = run.finish([mixed], {"listed": 9}, max_ratio=0.5)
        assert result.images == ImageCounts(listed=9, scored=6, no_face=1, failed=2)
        assert result.dataset == ImageCounts(listed=16, scored=10, no_face=2, failed=4)
        assert result.failed_by_code == {"empty_file": 1, "not_found": 1}
        assert result.status == "succeeded"

    @pytest.mark.parametrize(
        ("status", "kind", "code"),
        [
            ("succeeded", type(None), 0),
            ("over_budget", BudgetError, 6),
            ("unreconciled", ReconciliationError, 7),
            ("empty", SourceError, 3),
            ("failed", MaskdetError, 1),
            ("running", MaskdetError, 1),
        ],
    )
    def test_each_outcome_has_its_error(self, status, kind, code):
        error = manifest(status=status).outcome()
        assert type(error) is kind
        assert getattr(error, "exit_code", 0) == code
        assert error is None or "ended without finishing" in str(error)


class TestReplacing:
    OLD = (report("site-old/shard-all", 2), report("site-b/shard-all", 4))
    NEW = (report("site-a/shard-all", 10), report("site-b/shard-0", 3, {"empty_file": 1}))
    TABLES = frozenset(
        {
            "predictions/site-a/shard-all.parquet",
            "predictions/site-b/shard-0.parquet",
            "failures/" + hashlib.sha256(b"site-b/shard-0").hexdigest()[:16] + ".parquet",
            "no_face/no-rows.parquet",
            "compliance/level=all/groups.parquet",
        }
    )

    def tables(self, run):
        return {
            name for name in run.files() if name.split("/")[0] in ("predictions", "failures", "no_face", "compliance")
        }

    @pytest.mark.parametrize("max_ratio", [0.5, 0.0])
    def test_the_folders_hold_the_new_set_alone_and_other_files_stay(self, run, max_ratio):
        run.finish(self.OLD, run_id="r1")
        for name in OTHERS:
            run.put(name)
        killed = run.put("predictions/site-a/.shard-all.parquet.0123abcd.tmp")
        result = run.finish(self.NEW, run_id="r2", max_ratio=max_ratio)
        assert self.tables(run) == self.TABLES
        assert not killed.exists()
        assert not (run.folder / "predictions" / "site-old").exists()
        assert set(OTHERS) <= run.files()
        assert result.files_removed == 3  # two of predictions, and the file of failures without rows
        assert result.status == ("succeeded" if max_ratio else "over_budget")
        assert run.succeeded == bool(max_ratio)

    def test_the_files_of_the_set_before_stay_for_its_readers_until_the_next_run_ends(self, run):
        run.finish(self.OLD, run_id="r1")
        first = set(read_snapshot(run.layout).versions(run.layout))
        run.finish(self.NEW, run_id="r2", max_ratio=1)
        second = set(read_snapshot(run.layout).versions(run.layout))
        assert all(Path(name).exists() for name in first | second)
        run.finish(self.NEW[:1], run_id="r3")
        assert all(Path(name).exists() for name in second)
        third = set(read_snapshot(run.layout).versions(run.layout))
        assert first - second - third
        assert not any(Path(name).exists() for name in first - second - third)
        assert not (run.folder / "_shards" / "site-b").exists()

    @pytest.mark.parametrize("why", ["unreconciled", "empty", "disagreeing", "lost"])
    def test_a_run_that_cannot_vouch_for_its_tables_replaces_nothing(self, run, why, monkeypatch):
        run.finish(self.OLD, run_id="r1")
        before = {name: (run.folder / name).read_bytes() for name in self.tables(run)}
        if why == "empty":
            result = run.finish([], {"listed": 2, "extension": 2}, {})
        elif why == "unreconciled":
            result = run.finish(self.NEW, {"listed": 99})
        elif why == "disagreeing":
            result = run.finish(self.NEW, levels=totals(self.NEW, images_scored=0))
        else:
            monkeypatch.setattr(run, "put_shards", lambda reports: None)
            result = run.finish([report("site-c/shard-all", 1)])
            assert "someone removed it" in result.reason
        assert {name: (run.folder / name).read_bytes() for name in self.tables(run)} == before
        assert read_snapshot(run.layout).run_id == "r1"
        assert result.files_removed == 0
        assert not run.succeeded or (run.folder / "_SUCCESS").read_text() == "r1\n"

    def test_what_killed_writes_left_of_records_goes_and_nothing_that_looks_like_it(self, run):
        gone = [
            "._plan.json.0123abcd.tmp",
            "._delta.json.0123abcd.tmp",
            "._SUCCESS.0123abcd.tmp",
            "_runs/.20260101T000000.000000Z-abcdef.json.0123abcd.tmp",
            "_runs/.20260101T000000.000000Z-abcdef.heartbeat.0123abcd.tmp",
        ]
        stay = [".notes.json.0123abcd.tmp", "_runs/.mine.tmp", "_plan.json.tmp"]
        for name in (*gone, *stay):
            run.put(name)
        run.finish(self.OLD)
        assert not set(gone) & run.files()
        assert set(stay) <= run.files()

    @pytest.mark.parametrize("harm", ["removed", "other bytes"])
    def test_a_table_that_someone_harmed_is_put_back_by_the_next_run(self, run, harm):
        run.finish(self.NEW, run_id="r1", max_ratio=1)
        path = run.folder / "predictions/site-a/shard-all.parquet"
        path.unlink()
        if harm == "other bytes":
            path.write_text("y")
        run.finish(self.NEW, run_id="r2", max_ratio=1)
        assert path.read_text() == "x"

    def test_a_run_that_died_while_it_published_is_made_good_by_the_next(self, run, monkeypatch):
        run.finish(self.OLD, run_id="r1")
        made = []

        def die_at_the_third(source, target):
            made.append(target)
            if len(made) > 2:
                raise OSError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(storage, "link_or_copy", die_at_the_third)
            with pytest.raises(OSError, match="killed"):
                run.finish(self.NEW, run_id="r2", max_ratio=1)
        assert read_snapshot(run.layout).run_id == "r2"  # whole: its files are below _files
        assert not run.succeeded
        lease.release(run.layout, "r2")
        run.finish(self.NEW, run_id="r3", max_ratio=1)
        assert self.tables(run) == self.TABLES
        assert not read_snapshot(run.layout).leftover

    def test_beginning_takes_the_old_mark_away(self, run):
        run.put("_SUCCESS", "old\n")
        begin_run(run.plan())
        assert not run.succeeded
        assert read_run(run.layout).status == "running"

    def test_beginning_without_a_mark_is_fine(self, run):
        begin_run(run.plan())
        assert run.files() == {"_runs/20260105T081500Z-000001.json"}


class TestClaiming:
    REPORTS = (report("shard-all", 10),)

    def claim(self, run, *, overwrite=False, one_input=False, **changes):
        return claim_output(run.plan("new", **changes), overwrite=overwrite, one_input=one_input)

    def test_an_empty_place_has_nothing_to_add_to(self, run):
        plan, base = self.claim(run)
        assert (plan.base_run, plan.carries, base) == (None, False, None)
        assert run.files() == set()

    def test_tables_of_the_same_layout_are_added_to_whatever_their_input(self, run):
        run.finish(self.REPORTS, run_id="r1")
        plan, base = self.claim(run, inputs=("/elsewhere",))
        assert (plan.base_run, plan.carries, base.run_id) == ("r1", True, "r1")
        assert base.inputs == ("/in",)

    def test_tables_of_other_inputs_are_refused_where_there_may_be_one(self, run):
        run.finish(self.REPORTS, run_id="r1")
        self.claim(run, one_input=True)
        with pytest.raises(OutputError, match=r"/in.*--overwrite"):
            self.claim(run, one_input=True, inputs=("/elsewhere",))

    @pytest.mark.parametrize(
        ("field", "said"),
        [
            ("key_names", r"keys \['x'\]"),
            ("partition_by", r"partition_by \['x'\]"),
            ("timezone", "received 'source.timezone x'"),
            ("uri_key", "tables: privacy.uri plain, received 'privacy.uri hmac with the key of fingerprint x'"),
        ],
    )
    def test_tables_of_another_layout_are_refused_unless_told(self, run, field, said):
        run.finish(self.REPORTS, run_id="r1")
        changes = {"dataset": DATASET.model_copy(update={field: "x" if field in ("timezone", "uri_key") else ("x",)})}
        with pytest.raises(OutputError, match=said) as caught:
            self.claim(run, **changes)
        assert "--overwrite" in str(caught.value)
        plan, base = self.claim(run, overwrite=True, **changes)
        assert (plan.base_run, plan.carries, base) == ("r1", False, None)

    def test_a_file_in_the_folder_s_place_is_refused(self, run):
        run.folder.write_text("a file")
        with pytest.raises(OutputError, match="expected a folder"):
            hold_output(run.layout, Holder.here("run", START, ends_with_process=True))
        assert run.folder.read_text() == "a file"

    @pytest.mark.parametrize("name", ["predictions/x.parquet", "failures/a/b.txt", "compliance/x"])
    def test_files_of_others_among_the_tables_are_refused_even_when_overwriting(self, run, name):
        run.put(name)
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=re.escape(str(run.folder / name))):
                self.claim(run, overwrite=overwrite)
        assert run.files() == {name}

    def test_tables_of_no_run_that_finished_are_refused(self, run):
        run.put("predictions/site-a/shard-all.parquet")
        with pytest.raises(OutputError, match="no run deletes what a run did not write"):
            self.claim(run, overwrite=True)

    def test_other_files_do_not_matter(self, run):
        run.put("notes.txt")
        self.claim(run)

    @pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema_version": "x"}'])
    def test_a_damaged_snapshot_is_refused(self, run, text):
        run.put("_snapshot.json", text)
        with pytest.raises(OutputError, match="a snapshot of this version"):
            self.claim(run)

    def test_a_snapshot_of_another_version_is_refused(self, run):
        run.finish(self.REPORTS, run_id="r1")
        path = run.folder / "_snapshot.json"
        found = json.loads(path.read_text())
        found["dataset"]["schema_version"] += 1
        path.write_text(json.dumps(found))
        with pytest.raises(OutputError, match="schema version"):
            self.claim(run)


class TestReading:
    def test_the_latest_run_is_the_last_by_name(self, run):
        for run_id in ("20260105T081500Z-ffffff", "20260105T081501Z-000000", "20251231T235959Z-aaaaaa"):
            write_run(run.layout, manifest(run_id))
        run.put("_runs/zzz.txt")
        assert read_run(run.layout).run_id == "20260105T081501Z-000000"
        assert read_run(run.layout, "20251231T235959Z-aaaaaa").run_id == "20251231T235959Z-aaaaaa"

    def test_no_run_is_an_error_that_says_what_to_do(self, run):
        with pytest.raises(SourceError, match="It does not exist"):
            read_run(run.layout)
        run.folder.mkdir()
        with pytest.raises(SourceError, match="Run maskdet score first"):
            read_run(run.layout)

    def test_an_unknown_run_is_an_error_of_what_was_asked(self, run):
        write_run(run.layout, manifest())
        with pytest.raises(SourceError, match="'nope'"):
            read_run(run.layout, "nope")

    @pytest.mark.parametrize("text", ["", "{}", "nonsense"])
    def test_a_damaged_manifest_is_an_error_of_the_output(self, run, text):
        run.put("_runs/20260105T081500Z-000001.json", text)
        with pytest.raises(OutputError, match="not a run record"):
            read_run(run.layout)

    def test_a_manifest_is_readable_json_and_survives(self, run):
        written = manifest(settings={"a": {"b": [1, None]}}, images=ImageCounts(listed=3, skipped=3))
        write_run(run.layout, written)
        text = (run.folder / "_runs" / f"{written.run_id}.json").read_text()
        assert json.loads(text)["images"] == {"listed": 3, "scored": 0, "no_face": 0, "failed": 0, "skipped": 3}
        assert read_run(run.layout) == written


def test_run_ids_sort_by_time_in_utc_and_differ():
    now = datetime(2026, 1, 5, 1, 15, 30, tzinfo=timezone(timedelta(hours=2)))
    first, second, later = new_run_id(now), new_run_id(now), new_run_id(now + timedelta(microseconds=1))
    assert re.fullmatch(r"20260104T231530\.000000Z-[0-9a-f]{6}", first)
    assert first != second
    assert max(first, second) < later
