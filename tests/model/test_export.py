import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from maskdet.errors import ModelError, OutputError
from maskdet.model.architectures import build_model
from maskdet.model.export import export_bundle, golden_inputs
from maskdet.model.manifest import InputSpec, Manifest, TrainingData

pytestmark = [
    pytest.mark.xdist_group("models"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

SIDE_PX = 48


def synthetic_images(count, seed=0):
    """Coarse random patches, so that images differ in more than noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3)).astype(np.uint8)
    return coarse.repeat(SIDE_PX // 6, axis=1).repeat(SIDE_PX // 6, axis=2)


def draft(side=SIDE_PX):
    training_data = TrainingData(description="random patches", images=1, fingerprint="0" * 64)
    return Manifest(
        name="tiny", architecture="reference_cnn", input=InputSpec(height=side, width=side), training_data=training_data
    )


@pytest.fixture(scope="module")
def model():
    """A network with random weights whose logits spread over a few units, as a trained one's do."""
    import keras

    keras.utils.set_random_seed(5)
    network = build_model("reference_cnn", SIDE_PX, SIDE_PX)
    network.compile("adam", "binary_crossentropy")
    # A few steps move the batch statistics away from their starting values, and give the optimizer some state.
    network.fit(synthetic_images(64, seed=3), np.arange(64).reshape(-1, 1) % 2, epochs=8, batch_size=32, verbose=0)
    last = network.get_layer("logit")
    logits = keras.Model(network.input, last.output).predict(synthetic_images(64), verbose=0)
    kernel, _ = last.get_weights()
    scale = 2.0 / logits.std()
    last.set_weights([kernel * scale, -(logits - last.get_weights()[1]).mean(axis=0) * scale])
    return network


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return folder, export_bundle(model, folder, draft(), representative=synthetic_images(32, seed=1))


@pytest.fixture(scope="module")
def expected(model):
    return model.predict(synthetic_images(64), verbose=0)[:, 0]


def interpreter_for(file, batch):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=1)
    (image,), (probability,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(image["index"], (batch, SIDE_PX, SIDE_PX, 3))
    interpreter.allocate_tensors()

    def score(images):
        interpreter.set_tensor(image["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(probability["index"])

    return score


def test_manifest_lists_every_file_with_its_hash(exported):
    folder, manifest = exported
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert set(manifest.files) == set(paths) - {"manifest.json"}
    assert {"model.keras", "model.tflite", "model_float.tflite", "golden.npz", "saved_model/saved_model.pb"} < set(
        paths
    )
    for name, file in manifest.files.items():
        data = paths[name].read_bytes()
        assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert Manifest.model_validate(json.loads(paths["manifest.json"].read_text())) == manifest
    assert manifest.fingerprint == manifest.computed_fingerprint()
    assert {"tensorflow", "keras", "numpy"} < set(manifest.versions)


def test_nothing_is_left_beside_the_bundle(exported):
    folder, _ = exported
    assert list(folder.parent.iterdir()) == [folder]


def test_saved_model_has_one_signature_and_agrees(exported, expected):
    import tensorflow as tf

    signatures = tf.saved_model.load(str(exported[0] / "saved_model")).signatures
    assert list(signatures) == ["serving_default"]
    (inputs,) = signatures["serving_default"].structured_input_signature[1].items()
    assert inputs == ("images", tf.TensorSpec((None, SIDE_PX, SIDE_PX, 3), tf.uint8, name="images"))
    outputs = signatures["serving_default"](images=tf.constant(synthetic_images(64)))
    assert {name: (value.dtype, value.shape) for name, value in outputs.items()} == {
        "probability_mask": (tf.float32, (64,))
    }
    np.testing.assert_allclose(outputs["probability_mask"].numpy(), expected, atol=1e-5)


def test_keras_file_has_no_optimizer_state_and_agrees(exported, expected):
    import keras

    file = exported[0] / "model.keras"
    loaded = keras.models.load_model(file)
    with zipfile.ZipFile(file) as parts:
        weights_bytes = len(parts.read("model.weights.h5"))
    # Adam keeps two more numbers per parameter; the rest is the file format's overhead.
    assert 4 * loaded.count_params() < weights_bytes < 2 * 4 * loaded.count_params()
    assert not loaded.compiled
    np.testing.assert_allclose(loaded.predict(synthetic_images(64), verbose=0)[:, 0], expected, atol=1e-6)


def test_float_litert_agrees(exported, expected):
    scored = interpreter_for(exported[0] / "model_float.tflite", 64)(synthetic_images(64))
    assert scored.dtype == np.float32
    assert scored.shape == (64,)
    np.testing.assert_allclose(scored, expected, atol=1e-5)


def test_int8_litert_agrees_within_quantisation(exported, expected):
    scored = interpreter_for(exported[0] / "model.tflite", 64)(synthetic_images(64))
    assert scored.dtype == np.float32
    assert scored.shape == (64,)
    assert np.std(expected) > 0.2  # or else agreement would say little
    assert np.abs(scored - expected).mean() < 0.02
    assert np.abs(scored - expected).max() < 0.1


def test_int8_litert_takes_raw_pixels(exported):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(exported[0] / "model.tflite"))
    (image,) = interpreter.get_input_details()
    assert image["dtype"] == np.uint8
    assert image["quantization"] == (1.0, 0)
    types = {str(detail["dtype"].__name__) for detail in interpreter.get_tensor_details()}
    assert "int8" in types


def test_int8_probabilities_are_finer_than_an_int8_sigmoid(exported):
    scored = interpreter_for(exported[0] / "model.tflite", 64)(synthetic_images(64))
    steps = scored * 256
    assert np.mean(np.abs(steps - np.round(steps)) > 1e-3) > 0.9


@pytest.mark.parametrize("file", ["model.tflite", "model_float.tflite"])
def test_probability_does_not_depend_on_the_rest_of_the_batch(exported, file):
    images, batch = synthetic_images(64), 16
    score = interpreter_for(exported[0] / file, batch)
    together = np.concatenate([score(images[start : start + batch]) for start in range(0, 64, batch)])
    rng = np.random.default_rng(2)
    for _ in range(5):
        order = rng.permutation(64)
        shuffled = np.concatenate([score(images[order[start : start + batch]]) for start in range(0, 64, batch)])
        np.testing.assert_array_equal(shuffled, together[order])


def test_golden_outputs_are_what_each_model_gives(exported):
    import tensorflow as tf

    folder, _ = exported
    with np.load(io.BytesIO((folder / "golden.npz").read_bytes()), allow_pickle=False) as golden:
        arrays = dict(golden)
    assert set(arrays) == {"inputs", "tensorflow_float32", "litert_float32", "litert_int8"}
    inputs = arrays.pop("inputs")
    assert inputs.dtype == np.uint8
    assert inputs.shape == (8, SIDE_PX, SIDE_PX, 3)
    assert {(values.dtype.name, values.shape) for values in arrays.values()} == {("float32", (8,))}
    score = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    saved = score(images=tf.constant(inputs))["probability_mask"].numpy()
    np.testing.assert_allclose(saved, arrays["tensorflow_float32"], atol=1e-6)
    np.testing.assert_array_equal(interpreter_for(folder / "model.tflite", 8)(inputs), arrays["litert_int8"])
    np.testing.assert_array_equal(interpreter_for(folder / "model_float.tflite", 8)(inputs), arrays["litert_float32"])


def test_golden_inputs_differ_and_compress():
    images = golden_inputs(112, 96)
    assert images.shape == (8, 112, 96, 3)
    assert len({image.tobytes() for image in images}) == 8
    assert images.min() == 0
    assert images.max() == 255
    np.testing.assert_array_equal(images, golden_inputs(112, 96))
    compressed = io.BytesIO()
    np.savez_compressed(compressed, images)
    assert compressed.tell() < images.nbytes / 4


def test_folder_that_is_no_bundle_is_refused(model, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="absent or empty folder, or a model bundle"):
        export_bundle(model, tmp_path, draft(), representative=synthetic_images(4))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_bundle_is_replaced_whole(model, tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "manifest.json").write_text(draft().sealed().to_json())
    (folder / "stale.bin").write_bytes(b"old")
    manifest = export_bundle(model, folder, draft(), representative=synthetic_images(4))
    assert not (folder / "stale.bin").exists()
    assert json.loads((folder / "manifest.json").read_text())["fingerprint"] == manifest.fingerprint
    assert list(tmp_path.iterdir()) == [folder]


def test_link_to_a_bundle_is_replaced_and_its_target_kept(model, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text(draft().sealed().to_json())
    folder = tmp_path / "tiny"
    folder.symlink_to(tmp_path / "other")
    export_bundle(model, folder, draft(), representative=synthetic_images(4))
    assert not folder.is_symlink()
    assert (folder / "model.tflite").is_file()
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["manifest.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "tiny"]


def test_size_mismatch_is_refused_and_leaves_nothing(model, tmp_path):
    with pytest.raises(ModelError, match=r"network input: expected \(64, 64, 3\)"):
        export_bundle(model, tmp_path / "tiny", draft(side=64), representative=synthetic_images(4))
    with pytest.raises(ModelError, match=r"representative: expected \(48, 48, 3\), as the manifest states"):
        export_bundle(model, tmp_path / "tiny", draft(), representative=synthetic_images(4)[:, :24])
    assert list(tmp_path.iterdir()) == []


def test_failure_half_way_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("converter crashed")

    monkeypatch.setattr("maskdet.model.litert_export.convert_int8", fail)
    with pytest.raises(RuntimeError, match="converter crashed"):
        export_bundle(model, tmp_path / "tiny", draft(), representative=synthetic_images(4))
    assert list(tmp_path.iterdir()) == []


def test_builtin_bundle_is_whole_and_small():
    folder = Path(__file__).parents[2] / "maskdet" / "model" / "builtin" / "compact"
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    assert manifest.fingerprint == manifest.computed_fingerprint()
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) <= 3_000_000
    for name, file in manifest.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == file.sha256
    measured = manifest.operating_characteristics
    assert not measured.shares_groups_with_training
    # Of street and press photographs, some with a cloth before the mouth; MODEL_CARD.md has the intervals.
    assert measured.sensitivity > 0.97
    assert measured.specificity > 0.93
    assert measured.incorrect_recall > 0.85
    assert measured.masked_as_incorrect / measured.masked_total < 0.03
