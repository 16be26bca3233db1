import numpy as np
import pytest

from tools.export_compact import MAX_MASKED_AS_INCORRECT, choose
from tools.incorrect.gathering import Known
from tools.incorrect.pipeline import folds, without_shared


def faces(worn, share, label, count):
    """Probabilities with a sum of ``worn``, of which ``share`` is incorrect."""
    return np.tile([worn * (1 - share), worn * share, 1 - worn], (count, 1)), [label] * count


def test_thresholds_part_what_can_be_parted():
    groups = [
        faces(0.9, 0.1, "mask", 97),
        faces(0.9, 0.6, "mask", 3),  # 3 % of masks look worn incorrectly: more than are allowed
        faces(0.9, 0.8, "incorrect", 20),
        faces(0.3, 0.5, "no_mask", 50),
    ]
    decision = choose(np.concatenate([part for part, _ in groups]), np.concatenate([names for _, names in groups]))
    assert decision.mask_from == decision.no_mask_below == 0.5
    assert 0.6 < decision.incorrect_from <= 0.61
    assert MAX_MASKED_AS_INCORRECT < 0.03


def test_a_threshold_of_least_error_is_taken_where_one_is_better():
    groups = [
        faces(0.9, 0.0, "mask", 90),
        faces(0.75, 0.0, "mask", 10),
        faces(0.697, 0.5, "no_mask", 50),
        faces(0.9, 0.9, "incorrect", 5),
    ]
    decision = choose(np.concatenate([part for part, _ in groups]), np.concatenate([names for _, names in groups]))
    assert 0.697 < decision.mask_from <= 0.75
    assert decision.incorrect_from == 0.05


def test_every_group_is_in_one_fold():
    groups = [f"g{number}" for number in range(10)]
    dealt = folds(groups, 4, 1)
    assert sorted(dealt) == sorted(groups)
    assert sorted(np.bincount(list(dealt.values())).tolist()) == [2, 2, 3, 3]
    assert folds(list(reversed(groups)), 4, 1) == dealt
    assert folds(groups, 4, 2) != dealt


@pytest.mark.parametrize(("shared", "expected"), [({"a"}, {"a", "b"}), ({"c"}, {"c"}), (set(), set())])
def test_copies_of_shared_photographs_are_left_out(shared, expected):
    groups = {"a": "1", "b": "1", "c": "2"}
    known = [Known(path, "mask", group, "k12", "train", "train", None, False) for path, group in groups.items()]
    assert without_shared(known, shared) == expected
