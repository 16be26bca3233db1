"""A run from start to finish: every way it can end, and what it leaves behind."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from maskdet.compliance.groups import Counts
from maskdet.config import FailureBudget, ScoreSettings
from maskdet.errors import BudgetError, HeldError, MaskdetError, OutputError, ReconciliationError, SourceError
from maskdet.schemas import SCHEMA_VERSION
from maskdet.tables import lease
from maskdet.tables.layout import Layout
from maskdet.tables.lease import Holder
from maskdet.tables.receipts import Receipt, ShardReport
from maskdet.tables.results import StageSeconds
from maskdet.tables.runs import (
    Dataset,
    ImageCounts,
    RunManifest,
    RunPlan,
    begin_run,
    claim_output,
    finish_run,
    hold_output,
    new_run_id,
    read_run,
    write_manifest,
)

START = datetime(2026, 1, 5, 8, 15, tzinfo=UTC)
END = START + timedelta(minutes=2)


def manifest(run_id="20260105T081500Z-000001", **changes):
    fields = {"run_id": run_id, "started_at": START, "settings": {}, "fingerprint": "f", "versions": {}}
    model = {"id": "m@1", "runtime": "litert", "decision": {"no_mask_below": 0.5, "mask_from": 0.5}}
    return RunManifest(**{**fields, "model": model, **changes})


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
        size_bytes=100 * scored,
    )
    return ShardReport(receipt, kept, {}, StageSeconds() if kept else StageSeconds(1, 2, 5, 3, 0.25))


def totals(reports, **changes):
    """What the level of everything counts, unless told otherwise; two of three faces wear masks."""
    receipts = [r.receipt for r in reports]
    scored = sum(r.scored for r in receipts)
    failed = sum(sum(r.failed.values()) for r in receipts)
    counts = Counts(scored, sum(r.no_face for r in receipts), failed, scored - scored // 3, scored // 3, 0)
    return {"all": counts._replace(**changes)}


class Run:
    """A run over an output, with files as its shards would leave them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = Layout(str(folder))

    def put(self, name, text="x"):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def put_shards(self, reports):
        for receipt in (r.receipt for r in reports):
            self.put(f"_shards/{receipt.slot}.json")
            for table in receipt.rows:
                self.put(self.layout.table(table, receipt.slot))
        self.put("compliance/level=all/groups.parquet")

    def hold(self, run_id):
        """Take the lease, as a run does before it begins."""
        lease.acquire(self.layout, Holder.here(run_id, START, ends_with_process=True))

    def finish(self, reports, listing=None, levels=None, **budget):
        images = sum(r.receipt.images for r in reports)
        plan = RunPlan(self.layout, manifest(), FailureBudget(**budget))
        self.hold(plan.manifest.run_id)
        return finish_run(
            plan,
            {"listed": images} if listing is None else listing,
            reports,
            totals(reports) if levels is None else levels,
            END,
        )

    @property
    def succeeded(self):
        return (self.folder / "_SUCCESS").exists()

    def files(self):
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "out")


STALE = [
    "predictions/site=old/shard-all.parquet",
    "predictions/site=a/shard-1.parquet",
    "failures/0123456789abcdef.parquet",
    "_shards/site=old/shard-all.json",
    "compliance/level=gone/groups.parquet",
]
OTHERS = ["_dataset.json", "_runs/20260101T000000Z-abcdef.json", "notes.txt", "other/table.parquet"]


class TestOutcomes:
    def test_success_counts_everything_and_marks_it(self, run):
        reports = [
            report("site=a/shard-all", 10, kept=True),
            report("site=b/shard-0", 3, {"not_found": 1, "empty_file": 2}),
            report("site=b/shard-1", 5, {"empty_file": 1}, no_face=2),
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
            # Products that binary fractions put just under a whole number.
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
        run.put("predictions/site=other/shard-all.parquet")
        run.hold("another")
        before = run.files()
        plan = RunPlan(run.layout, manifest(), FailureBudget())
        result = finish_run(plan, {"listed": 10}, reports, totals(reports), END)
        assert result.status == "superseded"
        assert "run another (process" in result.reason
        assert isinstance(result.outcome(), HeldError)
        assert run.files() == before | {f"_runs/{result.run_id}.json"}

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


class TestCleaning:
    REPORTS = (report("site=a/shard-all", 10), report("site=b/shard-0", 3, {"empty_file": 1}))

    def prepare(self, run):
        run.put_shards(self.REPORTS)
        owned = run.files()
        for name in (*STALE, *OTHERS):
            run.put(name)
        return owned

    @pytest.mark.parametrize("max_ratio", [0.5, 0.0])
    def test_stale_files_go_and_nothing_else(self, run, max_ratio):
        owned = self.prepare(run)
        result = run.finish(self.REPORTS, max_ratio=max_ratio)
        mark = {"_SUCCESS"} if max_ratio else set()
        assert run.files() == owned | set(OTHERS) | mark | {f"_runs/{result.run_id}.json"}
        assert result.files_removed == len(STALE)
        assert not (run.folder / "predictions" / "site=old").exists()
        assert result.status == ("succeeded" if max_ratio else "over_budget")

    @pytest.mark.parametrize("why", ["unreconciled", "empty", "disagreeing"])
    def test_a_run_that_cannot_vouch_for_its_tables_removes_nothing(self, run, why):
        self.prepare(run)
        before = run.files()
        if why == "empty":
            result = run.finish([], {"listed": 2, "extension": 2}, {})
        elif why == "unreconciled":
            result = run.finish(self.REPORTS, {"listed": 99})
        else:
            result = run.finish(self.REPORTS, levels=totals(self.REPORTS, images_scored=0))
        assert run.files() == before | {f"_runs/{result.run_id}.json"}
        assert result.files_removed == 0

    def test_beginning_takes_the_old_mark_away(self, run):
        run.put("_SUCCESS", "old\n")
        begin_run(RunPlan(run.layout, manifest(), FailureBudget()))
        assert not run.succeeded
        assert read_run(run.layout).status == "running"

    def test_beginning_without_a_mark_is_fine(self, run):
        begin_run(RunPlan(run.layout, manifest(), FailureBudget()))
        assert run.files() == {"_runs/20260105T081500Z-000001.json"}


def settings_of(folder, **changes):
    tree = {
        "input": [str(folder / "in")],
        "output": str(folder / "out"),
        "source": {"keys": ["site", "camera"]},
        **changes,
    }
    return ScoreSettings.model_validate(tree)


class TestClaiming:
    def claim(self, run, overwrite=False, **changes):
        claim_output(run.layout, settings_of(run.folder.parent, **changes), overwrite=overwrite)

    def test_an_empty_place_is_claimed_and_may_be_claimed_again(self, run):
        self.claim(run)
        found = Dataset.model_validate_json((run.folder / "_dataset.json").read_text())
        assert found.input == (str(run.folder.parent / "in"),)
        assert (found.key_names, found.partition_by) == (("site", "camera"), ("site", "camera"))
        run.put("predictions/site=a/shard-all.parquet")
        self.claim(run)

    def test_settings_that_change_no_table_s_shape_may_change(self, run):
        self.claim(run)
        self.claim(run, imaging={"jpeg_draft": False}, packing={"max_images": 3}, failure_budget={"max_ratio": 1.0})

    def test_a_relative_input_is_the_same_as_its_absolute_path(self, run, monkeypatch):
        self.claim(run)
        monkeypatch.chdir(run.folder.parent)
        self.claim(run, input="in/")

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"input": ["/elsewhere"]}, "/elsewhere"),
            ({"source": {"keys": ["site"]}}, "key_names"),
            ({"tables": {"partition_by": ["site"]}}, "partition_by"),
        ],
    )
    def test_tables_of_another_input_or_layout_are_refused_unless_told(self, run, changes, text):
        self.claim(run)
        before = (run.folder / "_dataset.json").read_bytes()
        with pytest.raises(OutputError, match=re.escape(text)) as caught:
            self.claim(run, **changes)
        assert "--overwrite" in str(caught.value)
        assert (run.folder / "_dataset.json").read_bytes() == before
        self.claim(run, overwrite=True, **changes)
        self.claim(run, **changes)

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

    def test_other_files_do_not_matter(self, run):
        run.put("notes.txt")
        self.claim(run)

    @pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema_version": "x"}'])
    def test_a_damaged_claim_is_refused(self, run, text):
        run.put("_dataset.json", text)
        with pytest.raises(OutputError, match=f"schema version {SCHEMA_VERSION}"):
            self.claim(run)

    def test_a_claim_of_another_version_is_refused(self, run):
        self.claim(run)
        path = run.folder / "_dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
        with pytest.raises(OutputError, match="schema_version 99"):
            self.claim(run)


class TestReading:
    def test_the_latest_run_is_the_last_by_name(self, run):
        for run_id in ("20260105T081500Z-ffffff", "20260105T081501Z-000000", "20251231T235959Z-aaaaaa"):
            write_manifest(run.layout, manifest(run_id))
        run.put("_runs/zzz.txt")
        assert read_run(run.layout).run_id == "20260105T081501Z-000000"
        assert read_run(run.layout, "20251231T235959Z-aaaaaa").run_id == "20251231T235959Z-aaaaaa"

    def test_no_run_is_an_error_that_says_what_to_do(self, run):
        with pytest.raises(OutputError, match="Run maskdet score first"):
            read_run(run.layout)

    def test_an_unknown_run_is_an_error_of_the_output(self, run):
        write_manifest(run.layout, manifest())
        with pytest.raises(OutputError, match="'nope'"):
            read_run(run.layout, "nope")

    @pytest.mark.parametrize("text", ["", "{}", "nonsense"])
    def test_a_damaged_manifest_is_an_error_of_the_output(self, run, text):
        run.put("_runs/20260105T081500Z-000001.json", text)
        with pytest.raises(OutputError, match="not a run manifest"):
            read_run(run.layout)

    def test_a_manifest_is_readable_json_and_survives(self, run):
        written = manifest(settings={"a": {"b": [1, None]}}, images=ImageCounts(listed=3, skipped=3))
        write_manifest(run.layout, written)
        text = (run.folder / "_runs" / f"{written.run_id}.json").read_text()
        assert json.loads(text)["images"] == {"listed": 3, "scored": 0, "no_face": 0, "failed": 0, "skipped": 3}
        assert read_run(run.layout) == written


def test_run_ids_sort_by_time_in_utc_and_differ():
    now = datetime(2026, 1, 5, 1, 15, 30, tzinfo=timezone(timedelta(hours=2)))
    first, second, later = new_run_id(now), new_run_id(now), new_run_id(now + timedelta(microseconds=1))
    assert re.fullmatch(r"20260104T231530\.000000Z-[0-9a-f]{6}", first)
    assert first != second
    assert max(first, second) < later
