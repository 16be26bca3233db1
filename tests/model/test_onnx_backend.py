"""ONNX Runtime as a backend: the same network, results that do not depend on the batch, and refusals."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
import pytest

from maskdet.errors import ModelError
from maskdet.model.backends import RuntimeSpec, load_model
from maskdet.model.bundle import BUILTIN_FOLDER
from maskdet.model.conversion import convert_bundle
from maskdet.model.manifest import InputSpec, Manifest

BLOCK = 6
SPEC = RuntimeSpec("onnx", "float32", threads=2, block_images=BLOCK)

pytestmark = [
    pytest.mark.xdist_group("models"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The built-in model as ONNX, without any other format."""
    folder = tmp_path_factory.mktemp("onnx") / "compact"
    convert_bundle("builtin", folder, ["onnx"])
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_model(str(folder), SPEC)


def some_images(count, seed=0):
    """Noise, and blends of it with golden images."""
    with np.load(BUILTIN_FOLDER / "golden.npz") as arrays:
        inputs = arrays["inputs"]
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, *inputs.shape[1:])).astype(np.uint8)
    share = rng.random((count, 1, 1, 1))
    return (share * noise + (1 - share) * inputs[np.arange(count) % len(inputs)]).astype(np.uint8)


def test_it_runs_the_network_that_litert_runs(model):
    images = some_images(3 * BLOCK + 1)
    result = model.predict(images)
    assert (result.dtype, result.shape) == (np.float32, (len(images), len(model.manifest.class_names)))
    expected = load_model("builtin", RuntimeSpec("litert", "float32")).predict(images)
    assert expected.std() > 0.1
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_an_image_has_its_probability_in_any_place_and_company(model):
    images = some_images(2 * BLOCK, seed=1)
    alone = np.concatenate([model.predict(image[None]) for image in images])
    rng = np.random.default_rng(1)
    for count in (1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 2):
        chosen = rng.integers(0, len(images), count)
        assert np.array_equal(model.predict(images[chosen]), alone[chosen]), (count, chosen)


def test_threads_may_share_a_model(model):
    images = some_images(4 * BLOCK, seed=2)
    expected = model.predict(images)
    starts = [*range(0, len(images), BLOCK)] * 6
    with ThreadPoolExecutor(6) as pool:
        results = pool.map(lambda start: model.predict(images[start : start + BLOCK]), starts)
        for start, result in zip(starts, results, strict=True):
            assert np.array_equal(result, expected[start : start + BLOCK])


def test_it_reads_its_own_file_and_states_its_runtime():
    names = ["golden.npz", "model.keras", "model.onnx", "model.tflite", "model_float.tflite", "saved_model/a"]
    assert [name for name in names if SPEC.needs(name)] == ["golden.npz", "model.onnx"]
    assert SPEC.output_name == "onnx_float32"
    assert SPEC.runtime_version == f"onnxruntime {metadata.version('onnxruntime')}"


def test_scoring_brings_no_tensorflow(folder):
    code = (
        "import sys; from maskdet.model.backends import *;"
        f"load_model({str(folder)!r}, RuntimeSpec('onnx', 'float32'));"
        "sys.exit(any(name.split('.')[0] in ('tensorflow', 'keras', 'tf2onnx', 'onnx') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("spec", [RuntimeSpec("onnx", "float32"), RuntimeSpec("tensorflow", "float32"), RuntimeSpec()])
def test_a_bundle_without_the_runtime_s_file_is_said_with_the_command_that_makes_it(spec, folder):
    uri = "builtin" if spec.backend == "onnx" else str(folder)
    with pytest.raises(ModelError, match=f"for backend '{spec.backend}'.*maskdet export --model {uri} --output"):
        load_model(uri, spec)


def test_another_input_than_the_manifest_says_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    manifest = Manifest.model_validate_json((copy / "manifest.json").read_text())
    changed = manifest.model_copy(update={"input": InputSpec(height=48, width=64)}).sealed()
    (copy / "manifest.json").write_text(changed.to_json())
    with pytest.raises(ModelError, match=r"expected input uint8 \(batch, 48, 64, 3\)"):
        load_model(str(copy), SPEC)
