"""A bundle's network in other formats: copied or converted, checked, and written completely or not at all."""

from __future__ import annotations

import hashlib
import io
import shutil

import numpy as np
import pytest

from maskdet.errors import ConfigError, ModelError, OutputError
from maskdet.model import formats
from maskdet.model.architectures import build_model
from maskdet.model.bundle import BUILTIN_FOLDER, open_bundle, read_manifest
from maskdet.model.conversion import convert_bundle
from maskdet.model.export import export_bundle
from maskdet.model.manifest import BundleFile, InputSpec, Manifest, TrainingData

ALL = ["keras", "saved_model", "litert_float", "litert_int8", "onnx"]

# Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
tensorflow = pytest.mark.xdist_group("models")


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def golden(folder):
    with np.load(folder / "golden.npz") as arrays:
        return dict(arrays)


def reseal(folder, files):
    """Change files of a bundle as an exporter could: hashes and fingerprint match; ``None`` removes a file."""
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    listed = dict(manifest.files)
    for name, data in files.items():
        listed.pop(name, None)
        (folder / name).unlink(missing_ok=True)
        if data is not None:
            (folder / name).write_bytes(data)
            listed[name] = BundleFile(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder / "manifest.json").write_text(manifest.model_copy(update={"files": listed}).sealed().to_json())
    return str(folder)


@pytest.fixture
def copy(tmp_path):
    """A copy of the built-in bundle to spoil."""
    return shutil.copytree(BUILTIN_FOLDER, tmp_path / "source")


@pytest.fixture(scope="module")
def small(tmp_path_factory, randomize, patches):
    """A bundle of a small, untrained network."""
    folder = tmp_path_factory.mktemp("small") / "bundle"
    model = randomize(build_model("compact", 40, 52))
    draft = Manifest(
        name="small",
        architecture="compact",
        input=InputSpec(height=40, width=52),
        training_data=TrainingData(description="random patches", images=1, fingerprint="0" * 64),
    )
    export_bundle(model, folder, draft, representative=patches(16, 40, 52))
    return folder


class TestCopies:
    def test_formats_that_a_bundle_has_are_copied_byte_for_byte(self, tmp_path):
        manifest, written = convert_bundle("builtin", tmp_path / "lite", ["litert_int8", "litert_float"])
        source, copied = contents(BUILTIN_FOLDER), contents(tmp_path / "lite")
        expected = {"manifest.json", "golden.npz", "model.tflite", "model_float.tflite", "training_images.npy"}
        assert set(copied) == expected
        assert all(copied[name] == source[name] for name in copied if name != "manifest.json")
        assert set(manifest.files) == set(copied) - {"manifest.json"}
        assert [(one.format.name, one.copied) for one in written] == [("litert_float", True), ("litert_int8", True)]
        assert [one.size_bytes for one in written] == [
            len(source[name]) for name in ("model_float.tflite", "model.tflite")
        ]

    @tensorflow
    def test_a_bundle_of_all_its_formats_is_the_same_bundle(self, tmp_path):
        manifest, _ = convert_bundle("builtin", tmp_path / "same", ALL[:4])
        assert contents(tmp_path / "same") == contents(BUILTIN_FOLDER)
        assert manifest == read_manifest("builtin")

    def test_differences_are_those_of_the_golden_outputs(self, tmp_path):
        _, written = convert_bundle("builtin", tmp_path / "lite", ["litert_int8"])
        arrays = golden(BUILTIN_FOLDER)
        expected = np.abs(arrays["litert_int8"] - arrays["tensorflow_float32"]).max()
        assert written[0].difference == pytest.approx(expected, abs=0.01)  # int8 kernels of this processor

    def test_what_a_smaller_bundle_says_of_itself_is_what_the_larger_said(self, tmp_path):
        manifest, _ = convert_bundle("builtin", tmp_path / "lite", ["litert_int8"])
        own = {"files", "fingerprint"}
        assert manifest.model_dump(exclude=own) == read_manifest("builtin").model_dump(exclude=own)
        assert manifest.fingerprint == manifest.computed_fingerprint() != read_manifest("builtin").fingerprint
        assert open_bundle(str(tmp_path / "lite")).manifest == manifest


@tensorflow
class TestMade:
    def test_every_other_format_is_made_from_the_keras_file_alone(self, small, tmp_path):
        convert_bundle(str(small), tmp_path / "keras", ["keras"])
        assert set(contents(tmp_path / "keras")) == {"manifest.json", "golden.npz", "model.keras"}
        names = ["onnx", "saved_model", "litert_float"]
        manifest, written = convert_bundle(str(tmp_path / "keras"), tmp_path / "rest", names)
        assert [one.format.name for one in written] == ["saved_model", "litert_float", "onnx"]
        assert not any(one.copied for one in written)
        assert all(one.difference < 1e-5 for one in written)
        assert set(manifest.files) == set(contents(tmp_path / "rest")) - {"manifest.json"}
        assert "model.keras" not in manifest.files
        assert {"onnx", "onnxruntime", "tf2onnx"} < set(manifest.versions)
        assert open_bundle(str(tmp_path / "rest")).manifest == manifest

    def test_golden_outputs_are_kept_and_those_of_new_formats_added(self, small, tmp_path):
        convert_bundle(str(small), tmp_path / "more", ["onnx"])
        before, after = golden(small), golden(tmp_path / "more")
        assert set(after) == {*before, "onnx_float32"}
        assert all(np.array_equal(after[name], before[name]) for name in before)
        np.testing.assert_allclose(after["onnx_float32"], before["tensorflow_float32"], atol=1e-5)

    def test_a_format_that_strays_ends_it_with_nothing_left_behind(self, small, tmp_path):
        source = shutil.copytree(small, tmp_path / "source")
        arrays = golden(source)
        arrays["tensorflow_float32"][2] += 0.01
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        uri = reseal(source, {"golden.npz": stream.getvalue()})
        with pytest.raises(ModelError, match=r"format onnx of model .* within 0.0001, received '0.01\d+ off'"):
            convert_bundle(uri, tmp_path / "deep" / "down" / "out", ["onnx"])
        assert list(tmp_path.iterdir()) == [source]

    def test_a_keras_file_that_is_none_is_said(self, small, tmp_path):
        source = shutil.copytree(small, tmp_path / "source")
        uri = reseal(source, {"model.keras": b"PK no archive"})
        with pytest.raises(ModelError, match=r"expected a Keras file .* not a zip file.* Nothing of it was run"):
            convert_bundle(uri, tmp_path / "out", ["onnx"])
        assert list(tmp_path.iterdir()) == [source]

    def test_a_keras_file_of_another_size_is_refused(self, small, tmp_path):
        source = shutil.copytree(small, tmp_path / "source")
        uri = reseal(source, {"model.keras": (BUILTIN_FOLDER / "model.keras").read_bytes()})
        with pytest.raises(ModelError, match=r"expected shapes \(\(None, 40, 52, 3\), \(None, 1\)\)"):
            convert_bundle(uri, tmp_path / "out", ["onnx"])

    def test_a_keras_file_with_python_code_in_it_is_refused(self, small, tmp_path):
        import keras

        pixels = keras.Input((40, 52, 3))
        keras.Model(pixels, keras.layers.Lambda(lambda tensor: tensor[:, 0, 0, :1])(pixels)).save(tmp_path / "l.keras")
        source = shutil.copytree(small, tmp_path / "source")
        uri = reseal(source, {"model.keras": (tmp_path / "l.keras").read_bytes()})
        with pytest.raises(ModelError, match=r"received 'Lambda of the module keras\.layers'\. Nothing of it was run"):
            convert_bundle(uri, tmp_path / "out", ["onnx"])


class TestRefusals:
    @pytest.mark.parametrize(("names", "received"), [(["onnx", "caffe"], "'caffe'"), ([], "''")])
    def test_a_format_that_is_none_is_named_with_those_that_are(self, names, received, tmp_path):
        with pytest.raises(ConfigError, match=f"keras,saved_model,litert_float,litert_int8,onnx, received {received}"):
            convert_bundle("builtin", tmp_path / "out", names)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_of_something_else_is_kept(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(OutputError, match="absent or empty folder, or a model bundle"):
            convert_bundle("builtin", tmp_path, ["litert_int8"])
        assert contents(tmp_path) == {"thesis.txt": b"years of work"}

    @pytest.mark.parametrize("path", [".", "../link"])
    def test_the_bundle_itself_is_no_output(self, copy, path):
        (copy.parent / "link").symlink_to(copy)
        before = contents(copy)
        with pytest.raises(OutputError, match="another folder than the model's"):
            convert_bundle(str(copy), copy / path, ["litert_int8"], overwrite=True)
        assert contents(copy) == before

    def test_another_bundle_is_replaced_whole_where_asked_for(self, copy, tmp_path):
        (copy / "stale.bin").write_bytes(b"old")
        before = contents(copy)
        with pytest.raises(OutputError, match=r"absent or empty folder, received 'a model bundle'\. .*--overwrite"):
            convert_bundle("builtin", copy, ["litert_int8"])
        assert contents(copy) == before
        convert_bundle("builtin", copy, ["litert_int8"], overwrite=True)
        assert set(contents(copy)) == {"manifest.json", "golden.npz", "model.tflite", "training_images.npy"}
        assert list(tmp_path.iterdir()) == [copy]

    @pytest.mark.parametrize("name", ["model.tflite", "golden.npz"])
    def test_a_damaged_bundle_is_refused(self, copy, name, tmp_path):
        (copy / name).write_bytes((copy / name).read_bytes()[:-1])
        with pytest.raises(ModelError, match=f"{name} with SHA-256"):
            convert_bundle(str(copy), tmp_path / "out", ["litert_int8"])
        assert not (tmp_path / "out").exists()

    def test_a_file_that_its_runtime_cannot_read_is_refused(self, copy, tmp_path):
        uri = reseal(copy, {"model.tflite": b"no network"})
        with pytest.raises(ModelError, match="litert_int8 cannot be run"):
            convert_bundle(uri, tmp_path / "out", ["litert_int8"])

    def test_int8_is_not_made_without_training_images(self, copy, tmp_path):
        with pytest.raises(ModelError, match="made of training images"):
            convert_bundle(reseal(copy, {"model.tflite": None}), tmp_path / "out", ["litert_int8"])

    @tensorflow
    def test_nothing_is_made_without_the_keras_file(self, copy, tmp_path):
        with pytest.raises(ModelError, match=r"expected model\.keras, to make onnx from"):
            convert_bundle(reseal(copy, {"model.keras": None}), tmp_path / "out", ["onnx"])

    def test_a_bundle_without_golden_images_is_refused(self, copy, tmp_path):
        with pytest.raises(ModelError, match=r"golden\.npz"):
            convert_bundle(reseal(copy, {"golden.npz": None}), tmp_path / "out", ["litert_int8"])

    @pytest.mark.parametrize(
        ("absent", "name", "command"),
        [
            ("tf2onnx", "onnx", r"maskdet\[tensorflow,onnx\]"),
            ("tensorflow", "saved_model", r"maskdet\[tensorflow\]"),
            ("ai_edge_litert", "litert_int8", "'maskdet'"),
        ],
    )
    def test_a_missing_package_is_said_with_the_command_that_installs_it(
        self, absent, name, command, tmp_path, monkeypatch
    ):
        find = formats.importlib.util.find_spec
        monkeypatch.setattr(
            formats.importlib.util, "find_spec", lambda module: None if module == absent else find(module)
        )
        with pytest.raises(ConfigError, match=f"the module {absent}.*{command}"):
            convert_bundle("builtin", tmp_path / "out", [name])
        assert list(tmp_path.iterdir()) == []
