import hashlib
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdet.preparation.grouping import assign_splits, components, group_ids, star_edges
from maskdet.preparation.settings import SplitSettings


def closure(count, edges):
    """Components by spreading the smallest index until nothing changes."""
    smallest = list(range(count))
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            low = min(smallest[a], smallest[b])
            changed |= smallest[a] != low or smallest[b] != low
            smallest[a] = smallest[b] = low
    return smallest


@settings(max_examples=100, deadline=None)
@given(data=st.data(), count=st.integers(1, 30))
def test_components_are_those_of_the_closure_in_any_order_of_edges(data, count):
    node = st.integers(0, count - 1)
    edges = data.draw(st.lists(st.tuples(node, node), max_size=40))
    shuffled = data.draw(st.permutations(edges))
    assert components(count, edges) == closure(count, edges)
    assert components(count, [(b, a) for a, b in shuffled]) == closure(count, edges)


def test_a_long_chain_is_one_component():
    assert set(components(50_000, [(i, i + 1) for i in reversed(range(49_999))])) == {0}


def test_star_edges_join_equal_keys_and_nothing_else():
    assert components(6, star_edges(["a", None, "b", "a", None, "b"])) == [0, 1, 2, 0, 4, 2]


def test_a_group_is_named_after_its_smallest_content():
    assert group_ids([0, 1, 0, 1], ["d", "b", "a", "c"], [False] * 4) == ["a", "b", "a", "b"]


def test_a_flat_content_names_a_group_only_in_default_of_another():
    flat = [True, False, True, False, True]
    assert group_ids([0, 0, 2, 2, 4], ["a", "c", "a", "b", "a"], flat) == ["c", "c", "b", "b", "a"]


def images(seed, count):
    rng = random.Random(seed)
    groups = [hashlib.sha256(str(rng.randrange(count)).encode()).hexdigest() for _ in range(count)]
    strata = [(rng.choice("pq"), rng.choice(["mask", "no_mask"])) for _ in range(count)]
    return groups, strata


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_splits_depend_on_the_set_of_images_alone(seed, count):
    groups, strata = images(seed, count)
    order = random.Random(seed + 1).sample(range(count), count)
    shuffled = assign_splits([groups[i] for i in order], [strata[i] for i in order], SplitSettings())
    assert assign_splits(groups, strata, SplitSettings()) == shuffled
    assert set(shuffled) == set(groups)


def test_shares_hold_in_every_stratum_to_within_a_group():
    groups = [hashlib.sha256(str(i // 7 if i < 7000 else i).encode()).hexdigest() for i in range(9000)]
    strata = [("a", "mask") if i < 7000 else ("b", "no_mask") for i in range(9000)]
    split_of = assign_splits(groups, strata, SplitSettings(train=0.7, validation=0.2, test=0.1))
    for stratum, total in Counter(strata).items():
        counts = Counter(split_of[group] for group, own in zip(groups, strata, strict=True) if own == stratum)
        assert counts["train"] == pytest.approx(0.7 * total, abs=7)
        assert counts["validation"] == pytest.approx(0.2 * total, abs=14)


def test_a_share_of_zero_gets_nothing():
    groups, strata = images(0, 200)
    found = set(assign_splits(groups, strata, SplitSettings(train=0.5, validation=0.5, test=0.0)).values())
    assert found == {"train", "validation"}
    assert set(assign_splits(groups, strata, SplitSettings(train=0.0, validation=0.0, test=1.0)).values()) == {"test"}


def test_more_images_move_few_groups():
    (groups, _), (more_groups, _) = images(1, 2000), images(2, 100)
    before = assign_splits(groups, [("a", "mask")] * 2000, SplitSettings())
    after = assign_splits(groups + more_groups, [("a", "mask")] * 2100, SplitSettings())
    assert sum(before[group] != after[group] for group in before) < 0.03 * len(before)


def test_another_seed_draws_other_groups():
    groups, strata = images(3, 300)
    assert assign_splits(groups, strata, SplitSettings()) != assign_splits(groups, strata, SplitSettings(seed=1))
