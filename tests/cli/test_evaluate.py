"""`maskdet evaluate` from end to end, on drawn faces and on real ones."""

import base64
import io
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn import metrics as reference

from maskdet.children import Children
from maskdet.cli.evaluate import main
from maskdet.config import load_yaml
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.images import isolated
from maskdet.testing import solid_image

ROOT = Path(__file__).parents[2]
QUICK = ("--quiet", "--set", "intervals.resamples=100")


# Lists name images of their own folder; those of these tests lie beside the demo's.
ANYWHERE = ("--set", "source.allowed=['*']")


def evaluate(output, *inputs, flags=()):
    return main(["--input", *map(str, inputs), "--output", str(output), *QUICK, *flags])


def results_of(output):
    return json.loads((output / "metrics.json").read_text())


def truth_of(file):
    return "mask" if file.masked else "no_mask"


@pytest.fixture(scope="module")
def faces(demo):
    """The demo's readable faces."""
    return [file for file in demo.tree.files if file.failure is None and not file.skipped]


@pytest.fixture(scope="module")
def folders(demo, faces, tmp_path_factory):
    """The demo's faces in folders by class, one of them in the wrong one, one of unknown truth, and a broken one."""
    root = tmp_path_factory.mktemp("labelled")
    for number, file in enumerate(faces):
        name = {"mask": "With Mask", "no_mask": "WithoutMask"}[truth_of(file) if number else "no_mask"]
        (root / name).mkdir(exist_ok=True)
        shutil.copy(demo.folder / file.path, root / name / f"{number}{Path(file.path).suffix}")
    (root / "other").mkdir()
    shutil.copy(demo.folder / faces[0].path, root / "other" / "face.png")
    (root / "With Mask" / "broken.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def output(folders, tmp_path_factory):
    """One evaluation by folders that the tests of this module only read."""
    output = tmp_path_factory.mktemp("evaluated")
    extras = ("--set", "slices.pixels=true", "--set", "baselines=true", "--set", "thresholds=[0.5]")
    assert evaluate(output, folders, flags=extras) == 0
    return output


def test_every_image_is_accounted_for(output, faces):
    found = results_of(output)
    assert faces[0].masked
    masked = sum(file.masked for file in faces) - 1
    assert found["truth"]["mask"] == masked
    assert found["truth"]["no_mask"] == len(faces) - masked
    assert (found["truth"]["truth_unknown"], found["truth"]["failed_mask"]) == (1, 1)
    assert found["truth"]["examples_unknown"][0].endswith("other/face.png")
    assert (found["images"]["listed"], found["images"]["evaluated"]) == (len(faces) + 2, len(faces))
    assert sum(sum(row.values()) for row in found["confusion"].values()) == len(faces)


def test_metrics_are_those_of_the_predictions(output):
    rows = pd.read_parquet(output / "scores" / "predictions")
    rows = rows[~rows["image_uri"].str.contains("/other/")]
    truth = rows["image_uri"].str.contains("/With Mask/").to_numpy()
    # Where the labels have two classes, a mask worn incorrectly is a mask.
    probability = (rows["probability_mask"].astype(float) + rows["probability_incorrect"].fillna(0)).to_numpy()
    called = rows["label"].isin(["mask", "incorrect"]).to_numpy()
    found = {name: entry["value"] for name, entry in results_of(output)["metrics"].items()}
    assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(truth, probability))
    assert found["brier"] == pytest.approx(np.mean((probability - truth) ** 2))
    assert found["accuracy"] == pytest.approx(np.mean(np.where(truth, called, rows["label"] == "no_mask")))
    assert found["precision"] == pytest.approx(reference.precision_score(truth, called, zero_division=0.0))


def test_tables_say_what_the_json_says_and_describe_their_columns(output):
    table = pq.read_table(output / "metrics.parquet").to_pylist()
    found = results_of(output)
    everything = {row["metric"]: row for row in table if row["slice"] == "all"}
    for name, entry in found["metrics"].items():
        assert {key: everything[name][key] for key in entry} == entry
    assert everything["sensitivity@0.5"]["value"] == found["thresholds"][0]["sensitivity"]["value"]
    slices = {row["slice"].split("=")[0] for row in table}
    assert slices == {"all", "shorter_side_px", "brightness", "sharpness"}
    for name in ("metrics", "mistakes"):
        assert all(field.metadata[b"description"] for field in pq.read_schema(output / f"{name}.parquet"))


def test_mistakes_are_all_that_is_not_right_the_worst_first(output):
    rows = pq.read_table(output / "mistakes.parquet").to_pylist()
    confusion = results_of(output)["confusion"]
    wrong = sum(count for truth, row in confusion.items() for label, count in row.items() if label != truth)
    assert len(rows) == wrong > 0
    assert Path(rows[0]["image_uri"]).name.startswith("0.")
    assert (rows[0]["truth"], rows[0]["label"]) == ("no_mask", "mask")
    assert all(row["label"] != row["truth"] for row in rows)
    errors = [row["error"] for row in rows]
    assert errors == sorted(errors, reverse=True)


def test_the_page_stands_alone(output, faces):
    page = (output / "report.html").read_text()
    assert not re.search(r"https?:|//[a-z]+\.|<script|<link|@import|url\(|<img", page)
    for part in ("ROC curve", "Reliability diagram", "Confusion matrix", "Thresholds", "Slices", "Shortcuts", "Worst"):
        assert part in page
    assert "truth of 1 images could not be told" in page
    worst = pq.read_table(output / "mistakes.parquet").to_pylist()[0]["image_uri"]
    assert worst in page


def test_the_worst_mistakes_are_pictured_when_asked_for(output, folders, tmp_path):
    flags = ("--set", "mistakes_pictures=true", "--set", "mistakes_shown=2")
    shutil.copytree(output, tmp_path / "again")  # scored already
    assert evaluate(tmp_path / "again", folders, flags=flags) == 0
    page = (tmp_path / "again" / "report.html").read_text()
    pictures = re.findall(r'<img class="crop" src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == min(2, pq.read_table(output / "mistakes.parquet").num_rows)
    assert all(Image.open(io.BytesIO(base64.b64decode(one))).size == (96, 96) for one in pictures)
    assert "This page shows people" in page


def test_a_manifest_s_columns_give_truth_groups_and_slices(demo, faces, tmp_path):
    rows = [
        {
            "uri": f"{demo.folder}/{file.path}",
            "label": truth_of(file),  # also the name of a column of the predictions
            "person": number // 2,
            "lens": None if number == 0 else "<wide>",
        }
        for number, file in enumerate(faces)
    ]
    rows[-1]["label"] = "unsure"
    pd.DataFrame(rows).to_csv(tmp_path / "images.csv", index=False)
    columns = ("truth.column=label", "intervals.group_column=person", "slices.columns=[lens]")
    flags = [part for column in columns for part in ("--set", column)]
    assert evaluate(tmp_path / "out", tmp_path / "images.csv", flags=(*flags, *ANYWHERE)) == 0
    found = results_of(tmp_path / "out")
    assert found["truth"]["truth_unknown"] == 1
    assert found["truth"]["mask"] == sum(row["label"] == "mask" for row in rows)
    assert found["slices"]["lens=null"]["accuracy"]["count"] == 1
    assert found["slices"]["lens=<wide>"]["accuracy"]["count"] == len(rows) - 2
    assert "widened by groups" in found["metrics"]["accuracy"]["method"]
    assert "lens=&lt;wide&gt;" in (tmp_path / "out" / "report.html").read_text()


def test_without_a_mistake_there_is_no_table_of_them(output, tmp_path):
    wrong = set(pq.read_table(output / "mistakes.parquet")["image_uri"].to_pylist())
    scored = pd.read_parquet(output / "scores" / "predictions")["image_uri"]
    (tmp_path / "right.txt").write_text("\n".join(uri for uri in scored if uri not in wrong))
    (tmp_path / "mistakes.parquet").write_bytes(b"of an earlier run")
    assert evaluate(tmp_path, tmp_path / "right.txt", flags=ANYWHERE) == 0
    assert not (tmp_path / "mistakes.parquet").exists()
    assert "<p>None.</p>" in (tmp_path / "report.html").read_text()


def test_one_class_alone_leaves_gaps_and_no_error(folders, tmp_path):
    extras = ("--set", "baselines=true", "--set", "slices.pixels=true")
    assert evaluate(tmp_path, folders / "With Mask", flags=extras) == 0
    found = results_of(tmp_path)
    assert found["metrics"]["sensitivity"]["value"] is not None
    assert found["metrics"]["balanced_accuracy"]["value"] is found["metrics"]["roc_auc"]["low"] is None
    assert (found["temperature"], found["band"], found["baselines"]) == (None, None, [])


def test_a_template_s_key_may_be_the_truth_and_a_second_run_scores_nothing(folders, tmp_path, capsys):
    flags = ("--template", "{kind}/*", "--set", "truth.column=kind", "--set", "slices.columns=[kind]")
    assert evaluate(tmp_path, folders, flags=flags) == 0
    first = (tmp_path / "metrics.parquet").read_bytes()
    found = results_of(tmp_path)
    assert {"kind=With Mask", "kind=WithoutMask"} < set(found["slices"])
    # Each has one class of two: the recall of that class is no figure to hold against others'.
    lacking = {name: one["lacking"] for name, one in found["slices"].items() if name.startswith("kind")}
    assert lacking == {"kind=With Mask": ["no_mask"], "kind=WithoutMask": ["mask"]}
    assert "kind" not in (found["weakest_slice"] or "")
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  not compared: ")]
    assert "kind=With Mask lacks no_mask; kind=WithoutMask lacks mask" in line
    assert evaluate(tmp_path, folders, flags=flags) == 0
    assert "0 scored, 1 kept" in capsys.readouterr().out
    assert (tmp_path / "metrics.parquet").read_bytes() == first


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--set", "truth.mask=[x]", "--set", "truth.no_mask=[y]"), 3, "truth: expected images of"),
        (("--set", "truth.column=person"), 2, "or an image list's column, received 'person'"),
        (("--set", "failure_budget.max_images=0"), 6, "failure budget"),
        (("--set", "thresholds=[2]"), 2, "thresholds.0"),
        (("--model", "nowhere"), 4, "model bundle"),
    ],
)
def test_mistakes_of_the_caller_end_with_their_code(folders, tmp_path, capsys, flags, code, said):
    assert evaluate(tmp_path / "out", folders, flags=flags) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_missing_manifest_column_is_told_at_launch(tmp_path, capsys):
    (tmp_path / "images.csv").write_text("uri\na.png\n")
    assert evaluate(tmp_path / "out", tmp_path / "images.csv", flags=("--set", "truth.column=kind")) == 3
    assert "'kind'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_config_shows_every_setting_of_the_evaluation():
    written = load_yaml(EvaluateSettings, ROOT / "configs" / "evaluate.yaml")
    changed = {"slices": {"pixels": False}, "baselines": False}
    plain = written.model_copy(
        update={"baselines": False, "slices": written.slices.model_copy(update=changed["slices"])}
    )
    assert plain == EvaluateSettings()


@pytest.mark.data
def test_the_built_in_model_on_the_official_test_set(data_folder, tmp_path):
    flags = ("--config", str(ROOT / "configs" / "evaluate.yaml"), "--set", "slices.pixels=false")
    assert evaluate(tmp_path, data_folder / "k12" / "Test", flags=flags) == 0
    found = results_of(tmp_path)
    assert (found["truth"]["mask"], found["truth"]["no_mask"]) == (483, 509)
    assert found["metrics"]["balanced_accuracy"]["value"] >= 0.99
    model, width, border = (row["accuracy"]["value"] for row in found["baselines"])
    assert model > width > 0.9 > border


def test_pictures_are_decoded_apart_wherever_an_evaluation_looks_at_them(tmp_path, monkeypatch):
    asked = []

    class Counted(Children):
        def ask(self, task, argument, data, limits, **others):
            asked.append(hash(bytes(data)))
            return super().ask(task, argument, data, limits, **others)

    pool = Counted()
    monkeypatch.setattr(isolated, "CHILDREN", pool)
    for name, grey in (("mask", 40), ("mask", 210), ("no_mask", 60), ("no_mask", 190)):
        (tmp_path / "in" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name / f"{grey}.bmp").write_bytes(solid_image(grey, 32, "BMP"))
    extras = ("--set", "slices.pixels=true", "--set", "mistakes_pictures=true", "--set", "faces.mode=whole")
    try:
        assert evaluate(tmp_path / "out", tmp_path / "in", flags=extras) == 0
    finally:
        pool.end()
    # Each is scored and measured at two sizes. They all look alike, so half must be wrong; one such mistake is shown.
    times = Counter(asked)
    assert set(times.values()) == {3, 4}
    assert len(times) == 4
