"""The rule from probabilities to a label, compared with hand algebra and a face-by-face copy of its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from maskdet.labels import (
    CODES,
    LABELS,
    THREE_CLASSES,
    TWO_CLASSES,
    Decision,
    class_columns,
    codes_of,
    label_codes,
    label_names,
    worn_probability,
)

SHARE = st.floats(0, 1, width=32)


def labels_of(mask, incorrect=None, **thresholds):
    columns = [None if values is None else np.array(values, np.float32) for values in (mask, incorrect)]
    return label_names(label_codes(*columns, Decision(**thresholds)))


@pytest.mark.parametrize(
    ("probability", "expected"),
    [
        (0.0, "no_mask"),
        (0.25, "uncertain"),
        (0.2499, "no_mask"),
        (0.5, "uncertain"),
        (0.7499, "uncertain"),
        (0.75, "mask"),
        (1.0, "mask"),
        (float("nan"), "uncertain"),
    ],
)
def test_thresholds_belong_to_the_side_above(probability, expected):
    assert labels_of([probability], no_mask_below=0.25, mask_from=0.75) == [expected]


@pytest.mark.parametrize(("probability", "expected"), [(0.5, "mask"), (np.nextafter(np.float32(0.5), 0), "no_mask")])
def test_one_threshold_leaves_nothing_uncertain(probability, expected):
    assert labels_of([probability]) == [expected]


def test_a_threshold_that_float32_cannot_hold_is_not_rounded():
    # As float32, 0.7 is 0.69999999 and a little less than the threshold.
    assert labels_of([0.7], no_mask_below=0.7, mask_from=0.7) == ["no_mask"]


@settings(deadline=None)
@given(st.lists(SHARE, max_size=20), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_two_classes_are_the_special_case_without_incorrect(values, first, second, share):
    low, high = sorted((first, second))
    # The rule for two classes, face by face, as it was before there were three.
    stored = [float(np.float32(value)) for value in values]
    expected = ["mask" if value >= high else "no_mask" if value < low else "uncertain" for value in stored]
    assert labels_of(values, no_mask_below=low, mask_from=high) == expected
    never = [0.0] * len(values)
    assert labels_of(values, never, no_mask_below=low, mask_from=high, incorrect_from=share) == expected


@settings(deadline=None)
@given(
    st.lists(st.tuples(SHARE, SHARE, SHARE).filter(lambda face: sum(face) > 0.1), min_size=1, max_size=20),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_three_classes_by_the_definition(faces, first, second, share):
    low, high = sorted((first, second))
    scaled = np.array(faces, np.float64)
    scaled = (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32)
    expected = []
    for mask, incorrect, _ in scaled.astype(np.float64).tolist():
        worn = mask + incorrect
        if worn >= high:
            expected.append("incorrect" if incorrect > 0 and incorrect >= share * worn else "mask")
        else:
            expected.append("no_mask" if worn < low else "uncertain")
    thresholds = {"no_mask_below": low, "mask_from": high, "incorrect_from": share}
    assert labels_of(scaled[:, 0], scaled[:, 1], **thresholds) == expected
    # Whether there is a mask does not depend on the second question.
    worn = [label in ("mask", "incorrect") for label in expected]
    other = labels_of(scaled[:, 0], scaled[:, 1], **{**thresholds, "incorrect_from": 1 - share})
    assert [label in ("mask", "incorrect") for label in other] == worn


def test_a_mask_worn_incorrectly_by_hand():
    mask, incorrect = [0.50, 0.25, 0.25, 0.10, 0.00, 0.25], [0.25, 0.25, 0.50, 0.25, 1.00, 0.00]
    # worn .75, .5, .75, .35, 1, .25; of that incorrect 1/3, 1/2, 2/3, …
    expected = ["mask", "incorrect", "incorrect", "uncertain", "incorrect", "no_mask"]
    assert labels_of(mask, incorrect, no_mask_below=0.3, mask_from=0.5, incorrect_from=0.5) == expected
    strict = ["mask", "mask", "mask", "uncertain", "incorrect", "no_mask"]
    assert labels_of(mask, incorrect, no_mask_below=0.3, mask_from=0.5, incorrect_from=0.75) == strict
    assert worn_probability(np.float32(mask), np.float32(incorrect)).tolist() == pytest.approx(
        [0.75, 0.5, 0.75, 0.35, 1, 0.25]
    )


def test_a_mask_worn_incorrectly_takes_more_odds_than_another_by_hand():
    thresholds = {"no_mask_below": 0.25, "mask_from": 0.5, "incorrect_from": 0.5, "incorrect_odds": 4}
    # Odds of a mask: 9, 4.1, 4, 3, 3, 3; a threshold of .5 is even odds, so incorrect needs 4. For the last three, mask
    # and no mask are .25 : .25, .125 : .25 and .0625 : .25, so mask is .5, .33 and .2 of the two.
    faces = [(0.1, 0.8), (0.0, 0.804), (0.0, 0.8001), (0.25, 0.5), (0.125, 0.625), (0.0625, 0.6875)]
    mask, incorrect = zip(*faces, strict=True)
    expected = ["incorrect", "incorrect", "incorrect", "mask", "uncertain", "no_mask"]
    assert labels_of(mask, incorrect, **thresholds) == expected
    assert labels_of([0.0], [0.7999], **thresholds) == ["no_mask"]
    # The same faces with a mask that would be worn correctly, and with no such factor:
    assert labels_of(incorrect, mask, **thresholds) == ["mask"] * 6
    for none in (1, None):
        assert labels_of(mask, incorrect, **{**thresholds, "incorrect_odds": none}) == ["incorrect"] * 6
    assert labels_of([0.0], [1.0], **{**thresholds, "incorrect_odds": 1e6}) == ["incorrect"]


@settings(deadline=None)
@given(SHARE, SHARE, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(1, 100))
def test_odds_of_incorrect_move_incorrect_alone(first, second, one, other, share, odds):
    mask, incorrect = np.float32(first) * np.float32(second), np.float32(first) * (1 - np.float32(second))
    thresholds = {"no_mask_below": min(one, other), "mask_from": max(one, other), "incorrect_from": share}
    plain, raised = (labels_of([mask], [incorrect], **thresholds, **more)[0] for more in ({}, {"incorrect_odds": odds}))
    assert raised == plain or plain == "incorrect"


def test_decisions_in_words_and_in_files():
    two = Decision(no_mask_below=0.3, mask_from=0.7)
    three = Decision(no_mask_below=0.3, mask_from=0.7, incorrect_from=0.4)
    assert str(two) == "mask from 0.7, no_mask below 0.3"
    assert str(three) == "mask from 0.7, no_mask below 0.3, incorrect from 0.4 of a mask"
    # The manifest of a bundle of two classes, and so its fingerprint, is the same as before there were three.
    assert two.model_dump(mode="json") == {"no_mask_below": 0.3, "mask_from": 0.7}
    assert Decision.model_validate_json(three.model_dump_json()) == three
    assert two.middle == three.middle == 0.5
    odds = three.model_copy(update={"incorrect_odds": 5.5})
    assert str(odds) == str(three) + " at 5.5 times the odds"
    assert Decision.model_validate_json(odds.model_dump_json()) == odds
    assert "incorrect_odds" not in three.model_dump(mode="json")  # older bundles keep their fingerprints


@pytest.mark.parametrize(
    "wrong",
    [
        {"no_mask_below": 0.6},
        {"mask_from": 1.1},
        {"incorrect_from": -0.1},
        {"mask_from": float("nan")},
        {"incorrect_odds": 2.0},
        {"incorrect_from": 0.5, "incorrect_odds": 0.5},
    ],
)
def test_impossible_thresholds_are_refused(wrong):
    with pytest.raises(ValidationError):
        Decision(**wrong)


def test_codes_and_names_are_each_other_s_inverse():
    assert label_names(codes_of(LABELS)) == list(LABELS)
    assert sorted(CODES.values()) == [-1, 0, 1, 2]
    assert set(TWO_CLASSES) < set(THREE_CLASSES) < set(LABELS) == set(CODES)


def test_columns_are_found_by_class():
    probabilities = np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]], np.float32)
    columns = class_columns(probabilities, THREE_CLASSES)
    assert columns["incorrect"].tolist() == probabilities[:, 1].tolist()
    assert "incorrect" not in class_columns(probabilities[:, :2], TWO_CLASSES)
