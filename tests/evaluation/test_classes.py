"""Metrics of three classes: against scikit-learn, by hand, and what a bootstrap has to keep of the data."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as reference

from maskdet.compliance.intervals import wilson_interval
from maskdet.evaluation.classes import DESCRIPTIONS, LabelledFaces, measure_classes
from maskdet.evaluation.intervals import Bootstrap
from maskdet.evaluation.mistakes import label_mistakes
from maskdet.evaluation.results import count_trained_on
from maskdet.evaluation.truth import Labelled
from maskdet.labels import CODES, THREE_CLASSES, Decision, codes_of, label_codes, label_names
from maskdet.model.training_images import hash_heads
from maskdet.schemas import predictions_schema

BOOTSTRAP = Bootstrap(resamples=200)
RULE = Decision(no_mask_below=0.4, mask_from=0.55, incorrect_from=0.45)


def drawn_faces(count, seed=0, group_size=None):
    """Faces whose probabilities lean to their class, labelled by the rule, some of them uncertain."""
    rng = np.random.default_rng(seed)
    truth = codes_of(rng.choice(THREE_CLASSES, count, p=[0.5, 0.2, 0.3]))
    lean = np.array([[2.0, 0.0, 0.0], [0.3, 1.2, 0.2], [0.0, 0.3, 2.0]])
    place = np.array([THREE_CLASSES.index(name) for name in label_names(truth)])
    powers = np.exp(lean[place] + rng.normal(0, 1, (count, 3)))
    probabilities = dict(zip(THREE_CLASSES, (powers / powers.sum(axis=1, keepdims=True)).T, strict=True))
    labels = label_codes(probabilities["mask"], probabilities["incorrect"], RULE)
    groups = None if group_size is None else np.arange(count) // group_size
    return LabelledFaces(truth, labels, probabilities, groups)


def values_of(figures):
    return {one.metric: one.value for one in figures.estimates}


def test_every_figure_is_that_of_scikit_learn():
    faces = drawn_faces(400)
    truth, said = label_names(faces.truth), label_names(faces.labels)
    assert "uncertain" in said
    figures = measure_classes(faces, BOOTSTRAP)
    values, names = values_of(figures), list(THREE_CLASSES)
    labels = [*names, "uncertain"]
    matrix = reference.confusion_matrix(truth, said, labels=labels)[:3]
    assert [[figures.confusion[one][other] for other in labels] for one in names] == matrix.tolist()
    scores = reference.precision_recall_fscore_support(truth, said, labels=names)
    for place, name in enumerate(names):
        assert values[f"precision_{name}"] == pytest.approx(scores[0][place])
        assert values[f"recall_{name}"] == pytest.approx(scores[1][place])
        assert values[f"f1_{name}"] == pytest.approx(scores[2][place])
        against_rest = faces.truth == CODES[name]
        assert values[f"roc_auc_{name}"] == pytest.approx(
            reference.roc_auc_score(against_rest, faces.probabilities[name])
        )
        alarms, hits, _ = reference.roc_curve(against_rest, faces.probabilities[name], drop_intermediate=False)
        assert figures.curves[name] == (pytest.approx(alarms), pytest.approx(hits))
    assert values["macro_f1"] == pytest.approx(reference.f1_score(truth, said, labels=names, average="macro"))
    assert values["accuracy_of_classes"] == pytest.approx(reference.accuracy_score(truth, said))


def test_figures_by_hand():
    truth = codes_of(["mask"] * 4 + ["incorrect"] * 5 + ["no_mask"] * 2)
    labels = codes_of(
        [*("mask", "mask", "incorrect", "uncertain"), *["incorrect"] * 3, "mask", "no_mask", "no_mask", "incorrect"]
    )
    figures = measure_classes(LabelledFaces(truth, labels, {}), BOOTSTRAP)
    values = values_of(figures)
    assert values["recall_incorrect"] == 3 / 5
    assert values["precision_incorrect"] == 3 / 5
    assert values["mask_called_incorrect"] == 1 / 4
    assert values["no_mask_called_incorrect"] == 1 / 2
    assert values["incorrect_called_mask"] == values["incorrect_called_no_mask"] == 1 / 5
    assert values["accuracy_of_classes"] == 6 / 11
    assert values["macro_f1"] == pytest.approx((2 * 2 / (4 + 3) + 3 / 5 + 2 * 1 / (2 + 2)) / 3)
    assert values["roc_auc_mask"] is None  # there are no probabilities
    recall = next(one for one in figures.estimates if one.metric == "recall_incorrect")
    assert (recall.low, recall.high) == wilson_interval(3, 5, 0.95)
    assert recall.count == 5


def test_a_class_that_does_not_occur_has_no_recall_and_does_not_count():
    truth, labels = codes_of(["mask"] * 3 + ["no_mask"]), codes_of(["mask", "mask", "incorrect", "no_mask"])
    values = values_of(measure_classes(LabelledFaces(truth, labels, {}), BOOTSTRAP))
    assert values["recall_incorrect"] is None
    assert values["precision_incorrect"] == 0.0
    assert values["macro_f1"] == pytest.approx((2 * 2 / (3 + 2) + 1.0) / 2)


def test_every_interval_holds_its_value_and_groups_widen_it():
    alone = measure_classes(drawn_faces(300), BOOTSTRAP).estimates
    grouped = measure_classes(drawn_faces(300, group_size=30), BOOTSTRAP).estimates
    for one, wide in zip(alone, grouped, strict=True):
        assert one.low <= one.value <= one.high
        assert wide.value == one.value
    shares = [(one, wide) for one, wide in zip(alone, grouped, strict=True) if one.method == "wilson"]
    assert all(wide.low <= one.low and wide.high >= one.high for one, wide in shares)
    assert {wide.method for _, wide in shares} == {"wilson, widened by groups"}


def test_groups_of_one_face_are_no_groups_but_for_the_draw():
    alone = measure_classes(drawn_faces(300), Bootstrap(resamples=2000)).estimates
    single = measure_classes(drawn_faces(300, group_size=1), Bootstrap(resamples=2000)).estimates
    for one, other in zip(alone, single, strict=True):
        assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=0.03)


def test_figures_are_in_the_order_of_their_descriptions():
    assert [one.metric for one in measure_classes(drawn_faces(50), BOOTSTRAP).estimates] == list(DESCRIPTIONS)


def rows_of(faces):
    """Rows of predictions: (true class, label, p(mask), p(incorrect))."""
    rows = [
        {
            "image_uri": f"/i/{place // 2}.jpg",
            "content_sha256": f"{place // 2:016x}" + "0" * 48,
            "width_px": 9,
            "height_px": 9,
            "face_index": place % 2,
            "probability_mask": mask,
            "probability_incorrect": incorrect,
            "probability_no_mask": 1 - mask - (incorrect or 0.0),
            "label": label,
            "model_id": "m",
        }
        for place, (_, label, mask, incorrect) in enumerate(faces)
    ]
    return pa.Table.from_pylist(rows, schema=predictions_schema())


def labelled_of(faces):
    return Labelled(rows_of(faces), codes_of(truth for truth, *_ in faces), {}, ())


FACES = [
    ("mask", "mask", 0.75, 0.125),
    ("mask", "incorrect", 0.25, 0.5),
    ("incorrect", "mask", 0.5, 0.25),
    ("no_mask", "incorrect", 0.125, 0.5),
    ("no_mask", "no_mask", 0.125, 0.125),
]


def test_metrics_of_two_classes_ask_whether_there_is_a_mask():
    sample = labelled_of(FACES).without_incorrect().sample()
    assert sample.probabilities.tolist() == [0.875, 0.75, 0.625, 0.25]
    assert sample.truth.tolist() == [True, True, False, False]
    assert label_names(sample.labels) == ["mask", "mask", "mask", "no_mask"]


def test_mistakes_are_sorted_by_how_unlikely_the_truth_was_said_to_be():
    found = label_mistakes(labelled_of(FACES)).to_pylist()
    expected = [("mask", "incorrect", 0.75), ("incorrect", "mask", 0.75), ("no_mask", "incorrect", 0.625)]
    assert [(row["truth"], row["label"], row["error"]) for row in found] == expected
    assert [row["probability_incorrect"] for row in found] == [0.5, 0.25, 0.5]


def test_a_model_of_two_classes_is_not_asked_for_the_third():
    faces = [("mask", "no_mask", 0.25, None), ("incorrect", "mask", 0.75, None), ("no_mask", "no_mask", 0.25, None)]
    labelled = labelled_of(faces)
    assert set(labelled.probabilities()) == {"mask", "no_mask"}
    assert [row["truth"] for row in label_mistakes(labelled).to_pylist()] == ["mask"]
    values = values_of(measure_classes(labelled.faces(), BOOTSTRAP))
    assert values["incorrect_called_mask"] == 1.0  # which shows how they are labelled
    assert values["roc_auc_incorrect"] is None


def test_images_trained_on_are_counted_once_each():
    labelled = labelled_of(FACES)  # five faces of three files
    known = np.sort(hash_heads(["1".rjust(16, "0"), "2".rjust(16, "0"), "9".rjust(16, "0")]))
    assert count_trained_on(labelled, known) == (2, 3)
    assert count_trained_on(labelled, hash_heads([])) == (0, 3)
