import csv
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from maskdet.config import load_yaml
from maskdet.errors import SourceError
from maskdet.model.manifest import Decision, Manifest
from maskdet.training.data import LabelledArrays, LabelledImage
from maskdet.training.fit import batches, load_training, train
from maskdet.training.operating_point import choose_threshold, measure
from maskdet.training.recipe import Recipe
from pipelines.train import main

# Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

PROJECT = Path(__file__).parents[2]
SIDE_PX = 32


def recipe(**changes):
    settings = {
        "name": "tiny",
        "architecture": "compact",
        "height": SIDE_PX,
        "width": SIDE_PX,
        "data": [{"mask": "with", "no_mask": "without"}],
        "data_description": "blue below or red below",
        "batch_size": 8,
        "optimizer": "adam",
        "learning_rate": 0.005,
        "steps_per_epoch": 12,
        "epochs": 2,
    }
    return Recipe.model_validate(settings | changes)


@pytest.fixture
def root(tmp_path):
    """Grey patches whose lower half is tinted blue in one class and red in the other; "new" holds more of each."""
    rng = np.random.default_rng(0)
    for label, channel in (("with", 2), ("without", 0), ("new/with", 2), ("new/without", 0)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for index in range(24):
            pixels = rng.integers(0, 256, (8, 8, 1)).repeat(4, axis=0).repeat(4, axis=1).repeat(3, axis=2)
            pixels[16:, :, channel] = 255
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / label / f"{index}.png")
    return tmp_path / "data"


def arrays(repeats=(1, 1, 1, 1, 1), copies=3):
    """Five images whose pixels say which image, copy and column they are."""
    images = tuple(LabelledImage(f"{row}.png", "", row % 2, count) for row, count in enumerate(repeats))
    row, copy, _, column, channel = np.indices((5, copies, 2, 2, 3))
    pixels = np.select([channel == 0, channel == 1], [row, copy], column).astype(np.uint8)
    labels = np.array([image.label for image in images], np.uint8)
    return LabelledArrays(images, pixels, labels, ("",) * 5, ())


def take(count, settings, training):
    chosen = list(itertools.islice(batches(settings, training), count))
    return np.concatenate([pixels for pixels, _ in chosen]), np.concatenate([labels for _, labels in chosen])


def test_training_learns_and_writes_a_bundle(root, tmp_path):
    source = {"mask": "new/with", "no_mask": "new/without"}
    point = {"threshold_data": [source], "test_data": [source], "test_description": "new images"}
    settings = recipe(epochs=4, operating_point=point, validation_data=[source])
    manifest = train(settings, str(root), tmp_path / "bundles" / "tiny")
    assert Manifest.model_validate_json((tmp_path / "bundles" / "tiny" / "manifest.json").read_text()) == manifest
    assert (manifest.name, manifest.training_data.images) == ("tiny", 48)
    measured = manifest.operating_characteristics
    assert (measured.masked_total, measured.unmasked_total) == (24, 24)
    assert measured.masked_right + measured.unmasked_right >= 44
    with (tmp_path / "bundles" / "tiny.history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert "val_accuracy" in rows[0]


def test_near_duplicates_of_training_images_are_not_measured_on(root, tmp_path):
    for label in ("with", "without"):
        for index in range(4):  # a known image under another name, in another format
            known = Image.open(root / label / f"{index}.png")
            known.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "new" / label / f"known{index}.jpg")
    settings = recipe(operating_point={"test_data": [{"mask": "new/with", "no_mask": "new/without"}]}).smoke()
    settings = settings.model_copy(update={"max_images_per_class": None})
    measured = train(settings, str(root), tmp_path / "tiny").operating_characteristics
    assert (measured.masked_total, measured.unmasked_total) == (24, 24)


def test_measuring_on_training_images_is_refused(root, tmp_path):
    settings = recipe(operating_point={"test_data": [{"mask": "with", "no_mask": "without"}]}).smoke()
    with pytest.raises(SourceError, match="0 of 32 images without a near duplicate in the training data"):
        train(settings, str(root), tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_batches_repeat_images_as_asked_and_keep_labels():
    pixels, labels = take(3, recipe(batch_size=4), arrays(repeats=(1, 1, 1, 1, 8)))
    assert np.bincount(pixels[:, 0, 0, 0]).tolist() == [1, 1, 1, 1, 8]  # one pass is twelve images
    np.testing.assert_array_equal(labels[:, 0], pixels[:, 0, 0, 0] % 2)
    assert labels.dtype == np.float32
    assert labels.shape == (12, 1)


def test_batches_draw_every_copy_and_mirror_half():
    pixels, _ = take(40, recipe(flip=True, batch_size=5), arrays())
    assert set(pixels[:, 0, 0, 1]) == {0, 1, 2}
    mirrored = pixels[:, 0, 0, 2] == 1
    np.testing.assert_array_equal(pixels[:, 0, 1, 2] == 0, mirrored)
    assert 0.35 < mirrored.mean() < 0.65
    unflipped, _ = take(4, recipe(flip=False, batch_size=5), arrays())
    assert not unflipped[:, 0, 0, 2].any()


def test_batches_depend_on_the_seed_alone():
    first, again = take(5, recipe(seed=3), arrays()), take(5, recipe(seed=3), arrays())
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], take(5, recipe(seed=4), arrays())[0])


def test_mirroring_leaves_the_training_images_as_they_are():
    training = arrays()
    before = training.pixels.copy()
    take(10, recipe(flip=True), training)
    np.testing.assert_array_equal(training.pixels, before)


def test_drawn_faces_are_added_half_of_them_masked(root):
    plain = load_training(recipe(), str(root))
    settings = recipe(synthetic_faces=6, augmentation={"copies": 2})
    training = load_training(settings, str(root))
    assert training.pixels.shape == (54, 2, SIDE_PX, SIDE_PX, 3)
    assert training.labels[48:].tolist() == [0, 1, 0, 1, 0, 1]
    assert training.fingerprint != plain.fingerprint
    assert training.fingerprint == load_training(settings, str(root)).fingerprint


def test_smoke_cuts_a_recipe_down(root):
    smoke = recipe(epochs=50, synthetic_faces=300, augmentation={"copies": 9}).smoke()
    assert (smoke.epochs, smoke.steps_per_epoch, smoke.augmentation.copies) == (1, 2, 1)
    assert len(load_training(smoke, str(root)).labels) == 2 * 16 + 8


def test_threshold_of_least_balanced_error():
    probabilities = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9], np.float32)
    labels = np.array([0, 0, 0, 0, 1, 1, 1], np.uint8)
    assert choose_threshold(probabilities, labels) == pytest.approx(0.65)
    # Separable around 0.5: nothing speaks for another value.
    assert choose_threshold(probabilities[[0, 6]], labels[[0, 6]]) == 0.5
    # One of 2 unmasked lies above both masked: either of the cuts around them has balanced error 1/4.
    mixed = choose_threshold(np.array([0.1, 0.9, 0.3, 0.4], np.float32), np.array([0, 0, 1, 1], np.uint8))
    assert mixed == pytest.approx(0.2)


def test_uncertain_counts_as_wrong():
    probabilities = np.array([0.1, 0.4, 0.5, 0.2, 0.5, 0.6, 0.9], np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1, 1], np.uint8)
    decision = Decision(no_mask_below=0.4, mask_from=0.6)
    measured = measure(probabilities, labels, decision, "by hand", shares_groups_with_training=False)
    assert (measured.masked_right, measured.masked_total) == (2, 4)
    assert (measured.unmasked_right, measured.unmasked_total) == (1, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": []},
        {"data": [{"mask": "a", "no_mask": "b", "hash_band": [0.6, 0.4]}]},
        {"data": [{"mask": "a", "no_mask": "b", "group_pattern": "("}]},
        {"data": [{"mask": "a", "no_mask": "b", "group_pattern": "no group"}]},
        {"augmentation": {"min_side_px": 300}},
        {"augmentation": {"jpeg_quality": [90, 20]}},
        {"batchsize": 8},
    ],
)
def test_wrong_recipes_are_refused(changes):
    with pytest.raises(ValidationError):
        recipe(**changes)


@pytest.mark.parametrize("path", sorted((PROJECT / "configs" / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_say_how_to_run_them(path):
    assert load_yaml(Recipe, path, []).name == path.stem
    assert path.read_text().startswith(f"# maskdet train --config configs/train/{path.name} --output ")


def test_command_reports_a_wrong_setting(capsys):
    config = str(PROJECT / "configs" / "train" / "compact.yaml")
    assert main(["--config", config, "--output", "unused", "--set", "epoch=3"]) == 2
    assert "epoch" in capsys.readouterr().err


def test_command_reports_missing_data(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MASKDET_DATA", str(tmp_path / "nothing"))
    config = str(PROJECT / "configs" / "train" / "reference_cnn.yaml")
    assert main(["--config", config, "--output", str(tmp_path / "out"), "--smoke"]) == 3
    assert "class no_mask: expected images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_command_says_how_to_get_tensorflow(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    config = str(PROJECT / "configs" / "train" / "reference_cnn.yaml")
    assert main(["--config", config, "--output", str(tmp_path / "out"), "--smoke"]) == 2
    assert "pip install 'maskdet[tensorflow]'" in capsys.readouterr().err
