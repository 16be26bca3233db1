import numpy as np
import pytest

from maskdet.errors import ConfigError
from maskdet.model.architectures import build_model
from maskdet.model.manifest import KERAS_FILE
from maskdet.training.batches import batch_at, examples_of
from maskdet.training.distillation import load_teachers, targets
from maskdet.training.fit import train
from maskdet.training.sets import load_training

pytestmark = [
    pytest.mark.training,
    pytest.mark.xdist_group("tensorflow"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    import keras

    folder = tmp_path_factory.mktemp("teacher")
    model = build_model("compact", 32, 32)
    # An untrained network gives nearly the same for all images; its last layer is set so that it does not.
    rng = np.random.default_rng(0)
    logit = model.get_layer("logit")
    features = keras.Model(model.input, logit.input)(rng.uniform(0, 255, (32, 32, 32, 3)).astype(np.float32)).numpy()
    kernel = rng.normal(size=(features.shape[1], 1)).astype(np.float32)
    said = features @ kernel
    logit.set_weights([kernel * 3 / said.std(), -said.mean(axis=0) * 3 / said.std()])
    model.save(folder / KERAS_FILE)
    return folder, model


def test_targets_mix_the_teachers_word_and_the_label(recipe, root, teacher, tmp_path):
    folder, model = teacher
    settings = recipe(teachers=[str(folder)], teacher_weight=0.75, augmentation={"copies": 2})
    training = load_training(settings, str(root))
    found = targets(load_teachers(settings), settings, training, tmp_path / "kept")
    assert found.shape == (48, 2, 1)
    for row, copy in ((0, 0), (5, 1), (30, 0), (47, 1)):
        said = float(model(training.pixels[row, copy][np.newaxis], training=False)[0, 0])
        assert found[row, copy] == pytest.approx(0.75 * said + 0.25 * training.labels[row], abs=1e-5)
    assert np.ptp(found) > 0.3  # the teacher's answers differ
    batch = batch_at(settings, examples_of(training, targets=found), 0, 0)
    for pixels, target in zip(batch.inputs, batch.labels[:, 0], strict=True):
        row, copy = np.argwhere((training.pixels == pixels).all(axis=(2, 3, 4)))[0]
        assert target == found[row, copy]


def test_without_a_teacher_the_label_is_the_target(recipe, arrays, tmp_path):
    assert targets(load_teachers(recipe()), recipe(), arrays(), tmp_path) is None
    examples = examples_of(arrays())
    np.testing.assert_array_equal(examples.targets, np.tile([[[0]], [[1]], [[0]], [[1]], [[0]]], (1, 3, 1)))


def test_several_teachers_speak_with_one_voice(recipe, root, teacher, tmp_path):
    import keras

    folder, model = teacher
    other = keras.models.clone_model(model)
    other.set_weights([-weights if weights.shape[-1:] == (1,) else weights for weights in model.get_weights()])
    other.save(tmp_path / "other.keras")
    settings = recipe(teachers=[str(folder), str(tmp_path / "other.keras")], teacher_weight=1.0)
    training = load_training(settings, str(root))
    found = targets(load_teachers(settings), settings, training, tmp_path / "kept")
    pixels = training.pixels[:, 0].astype(np.float32)
    mean = (model(pixels, training=False).numpy() + other(pixels, training=False).numpy()) / 2
    np.testing.assert_allclose(found[:, 0], mean, atol=1e-5)


def test_a_teacher_that_is_no_bundle_or_of_another_size_is_refused(recipe, teacher, tmp_path):
    with pytest.raises(ConfigError, match=r"expected bundles or \.keras files, received 'no .*nothing\.keras"):
        load_teachers(recipe(teachers=[str(tmp_path / "nothing")]))
    with pytest.raises(ConfigError, match="expected input of 46 × 46 pixels, received '32 × 32'"):
        load_teachers(recipe(teachers=[str(teacher[0])], height=46, width=46))


@pytest.mark.thorough
def test_a_student_learns_from_a_bundle(recipe, root, tmp_path):
    train(recipe(epochs=1), str(root), tmp_path / "teacher")
    manifest = train(recipe(teachers=[str(tmp_path / "teacher")]), str(root), tmp_path / "student")
    assert manifest.training_data.images == 48
