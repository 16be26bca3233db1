"""States of groups add up: in any order and grouping, to the last bit."""

from __future__ import annotations

import pickle
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdet.beam.compliance import _MergeStates
from maskdet.compliance.intervals import ClusterSums
from maskdet.compliance.state import (
    FIXED_POINT,
    HISTOGRAM_BINS,
    Counts,
    Merger,
    Scores,
    State,
    Tally,
    merge_states,
)

whole = st.integers(0, 10**12)
times = st.none() | st.tuples(st.integers(-(10**13), 10**13), st.integers(0, 10**9))
clusters = st.dictionaries(st.sampled_from(["a", "b", "c", "ü"]), st.builds(Tally, *[whole] * 6), max_size=4)
scores = st.builds(Scores, whole, whole, whole, st.tuples(*[whole] * HISTOGRAM_BINS))


@st.composite
def states(draw):
    span = draw(times)
    first, last = (None, None) if span is None else (span[0], span[0] + span[1])
    return State(draw(st.builds(Counts, *[whole] * 8)), draw(scores), draw(clusters), first, last)


@settings(deadline=None)
@given(st.lists(states(), max_size=5), st.randoms())
def test_merging_does_not_depend_on_order_or_grouping(parts, rng):
    expected = merge_states(parts)
    shuffled = rng.sample(parts, len(parts))
    cut = rng.randint(0, len(parts))
    for found in (
        merge_states(shuffled),
        merge_states([merge_states(shuffled[:cut]), merge_states(shuffled[cut:])]),
        reduce(lambda one, other: merge_states([one, other]), shuffled, State()),
    ):
        assert found == expected
        assert pickle.dumps(found) == pickle.dumps(pickle.loads(pickle.dumps(expected)))


@settings(deadline=None, max_examples=30)
@given(st.lists(states(), min_size=1, max_size=5), st.integers(1, 4))
def test_beam_s_combiner_adds_up_the_same(parts, workers):
    combine = _MergeStates()
    accumulators = [reduce(combine.add_input, parts[i::workers], combine.create_accumulator()) for i in range(workers)]
    merged = combine.merge_accumulators(pickle.loads(pickle.dumps(accumulators)))
    assert combine.extract_output(merged) == merge_states(parts)


@settings(deadline=None)
@given(st.lists(states(), max_size=4))
def test_every_field_is_the_sum_of_its_parts(parts):
    found = merge_states(parts)
    assert found.counts == Counts(*(sum(part.counts[i] for part in parts) for i in range(8)))
    assert found.scores.histogram == tuple(sum(p.scores.histogram[i] for p in parts) for i in range(HISTOGRAM_BINS))
    for name in {name for part in parts for name in part.clusters}:
        tallies = [part.clusters[name] for part in parts if name in part.clusters]
        assert found.clusters[name] == Tally(*(sum(t[i] for t in tallies) for i in range(7)))
    firsts = [part.first_ms for part in parts if part.first_ms is not None]
    lasts = [part.last_ms for part in parts if part.last_ms is not None]
    assert (found.first_ms, found.last_ms) == (min(firsts, default=None), max(lasts, default=None))


def test_merging_changes_none_of_its_parts():
    parts = [State(clusters={"a": Tally(1, 1, 1, 1, 1, 1)}), State(clusters={"a": Tally(2, 0, 0, 2, 0, 0)})]
    before = pickle.dumps(parts)
    merger = Merger()
    for part in parts:
        merger.add(part)
    merger.state()
    assert pickle.dumps(parts) == before


def test_a_cluster_of_two_shards_is_one_cluster():
    halves = [State(clusters={"c": Tally(3, 2, 1), "d": Tally(1)}), State(clusters={"c": Tally(5, 4, 0)})]
    found = merge_states(halves).cluster_sums("any_mask", "labelled")
    assert found == ClusterSums(2, 9, 6, 8 * 8 + 1, 6 * 6, 8 * 6)


@settings(deadline=None)
@given(st.lists(st.integers(0, FIXED_POINT), min_size=2, max_size=30))
def test_mean_and_deviation_are_those_of_the_numbers(numbers):
    found = Scores(len(numbers), sum(numbers), sum(round(n * n / FIXED_POINT) for n in numbers))
    values = [Fraction(n, FIXED_POINT) for n in numbers]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    assert found.mean == pytest.approx(float(mean), abs=1e-12)
    assert found.deviation**2 == pytest.approx(float(variance), abs=4e-9)


def test_nothing_has_no_mean_and_one_face_no_deviation():
    assert Scores().mean is None
    assert Scores(1, FIXED_POINT // 2, FIXED_POINT // 4).mean == 0.5
    assert Scores(1, FIXED_POINT // 2, FIXED_POINT // 4).deviation is None
    assert np.isclose(Scores(2, FIXED_POINT, FIXED_POINT).deviation, np.std([0, 1], ddof=1))
