import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from maskdet.cli.train import main
from maskdet.config import load_yaml
from maskdet.errors import ConfigError, SourceError
from maskdet.labels import TWO_CLASSES, Decision
from maskdet.model.bundle import BUILTIN_FOLDER
from maskdet.model.manifest import Manifest
from maskdet.training.batches import batch_at, examples_of
from maskdet.training.fit import RunFiles, _Epochs, describe_epoch, fit, train
from maskdet.training.operating_point import choose_threshold, measure
from maskdet.training.recipe import Recipe
from maskdet.training.sets import load_plain, load_training

# Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
pytestmark = [
    pytest.mark.training,
    pytest.mark.xdist_group("tensorflow"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

PROJECT = Path(__file__).parents[2]
SIDE_PX = 32


def test_training_learns_and_writes_a_bundle(recipe, shallow, root, tmp_path):
    source = {"mask": "new/with", "no_mask": "new/without"}
    point = {"threshold_data": [source], "test_data": [source], "test_description": "new images"}
    settings = recipe(epochs=4, operating_point=point, validation_data=[source], **shallow)
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


@pytest.fixture
def fit_with_scripted_losses(recipe, shallow, root, tmp_path, monkeypatch):
    """Fit a network with a scripted validation loss; returns the history, and the weights after each epoch and now."""
    import keras

    from maskdet.model.architectures import build_model

    settings = recipe(
        epochs=6,
        steps_per_epoch=2,
        validation_data=[{"mask": "new/with", "no_mask": "new/without"}],
        early_stopping={"patience": 2},
        checkpoints_kept=1,
        **shallow,
    )
    training, validation = load_training(settings, str(root)), load_plain(settings, settings.validation_data, str(root))

    def run(losses, **flags):
        keras.utils.set_random_seed(1)
        model, after = build_model(settings.architecture, settings.height, settings.width), []
        record = _Epochs.end

        def end(self, epoch, figures):
            after.append(model.get_weights())
            record(self, epoch, figures | {"val_loss": losses[epoch]})

        monkeypatch.setattr(_Epochs, "end", end)
        return fit(model, settings, training, validation, RunFiles(tmp_path / "tiny"), **flags), after, model

    return run


def test_early_stopping_restores_the_best_epoch(fit_with_scripted_losses, tmp_path, capsys):
    history, after, model = fit_with_scripted_losses([3.0, 2.0, 2.5, 2.0, 0.0, 0.0])
    assert [row["val_loss"] for row in history] == [3.0, 2.0, 2.5, 2.0]
    for now, best in zip(model.get_weights(), after[1], strict=True):
        np.testing.assert_array_equal(now, best)
    assert not np.array_equal(after[1][0], after[3][0])
    kept = sorted(path.name for path in (tmp_path / "tiny.checkpoints").glob("*/*"))
    assert kept == ["epoch-0002.npz", "epoch-0004.npz"]
    assert "stopped early\nweights of epoch 2, the best val_loss" in capsys.readouterr().out


def test_a_run_that_stopped_early_is_not_trained_on(fit_with_scripted_losses):
    _, after, _ = fit_with_scripted_losses([3.0, 2.0, 2.5, 2.0, 0.0, 0.0])
    history, more, model = fit_with_scripted_losses([0.0] * 6, resume="required")
    assert (len(history), more) == (4, [])
    np.testing.assert_array_equal(model.get_weights()[0], after[1][0])


def test_more_epochs_go_on_and_other_images_begin_anew(recipe, shallow, root, tmp_path, capsys):
    from maskdet.model.architectures import build_model

    def run(epochs, **flags):
        settings = recipe(epochs=epochs, steps_per_epoch=2, **shallow)
        model = build_model(settings.architecture, settings.height, settings.width)
        return fit(model, settings, load_training(settings, str(root)), None, RunFiles(tmp_path / "m"), **flags)

    first = run(1)
    assert [row["epoch"] for row in run(3)] == [0, 1, 2]
    assert len(run(2)) == 2  # its checkpoint is still there
    assert run(3)[0] == first[0]
    (root / "with" / "0.png").unlink()
    with pytest.raises(ConfigError, match=r"--resume: expected a checkpoint .*received 'only those of others'"):
        run(3, resume="required")
    assert "resumed after epoch 1" in capsys.readouterr().out
    assert run(1)[0] != first[0]
    assert "resumed" not in capsys.readouterr().out
    with (tmp_path / "m.history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1


def test_an_epoch_in_words():
    rows = [
        {"epoch": 0, "loss": 0.5, "duration_s": 70.0},
        {"epoch": 1, "loss": 0.25, "val_loss": 0.125, "duration_s": 65.4},
    ]
    assert describe_epoch(rows, 4) == "epoch 2 of 4 · 65 s · loss 0.2500 · val_loss 0.1250 · 2:11 left"
    assert describe_epoch(rows, 2) == "epoch 2 of 2 · 65 s · loss 0.2500 · val_loss 0.1250"
    assert describe_epoch(rows, 9, stopped=True).endswith("val_loss 0.1250 · stopped early")


def test_class_weights_reach_the_loss(recipe, root, tmp_path):
    from maskdet.model.architectures import build_model

    side = 46
    weights = {"mask": 3.0, "no_mask": 0.5}
    shape = {"architecture": "reference_cnn", "height": side, "width": side}  # nothing random in it
    settings = recipe(class_weights=weights, epochs=1, steps_per_epoch=1, **shape)
    model, training = build_model("reference_cnn", side, side), load_training(settings, str(root))
    inputs, labels, _ = batch_at(settings, examples_of(training), 0, 0)
    probability = model(inputs).numpy()
    surprise = -np.log(np.where(labels == 1, probability, 1 - probability))
    expected = np.mean(np.where(labels == 1, 3.0, 0.5) * surprise)
    (row,) = fit(model, settings, training, None, RunFiles(tmp_path / "m"))
    assert row["loss"] == pytest.approx(expected, rel=1e-4)


def test_a_frozen_base_stays_and_its_head_learns(recipe, root, tmp_path):
    from maskdet.model.architectures import build_model

    settings = recipe(architecture="reference_vgg19", frozen_base=True, epochs=2, steps_per_epoch=3)
    settings = settings.model_copy(update={"max_images_per_class": 8})
    model, training = build_model("reference_vgg19", SIDE_PX, SIDE_PX), load_training(settings, str(root))
    before = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    for _ in range(2):  # the second finds everything done
        assert len(fit(model, settings, training, None, RunFiles(tmp_path / "m"))) == 2
    changed = {
        name for name, kept in before.items() if not np.array_equal(kept[0], model.get_layer(name).get_weights()[0])
    }
    assert changed == {name for name in before if not name.startswith("block")}
    assert len(list((tmp_path / "m.checkpoints").glob("training-features-*.npy"))) == 1


def test_unreadable_images_stop_training_if_so_configured(recipe, root, caplog):
    (root / "with" / "3.png").write_bytes(b"no image")
    assert len(load_training(recipe(), str(root)).labels) == 47
    with pytest.raises(
        SourceError, match=r"expected readable ones alone, received '1 unreadable, the first with/3\.png"
    ):
        load_training(recipe(on_unreadable="stop"), str(root))
    assert "with/3.png" in caplog.text


def test_tensorboard_without_the_package_says_how_to_get_it(recipe, root, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        train(recipe(tensorboard=True), str(root), tmp_path / "m")


def test_a_frozen_base_needs_a_base(recipe, root, tmp_path):
    with pytest.raises(ConfigError, match="frozen_base: expected an architecture with a base: reference_vgg19"):
        train(recipe(frozen_base=True, architecture="reference_cnn", height=46, width=46), str(root), tmp_path / "m")


@pytest.mark.thorough
def test_near_duplicates_of_training_images_are_not_measured_on(recipe, shallow, root, tmp_path):
    for label in ("with", "without"):
        for index in range(4):  # a known image under another name, in another format
            known = Image.open(root / label / f"{index}.png")
            known.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "new" / label / f"known{index}.jpg")
    point = {"test_data": [{"mask": "new/with", "no_mask": "new/without"}]}
    settings = recipe(operating_point=point, **shallow).smoke()
    settings = settings.model_copy(update={"max_images_per_class": None})
    measured = train(settings, str(root), tmp_path / "tiny").operating_characteristics
    assert (measured.masked_total, measured.unmasked_total) == (24, 24)


def test_measuring_on_training_images_is_refused(recipe, shallow, root, tmp_path):
    settings = recipe(operating_point={"test_data": [{"mask": "with", "no_mask": "without"}]}, **shallow).smoke()
    with pytest.raises(SourceError, match="0 of 32 images without a near duplicate in the training data"):
        train(settings, str(root), tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_drawn_faces_are_added_half_of_them_masked(recipe, root):
    plain = load_training(recipe(), str(root))
    settings = recipe(synthetic_faces=6, augmentation={"copies": 2})
    training = load_training(settings, str(root))
    assert training.pixels.shape == (54, 2, SIDE_PX, SIDE_PX, 3)
    assert training.labels[48:].tolist() == [0, 1, 0, 1, 0, 1]
    assert training.fingerprint != plain.fingerprint
    assert training.fingerprint == load_training(settings, str(root)).fingerprint


def test_smoke_cuts_a_recipe_down(recipe, root):
    smoke = recipe(epochs=50, synthetic_faces=300, augmentation={"copies": 9}).smoke()
    assert (smoke.epochs, smoke.steps_per_epoch, smoke.augmentation.copies) == (1, 2, 1)
    assert len(load_training(smoke, str(root)).labels) == 2 * 16 + 8


def test_threshold_of_least_balanced_error():
    probabilities = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9], np.float32)
    labels = np.array([0, 0, 0, 0, 1, 1, 1], np.uint8)
    assert choose_threshold(probabilities, labels) == pytest.approx(0.65)
    # Separable around 0.5: there is no reason for another value.
    assert choose_threshold(probabilities[[0, 6]], labels[[0, 6]]) == 0.5
    # One of 2 unmasked lies above both masked: either of the cuts around them has balanced error 1/4.
    mixed = choose_threshold(np.array([0.1, 0.9, 0.3, 0.4], np.float32), np.array([0, 0, 1, 1], np.uint8))
    assert mixed == pytest.approx(0.2)


def test_uncertain_counts_as_wrong():
    probabilities = np.array([0.1, 0.4, 0.5, 0.2, 0.5, 0.6, 0.9], np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1, 1], np.uint8)
    decision = Decision(no_mask_below=0.4, mask_from=0.6)
    measured = measure(
        probabilities[:, np.newaxis], labels, decision, TWO_CLASSES, "by hand", shares_groups_with_training=False
    )
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
        {"seed": -1},
        {"class_weights": {"mask": 1.0}},
        {"class_weights": {"mask": 1.0, "no_mask": 0.0}},
        {"early_stopping": {"monitor": "val_loss"}},
        {"frozen_base": True, "flip": True},
        {"frozen_base": True, "online_augmentation": {}},
        {"online_augmentation": {"zoom": 1.0}},
        {"on_unreadable": "ask"},
        {"data": [{"mask": "a"}]},
        {"data": [{"mask": "a", "no_mask": "b", "manifest": "c"}]},
        {"data": [{}]},
        {"teachers": ["t"], "class_weights": "balanced"},
        {"teachers": ["t"], "frozen_base": True},
        {"operating_point": {"max_error": 0.5}},
    ],
)
def test_wrong_recipes_are_refused(recipe, changes):
    with pytest.raises(ValidationError):
        recipe(**changes)


@pytest.mark.parametrize("path", sorted((PROJECT / "configs" / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_say_how_to_run_them(path):
    assert load_yaml(Recipe, path, []).name == path.stem
    assert path.read_text().startswith(f"# maskdet train --config {path.stem} --output ")


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


def test_command_replaces_a_bundle_only_where_asked_for(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MASKDET_DATA", str(tmp_path / "nothing"))
    (tmp_path / "out").mkdir()
    before = (BUILTIN_FOLDER / "manifest.json").read_text()
    (tmp_path / "out" / "manifest.json").write_text(before)
    config = str(PROJECT / "configs" / "train" / "reference_cnn.yaml")
    command = ["--config", config, "--output", str(tmp_path / "out"), "--smoke"]
    assert main(command) == 8
    error = capsys.readouterr().err
    assert "expected an absent or empty folder, received 'a model bundle'" in error and "--overwrite" in error
    assert main([*command, "--overwrite"]) == 3  # allowed, and then the data are missing
    assert "class no_mask: expected images" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "manifest.json"]
    assert (tmp_path / "out" / "manifest.json").read_text() == before


def test_command_says_how_to_get_tensorflow(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    config = str(PROJECT / "configs" / "train" / "reference_cnn.yaml")
    assert main(["--config", config, "--output", str(tmp_path / "out"), "--smoke"]) == 2
    assert "pip install 'maskdet[tensorflow]'" in capsys.readouterr().err
