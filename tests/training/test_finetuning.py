"""Fine-tuning the built-in model: where it starts, what it is compared with, and which warnings there are."""

import logging
from importlib.util import find_spec

import numpy as np
import pytest
from pydantic import ValidationError

from maskdet.config import load_yaml
from maskdet.demo.drawing import draw_face
from maskdet.labels import THREE_CLASSES
from maskdet.model.bundle import BUILTIN_FOLDER, read_manifest
from maskdet.named_configs import RECIPES, find_config
from maskdet.training.fit import train
from maskdet.training.pretrained import load_base_weights
from maskdet.training.recipe import Recipe

pytestmark = [
    pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed"),
    pytest.mark.training,
    pytest.mark.xdist_group("tensorflow"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs were expected"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """40 drawn faces of each class."""
    folder = tmp_path_factory.mktemp("faces")
    for name, masked in (("with_mask", True), ("without_mask", False)):
        (folder / "labelled" / name).mkdir(parents=True)
        for index in range(40):
            face = draw_face(np.random.default_rng([index, masked]), 80, masked=masked)
            face.save(folder / "labelled" / name / f"{index:02d}.png")
    return folder


def recipe(*changes):
    return load_yaml(Recipe, find_config("finetune", RECIPES), changes)


def test_two_classes_start_from_the_difference_of_three():
    """Where nothing is incorrect, the log odds of mask against no_mask follow from the three logits."""
    from maskdet.model.architectures import build_model
    from maskdet.model.tensorflow_export import load_keras

    model = build_model("compact", 112, 112)
    load_base_weights(model, "builtin")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3)).astype(np.float32)
    three = load_keras(BUILTIN_FOLDER / "model.keras")(pixels, training=False).numpy()
    assert read_manifest("builtin").class_names == THREE_CLASSES
    expected = three[:, 0] / (three[:, 0] + three[:, 2])
    np.testing.assert_allclose(model(pixels, training=False).numpy()[:, 0], expected, atol=1e-5)


def test_thresholds_are_chosen_anew_or_the_recipe_is_refused():
    settings = recipe().model_dump()
    settings["operating_point"] |= {"threshold_data": ()}
    with pytest.raises(ValidationError, match=r"operating_point\.threshold_data: expected held-out images"):
        Recipe.model_validate(settings)


@pytest.mark.thorough
def test_a_fit_from_the_builtin_model_is_compared_with_it(root, tmp_path, capsys, caplog):
    small = ("epochs=1", "steps_per_epoch=1", "batch_size=4", "augmentation.copies=1", "representative_images=8")
    with caplog.at_level(logging.WARNING):
        manifest = train(
            recipe(*small, "operating_point.leave_out_near_duplicates=false"), str(root), tmp_path / "mine"
        )
    said = capsys.readouterr().out
    assert "labelled right on 15 % of the groups, which share none with training, with 95 % intervals:" in said
    lines = [line for line in said.splitlines() if line.strip().startswith(("before", "after"))]
    assert [line.split()[0] for line in lines] == ["before", "after"]
    measured = manifest.operating_characteristics
    assert f"of {measured.masked_total}, bare" in lines[0]
    assert lines[1].startswith(f"  after   masked {measured.masked_right / measured.masked_total:.3f}")
    assert manifest.calibration.method == "temperature"
    assert "training images of the rarest class" in caplog.text
