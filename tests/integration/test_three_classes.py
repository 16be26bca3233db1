"""A model of three classes: from photographs to tables, on several runners, to an evaluation and a contact sheet."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskdet.cli import main
from maskdet.compliance.intervals import wilson_interval
from maskdet.labels import THREE_CLASSES, Decision
from maskdet.model.export import export_bundle
from maskdet.model.manifest import InputSpec, Manifest, TrainingData
from maskdet.tables.layout import COMPLIANCE, PREDICTIONS
from maskdet.testing import solid_image

SIDE_PX = 16
SHARPNESS = 9.0
RULE = Decision(no_mask_below=0.4, mask_from=0.6, incorrect_from=0.5)
# Blue is a mask, green one worn incorrectly, red none.
COLOURS = {"with_mask": 2, "with_incorrect_mask": 1, "without_mask": 0}

pytestmark = [
    pytest.mark.xdist_group("models"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


def colour_of(channel, number):
    """A tint: most of one channel, some of the others."""
    rng = np.random.default_rng([channel, number])
    colour = rng.integers(0, 200, 3)
    colour[channel] = rng.integers(90, 256)
    return tuple(int(value) for value in colour)


def softmax(colour):
    """The network's output for a solid image: p(mask), p(incorrect), p(no_mask)."""
    powers = np.exp(SHARPNESS * np.array(colour, np.float64)[::-1] / 255)
    return powers / powers.sum()


def label_of(colour):
    mask, incorrect, _ = softmax(colour)
    if mask + incorrect >= RULE.mask_from:
        return "incorrect" if incorrect >= RULE.incorrect_from * (mask + incorrect) else "mask"
    return "no_mask" if mask + incorrect < RULE.no_mask_below else "uncertain"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """File name → its colour; 14 of each class, and two in a folder whose name is not a class."""
    folder, colours = tmp_path_factory.mktemp("photographs"), {}
    for name, channel in COLOURS.items():
        (folder / name).mkdir()
        for number in range(14):
            colours[f"{name}/{number:02}.png"] = colour_of(channel, number)
    (folder / "hats").mkdir()
    colours |= {"hats/0.png": (9, 9, 200), "hats/1.png": (8, 8, 200)}
    for name, colour in colours.items():
        (folder / name).write_bytes(solid_image(colour))
    return folder, colours


@pytest.fixture(scope="module")
def bundle(photographs, tmp_path_factory):
    """A bundle of the network that :func:`softmax` describes; it claims to have learnt from two of the photographs."""
    import keras

    pixels = keras.Input((SIDE_PX, SIDE_PX, 3), name="images")
    scaled = keras.layers.Rescaling(1 / 255, name="rescaling")(pixels)
    pooled = keras.layers.GlobalAveragePooling2D()(scaled)
    logits = keras.layers.Dense(3, name="logit")(pooled)
    model = keras.Model(pixels, keras.layers.Activation("softmax", name="probabilities")(logits))
    model.get_layer("logit").set_weights([SHARPNESS * np.eye(3)[::-1], np.zeros(3)])
    draft = Manifest(
        name="tint",
        architecture="tint",
        input=InputSpec(height=SIDE_PX, width=SIDE_PX),
        class_names=THREE_CLASSES,
        decision=RULE,
        training_data=TrainingData(description="tints", images=2, fingerprint=""),
    )
    made = tmp_path_factory.mktemp("bundles") / "tint"
    shown = np.random.default_rng(0).integers(0, 256, (64, 1, 1, 3)).astype(np.uint8)
    shown = np.repeat(np.repeat(shown, SIDE_PX, axis=1), SIDE_PX, axis=2)
    folder, _ = photographs
    known = [hashlib.sha256((folder / f"with_mask/{number:02}.png").read_bytes()).hexdigest() for number in (3, 5)]
    export_bundle(model, made, draft, representative=shown, training_images=[*known, "ab" * 32])
    return made


def flags_of(bundle, folder, output):
    where = ["--input", str(folder), "--output", str(output), "--model", str(bundle), "--faces", "whole", "--quiet"]
    return [*where, "--precision", "float32", "--set", "packing.max_images=7"]


def tables_of(output):
    files = [path for name in (PREDICTIONS, COMPLIANCE) for path in (output / name).rglob("*.parquet")]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def scored(bundle, photographs, tmp_path_factory):
    output = tmp_path_factory.mktemp("scored") / "tables"
    assert main.main(["score", *flags_of(bundle, photographs[0], output), "--direct_num_workers=1"]) == 0
    return output


def test_rows_hold_what_the_network_says(scored, photographs):
    folder, colours = photographs
    rows = pa.concat_tables([pq.read_table(path) for path in (scored / PREDICTIONS).rglob("*.parquet")]).to_pylist()
    assert len(rows) == len(colours)
    for row in rows:
        colour = colours[str(Path(row["image_uri"]).relative_to(folder))]
        found = [row[f"probability_{name}"] for name in THREE_CLASSES]
        assert found == pytest.approx(softmax(colour), abs=1e-4)
        assert sum(found) == pytest.approx(1, abs=1e-6)
        assert row["label"] == label_of(colour)
    assert set(Counter(row["label"] for row in rows)) == {*THREE_CLASSES, "uncertain"}


def test_compliance_counts_the_labels(scored, photographs):
    counts = Counter(label_of(colour) for colour in photographs[1].values())
    [row] = pq.read_table(scored / COMPLIANCE / "level=all" / "groups.parquet").to_pylist()
    assert {name: row[f"faces_{name}"] for name in counts} == counts
    labelled = sum(counts[name] for name in THREE_CLASSES)
    worn = counts["mask"] + counts["incorrect"]
    assert (row["correct_rate"], row["any_mask_rate"]) == (counts["mask"] / labelled, worn / labelled)
    assert (row["correct_rate_low"], row["correct_rate_high"]) == wilson_interval(counts["mask"], labelled, 0.95)
    [record] = [json.loads(path.read_text()) for path in (scored / "_runs").glob("*.json")]
    assert record["faces"] == {name: counts[name] for name in (*THREE_CLASSES, "uncertain")}
    assert record["model"]["classes"] == list(THREE_CLASSES)
    assert record["model"]["decision"] == {"no_mask_below": 0.4, "mask_from": 0.6, "incorrect_from": 0.5}


@pytest.mark.parametrize("mode", ["multi_threading", pytest.param("multi_processing", marks=pytest.mark.thorough)])
def test_runners_write_the_same_bytes(scored, bundle, photographs, tmp_path, mode):
    command = [sys.executable, "-m", "maskdet.cli.main", "score", *flags_of(bundle, photographs[0], tmp_path / "out")]
    workers = ["--direct_num_workers=2", f"--direct_running_mode={mode}", "--set", "scoring.threads=3"]
    # multi_processing starts `python` without a path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run([*command, *workers], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert tables_of(tmp_path / "out") == tables_of(scored)


def test_a_threshold_of_the_settings_moves_labels_and_no_probability(scored, bundle, photographs, tmp_path):
    more = ["--set", "model.incorrect_from=0.9"]
    assert main.main(["score", *flags_of(bundle, photographs[0], tmp_path / "out"), *more]) == 0
    before, after = (
        pa.concat_tables([pq.read_table(path) for path in sorted((output / PREDICTIONS).rglob("*.parquet"))])
        for output in (scored, tmp_path / "out")
    )
    assert before.drop_columns("label").sort_by("image_uri") == after.drop_columns("label").sort_by("image_uri")
    counts = [Counter(table["label"].to_pylist()) for table in (before, after)]
    assert counts[0]["incorrect"] > counts[1]["incorrect"] > 0
    assert [count["no_mask"] for count in counts] == [counts[0]["no_mask"]] * 2


def test_a_threshold_of_a_class_that_the_model_does_not_have_is_refused(photographs, tmp_path, capsys):
    flags = ["--input", str(photographs[0]), "--output", str(tmp_path / "out"), "--set", "model.incorrect_from=0.9"]
    manifest = json.loads((Path(main.__file__).parents[1] / "model/builtin/compact/manifest.json").read_text())
    if len(manifest["class_names"]) == 3:
        pytest.skip("the built-in model has three classes")
    assert main.main(["score", *flags]) == 2
    assert "model.incorrect_from: expected nothing, for a model of the classes no_mask, mask" in capsys.readouterr().err


def test_an_evaluation_tells_three_classes_and_names_what_was_trained_on(bundle, photographs, tmp_path, capsys):
    folder, colours = photographs
    output = tmp_path / "evaluation"
    flags = [*flags_of(bundle, folder, output), "--set", "intervals.resamples=100"]
    assert main.main(["evaluate", *flags]) == 0
    found = json.loads((output / "metrics.json").read_text())
    truth = dict(zip(COLOURS, THREE_CLASSES, strict=True))
    expected = Counter(
        (truth[name.split("/")[0]], label_of(colour)) for name, colour in colours.items() if "hats" not in name
    )
    confusion = found["classes"]["confusion"]
    assert {(one, said): count for one, row in confusion.items() for said, count in row.items() if count} == expected
    assert found["truth"]["incorrect"] == 14 and found["truth"]["names_unknown"] == {"hats": 2}
    assert found["trained_on"] == {"images": 2, "of": 42}
    assert found["classes"]["metrics"]["recall_incorrect"]["value"] == expected["incorrect", "incorrect"] / 14
    text, page = capsys.readouterr().out, (output / "report.html").read_text()
    assert "2 of 42 images were trained on" in text and "2 of 42 images were trained on" in page
    assert "names that tell no class: hats (2); name them in truth.mask" in text
    assert "and 14 with a mask worn incorrectly" in text and "Three classes" in page
    rows = pq.read_table(output / "metrics.parquet").to_pylist()
    assert any(row["metric"] == "macro_f1" and row["low"] <= row["value"] <= row["high"] for row in rows)


def test_a_sheet_has_a_section_of_masks_worn_incorrectly(scored, tmp_path, capsys):
    picture = tmp_path / "sheet.png"
    assert main.main(["inspect", str(scored), "--sheet", "3", "--sheet-output", str(picture)]) == 0
    assert "most confident incorrect: 3 of" in capsys.readouterr().out
    assert Image.open(io.BytesIO(picture.read_bytes())).format == "PNG"
