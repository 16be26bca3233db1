"""`python -m tools.make_scenes`, and the evaluation on what it makes."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskdet.cli.evaluate import main as evaluate
from maskdet.config import load_yaml
from maskdet.evaluation.annotations import read_coco, read_parquet
from tools.make_scenes import main
from tools.scenes.scenes import SceneOptions
from tools.scenes.settings import LookSettings, SceneSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def crops(tmp_path):
    for folder, colour in (("With Mask", (255, 0, 0)), ("no_mask/sub", (0, 255, 0)), ("other", (0, 0, 255))):
        (tmp_path / "crops" / folder).mkdir(parents=True)
        for name in ("1.png", "Augmented_1.png"):
            Image.new("RGB", (60, 80), colour).save(tmp_path / "crops" / folder / name)
    (tmp_path / "crops" / "With Mask" / "notes.txt").write_text("no image")
    return tmp_path / "crops"


def make(output, *flags):
    return main(["--output", str(output), "--count", "8", "--seed", "3", *map(str, flags)])


def test_scenes_come_with_two_annotations_that_agree(crops, tmp_path, capsys):
    assert make(tmp_path / "one", "--crops", crops) == 0
    assert "8 scenes with" in (said := capsys.readouterr().out) and "from 4 crops" in said
    images = read_coco(str(tmp_path / "one/annotations.json"))
    for image, row in zip(images, read_parquet(str(tmp_path / "one/annotations.parquet")), strict=True):
        assert (image.name, image.labels, image.boxes.tolist()) == (row.name, row.labels, row.boxes.tolist())
    assert len(list((tmp_path / "one").glob("*.jpg"))) == 8
    assert make(tmp_path / "two", "--crops", crops) == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_crops_may_be_left_out_or_come_from_a_training_manifest(crops, tmp_path, capsys):
    assert make(tmp_path / "some", "--crops", crops, "--set", "skip=[Augmented]") == 0
    assert "from 2 crops" in capsys.readouterr().out
    rows = [
        {"image_uri": str(crops / folder / "1.png"), "label": label, "source": "s", "official_split": None}
        | {"split": split, "group_id": folder, "suspicious": False, "flat": False}
        for folder, label, split in (
            *(("With Mask", "mask", "test"), ("no_mask/sub", "no_mask", "test")),
            *(("other", "mask", "train"),),
        )
    ]
    (tmp_path / "manifest").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "manifest/images.parquet")
    (tmp_path / "manifest/_SUCCESS").write_text("run")
    manifest = f"manifest={tmp_path}/manifest/images.parquet"
    assert make(tmp_path / "listed", "--set", manifest, "--set", "sources=[s]") == 0
    assert "from 2 crops" in capsys.readouterr().out
    for name in ("annotations.json", "scene-00003.jpg"):
        assert (tmp_path / "listed" / name).read_bytes() == (tmp_path / "some" / name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ((), 2, "crops and manifest: expected one of them"),
        (("--crops", "{crops}", "--set", "manifest=m"), 2, "crops and manifest"),
        (("--crops", "{crops}/nowhere"), 3, "expected a local folder"),
        (("--crops", "{crops}/With Mask"), 3, "expected some of each class"),
        (("--crops", "{crops}", "--set", "look.sizes_px=[16, 900]"), 2, "sizes_px"),
        (("--crops", "{crops}", "--set", "look.size=3"), 2, "look.size"),
        (("--crops", "{crops}", "--output", "{crops}"), 8, "absent or empty folder"),
        (("--crops", "{crops}", "--output", ""), 2, "--output"),
    ],
)
def test_mistakes_of_the_caller_end_with_their_code(crops, tmp_path, capsys, flags, code, said):
    assert make(tmp_path / "out", *(flag.format(crops=crops) for flag in flags)) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_config_shows_every_setting():
    written = load_yaml(SceneSettings, ROOT / "tools" / "configs" / "scenes.yaml")
    assert written == SceneSettings(crops=written.crops, skip=("Augmented",))
    assert LookSettings().options() == SceneOptions()


def overlap(one, other):
    """By its definition, of boxes left, top, width, height."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    return common / (one[2] * one[3] + other[2] * other[3] - common)


@pytest.mark.data
def test_two_commands_measure_detection_and_labels(data_folder, tmp_path, capsys):
    scenes, out = tmp_path / "scenes", tmp_path / "out"
    flags = ("--crops", data_folder / "k12/Test", "--set", "skip=[Augmented]", "--set", "look.sizes_px=[24, 120]")
    assert make(scenes, *flags) == 0
    boxes = ("--faces", "detect", "--set", f"truth.boxes={scenes}/annotations.json", "--set", "intervals.resamples=100")
    assert evaluate(["--input", str(scenes), "--output", str(out), "--quiet", *boxes]) == 0
    metrics = json.loads((out / "metrics.json").read_text())["detection"]["metrics"]
    assert "found and labelled right" in capsys.readouterr().out
    content = json.loads((scenes / "annotations.json").read_text())
    names = {image["id"]: str(scenes / image["file_name"]) for image in content["images"]}
    rows = ds.dataset(out / "scores/predictions").to_table().to_pylist()
    found = [
        (row["image_uri"], [row[f"face_{side}_px"] for side in ("left", "top", "width", "height")], row["label"])
        for row in rows
    ]
    hits = [
        [label for uri, box, label in found if uri == names[face["image_id"]] and overlap(face["bbox"], box) >= 0.5]
        for face in content["annotations"]
    ]
    right = [
        {1: "mask", 2: "no_mask"}[face["category_id"]] in said
        for face, said in zip(content["annotations"], hits, strict=True)
    ]
    assert metrics["recall"]["value"] == pytest.approx(sum(map(bool, hits)) / len(hits))
    # Faces pasted on backgrounds, from 24 pixels: a test of geometry, not of accuracy. Misplaced boxes match none.
    assert metrics["recall"]["value"] > 0.6
    assert metrics["end_to_end"]["value"] == pytest.approx(sum(right) / len(right))
    assert metrics["false_positives_per_image"]["value"] == pytest.approx((len(found) - sum(map(len, hits))) / 8)
