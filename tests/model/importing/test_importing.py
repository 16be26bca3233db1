"""`maskdet import`: what it asks, what it refuses, and a bundle that scores photographs as the file's library does."""

import json
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

from maskdet import storage
from maskdet.cli.importing import main
from maskdet.images.codecs import load_codecs, resolve_codecs
from maskdet.images.preprocessing import prepare_image
from maskdet.model.backends import RuntimeSpec, load_model
from maskdet.model.bundle import BUILTIN_FOLDER
from maskdet.model.manifest import Manifest

SIDE = 48


def run(capsys, *flags):
    code = main([str(flag) for flag in flags])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def lambda_file(tmp_path):
    """A Keras file that is refused."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        lambda_layer = {"module": "keras.layers", "class_name": "Lambda", "config": {}}
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": [lambda_layer]}}))
        archive.writestr("metadata.json", "{}")
        with h5py.File(tmp_path / "weights.h5", "w"):
            pass
        archive.write(tmp_path / "weights.h5", "model.weights.h5")
    return tmp_path / "model.keras"


def test_without_classes_it_refuses_and_explains(lambda_file, tmp_path, capsys):
    code, _, err = run(capsys, lambda_file, "--scale", "1/255", "--output", tmp_path / "bundle")
    assert code == 2
    assert "flow_from_directory sorts folders by name" in err
    assert "1 means no mask: --classes mask,no_mask" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--classes", "mask,no_mask"), "--scale: expected one of 1/255, -1..1, imagenet, caffe, none"),
        (("--classes", "mask,nomsk", "--scale", "none"), "received 'nomsk'"),
        (("--classes", "mask,no_mask", "--scale", "-1..1", "--mean", "0,0,0"), "nothing beside --mean"),
    ],
)
def test_an_incomplete_declaration_is_refused(flags, message, tmp_path, capsys):
    file = tmp_path / "model.tflite"
    shutil.copy(BUILTIN_FOLDER / "model_float.tflite", file)
    code, _, err = run(capsys, file, *flags, "--output", tmp_path / "bundle")
    assert code == 2
    assert message in err
    assert not (tmp_path / "bundle").exists()


def test_a_hostile_file_ends_with_code_4_and_nothing_is_written(lambda_file, tmp_path, capsys):
    flags = ("--classes", "mask,no_mask", "--scale", "1/255", "--output", tmp_path / "new" / "bundle")
    code, _, err = run(capsys, lambda_file, *flags)
    assert code == 4
    assert "received 'Lambda of the module keras.layers'" in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_classes_that_do_not_fit_are_refused_before_anything_is_said(activation, tmp_path, capsys):
    units, classes = {"sigmoid": (1, "mask,incorrect,no_mask"), "softmax": (3, "mask,no_mask")}[activation]
    wanted = {"sigmoid": "1 output", "softmax": "3 outputs"}[activation]
    dense = {"class_name": "Dense", "config": {"name": "dense", "units": units, "activation": activation}}
    layers = [{"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 48, 64, 3]}}, dense]
    named = [{**layer, "module": "keras.layers", "registered_name": None} for layer in layers]
    network = {"module": "keras", "class_name": "Sequential", "config": {"name": "net", "layers": named}}
    with h5py.File(tmp_path / "model.h5", "w") as content:
        content.attrs["model_config"] = json.dumps(network)
    flags = ("--classes", classes, "--scale", "none", "--output", tmp_path / "bundle")
    code, out, err = run(capsys, tmp_path / "model.h5", *flags)
    assert (code, out) == (2, "")
    assert f"--classes: expected those of a network of {wanted}, received {classes.split(',')}" in err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("flag", "kind"), [((), "a file"), (("--detector",), "an ONNX file")])
def test_a_near_name_is_told_for_a_file_that_is_not_there(flag, kind, tmp_path, capsys):
    (tmp_path / "yunet.onnx").write_bytes(b"")
    declared = () if flag else ("--classes", "mask,no_mask", "--scale", "none")
    code, _, err = run(capsys, *flag, tmp_path / "yumet.onnx", *declared, "--output", tmp_path / "bundle")
    assert code == 4
    near = f"Nothing is there; did you mean '{tmp_path}/yunet.onnx'?"
    assert f"expected {kind}, received '{tmp_path}/yumet.onnx'. {near}" in err


THREE = ("--classes", "mask,incorrect,no_mask", "--scale", "none")


def test_a_litert_file_becomes_a_bundle_without_tensorflow(tmp_path, capsys):
    """The built-in network's own file: uint8 pixels to three classes, so that the bundle has to give the same."""
    flags = (*THREE, "--name", "again", "--mask-from", ".6", "--no-mask-below", ".4", "--output", tmp_path / "bundle")
    code, out, _ = run(capsys, BUILTIN_FOLDER / "model_float.tflite", *flags)
    assert code == 0
    assert "output 0 is mask, output 1 is incorrect, output 2 is no_mask" in out
    model = load_model(str(tmp_path / "bundle"), RuntimeSpec("litert", "float32"))
    images = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3)).astype(np.uint8)
    expected = load_model("builtin", RuntimeSpec("litert", "float32")).predict(images)
    np.testing.assert_allclose(model.predict(images), expected, atol=1e-6)
    decision = model.manifest.decision
    assert (decision.mask_from, decision.no_mask_below, decision.incorrect_from) == (0.6, 0.4, 0.5)


@pytest.mark.usefixtures("in_this_process")
def test_pixels_that_a_network_scales_by_itself_are_not_scaled_before(tmp_path, capsys):
    flags = ("--classes", "mask,incorrect,no_mask", "--scale", "1/255", "--output", tmp_path / "bundle")
    code, _, err = run(capsys, BUILTIN_FOLDER / "model_float.tflite", *flags)
    assert code == 4
    assert "say --scale none" in err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("in_this_process")
def test_a_bundle_that_is_there_is_replaced_only_where_asked_for(tmp_path, capsys):
    command = (BUILTIN_FOLDER / "model_float.tflite", *THREE, "--output", tmp_path / "bundle")
    assert run(capsys, *command, "--name", "first")[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "bundle").rglob("*") if path.is_file()}
    code, out, err = run(capsys, *command, "--name", "second")
    assert (code, out) == (8, "")
    assert "expected an absent or empty folder, received 'a model bundle'" in err and "--overwrite" in err
    assert {path: path.read_bytes() for path in (tmp_path / "bundle").rglob("*") if path.is_file()} == before
    code, _, err = run(capsys, "--detector", BUILTIN_FOLDER / "manifest.json", "--output", tmp_path / "bundle")
    assert code == 8 and "--overwrite" in err
    assert run(capsys, *command, "--name", "second", "--overwrite")[0] == 0
    manifest = Manifest.model_validate_json((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest.name == "second"


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("flag", ["--check", "--calibrate"])
def test_images_that_are_not_there_are_told_by_their_flag(tmp_path, flag, capsys):
    command = (BUILTIN_FOLDER / "model_float.tflite", *THREE, "--output", tmp_path / "bundle")
    (tmp_path / "empty").mkdir()
    for place in ("nothere", "empty", "none.csv", ""):
        code, _, err = run(capsys, *command, flag, tmp_path / place if place else "")
        assert code == (3 if place else 2)
        assert f"maskdet import: {flag}: expected" in err and "--input" not in err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("in_this_process")
def test_a_bundle_goes_to_a_store_with_its_manifest_last(tmp_path, capsys, monkeypatch):
    written = {}
    monkeypatch.setattr(storage, "list_folder", lambda folder: iter(()))
    monkeypatch.setattr(storage, "write_bytes", lambda uri, data: written.update({uri: data}))
    code, _, err = run(capsys, BUILTIN_FOLDER / "model_float.tflite", *THREE, "--output", "gs://bucket/models/mine")
    assert code == 0, err
    assert list(written)[-1] == "gs://bucket/models/mine/manifest.json"
    manifest = Manifest.model_validate_json(written["gs://bucket/models/mine/manifest.json"])
    assert {f"gs://bucket/models/mine/{name}" for name in manifest.files} == set(list(written)[:-1])


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.xdist_group("tensorflow")
def test_images_resized_by_nearest_are_those_of_keras(tmp_path, capsys):
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(7)
    for number, (height, width) in enumerate([(97, 131), (300, 211), (40, 33)]):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"{number}.png")
    Image.fromarray(rng.integers(0, 256, (900, 700, 3), np.uint8)).save(tmp_path / "3.jpg", quality=92)
    flags = ("--resize", "nearest", "--faces", "whole", "--output", tmp_path / "bundle")
    assert run(capsys, BUILTIN_FOLDER / "model_float.tflite", *THREE, *flags)[0] == 0
    spec = load_model(str(tmp_path / "bundle"), RuntimeSpec("litert", "float32")).manifest.input
    assert spec.resize_filter == "nearest"
    for path in sorted(tmp_path.glob("[0-3].*")):
        expected = np.asarray(keras.utils.load_img(path, target_size=(spec.height, spec.width)))
        for name in ("pillow", resolve_codecs("auto")):
            options = {"resize_filter": spec.resize_filter, "codecs": load_codecs(name)}
            found = prepare_image(path.read_bytes(), spec.height, spec.width, **options).pixels
            if path.suffix == ".png":
                np.testing.assert_array_equal(found, expected)
            else:  # another build of libjpeg-turbo may round otherwise
                np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=2)


@pytest.mark.data
@pytest.mark.xdist_group("tensorflow")
def test_a_keras_file_scores_photographs_as_keras_does(data_folder, tmp_path, capsys, score):
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(4)
    pooled = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.MaxPool2D(4)]
    head = [keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *pooled, *head])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "model.keras")
    flags = ("--classes", "WithMask,WithoutMask", "--scale", "1/255", "--faces", "whole", "--output", tmp_path / "mine")
    assert run(capsys, tmp_path / "model.keras", *flags)[0] == 0
    manifest = Manifest.model_validate_json((tmp_path / "mine" / "manifest.json").read_text())
    assert (manifest.faces, manifest.imported.classes) == ("whole", ("mask", "no_mask"))
    output = score(
        tmp_path / "tables", data_folder / "k12" / "Test", template=None, flags=("--model", str(tmp_path / "mine"))
    )
    assert output.code == 0
    rows = ds.dataset(tmp_path / "tables" / "predictions", format="parquet").to_table().sort_by("image_uri")
    uris = rows["image_uri"].to_pylist()
    codecs = load_codecs(resolve_codecs("auto"))
    pixels = np.stack([prepare_image(Path(uri).read_bytes(), SIDE, SIDE, codecs=codecs).pixels for uri in uris])
    no_mask = model.predict(pixels / np.float32(255), verbose=0)[:, 0]
    found = rows["probability_mask"].to_numpy()
    assert len(uris) == 992
    np.testing.assert_allclose(found, 1 - no_mask, atol=1e-4)
    assert ((found >= 0.5) == (1 - no_mask >= 0.5)).mean() >= 0.999
