"""What counts as the true label of an image."""

import subprocess
import sys

import pyarrow as pa
import pytest

from maskdet.config import load_yaml
from maskdet.errors import ConfigError
from maskdet.evaluation.settings import EvaluateSettings, SliceSettings, TruthSettings
from maskdet.evaluation.slices import cut
from maskdet.evaluation.truth import class_of_folders, class_of_name, class_of_value, group_names, read_labelled
from maskdet.inputs.listing import ListTask
from maskdet.schemas import predictions_schema
from maskdet.tables.layout import PREDICTIONS, Layout, write_table


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/WithMask/a.jpg", "mask"),
        ("/data/WithoutMask/a.jpg", "no_mask"),
        ("gs://bucket/without-mask/2026/a.jpg", "no_mask"),
        ("/data/mask/train/no mask/a.jpg", "no_mask"),  # the nearest folder
        ("/data/maskdet/a.jpg", None),
        ("/data/mask.jpg", None),  # a file's name is no folder
        ("with_mask/a.jpg", "mask"),
    ],
)
def test_the_nearest_folder_that_names_a_class_decides(uri, expected):
    assert class_of_folders(uri, TruthSettings()) == expected


@pytest.mark.parametrize(
    ("uri", "tops", "expected"),
    [
        ("/mask/dataset/others/a.jpg", ["/mask/dataset"], None),
        ("/mask/dataset/without_mask/a.jpg", ["/mask/dataset"], "no_mask"),
        ("/mask/dataset/a.jpg", ["/mask/dataset"], None),
        ("/mask/dataset/a.jpg", ["/mask/data"], "mask"),  # of another input
        ("/set/with_mask/a.jpg", ["/set"], "mask"),
        ("/mask/a/no_mask/b/a.jpg", ["/mask", "/mask/a/no_mask"], None),  # the nearest input that holds it
    ],
)
def test_folders_above_the_input_say_nothing(uri, tops, expected):
    assert class_of_folders(uri, TruthSettings(), tops) == expected


@pytest.mark.parametrize(
    ("column", "settings", "expected"),
    [
        ("worn", {}, "mask"),
        ("Mask", {}, "mask"),
        ("no_mask", {}, "no_mask"),
        ("worn", {"mask": ["0"], "no_mask": ["true"]}, None),
    ],
)
@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("1", "0"), ("yes", "no"), ("Y", "N"), ("TRUE", "FALSE")])
def test_a_column_may_answer_whether_a_mask_is_worn(column, settings, expected, yes, no):
    truth = TruthSettings(column=column, **settings)
    opposite = {"mask": "no_mask", "no_mask": "mask", None: None}[expected]
    found = class_of_value(yes, truth), class_of_value(no, truth)
    if settings and (yes.casefold(), no) in (("true", "False"), ("true", "FALSE"), ("1", "0")):
        expected, opposite = ("no_mask", None) if yes.casefold() == "true" else (None, "mask")
    assert found == (expected, opposite)
    assert class_of_value("perhaps", truth) is None
    assert class_of_value(None, truth) is None


def test_names_are_configurable_and_numbers_are_names():
    settings = load_yaml(EvaluateSettings, None, ["truth.mask=[1, ja]", "truth.no_mask=[0]"]).truth
    assert [class_of_name(name, settings) for name in ("1", "JA", "0", "mask", None)] == [
        "mask",
        "mask",
        "no_mask",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("truth.no_mask=[Mask]", "none in two"),
        ("truth.mask=[]", "names for the first and the last"),
        ("truth.incorrect=[with_mask]", "none in two"),
        ("truth.ignore=[incorrect]", "none of the names of the classes"),
        ("slices.size_px=[64, 32]", "ascending"),
        ("intervals.resamples=3", "intervals.resamples"),
        ("truth.colum=x", "column"),
    ],
)
def test_bad_settings_are_refused_by_name(override, named):
    with pytest.raises(ConfigError, match=named):
        load_yaml(EvaluateSettings, None, [override])


def test_folders_of_keys_are_refused():
    settings = load_yaml(
        EvaluateSettings, None, ["output=x", "source.template='{site}/*'", "tables.partition_by=[site]"]
    )
    with pytest.raises(ConfigError, match="keeps keys as columns"):
        settings.score_settings()
    with pytest.raises(ConfigError, match="--output"):
        EvaluateSettings().score_settings()


def face(uri, index=0, side=None, probability=0.9):
    return {
        "image_uri": uri,
        "content_sha256": f"digest of {uri}",
        "width_px": 100,
        "height_px": 100,
        "face_index": index,
        "face_width_px": side,
        "face_height_px": side,
        "probability_mask": probability,
        "probability_no_mask": 1 - probability,
        "label": "mask" if probability >= 0.5 else "no_mask",
        "model_id": "m",
    }


def written(folder, rows):
    layout = Layout(str(folder))
    table = pa.Table.from_pylist(rows, schema=predictions_schema())
    write_table(layout.table(PREDICTIONS, "shard-all"), table, 100)
    return layout


def test_the_largest_face_stands_for_an_image(tmp_path):
    rows = [
        face("/mask/b.png", 0, 10, 0.1),
        face("/mask/b.png", 1, 30, 0.8),
        face("/mask/b.png", 2, 20, 0.2),
        face("/no_mask/a.png", 0, 10, 0.3),
        face("/no_mask/a.png", 1, 10, 0.7),  # of equal faces the first
        face("/elsewhere/c.png"),
    ]
    labelled = read_labelled(written(tmp_path, rows), EvaluateSettings(), [])
    assert labelled.rows["image_uri"].to_pylist() == ["/mask/b.png", "/no_mask/a.png"]
    assert labelled.sample().probabilities.tolist() == pytest.approx([0.8, 0.3])
    assert labelled.truth.tolist() == [True, False]
    assert labelled.unknown == ("/elsewhere/c.png",)
    assert labelled.unknown_names == {"elsewhere": 1}


def test_images_with_one_face_and_with_several_are_slices_where_both_occur(tmp_path):
    rows = [face("/mask/a.png"), face("/mask/b.png", 0, 10), face("/mask/b.png", 1, 20), face("/no_mask/c.png")]
    labelled = read_labelled(written(tmp_path / "both", rows), EvaluateSettings(), [])
    pieces = {piece.name: piece.keep.tolist() for piece in cut(labelled.rows, SliceSettings())}
    assert pieces["faces_found=1"] == [True, False, True]
    assert pieces["faces_found=2+"] == [False, True, False]
    alone = read_labelled(written(tmp_path / "one", [rows[0], rows[3]]), EvaluateSettings(), [])
    assert not any(piece.name.startswith("faces_found") for piece in cut(alone.rows, SliceSettings()))


def test_masks_worn_incorrectly_have_names_of_their_own(tmp_path):
    folders = ["With-Incorrect-Mask", "mask_weared_incorrect", "with_mask", "no mask", "hats", "hats", "scarves"]
    rows = [face(f"/{folder}/{place}.png") for place, folder in enumerate(folders)]
    labelled = read_labelled(written(tmp_path, rows), EvaluateSettings(), [])
    assert (labelled.counts["mask"], labelled.counts["incorrect"], labelled.counts["no_mask"]) == (1, 2, 1)
    assert labelled.unknown_names == {"hats": 2, "scarves": 1}
    assert labelled.without_incorrect().rows.num_rows == 2


def test_rows_of_a_manifest_that_disagree_tell_no_truth(tmp_path):
    manifest = tmp_path / "images.csv"
    manifest.write_text("uri,label,person\n/a.png,mask,1\n/a.png,no_mask,1\n/b.png,mask,\n/c.png,mask,7\n")
    layout = written(tmp_path, [face("/a.png"), face("/b.png"), face("/c.png")])
    settings = load_yaml(EvaluateSettings, None, ["truth.column=label", "intervals.group_column=person"])
    labelled = read_labelled(layout, settings, [ListTask("image_list", str(manifest))])
    assert labelled.unknown == ("/a.png",)
    assert labelled.counts["mask"] == 2
    assert labelled.unknown_names == {"null": 1}
    assert group_names(labelled.rows, "person") == ["content digest of /b.png", "group 7"]


def test_an_evaluation_needs_no_tensorflow():
    code = (
        "import sys, maskdet.cli.evaluate; sys.exit(any(n in sys.modules for n in ('tensorflow', 'keras', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
