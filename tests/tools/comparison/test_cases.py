"""How images relate to a model's training, and the text of a comparison."""

import pyarrow as pa
import pytest

from maskdet.errors import ConfigError, SourceError
from maskdet.evaluation.intervals import Estimate
from tools.comparison.cases import Kind, Relation, relate, select
from tools.comparison.settings import ComparedData, ComparedModel, CompareSettings, Selection
from tools.comparison.tables import CompareRow
from tools.comparison.text import BEGIN, END, render_text, replace_between_marks

# name: source, label, official split, split, group
IMAGES = {
    "a": ("one", "mask", "train", "train", "1"),
    "b": ("one", "mask", "test", "train", "1"),
    "c": ("one", "no_mask", "train", "test", "2"),
    "d": ("one", "no_mask", "test", "test", "3"),
    "e": ("one", "mask", "test", "test", "4"),
    "f": ("two", "mask", None, "train", "1"),
    "g": ("two", "no_mask", None, "train", "5"),
    "h": ("two", "mask", None, "test", "6"),
}
MANIFEST = pa.table(
    {
        "image_uri": list(IMAGES),
        "content_sha256": [f"digest {name}" for name in IMAGES],
        **{
            column: pa.array([row[place] for row in IMAGES.values()], pa.string())
            for place, column in enumerate(("source", "label", "official_split", "split", "group_id"))
        },
    }
)
OFFICIAL, DISJOINT = Selection(official_split=("test",)), Selection(split=("test",))


def related(part, trained_on, source="one", **more):
    data = ComparedData(title="t", source=source, manifest="m", part=part, **more)
    images, relation = relate("name", data, ComparedModel(trained_on=trained_on), {"m": MANIFEST})
    return "".join(images["image_uri"].to_pylist()), relation


def test_a_part_is_narrowed_by_what_is_given():
    def names(part):
        return "".join(select(MANIFEST, "one", part)["image_uri"].to_pylist())

    assert names(Selection()) == "abcde"
    assert names(OFFICIAL) == "bde"
    assert names(DISJOINT) == "cde"
    assert names(Selection(official_split=("test",), split=("train",))) == "b"


@pytest.mark.parametrize(
    ("part", "trained_on", "images", "relation"),
    [
        (OFFICIAL, {"one": Selection(official_split=("train",))}, "bde", Relation(Kind.SHARED, 3, 0, 1)),
        (DISJOINT, {"one": Selection(official_split=("train",))}, "cde", Relation(Kind.TRAINED, 3, 1, 1)),
        (DISJOINT, {"one": Selection(split=("train",))}, "cde", Relation(Kind.DISJOINT, 3, 0, 0)),
        (OFFICIAL, {"two": Selection()}, "bde", Relation(Kind.EXTERNAL, 3, 0, 1)),  # f is of b's group
        (DISJOINT, {}, "cde", Relation(Kind.EXTERNAL, 3, 0, 0)),
        (OFFICIAL, {"one": Selection()}, "bde", Relation(Kind.TRAINED, 3, 3, 3)),
    ],
)
def test_the_relation_is_counted_in_the_manifest(part, trained_on, images, relation):
    assert related(part, trained_on) == (images, relation)


def test_groups_that_were_trained_on_can_be_left_out():
    trained_on = {"one": Selection(official_split=("train",))}
    found = related(Selection(), trained_on, source="two", drop_trained_groups=True)
    assert found == ("gh", Relation(Kind.EXTERNAL, 2, 0, 0))
    with pytest.raises(SourceError, match=r"data\.name: expected images of both classes, received \['no_mask'\]"):
        related(Selection(split=("train",)), trained_on, source="two", drop_trained_groups=True)


def test_an_official_split_leaves_out_no_training_image_that_has_none():
    trained_on = {"two": Selection(official_split=("train",), split=("train",))}
    assert related(Selection(split=("train",)), trained_on, source="two") == ("fg", Relation(Kind.TRAINED, 2, 2, 2))


def test_an_input_without_a_manifest_is_judged_by_its_source():
    data = ComparedData(title="t", source="mine", input=("photos",))
    assert relate("name", data, ComparedModel(), {}) == (None, Relation(Kind.EXTERNAL))
    own = ComparedModel(trained_on={"mine": Selection()})
    assert relate("name", data, own, {}) == (None, Relation(Kind.SAME_SOURCE))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"source": "a"}, "either a manifest or an input"),
        ({"source": "a", "manifest": "m", "input": ["x"]}, "either a manifest or an input"),
        ({"source": "a", "input": ["x"], "drop_trained_groups": True}, "need a training manifest"),
        ({"source": "a", "manifest": "m", "group_column": "person"}, "of its own"),
        ({"source": "a", "manifest": "m", "part": {"split": []}}, "at least one split"),
    ],
)
def test_settings_that_contradict_are_refused(data, said):
    with pytest.raises(ValueError, match=said):
        ComparedData(title="t", **data)


def test_robustness_names_what_there_is():
    tree = {"models": {"m": {}}, "data": {"d": {"title": "t", "source": "s", "input": ["x"]}}}
    with pytest.raises(ValueError, match=r"robustness\.data"):
        CompareSettings.model_validate({**tree, "robustness": {"data": ["d"]}})


def test_only_what_stands_between_the_marks_is_replaced():
    document = f"before\n{BEGIN}\nold | text\n{END}\nafter {END[:4]}"
    assert replace_between_marks(document, "new\n", "f") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter {END[:4]}"


@pytest.mark.parametrize("document", ["", BEGIN, END, END + BEGIN, BEGIN + BEGIN + END, BEGIN + END + END])
def test_a_document_without_one_place_is_refused(document):
    with pytest.raises(ConfigError, match=r"--card CARD\.md: expected '<!-- compare: begin -->'"):
        replace_between_marks(document, "new", "CARD.md")


@pytest.mark.parametrize(
    ("of_three", "correct", "called"),
    [({}, "", ""), ({"masked_as_incorrect": 6, "unmasked_as_incorrect": 2}, "1,190 of 1,200", "2")],
)
def test_a_row_says_counts_intervals_and_relation(of_three, correct, called):
    data = ComparedData(title="t", source="s", input=["x"])
    settings = CompareSettings(models={"m": ComparedModel()}, data={"d": data})
    counts = {"masked": 1200, "masked_right": 1196, "unmasked": 800, "unmasked_right": 796, "uncertain": 3, **of_three}
    names = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "roc_auc", "ece")
    figures = {name: Estimate(name, 0.996, 0.99204, 1.0, "wilson", 2000) for name in names}
    relation = Relation(Kind.SHARED, 2001, 0, 483)
    row = CompareRow("d", "t|t", "m", "m@1", relation, counts, figures, "maskdet evaluate …")
    absent = CompareRow("d", "t", "n", relation=relation, note="not made here: x")
    text = render_text(settings, [row, absent], None, "c")
    cell = ".9960 (.992–1.000)"
    assert (
        "| t\\|t | m | shares groups with training (483 of 2,001) | 2,000 (3 uncertain) "
        f"| 1,196 of 1,200 | {correct} | 796 of 800 | {called} | {cell} | {cell} | {cell} | {cell} |"
    ) in text
    assert "| t | n | shares groups with training (483 of 2,001) | not made here |" in text
    assert "```sh\nmaskdet evaluate …\n# n: not made here: x\n```" in text
