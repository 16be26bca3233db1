"""Bundles with right hashes whose files do more than compute: refused when they are loaded, and not run."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from maskdet.errors import ModelError
from maskdet.model.backends import RuntimeSpec, load_model
from maskdet.model.bundle import BUILTIN_FOLDER, open_bundle, read_manifest
from maskdet.model.manifest import BundleFile, Manifest
from maskdet.model.safety import refuse_unsafe
from tests.model.importing.test_inspection import function, message, node, saved_model

TENSORFLOW = RuntimeSpec("tensorflow", "float32")


@pytest.fixture
def copy(tmp_path):
    """A copy of the built-in bundle to spoil."""
    return shutil.copytree(BUILTIN_FOLDER, tmp_path / "bundle")


def seal(folder):
    """Make the manifest match the files, as anyone who changes them can."""
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    files = {
        path.relative_to(folder).as_posix(): BundleFile(
            size_bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in paths
    }
    (folder / "manifest.json").write_text(manifest.model_copy(update={"files": files}).sealed().to_json())
    return folder


@pytest.mark.parametrize("operation", ["WriteFile", "ReadFile", "PyFunc", "LoadLibrary"])
@pytest.mark.parametrize("place", ["graph", "function"])
def test_operations_beyond_arithmetic_are_refused(copy, operation, place):
    nodes = [node(operation)] if place == "graph" else []
    functions = [function("score", node(operation))] if place == "function" else []
    saved_model(copy / "saved_model", nodes, functions)
    seal(copy)
    assert open_bundle(str(copy)).manifest.files  # its hashes are right
    with pytest.raises(ModelError, match=f"the operation {operation} in the {place}") as caught:
        load_model(str(copy), TENSORFLOW)
    assert caught.value.exit_code == 4
    assert "Nothing of it was run" in str(caught.value)


@pytest.mark.parametrize("name", ["saved_model.cpb", "saved_model.pbtxt"])
def test_a_second_graph_of_another_form_is_refused(copy, name):
    """TensorFlow would load it instead of the one that was inspected."""
    (copy / "saved_model" / name).write_bytes(message((2, message((2, message((1, node("WriteFile"))))))))
    seal(copy)
    with pytest.raises(ModelError, match=rf"{name} beside saved_model\.pb"):
        load_model(str(copy), TENSORFLOW)


def test_other_backends_do_not_care(copy):
    saved_model(copy / "saved_model", [node("WriteFile")])
    load_model(str(seal(copy)), RuntimeSpec())


def test_a_keras_file_that_names_code_is_refused_where_it_would_be_loaded(copy):
    with zipfile.ZipFile(copy / "model.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1]["class_name"] = "Lambda"
    with zipfile.ZipFile(copy / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**parts, "config.json": json.dumps(config).encode()}.items():
            archive.writestr(name, data)
    bundle = open_bundle(str(seal(copy)))
    with pytest.raises(ModelError, match="Lambda"):
        refuse_unsafe(bundle, lambda name: name == "model.keras")
    refuse_unsafe(bundle, RuntimeSpec().needs)  # LiteRT never opens it


def test_the_built_in_bundle_is_safe():
    refuse_unsafe(open_bundle("builtin"))


@pytest.mark.xdist_group("models")
def test_a_run_with_a_bundle_that_writes_a_file_is_refused_at_launch(copy, tmp_path, score, capsys):
    """TensorFlow made its SavedModel, with the right signature, but the graph writes a file whenever it scores."""
    import tensorflow as tf

    written = tmp_path / "written"
    stated = read_manifest(str(copy)).input

    class Evil(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, stated.height, stated.width, 3), tf.uint8, name="images")])
        def score(self, images):
            with tf.control_dependencies([tf.io.write_file(str(written), "x")]):
                return {"probabilities": tf.cast(images[:, 0, 0, :], tf.float32) / 765.0}

    evil = Evil()
    shutil.rmtree(copy / "saved_model")
    tf.saved_model.save(evil, str(copy / "saved_model"), signatures={"serving_default": evil.score})
    seal(copy)
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "photos" / "a.png")
    flags = ("--model", str(copy), "--set", "model.backend=tensorflow")
    output = score(tmp_path / "tables", tmp_path / "photos", flags=flags, template=None)
    assert output.code == 4
    assert "the operation WriteFile in the function" in capsys.readouterr().err
    assert not written.exists()
    assert not output.folder.exists()
    # What it would have done:
    tf.saved_model.load(str(copy / "saved_model")).signatures["serving_default"](
        images=tf.zeros((1, stated.height, stated.width, 3), tf.uint8)
    )
    assert written.read_text() == "x"
