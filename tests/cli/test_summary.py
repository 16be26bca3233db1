"""What people read of a run: its summary, its plan, and its tables."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from maskdet.cli.summary import describe_bytes, describe_plan, describe_run, describe_tables, format_table
from maskdet.compliance.intervals import ErrorRates
from maskdet.compliance.rates import KnownErrors, RateRule
from maskdet.compliance.state import Counts, State, Tally
from maskdet.compliance.table import compliance_table
from maskdet.config import ScoreSettings
from maskdet.inputs.references import ImageRef, Shard
from maskdet.labels import THREE_CLASSES
from maskdet.scoring.dry_run import DryRun
from maskdet.tables.layout import Layout, write_table
from maskdet.tables.runs import ImageCounts, RunRecord

START = datetime(2026, 1, 5, 8, 15, tzinfo=UTC)


def run_of(**changes):
    fields = {
        "run_id": "r1",
        "status": "succeeded",
        "started_at": START,
        "finished_at": START + timedelta(seconds=20),
        "settings": {},
        "model": {"id": "m@1", "runtime": "litert 2, int8", "decision": {"no_mask_below": 0.4, "mask_from": 0.5}},
        "fingerprint": "f",
        "versions": {},
        "images": ImageCounts(listed=12_346, scored=12_000, no_face=40, failed=6, skipped=300),
        "failed_by_code": {"empty_file": 1, "not_found": 5},
        "skipped_by_reason": {"extension": 300},
        "faces": {"mask": 9_000, "no_mask": 1_000, "uncertain": 2_000},
        "shards": {"total": 1_300, "scored": 1_200, "kept": 100},
        "images_scored_now": 8_000,
        "thread_seconds": {"fetch": 1.25, "decode": 30.0, "infer": 0.0, "write": 2.0},
    }
    return RunRecord(**{**fields, **changes})


class TestRun:
    def test_a_run_in_words(self):
        assert describe_run(run_of(), Layout("/out")).splitlines() == [
            "run r1: succeeded",
            "  images    12,346 listed = 12,000 scored + 40 no face + 6 failed + 300 skipped",
            "  failed    1 empty_file, 5 not_found",
            "  skipped   300 extension",
            "  faces     9,000 mask, 1,000 no_mask, 2,000 uncertain",
            "  mask rate 90.0% of 10,000 faces labelled mask or no_mask (uncorrected)",
            "  shards    1,300: 1,200 scored, 100 kept from earlier runs",
            "  model     m@1 on litert 2, int8; mask from 0.5, no_mask below 0.4",
            "  time      20.0 s, 400 images/s (thread-seconds: fetch 1.2 s, decode 30.0 s, write 2.0 s)",
            "  tables    /out/{predictions,failures,no_face,compliance}",
        ]

    def test_three_classes_say_how_many_wear_a_mask_and_how_many_correctly(self):
        faces = {"mask": 600, "incorrect": 150, "no_mask": 250, "uncertain": 7}
        lines = describe_run(run_of(faces=faces), Layout("/out")).splitlines()
        assert "  faces     600 mask, 150 incorrect, 250 no_mask, 7 uncertain" in lines
        of = "of 1,000 faces labelled mask, incorrect or no_mask (uncorrected)"
        assert f"  mask rate 75.0% wear one, 60.0% correctly, {of}" in lines

    def test_a_rate_stands_beside_the_share_of_images_without_a_face(self):
        images = ImageCounts(listed=100, scored=60, no_face=20, failed=20)
        lines = describe_run(run_of(dataset=images), Layout("/out")).splitlines()
        of = "of 10,000 faces labelled mask or no_mask (uncorrected)"
        assert f"  mask rate 90.0% {of}; no face in 25.0% of the images" in lines

    def test_time_zone_and_clusters_are_said(self):
        settings = {"compliance": {"time_zone": "Europe/Berlin", "cluster": ["site", "hour"]}}
        lines = describe_run(run_of(settings=settings), Layout("/out")).splitlines()
        assert "  groups    days and hours of Europe/Berlin; clusters of site x hour" in lines
        settings["compliance"]["cluster"] = []
        assert "clusters of nothing" in describe_run(run_of(settings=settings), Layout("/out"))

    def test_a_run_that_failed_says_why_first(self):
        text = describe_run(run_of(status="over_budget", reason="too many"), Layout("/out"))
        assert text.startswith("run r1: over budget — too many\n")

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"finished_at": None}, "  time      not finished"),
            ({"images_scored_now": 0, "thread_seconds": {}}, "  time      20.0 s"),
            ({"finished_at": START, "thread_seconds": {}}, "  time      0.0 s"),
        ],
    )
    def test_no_rate_without_work_or_time(self, changes, line):
        assert line in describe_run(run_of(**changes), Layout("/out")).splitlines()

    @pytest.mark.parametrize("faces", [{}, {"mask": 0, "no_mask": 0, "uncertain": 3}])
    def test_no_mask_rate_without_decided_faces(self, faces):
        assert "mask rate" not in describe_run(run_of(faces=faces), Layout("/out"))

    def test_a_run_that_only_began_can_be_described(self):
        fields = {"run_id": "r", "started_at": START, "settings": {}, "fingerprint": "", "versions": {}}
        begun = RunRecord(**fields, model={"id": "m", "runtime": "r", "decision": {}})
        assert describe_run(begun, Layout("/out")).startswith("run r: running\n")
        assert "not complete" in describe_run(begun, Layout("/out"))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (1_550, "1.6 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (999_999, "1.0 MB"),
        (12_345_678, "12.3 MB"),
        (5 * 10**9, "5.0 GB"),
        (2 * 10**15, "2,000.0 TB"),
    ],
)
def test_sizes_have_decimal_units(size, text):
    assert describe_bytes(size) == text


class TestPlan:
    def plan(self, shards, made=MappingProxyType({}), **changes):
        settings = ScoreSettings.model_validate(
            {"input": "/in", "output": "/out", "source": {"keys": ["site"]}, **changes}
        )
        plan = DryRun(
            tuple(shards),
            finished=1,
            new=tuple(ref for shard in shards[:1] for ref in shard.refs),
            listed=sum(shard.listed for shard in shards) + 8,
            videos=0,
            skipped={"extension": 8},
            changes=made,
        )
        return describe_plan(settings, plan).splitlines()

    def shard(self, site, images, problem=None, gone=0):
        refs = tuple(ImageRef(f"/{site}{i}", 1000, "1", (site,), None, problem, gone=i < gone) for i in range(images))
        return Shard(f"site={site}/shard-all", "id", (site,), refs)

    def test_a_plan_in_words(self):
        lines = self.plan([self.shard("a", 50), self.shard("a", 10), self.shard("b", 2, ("path_mismatch", "x"))])
        assert lines[:10] == [
            "dry run: nothing is scored, nothing is written",
            "  images      70 listed = 50 to score + 10 kept from earlier runs + 2 unreadable + 8 skipped",
            "  to read     50.0 kB",
            "  skipped   8 extension",
            "  unreadable  2 paths or rows of image lists; each becomes a failure row",
            "              /b0: x",
            "              /b1: x",
            "  partitions  2 by ['site']",
            "  shards      3, of which 1 are finished already",
            "              fewer than 50 images per partition make many small files; see tables.partition_by",
        ]
        assert lines[10] == "settings:"
        assert "  output: /out" in lines

    def test_partitions_of_fifty_images_are_no_reason_to_warn(self):
        assert not any("small files" in line for line in self.plan([self.shard("a", 50), self.shard("b", 50)]))

    def test_the_first_few_unreadable_are_named(self):
        lines = self.plan([self.shard("c", 1), self.shard("d", 8, ("path_mismatch", "no date in it"))])
        start = next(number for number, line in enumerate(lines) if line.startswith("  unreadable  8 "))
        assert lines[start + 1 : start + 5] == [
            "              /d0: no date in it",
            "              /d1: no date in it",
            "              /d2: no date in it",
            "              and 5 more",
        ]

    def test_nothing_to_score_can_be_described(self):
        images = "  images      8 listed = 0 to score + 0 kept from earlier runs + 0 unreadable + 8 skipped"
        assert self.plan([])[1:3] == [images, "  to read     0 bytes"]

    def test_images_of_earlier_runs_are_part_of_the_data_set_alone(self):
        shards = [self.shard("a", 3), self.shard("b", 9, gone=4), self.shard("c", 2, ("path_mismatch", "x"), gone=2)]
        lines = self.plan(shards, {"added": 3, "unchanged": 5, "gone": 4, "outside": 2})
        assert lines[1] == "  images      16 listed = 3 to score + 5 kept from earlier runs + 0 unreadable + 8 skipped"
        changes = "3 added, 5 unchanged, 4 gone whose rows stay, 2 of earlier runs beyond this input"
        assert f"  data set    would be 14 images: {changes}" in lines

    def test_without_keys_the_plan_says_so(self):
        assert any(line.endswith("by nothing") for line in self.plan([], source={}))


class TestTables:
    def test_columns_are_aligned(self):
        table = pa.table({"site": ["a", None, "longer"], "n": [1, 20, None], "rate": [0.5, None, 1 / 3]})
        assert format_table(table).splitlines() == [
            "    site   n   rate",
            "       a   1  0.500",
            "       —  20      —",
            "  longer   —  0.333",
        ]

    def test_a_terminal_gets_no_control_characters_of_names(self):
        table = pa.table({"site": ["a\x1b]0;title\x07", "two\nlines", "Ä 北 ش"]})
        assert format_table(table).splitlines() == [
            "               site",
            r"  a\x1b]0;title\x07",
            r"         two\nlines",
            "              Ä 北 ش",
        ]

    def test_a_table_without_rows_has_its_header(self):
        assert format_table(pa.table({"site": pa.array([], pa.string())})) == "  site"

    def test_tables_of_an_output(self, tmp_path):
        layout = Layout(str(tmp_path))
        groups = {(site, "2026-01-05"): State(Counts(10, 0, 1, 8, 2, 0)) for site in "abc"}
        table = compliance_table(groups, ["site", "date"], ["site", "date", "hour"], RateRule(0.95))
        write_table(layout.compliance("day"), table, 100)
        for slot in ("x", "y"):
            (tmp_path / "predictions").mkdir(exist_ok=True)
            (tmp_path / "predictions" / f"{slot}.parquet").write_bytes(bytes(600))
        (tmp_path / "predictions" / "other.txt").write_text("not counted")
        lines = describe_tables(layout, max_rows=2).splitlines()
        assert lines[:5] == [
            "predictions: 2 files, 1.2 kB",
            "failures: 0 files, 0 bytes",
            "no_face: 0 files, 0 bytes",
            "",
            "compliance, level day: 3 groups, days and hours of UTC",
        ]
        names = ["site", "date", "images_listed", "images_failed", "no_face_share", "faces", "faces_uncertain"]
        assert lines[5].split() == [*names, "mask_rate", "to", "quote"]
        assert lines[6].split()[:8] == ["a", str(date(2026, 1, 5)), "11", "1", "0.000", "10", "0", "0.800"]
        assert lines[6].endswith("0.800 (0.490 to 0.943) wilson, naive")  # E. B. Wilson's of 8 of 10
        assert lines[8] == "  and 1 more; to see them: --rows 3"  # of 3 groups
        assert len(lines) == 11 and lines[-1].startswith("to quote: the interval that the table recommends")
        whole = describe_tables(layout, max_rows=3)
        assert "more; to see them" not in whole and len(whole.splitlines()) == 11

    def test_the_interval_shown_is_the_one_to_quote_with_its_method(self, tmp_path):
        layout, faces = Layout(str(tmp_path)), [(40, 34), (50, 21), (30, 27)]
        clusters = {f"c{n}": Tally(size, hits, hits, size, hits, hits) for n, (size, hits) in enumerate(faces)}
        states = {("many",): State(Counts(120, 0, 0, 82, 38), clusters=clusters)}
        states["one",] = State(Counts(40, 0, 0, 34, 6), clusters={"c0": clusters["c0"]})
        rule = RateRule(0.95, THREE_CLASSES, clustered=True)
        write_table(layout.compliance("site"), compliance_table(states, ["site"], ["site"], rule), 100)
        *_, many, one, _, _ = describe_tables(layout, max_rows=9).splitlines()
        # Korn and Graubard's effective number, and the roots of Wilson's equation with t of 2 degrees of freedom.
        n, x = np.array(faces).T
        p, t = 82 / 120, stats.t.ppf(0.975, 2)
        effective = p * (1 - p) / (3 / 2 * np.sum((x - p * n) ** 2) / 120**2)
        low, high = sorted(np.roots([1 + t**2 / effective, -(2 * p + t**2 / effective), p**2]).real)
        expected = f"{p:.3f} ({low:.3f} to {high:.3f}) cluster"
        assert many.count(expected) == 2  # of any mask, and of masks worn correctly
        assert one.count("0.850 (no interval: one cluster)") == 2
        known = KnownErrors(ErrorRates(290, 300, 147, 150), None, None)
        corrected = compliance_table(states, ["site"], ["site"], rule._replace(errors=known))
        write_table(layout.compliance("site"), corrected, 100)
        *_, many, _, _, _ = describe_tables(layout, max_rows=9).splitlines()
        share = (82 / 120 + 147 / 150 - 1) / (290 / 300 + 147 / 150 - 1)  # Rogan and Gladen
        assert f"{share:.3f} (" in many and ") melded" in many and expected in many
