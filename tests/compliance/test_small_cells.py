"""Hidden groups stay hidden: an attacker who knows all published numbers and how levels add up tries to undo it."""

from __future__ import annotations

import random
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from maskdet.compliance.rates import RateRule
from maskdet.compliance.small_cells import (
    COUNTED,
    determined,
    feasible_range,
    find_relations,
    hide_groups,
    round_counts,
)
from maskdet.compliance.state import Counts, GroupKey, State
from maskdet.compliance.table import Disclosure, compliance_table
from maskdet.compliance.track_rates import TrackCounts, hide_track_groups, track_rates_table
from maskdet.labels import THREE_CLASSES

LEVELS = {"all": (), "site": ("site",), "day": ("date",), "site_day": ("site", "date"), "week": ("week", "site")}
FIRST = date(2026, 3, 6)  # a Friday: two weeks
K = 5
GROUPS = {("a",): State(Counts(7, 1, 0, 3, 4, 0, 0), first_ms=0, last_ms=5), ("b",): State(Counts(23, 0, 0, 17, 6))}


def world(seed, sites=3, days=5, levels=LEVELS, scale=12):
    """Counts of every group of every level, from counts of every site and day."""
    rng, groups = random.Random(seed), {}
    for site in range(sites):
        for day in range(days):
            when = FIRST + timedelta(days=day)
            faces = [rng.choice([0, 0, rng.randrange(scale), rng.randrange(5 * scale)]) for _ in range(4)]
            counts = Counts(sum(faces), rng.choice([0, rng.randrange(scale)]), 0, *faces)
            if counts == Counts():
                continue
            values = {"site": f"s{site}", "date": when.isoformat(), "week": when.strftime("%G-W%V")}
            for level, names in levels.items():
                key = GroupKey(level, tuple(values[name] for name in names))
                groups[key] = Counts(*map(sum, zip(groups.get(key, Counts()), counts, strict=True)))
    return groups


def naive_hidden(groups):
    return {k for k, c in groups.items() if any(0 < n < K for n in [*(getattr(c, f) for f in COUNTED), c.faces])}


def attack(groups, levels, hidden, field):
    """What an attacker can say about each hidden number: its range, by linear programming over all cells."""
    keys = list(groups)
    places = {key: place for place, key in enumerate(keys)}
    rows, sums = [], []
    for relation in find_relations(groups, levels):
        row = np.zeros(len(keys))
        row[[places[key] for key in relation.parts]] = 1
        row[places[relation.whole]] = -1
        rows.append(row)
        sums.append(0)
    value = {key: getattr(groups[key], field) for key in keys}
    bounds = [(0, None) if key in hidden else (value[key], value[key]) for key in keys]
    found = {}
    for key in hidden:
        cost = np.zeros(len(keys))
        cost[places[key]] = 1
        ends = []
        for sign in (1, -1):
            solved = linprog(sign * cost, A_eq=np.array(rows), b_eq=sums, bounds=bounds, method="highs")
            ends.append(sign * solved.fun if solved.status == 0 else sign * -np.inf)
        found[key] = tuple(ends)
    return found


def assert_safe(groups, levels, hidden):
    for field in (*COUNTED, "faces"):
        for key, (low, high) in attack(groups, levels, hidden, field).items():
            value = getattr(groups[key], field)
            assert low - 1e-6 <= value <= high + 1e-6
            if 0 < value < K:
                assert high - low >= value - 1e-6, (field, key, low, high)


@pytest.mark.parametrize("seed", range(3))
def test_no_hidden_number_can_be_worked_out(seed):
    groups = world(seed)
    hidden = hide_groups(groups, LEVELS, K)
    assert naive_hidden(groups) <= hidden
    assert_safe(groups, LEVELS, hidden)


def test_the_attack_undoes_suppression_without_complements():
    groups = world(3)
    undone = 0
    for field in (*COUNTED, "faces"):
        found = attack(groups, LEVELS, naive_hidden(groups), field)
        small = {key: limits for key, limits in found.items() if 0 < getattr(groups[key], field) < K}
        undone += sum(high - low < 1e-6 for low, high in small.values())
    assert undone > 0


def test_weeks_follow_from_days():
    groups = world(1)
    relations = find_relations(groups, LEVELS)
    of_week = [relation for relation in relations if relation.whole.level == "week"]
    assert {part.level for relation in of_week for part in relation.parts} == {"site_day"}
    for relation in relations:
        parts = Counts(*(sum(column) for column in zip(*(groups[key] for key in relation.parts), strict=True)))
        assert groups[relation.whole] == parts


def test_a_bridge_between_two_squares_is_seen():
    # Two 2 x 2 blocks of hidden cells, tied by one cell: each row and column hides two or more, and yet that one cell
    # follows from the sums.
    cells = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 2), (2, 3), (3, 2), (3, 3)]
    matrix = np.zeros((8, len(cells)))
    for place, (row, column) in enumerate(cells):
        matrix[row, place] = matrix[4 + column, place] = 1
    assert determined(matrix) == [cells.index((1, 2))]
    numbers = np.array([3, 4, 5, 6, 7, 8, 9, 10, 11])
    assert feasible_range(matrix, numbers, 4) == pytest.approx((7, 7))
    low, high = feasible_range(matrix, numbers, 0)
    assert high - low == pytest.approx(3 + 4)


def test_one_hidden_group_takes_another_along_or_the_whole():
    levels = {"all": (), "site": ("site",)}
    groups = {
        GroupKey("site", ("a",)): Counts(2, 0, 0, 2, 0),
        GroupKey("site", ("b",)): Counts(30, 0, 0, 20, 10),
        GroupKey("site", ("c",)): Counts(90, 0, 0, 60, 30),
        GroupKey("all", ()): Counts(122, 0, 0, 82, 40),
    }
    assert {key.values for key in hide_groups(groups, levels, K)} == {("a",), ("b",)}
    only = {key: counts for key, counts in groups.items() if key.values in (("a",), ())}
    only[GroupKey("all", ())] = Counts(2, 0, 0, 2, 0)
    assert hide_groups(only, levels, K) == set(only)


def test_most_of_a_table_of_large_groups_stays():
    levels = {"all": (), "site": ("site",), "day": ("date",), "site_day": ("site", "date")}
    groups = {
        GroupKey("site_day", (f"s{site}", (FIRST + timedelta(days=day)).isoformat())): Counts(60, 0, 0, 40, 20)
        for site in range(6)
        for day in range(6)
    }
    groups[GroupKey("site_day", ("s2", (FIRST + timedelta(days=3)).isoformat()))] = Counts(21, 0, 0, 18, 3)
    for level, place in (("site", 0), ("day", 1)):
        for key in [key for key in groups if key.level == "site_day"]:
            whole = GroupKey(level, (key.values[place],))
            groups[whole] = Counts(*map(sum, zip(groups.get(whole, Counts()), groups[key], strict=True)))
    sites = [groups[key] for key in groups if key.level == "site"]
    groups[GroupKey("all", ())] = Counts(*(sum(column) for column in zip(*sites, strict=True)))
    hidden = hide_groups(groups, levels, K)
    # The cell, one in its row, one in its column, and the one that makes the square.
    assert len(hidden) == 4
    assert {key.level for key in hidden} == {"site_day"}
    assert_safe(groups, levels, hidden)


def test_nothing_small_hides_nothing():
    groups = {GroupKey("all", ()): Counts(10, 0, 0, 10, 0), GroupKey("site", ("a",)): Counts(10, 0, 0, 10, 0)}
    assert hide_groups(groups, {"all": (), "site": ("site",)}, K) == set()


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 10**6))
def test_the_choice_does_not_depend_on_the_order_of_the_groups(seed):
    groups = world(seed, sites=2, days=3)
    backwards = dict(reversed(groups.items()))
    assert hide_groups(groups, LEVELS, K) == hide_groups(backwards, LEVELS, K)


class TestTable:
    def table(self, shown):
        rule = RateRule(0.95, THREE_CLASSES)
        return compliance_table(GROUPS, ["site"], ["site"], rule, "UTC", shown).to_pylist()

    def test_a_hidden_group_shows_its_name_and_nothing_else(self):
        first, second = self.table(Disclosure(frozenset({("a",)}), 1, True))
        told = {name for name, value in first.items() if value is not None}
        assert told == {"site", "hidden", "rate_method", "interval_method", "interval_confidence"}
        assert (first["hidden"], second["hidden"]) == (True, False)
        assert second["faces_mask"] == 17
        assert second["score_histogram"] is second["first_captured_at"] is None

    def test_rounded_counts_have_rounded_rates_and_nothing_finer(self):
        first, second = self.table(Disclosure(frozenset(), 5, True))
        assert [first[f"faces_{name}"] for name in ("mask", "no_mask")] == [5, 5]
        assert [second[f"faces_{name}"] for name in ("mask", "no_mask")] == [15, 5]
        assert second["any_mask_rate"] == 15 / 20
        assert second["any_mask_rate_cluster_low"] is second["mean_probability"] is None
        assert "rounded" in second["correction_refused"]

    def test_halves_are_rounded_up(self):
        assert round_counts(Counts(0, 1, 2, 3, 5, 7, 10, 12), 5) == Counts(0, 0, 0, 5, 5, 5, 10, 10)
        assert round_counts(Counts(1, 2, 3), 2) == Counts(2, 2, 4)


@pytest.mark.parametrize("seed", range(2))
def test_no_hidden_number_of_people_can_be_worked_out(seed):
    groups = {key: counts._replace(images_scored=0, images_no_face=0) for key, counts in world(seed).items()}
    people = {
        key: TrackCounts(counts.faces_mask, counts.faces_incorrect, counts.faces_no_mask, counts.faces_uncertain)
        for key, counts in groups.items()
    }
    hidden = hide_track_groups(people, LEVELS, K)
    assert naive_hidden(groups) < hidden < set(groups)
    assert_safe(groups, LEVELS, hidden)


def test_rates_of_people_show_no_number_of_a_hidden_group_and_round_the_others():
    groups = {("a",): TrackCounts(1, 0, 9, 0), ("b",): TrackCounts(13, 4, 18, 2)}
    shown = Disclosure(frozenset({("a",)}), round_to=5, guarded=True)
    first, second = track_rates_table(groups, ["site"], ["site"], 0.95, THREE_CLASSES, shown).to_pylist()
    assert first.pop("hidden") and first.pop("site") == "a"
    assert {name for name, value in first.items() if value is not None} == {"interval_method", "interval_confidence"}
    assert [second[f"tracks_{name}"] for name in ("mask", "incorrect", "no_mask", "uncertain")] == [15, 5, 20, 0]
    assert (second["tracks"], second["hidden"]) == (40, False)
    assert second["any_mask_rate"] == pytest.approx(20 / 40)
    assert second["correct_rate"] == pytest.approx(15 / 40)
