"""Training on three classes: targets, weights, thresholds and temperature by hand; a bundle from a tiny run."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from maskdet.errors import ConfigError, SourceError
from maskdet.labels import CODES, THREE_CLASSES, TWO_CLASSES, Decision
from maskdet.model.architectures import build_model
from maskdet.model.backends import RuntimeSpec, load_model
from maskdet.model.manifest import KERAS_FILE
from maskdet.model.training_images import read_training_images, were_trained_on
from maskdet.training.batches import batch_at, class_weights, examples_of
from maskdet.training.data import LabelledArrays, LabelledImage, decode, list_labelled, network_targets
from maskdet.training.distillation import load_teachers, targets
from maskdet.training.fit import train
from maskdet.training.operating_point import decide, measure, set_operating_point
from maskdet.training.pretrained import load_base_weights
from maskdet.training.recipe import DataSource
from maskdet.training.sets import load_training

THREE = {
    "classes": list(THREE_CLASSES),
    "data": [{"mask": "with", "no_mask": "without"}, {"incorrect": "wrong"}],
}

pytestmark = [
    pytest.mark.training,
    pytest.mark.xdist_group("tensorflow"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@pytest.fixture
def root(root):
    """The images of two classes, and a third whose lower half is tinted green."""
    rng = np.random.default_rng(1)
    for folder in ("wrong", "new/wrong"):
        (root / folder).mkdir()
        for index in range(24):
            pixels = rng.integers(0, 256, (8, 8, 1)).repeat(4, axis=0).repeat(4, axis=1).repeat(3, axis=2)
            pixels[16:, :, 1] = 255
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{index}.png")
    return root


def arrays_of(labels, copies=1):
    images = tuple(LabelledImage(f"{row}.png", "", label, 1) for row, label in enumerate(labels))
    pixels = np.zeros((len(labels), copies, 2, 2, 3), np.uint8)
    return LabelledArrays(images, pixels, np.array(labels, np.uint8), ("",) * len(labels), ())


def test_targets_are_in_the_order_of_the_outputs():
    codes = np.array([CODES["no_mask"], CODES["mask"], CODES["incorrect"]], np.uint8)
    assert network_targets(codes, THREE_CLASSES).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert network_targets(codes[:2], TWO_CLASSES).tolist() == [[0], [1]]


def test_batches_hold_a_column_a_class(recipe):
    settings = recipe(**THREE, batch_size=6)
    examples = examples_of(arrays_of([0, 1, 2], copies=2), class_names=THREE_CLASSES)
    batch = batch_at(settings, examples, 0, 0)
    assert batch.labels.shape == (6, 3)
    assert batch.labels.sum(axis=0).tolist() == [2, 2, 2]


def test_weights_of_classes_go_by_their_place_in_the_outputs(recipe):
    examples = examples_of(arrays_of([0, 0, 0, 1, 1, 2]), class_names=THREE_CLASSES)
    balanced = class_weights(recipe(**THREE, class_weights="balanced"), examples)
    assert balanced == pytest.approx({0: 6 / (3 * 2), 1: 6 / (3 * 1), 2: 6 / (3 * 3)})
    given = recipe(**THREE, class_weights={"mask": 1, "no_mask": 2, "incorrect": 4})
    assert class_weights(given, examples) == {0: 1, 1: 4, 2: 2}


def test_folders_of_every_class_are_listed(root):
    sources = [DataSource(mask="with", no_mask="without", incorrect="wrong")]
    found = list_labelled(sources, str(root), THREE_CLASSES)
    assert {(image.path.split("/")[0], image.label) for image in found} == {("with", 1), ("without", 0), ("wrong", 2)}
    with pytest.raises(SourceError, match="'incorrect': 0"):
        decode([image for image in found if image.label != 2], 8, 8, required=THREE_CLASSES)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["mask", "no_mask", "incorrect"]},
        {"classes": ["no_mask", "mask"]},  # with a folder of the third
        {"data": [{"mask": "with", "incorrect": "wrong"}]},
        {"data": [{"manifest": "x", "incorrect": "wrong"}]},
    ],
)
def test_recipes_that_contradict_themselves_are_refused(recipe, changes):
    with pytest.raises(ValidationError):
        recipe(**{**THREE, **changes})


def outputs_of(faces):
    """A network's output, ``(faces, 1, 3)``, from p(mask) and p(incorrect)."""
    return np.array([[[mask, incorrect, 1 - mask - incorrect]] for mask, incorrect in faces], np.float32)


FACES = {
    "mask": [(0.90, 0.05), (0.80, 0.10), (0.60, 0.30), (0.40, 0.40)],  # worn .95, .9, .9, .8; of it incorrect up to .5
    "incorrect": [(0.20, 0.60), (0.30, 0.50), (0.10, 0.60), (0.50, 0.20)],  # worn .8, .8, .7, .7; .75 .625 .857 .286
    "no_mask": [(0.10, 0.10), (0.20, 0.10), (0.05, 0.05), (0.30, 0.10)],  # worn .2, .3, .1, .4
}
LABELS = np.repeat([CODES[name] for name in FACES], 4).astype(np.uint8)
OUTPUTS = outputs_of([face for faces in FACES.values() for face in faces])


def test_thresholds_are_chosen_one_after_the_other(recipe):
    chosen = decide(OUTPUTS, LABELS, recipe(**THREE))
    # Masks lie at .7 and above, bare faces at .4 and below: every threshold between serves, and .5 is one of them.
    # Of masks, incorrect ones lie at .286, .625, .75, .857 and others at .056, .111, .333, .5: from just above .5 to
    # .625 on one of four is missed and none is called wrongly; no threshold does better.
    assert (chosen.no_mask_below, chosen.mask_from) == (0.5, 0.5)
    assert chosen.incorrect_from == pytest.approx((0.5 + 0.625) / 2, abs=1e-4)


def test_masks_called_incorrect_are_limited(recipe):
    faces = [(0.9, 0.05)] * 8 + [(0.2, 0.7)] * 2 + [(0.3, 0.6)] * 4 + [(0.05, 0.9)] * 2 + [(0.1, 0.1)]
    labels = np.array([CODES["mask"]] * 10 + [CODES["incorrect"]] * 6 + [CODES["no_mask"]], np.uint8)
    # Two of ten masks have .78, four of six incorrect ones .67. Least error gives up two to get six; a limit does not.
    assert decide(outputs_of(faces), labels, recipe(**THREE)).incorrect_from < 0.66
    limited = recipe(**THREE, operating_point={"max_masked_as_incorrect": 0.1})
    assert decide(outputs_of(faces), labels, limited).incorrect_from > 0.78


def test_without_incorrect_ones_to_choose_on_the_threshold_is_neutral(recipe):
    keep = np.isin(LABELS, [CODES["incorrect"]], invert=True)
    assert decide(OUTPUTS[keep], LABELS[keep], recipe(**THREE)).incorrect_from == 0.5


def test_rights_and_wrongs_are_counted(recipe):
    decision = Decision(no_mask_below=0.35, mask_from=0.75, incorrect_from=0.4)
    counted = measure(OUTPUTS[:, 0], LABELS, decision, THREE_CLASSES, "by hand", shares_groups_with_training=False)
    # mask: the last is called incorrect (.4 / .8); incorrect: two are uncertain, worn .7; no_mask: one is uncertain.
    assert (counted.masked_right, counted.masked_total, counted.masked_as_incorrect) == (3, 4, 1)
    assert (counted.incorrect_right, counted.incorrect_total) == (2, 4)
    assert (counted.unmasked_right, counted.unmasked_total, counted.unmasked_as_incorrect) == (3, 4, 0)


class Scripted:
    """A network of three classes with given logits, which its last layer may scale."""

    def __init__(self, logits):
        self.weights = [np.eye(3), np.zeros(3)]
        self._logits = np.array(logits)

    def get_layer(self, name):
        assert name == "logit"
        return SimpleNamespace(get_weights=lambda: self.weights, set_weights=self._set)

    def _set(self, weights):
        self.weights = weights

    def predict(self, pixels, batch_size, verbose):
        tint = pixels[:, 16:].mean(axis=(1, 2)).argmax(axis=1)  # red, green, blue: none, wrong, right
        logits = np.eye(3)[2 - tint] * self._logits[np.arange(len(pixels)) % len(self._logits), np.newaxis]
        powers = np.exp(logits @ self.weights[0] + self.weights[1])
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def test_temperature_of_three_classes_goes_into_the_graph(recipe, root):
    data = [{"mask": "new/with", "no_mask": "new/without", "incorrect": "new/wrong"}]
    point = {"threshold_data": data, "calibrate": True, "leave_out_near_duplicates": False}
    # Eight of nine are right, with a logit of 5 above the others; the ninth is taken for any of the two others.
    model = Scripted([5.0] * 8 + [-5.0])
    settings = recipe(**THREE, operating_point=point)
    found = set_operating_point(model, settings, load_training(settings, str(root)), str(root))
    # p(right) = 1/9 · 0 + 8/9 where the network should say e^x / (e^x + 2): least loss in between, by a fine grid.
    grid = np.linspace(0.5, 20, 20_000)
    sure, unsure = 5 / grid, -5 / grid
    right = -np.log(np.exp(sure) / (np.exp(sure) + 2))
    wrong = -np.log(np.exp(unsure) / (np.exp(unsure) + 2))
    best = grid[np.argmin(8 / 9 * right + 1 / 9 * wrong)]
    assert found.calibration.temperature == pytest.approx(best, rel=0.02)
    assert model.weights[0][0, 0] == pytest.approx(1 / found.calibration.temperature)
    assert found.decision.incorrect_from is not None


@pytest.fixture
def teacher(tmp_path):
    folder = tmp_path / "teacher"
    folder.mkdir()
    model = build_model("compact", 32, 32, THREE_CLASSES)
    model.save(folder / KERAS_FILE)
    return folder, model


def test_a_teacher_says_how_likely_every_class_is(recipe, root, teacher, tmp_path):
    folder, model = teacher
    settings = recipe(**THREE, teachers=[str(folder)], teacher_weight=0.75)
    training = load_training(settings, str(root))
    found = targets(load_teachers(settings), settings, training, tmp_path / "kept")
    assert found.shape == (72, 1, 3)
    said = model(training.pixels[40], training=False).numpy()[0]
    label = network_targets(training.labels, THREE_CLASSES)[40]
    np.testing.assert_allclose(found[40, 0], 0.75 * said + 0.25 * label, atol=1e-5)
    with pytest.raises(ConfigError, match=r"1 outputs, for the classes no_mask, mask.*: 3"):
        load_teachers(recipe(teachers=[str(folder)]))


@pytest.mark.thorough
def test_a_network_may_start_from_one_of_other_classes(tmp_path):
    two, three = build_model("compact", 32, 32), build_model("compact", 32, 32, THREE_CLASSES)
    two.save(tmp_path / KERAS_FILE)
    fresh = three.get_layer("logit").get_weights()[0]
    load_base_weights(three, str(tmp_path))
    assert np.array_equal(three.get_layer("widen").get_weights()[0], two.get_layer("widen").get_weights()[0])
    assert np.array_equal(three.get_layer("logit").get_weights()[0], fresh)


def test_a_tiny_run_learns_three_classes_and_lists_its_images(recipe, shallow, root, tmp_path):
    held_out = [{"mask": "new/with", "no_mask": "new/without", "incorrect": "new/wrong"}]
    settings = recipe(
        **THREE,
        **shallow,
        validation_data=held_out,
        photographs=["new/wrong"],
        synthetic_faces=2,
        steps_per_epoch=20,
        epochs=3,
        operating_point={"threshold_data": held_out, "test_data": held_out, "leave_out_near_duplicates": False},
    )
    manifest = train(settings, str(root), tmp_path / "three")
    assert manifest.class_names == THREE_CLASSES
    counts = manifest.operating_characteristics
    assert (counts.masked_total, counts.incorrect_total, counts.unmasked_total) == (24, 24, 24)
    assert counts.masked_right + counts.incorrect_right + counts.unmasked_right > 48  # tints are easy to learn
    model = load_model(str(tmp_path / "three"), RuntimeSpec(threads=1))
    assert model.predict(np.zeros((1, 46, 46, 3), np.uint8)).shape == (1, 3)
    known = read_training_images(str(tmp_path / "three"))
    assert len(known) == 3 * 24 + 24  # drawn faces come from no file

    def digest(name):
        return hashlib.sha256((root / name).read_bytes()).hexdigest()

    files = ["with/0.png", "without/3.png", "wrong/9.png", "new/wrong/1.png", "new/with/1.png"]
    assert were_trained_on(map(digest, files), known).tolist() == [True, True, True, True, False]
