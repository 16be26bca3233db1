"""Counts that merge, rates and intervals: against a slow count, a numeric solution and published values."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdet.compliance.corrections import Correction, Corrections
from maskdet.compliance.groups import Grouping, count_groups
from maskdet.compliance.intervals import wilson_interval
from maskdet.compliance.rates import WILSON, RateRule
from maskdet.compliance.state import Counts, GroupKey, State, Tally, merge_counts, merge_states
from maskdet.compliance.table import compliance_table, key_union
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import LABELS, THREE_CLASSES, TWO_CLASSES
from maskdet.schemas import compliance_schema, failures_schema, no_face_schema, predictions_schema

Z_95 = 1.959963984540054
counts = st.builds(Counts, *[st.integers(0, 10**12)] * 8)
trials_and_successes = st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


def bisect(function, low, high):
    """Where a function that is negative at ``low`` and positive at ``high`` is zero."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return low


class TestWilson:
    @pytest.mark.parametrize(
        ("successes", "trials", "low", "high"),
        [
            # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17
            # (1998), 857-872, table I, method 3.
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ],
    )
    def test_published_values(self, successes, trials, low, high):
        assert wilson_interval(successes, trials, 0.95) == pytest.approx((low, high), abs=5e-5)

    @pytest.mark.parametrize(("confidence", "z"), [(0.95, Z_95), (0.9, 1.6448536269514722), (0.99, 2.5758293035489004)])
    @pytest.mark.parametrize(("successes", "trials"), [(1, 2), (3, 10), (50, 100), (999, 1000), (1, 10**6)])
    def test_ends_are_the_roots_of_the_score_equation(self, successes, trials, confidence, z):
        share = successes / trials
        # (p - share)^2 = z^2 p (1 - p) / n, as a quadratic in p
        roots = sorted(np.roots([1 + z * z / trials, -2 * share - z * z / trials, share * share]))
        assert wilson_interval(successes, trials, confidence) == pytest.approx(roots, rel=1e-9, abs=1e-15)

    @settings(deadline=None)
    @given(trials_and_successes)
    def test_each_end_lies_z_standard_errors_from_the_share(self, observed):
        trials, successes = observed
        share = successes / trials

        def distance(p):
            return (share - p) / math.sqrt(p * (1 - p) / trials)

        interval = wilson_interval(successes, trials, 0.95)
        if successes > 0:
            assert interval.low == pytest.approx(bisect(lambda p: Z_95 - distance(p), 1e-15, share), rel=1e-6)
        if successes < trials:
            assert interval.high == pytest.approx(bisect(lambda p: -Z_95 - distance(p), share, 1 - 1e-15), rel=1e-6)

    @settings(deadline=None)
    @given(trials_and_successes, st.floats(0.01, 0.999))
    def test_within_bounds_around_the_share_and_symmetric(self, observed, confidence):
        trials, successes = observed
        interval = wilson_interval(successes, trials, confidence)
        mirrored = wilson_interval(trials - successes, trials, confidence)
        assert 0 <= interval.low <= successes / trials <= interval.high <= 1
        assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx(interval, abs=1e-12)

    @pytest.mark.parametrize("trials", [1, 7, 10**9])
    def test_ends_are_exact_without_successes_and_without_failures(self, trials):
        bound = Z_95**2 / (trials + Z_95**2)
        none, all_of_them = wilson_interval(0, trials, 0.95), wilson_interval(trials, trials, 0.95)
        assert none.low == 0.0
        assert none.high == pytest.approx(bound)
        assert all_of_them.high == 1.0
        assert all_of_them.low == pytest.approx(1 - bound)

    def test_no_trials_have_no_interval(self):
        assert wilson_interval(0, 0, 0.95) is None

    def test_more_trials_or_less_confidence_narrow_it(self):
        widths = [high - low for low, high in (wilson_interval(3 * n, 10 * n, 0.95) for n in (1, 10, 100))]
        widths += [high - low for low, high in (wilson_interval(300, 1000, c) for c in (0.9, 0.5, 0.1))]
        assert all(wide > narrow for wide, narrow in pairwise(widths))


class TestCounts:
    def test_sums_of_fields(self):
        count = Counts(10, 2, 3, 6, 4, 1, 5)
        assert (count.images_listed, count.faces) == (15, 16)
        assert (count.faces_labelled, count.faces_any_mask) == (15, 11)
        assert Counts().images_listed == Counts().faces == 0

    @settings(deadline=None)
    @given(st.lists(counts, max_size=6), st.randoms())
    def test_merging_does_not_depend_on_order_or_grouping(self, parts, rng):
        expected = Counts(*(sum(part[i] for part in parts) for i in range(8)))
        shuffled = rng.sample(parts, len(parts))
        cut = rng.randint(0, len(parts))
        assert merge_counts(parts) == merge_counts(shuffled) == expected
        assert merge_counts([merge_counts(parts[:cut]), merge_counts(parts[cut:])]) == expected
        assert reduce(lambda a, b: merge_counts([a, b]), parts, Counts()) == expected

    @settings(deadline=None)
    @given(st.text(), st.lists(st.none() | st.text()))
    def test_a_key_survives_its_encoding(self, level, values):
        key = GroupKey(level, tuple(values))
        assert GroupKey.decode(key.encode()) == key
        assert key.encode().isascii()

    def test_null_the_empty_string_and_the_word_null_are_different_keys(self):
        assert len({GroupKey("x", (value,)).encode() for value in (None, "", "null")}) == 3


def random_rows(rng, count):
    start = datetime(2026, 3, 28, 20, tzinfo=UTC)  # the clocks of Berlin go forward in the night
    return [
        {
            "captured_at": rng.choice([None, start + timedelta(minutes=rng.randrange(60 * 24))]),
            "camera": rng.choice([None, "c1", "c2", "Ü"]),
            "label": rng.choice(LABELS),
            "face_index": rng.choice([0, 0, 0, 1, 2]),
            "image_uri": f"/{number}",
            "content_sha256": f"{number:064x}",
            "probability_mask": rng.random() / 2,
            "probability_incorrect": rng.choice([None, rng.random() / 2]),
        }
        for number in range(count)
    ]


def table_of(rows, schema):
    wanted = [field for field in schema if field.name in random_rows(random.Random(0), 1)[0]]
    return pa.Table.from_pylist([{f.name: row[f.name] for f in wanted} for row in rows], schema=pa.schema(wanted))


def local_keys(row, site, zone):
    local = row["captured_at"] and row["captured_at"].astimezone(ZoneInfo(zone))
    return {
        "site": site,
        "camera": row["camera"],
        "date": local and local.date().isoformat(),
        "hour": local and f"{local.hour:02d}",
        "week": local and local.strftime("%G-W%V"),
        "month": local and local.strftime("%Y-%m"),
        "weekday": local and local.strftime("%u"),
    }


def slow_count(predictions, failures, no_face, site, zone, levels):
    total = {}
    outcomes = (("", predictions), ("images_failed", failures), ("images_no_face", no_face))
    for level, names in levels.items():
        for row, outcome in [(row, outcome) for outcome, rows in outcomes for row in rows]:
            values = local_keys(row, site, zone)
            found = total.setdefault((level, tuple(values[name] for name in names)), Counter())
            if outcome:
                found[outcome] += 1
            else:
                found["images_scored"] += row["face_index"] == 0
                found[f"faces_{row['label']}"] += 1
    return {key: Counts(**{name: found[name] for name in Counts._fields}) for key, found in total.items()}


def slow_clusters(predictions, site, zone, cluster):
    found = {}
    for row in predictions:
        values = local_keys(row, site, zone)
        tally = found.setdefault(json.dumps([values[name] for name in cluster]), Counter())
        tally["labelled"] += row["label"] != "uncertain"
        tally["any_mask"] += row["label"] in ("mask", "incorrect")
        tally["correct"] += row["label"] == "mask"
    return {
        name: Tally(*[tally[field] for field in ("labelled", "any_mask", "correct")] * 2)
        for name, tally in found.items()
    }


def counts_of(states):
    return {key: state.counts for key, state in states.items()}


OLD_COLUMNS = (
    *("images_listed", "images_scored", "images_no_face", "images_failed", "faces", "faces_mask", "faces_incorrect"),
    *("faces_no_mask", "faces_uncertain", "mask_rate", "any_mask_rate", "correct_rate", "correct_rate_low"),
    *("correct_rate_high", "rate_method", "interval_method", "interval_confidence"),
)
LEVELS = {
    "all": (),
    "site": ("site",),
    "camera": ("camera",),
    "day": ("date",),
    "mixed": ("hour", "camera", "date", "site"),
    "week": ("week", "site"),
    "month": ("month",),
    "weekday": ("weekday", "hour"),
}
CLUSTER = ("camera", "date", "hour")


class TestCountGroups:
    @pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu"])
    @pytest.mark.parametrize(
        ("predicted", "failed", "faceless"), [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (300, 40, 30)]
    )
    @pytest.mark.parametrize("site", ["north", None])
    def test_counts_are_those_of_a_slow_count(self, zone, predicted, failed, faceless, site):
        rng = random.Random(f"{zone}{predicted}{failed}{site}")
        predictions, failures, no_face = (random_rows(rng, count) for count in (predicted, failed, faceless))
        rule = KeyRule(("site", "camera"), ("site",), zone)
        result = count_groups(
            table_of(predictions, predictions_schema(["camera"])),
            table_of(failures, failures_schema(["camera"])),
            table_of(no_face, no_face_schema(["camera"])),
            (site,),
            rule,
            Grouping(LEVELS, CLUSTER),
        )
        assert counts_of(result) == slow_count(predictions, failures, no_face, site, zone, LEVELS)
        if result:
            state = result[GroupKey("all", ())]
            assert state.clusters == slow_clusters(predictions, site, zone, CLUSTER)
            rows = [*predictions, *failures, *no_face]
            times = [round(row["captured_at"].timestamp() * 1000) for row in rows if row["captured_at"]]
            assert (state.first_ms, state.last_ms) == (min(times, default=None), max(times, default=None))

    def test_another_time_zone_of_groups_moves_their_days_and_not_the_partition_s_folder(self):
        rows = random_rows(random.Random(4), 200)
        rule = KeyRule(("site", "camera"), ("site", "date"), "UTC")
        result = count_groups(
            table_of(rows, predictions_schema(["camera"])),
            failures_schema(["camera"]).empty_table(),
            no_face_schema(["camera"]).empty_table(),
            ("s", "2026-03-28"),
            rule,
            Grouping(LEVELS, time_zone="Asia/Kathmandu"),
        )
        assert counts_of(result) == slow_count(rows, [], [], "s", "Asia/Kathmandu", LEVELS)

    def test_probabilities_add_up_in_fixed_point(self):
        rows = random_rows(random.Random(5), 400)
        table = table_of(rows, predictions_schema(["camera"]))
        state = self.count(table)[GroupKey("all", ())]
        worn = table["probability_mask"].to_numpy().astype(float)
        worn = worn + np.nan_to_num(table["probability_incorrect"].to_numpy().astype(float))
        assert state.scores.mean == pytest.approx(worn.mean(), abs=1e-9)
        assert state.scores.deviation == pytest.approx(np.std(worn, ddof=1), abs=1e-8)
        assert list(state.scores.histogram) == np.histogram(worn, np.arange(21) / 20)[0].tolist()

    def count(self, predictions, **grouping):
        empty = failures_schema(["camera"]).empty_table(), no_face_schema(["camera"]).empty_table()
        rule = KeyRule(("site", "camera"), ("site",), "UTC")
        return count_groups(predictions, *empty, ("s",), rule, Grouping(LEVELS, CLUSTER, **grouping))

    def test_faces_of_other_models_are_told_in_each_cluster(self):
        rows = [{**row, "model_id": f"m@{number % 3}"} for number, row in enumerate(random_rows(random.Random(7), 90))]
        table = table_of(rows, predictions_schema(["camera"]))
        table = table.append_column("model_id", [[row["model_id"] for row in rows]])
        found = self.count(table, model="m@0")
        labelled = [row for row in rows if row["label"] != "uncertain"]
        others = Counter(row["camera"] for row in labelled if row["model_id"] != "m@0")
        total = {key.values[0]: state.by_model.of_other_models for key, state in found.items() if key.level == "camera"}
        assert {camera: count for camera, count in total.items() if count} == others
        assert self.count(table)[GroupKey("all", ())].by_model.of_other_models == 0  # nobody asked

    def test_a_correction_counts_in_place_of_the_model_s_label_and_says_so(self):
        rows = [{**row, "label": "mask"} for row in random_rows(random.Random(6), 6)]
        table = table_of(rows, predictions_schema(["camera"]))

        def correct(row, label, **changes):
            return Correction(**{"image_uri": row["image_uri"], "content_sha256": row["content_sha256"],
                                 "face_index": row["face_index"], "label": label, **changes})  # fmt: skip

        corrections = Corrections.of(
            [
                correct(rows[0], "no_mask"),
                correct(rows[1], "not_a_face"),
                correct(rows[2], "mask"),
                correct(rows[3], "no_mask", content_sha256="0" * 64),  # of an image that was replaced since
                correct(rows[4], "no_mask", face_index=rows[4]["face_index"] + 1),
            ]
        )
        assert Corrections.from_table(corrections.to_table()) == corrections
        state = self.count(table, corrections=corrections)[GroupKey("all", ())]
        counts = state.counts
        assert (counts.faces_mask, counts.faces_no_mask, counts.faces_corrected) == (4, 1, 3)
        assert (state.by_model.labelled, state.by_model.any_mask) == (5, 4)
        assert (state.by_model.labelled_by_model, state.by_model.any_mask_by_model) == (6, 6)
        assert counts.images_scored == self.count(table)[GroupKey("all", ())].counts.images_scored

    @pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
    def test_a_derived_partition_key_is_taken_from_the_partition(self, zone):
        rows = random_rows(random.Random(1), 50)
        rule = KeyRule(("camera",), ("camera", "date"), zone)
        predictions = table_of(rows, predictions_schema([]))
        failures, no_face = table_of([], failures_schema([])), table_of([], no_face_schema([]))
        result = count_groups(
            predictions, failures, no_face, ("c9", "2026-03-28"), rule, Grouping({"x": ("date", "camera")})
        )
        assert list(result) == [GroupKey("x", ("2026-03-28", "c9"))]

    def test_shards_add_up_to_the_whole(self):
        rng = random.Random(2)
        predictions, failures = random_rows(rng, 200), random_rows(rng, 50)
        rule = KeyRule(("site", "camera"), ("site",), "Europe/Berlin")

        def count(some, others):
            schemas = (predictions_schema(["camera"]), failures_schema(["camera"]), no_face_schema(["camera"]))
            tables = (table_of(rows, schema) for rows, schema in zip((some, others, others), schemas, strict=True))
            return count_groups(*tables, ("s",), rule, Grouping(LEVELS, CLUSTER))

        parts = [count(predictions[:70], failures[20:]), count(predictions[70:], []), count([], failures[:20])]
        keys = {key for part in parts for key in part}
        merged = {key: merge_states(part[key] for part in parts if key in part) for key in keys}
        assert merged == count(predictions, failures)


class TestTable:
    def table(self, groups, names=("site", "hour", "date"), all_names=("site", "date", "hour", "camera")):
        states = {values: State(counts) for values, counts in groups.items()}
        return compliance_table(states, names, all_names, RateRule(0.9))

    def test_keys_are_typed_and_sorted_with_nulls_first(self):
        values = [
            ("b", "09", "2026-01-02"),
            ("a", "10", "2026-01-01"),
            (None, "00", "2026-01-01"),
            ("a", None, None),
            ("a", "09", None),
        ]
        table = self.table(dict.fromkeys(values, Counts(1, 0, 0, 1)))
        expected = compliance_schema(("site", "date", "hour", "camera"))
        assert table.schema.equals(expected.with_metadata({**expected.metadata, b"maskdet.time_zone": b"UTC"}), True)
        keys = [(row["site"], row["hour"], row["date"], row["camera"]) for row in table.to_pylist()]
        assert keys == [
            (None, 0, date(2026, 1, 1), None),
            ("a", None, None, None),
            ("a", 9, None, None),
            ("a", 10, date(2026, 1, 1), None),
            ("b", 9, date(2026, 1, 2), None),
        ]

    def test_the_empty_string_is_no_null(self):
        table = self.table({("",): Counts(1), (None,): Counts(2)}, ["site"], ["site"])
        assert table.select(["site", "images_scored"]).to_pylist() == [
            {"site": None, "images_scored": 2},
            {"site": "", "images_scored": 1},
        ]

    def test_measures_follow_from_the_counts(self):
        [row] = self.table({(): Counts(100, 7, 3, 30, 60, 15)}, [], []).to_pylist()
        roots = sorted(
            np.roots([1 + 1.6448536269514722**2 / 90, -2 * 30 / 90 - 1.6448536269514722**2 / 90, (30 / 90) ** 2])
        )
        assert (row.pop("mask_rate_low"), row.pop("mask_rate_high")) == pytest.approx(roots)
        assert (row.pop("any_mask_rate_low"), row.pop("any_mask_rate_high")) == pytest.approx(roots)
        assert {name: row[name] for name in OLD_COLUMNS} == {
            "images_listed": 110,
            "images_scored": 100,
            "images_no_face": 7,
            "images_failed": 3,
            "faces": 105,
            "faces_mask": 30,
            "faces_incorrect": None,
            "faces_no_mask": 60,
            "faces_uncertain": 15,
            "mask_rate": 30 / 90,
            "any_mask_rate": 30 / 90,
            # Two classes do not tell a mask under the chin from one that covers nose and mouth.
            "correct_rate": None,
            "correct_rate_low": None,
            "correct_rate_high": None,
            "rate_method": "raw",
            "interval_method": WILSON,
            "interval_confidence": 0.9,
        }

    def test_three_classes_have_a_rate_of_masks_and_one_of_those_worn_correctly(self):
        [row] = compliance_table(
            {(): State(Counts(9, 0, 0, 6, 10, 3, 4))}, [], [], RateRule(0.95, THREE_CLASSES)
        ).to_pylist()
        assert (row["faces"], row["faces_mask"], row["faces_incorrect"], row["faces_no_mask"]) == (23, 6, 4, 10)
        assert row["mask_rate"] == row["any_mask_rate"] == 10 / 20
        assert row["correct_rate"] == 6 / 20
        for name, successes in (("mask_rate", 10), ("any_mask_rate", 10), ("correct_rate", 6)):
            assert (row[f"{name}_low"], row[f"{name}_high"]) == wilson_interval(successes, 20, 0.95)

    def test_rows_of_an_earlier_model_of_three_classes_stay_in_the_counts(self):
        [row] = compliance_table(
            {(): State(Counts(9, 0, 0, 6, 10, 3, 4))}, [], [], RateRule(0.95, TWO_CLASSES)
        ).to_pylist()
        assert (row["faces"], row["faces_incorrect"], row["any_mask_rate"]) == (23, 4, 10 / 20)
        assert row["correct_rate"] is None

    @settings(deadline=None)
    @given(counts)
    def test_rates_of_three_classes_add_up(self, count):
        [row] = compliance_table({(): State(count)}, [], [], RateRule(0.95, THREE_CLASSES)).to_pylist()
        assert row["faces"] == sum(row[f"faces_{name}"] for name in LABELS)
        if count.faces_labelled:
            incorrect, bare = (row[f"faces_{name}"] / count.faces_labelled for name in ("incorrect", "no_mask"))
            assert row["correct_rate"] + incorrect + bare == pytest.approx(1)
            assert row["any_mask_rate"] - row["correct_rate"] == pytest.approx(incorrect)
            assert row["correct_rate_low"] <= row["correct_rate"] <= row["any_mask_rate"] <= row["any_mask_rate_high"]

    @pytest.mark.parametrize("count", [Counts(0, 0, 5), Counts(0, 4, 0), Counts(3, 0, 0, 0, 0, 3)])
    def test_without_decided_faces_there_is_no_rate(self, count):
        [row] = self.table({(): count}, [], []).to_pylist()
        assert [row[name] for name in ("mask_rate", "mask_rate_low", "mask_rate_high")] == [None] * 3

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.tuples(st.none() | st.text(max_size=3), st.none() | st.integers(0, 23).map("{:02d}".format)),
            counts,
            min_size=1,
        )
    )
    def test_the_table_does_not_depend_on_the_order_of_the_groups(self, groups):
        table = self.table(groups, ["site", "hour"], ["site", "hour"])
        assert table.equals(self.table(dict(reversed(groups.items())), ["site", "hour"], ["site", "hour"]))
        assert table.num_rows == len(groups)

    def test_key_union_keeps_the_order_of_first_use(self):
        assert key_union({"all": (), "a": ("x", "y"), "b": ("z", "x")}) == ("x", "y", "z")


def test_encoding_is_json_of_level_and_values():
    assert json.loads(GroupKey("site", ("a", None)).encode()) == ["site", ["a", None]]
