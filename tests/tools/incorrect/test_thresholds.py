import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from maskdet.model.bundle import BUILTIN_FOLDER
from maskdet.model.manifest import Manifest
from tools.export_compact import MAX_BARE_AS_INCORRECT, MAX_MASKED_AS_INCORRECT, Faces, _parser, choose
from tools.incorrect.gathering import Known
from tools.incorrect.pipeline import folds, without_shared


def faces(*groups):
    """Faces by groups of (label, sum of mask and incorrect, share of it that is incorrect, how many)."""
    rows = [([worn * (1 - share), worn * share, 1 - worn], label) for label, worn, share, n in groups for _ in range(n)]
    return Faces(np.array([given for given, _ in rows]), np.array([label for _, label in rows]))


PROJECT = Path(__file__).parents[3]
PARTED = faces(("mask", 0.98, 0.0, 50), ("no_mask", 0.02, 0.0, 50))


def test_thresholds_part_what_can_be_parted():
    # 3 % of masks look worn incorrectly: more than are allowed
    masks = [("mask", 0.9, 0.1, 97), ("mask", 0.9, 0.6, 3)]
    decision = choose(faces(*masks, ("incorrect", 0.9, 0.8, 20), ("no_mask", 0.3, 0.5, 50)), PARTED)
    assert decision.mask_from == decision.no_mask_below == 0.5
    assert 0.6 < decision.incorrect_from <= 0.61
    assert MAX_MASKED_AS_INCORRECT < 0.03


def test_a_threshold_of_least_error_is_taken_where_one_is_better():
    masks = [("mask", 0.9, 0.0, 90), ("mask", 0.75, 0.0, 10)]
    decision = choose(faces(*masks, ("no_mask", 0.697, 0.5, 50), ("incorrect", 0.9, 0.9, 5)), PARTED)
    assert 0.697 < decision.mask_from <= 0.75
    assert decision.incorrect_from == 0.05


def test_the_street_chooses_among_what_suits_collections():
    bare = [("no_mask", 0.697, 0.5, 20), ("no_mask", 0.1, 0.0, 9)]
    street = faces(("incorrect", 0.9, 0.9, 20), ("mask", 0.9, 0.0, 50), *bare)
    assert 0.697 < choose(street, PARTED).mask_from <= 0.9
    collections = faces(("mask", 0.603, 0.0, 50), ("no_mask", 0.1, 0.0, 50))
    assert choose(street, collections).mask_from == 0.5


def test_bare_faces_that_look_like_masks_worn_incorrectly_raise_the_odds_for_these():
    # 2 of 100 bare faces have odds of 3 : 1, mostly incorrect; a higher mask_from would miss masks of collections.
    collections = faces(("mask", 0.6, 0.0, 50), ("no_mask", 0.1, 0.0, 50))
    bare = [("no_mask", 0.75, 0.9, 2), ("no_mask", 0.1, 0.0, 98)]
    street = faces(("mask", 0.98, 0.0, 100), ("incorrect", 0.95, 0.9, 20), *bare)
    decision = choose(street, collections)
    assert decision.mask_from == 0.5
    assert 3 < decision.incorrect_odds < 3 * 1.06
    fewer = faces(
        ("mask", 0.98, 0.0, 100), ("incorrect", 0.95, 0.9, 20), ("no_mask", 0.75, 0.9, 1), ("no_mask", 0.1, 0.0, 99)
    )
    assert choose(fewer, collections).incorrect_odds == 1
    assert MAX_BARE_AS_INCORRECT == 0.01


def test_thresholds_that_are_given_are_taken_and_the_others_follow_from_them():
    """So the bundle that ships comes out with the thresholds that the model card says it has."""
    street = faces(
        ("mask", 0.98, 0.0, 100), ("incorrect", 0.95, 0.9, 20), ("no_mask", 0.75, 0.9, 2), ("no_mask", 0.1, 0, 98)
    )
    shipped = Manifest.model_validate_json((BUILTIN_FOLDER / "manifest.json").read_text()).decision
    given = {"mask_from": 0.575, "incorrect_from": 0.36, "incorrect_odds": 5.0}
    assert choose(street, PARTED, **given) == shipped
    # Bare faces with odds of 3 : 1 need odds of a mask of 3 / (.6 / .4) = 2 times those of .6; without them, 3 times.
    assert 2 < choose(street, PARTED, mask_from=0.6).incorrect_odds < 2 * 1.06
    assert choose(street, PARTED, mask_from=0.8).incorrect_odds == 1
    assert choose(street, PARTED, incorrect_odds=7.0).incorrect_from == choose(street, PARTED).incorrect_from


def test_the_command_that_the_model_card_gives_writes_the_thresholds_that_ship():
    card = (PROJECT / "MODEL_CARD.md").read_text().replace("\\\n", " ")
    [command] = re.findall(r"^python -m tools\.export_compact (.*)$", card, re.MULTILINE)
    arguments = _parser().parse_args(shlex.split(command))
    shipped = json.loads((BUILTIN_FOLDER / "manifest.json").read_text())["decision"]
    assert {name: getattr(arguments, name) for name in ("mask_from", "incorrect_from", "incorrect_odds")} == {
        name: shipped[name] for name in ("mask_from", "incorrect_from", "incorrect_odds")
    }


@pytest.mark.parametrize("flag", [("--mask-from", "1.5"), ("--incorrect-odds", "0.5"), ("--incorrect-from", "some")])
def test_thresholds_out_of_range_are_refused(flag, capsys):
    with pytest.raises(SystemExit):
        _parser().parse_args(["--fitted", "x.keras", "--output", "out", *flag])
    assert f"received {flag[1]!r}" in capsys.readouterr().err


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
