"""The runtimes on the built-in bundle: golden results, results that do not depend on the batch, and refusals."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
import pytest

from maskdet.errors import ModelError
from maskdet.model.backends import Model, RuntimeSpec, load_model, registry
from maskdet.model.backends.litert import LITERT
from maskdet.model.bundle import BUILTIN_FOLDER
from maskdet.model.manifest import BundleFile, InputSpec, Manifest
from maskdet.testing import BrightnessBackend, brightness_model

BLOCK = 6
TENSORFLOW = pytest.param("tensorflow", "float32", marks=pytest.mark.xdist_group("models"))
RUNTIMES = pytest.mark.parametrize(("backend", "precision"), [("litert", "int8"), ("litert", "float32"), TENSORFLOW])
_loaded: dict[RuntimeSpec, Model] = {}


def loaded(backend, precision, **changes):
    """The built-in model, loaded once for all tests of a runtime."""
    spec = RuntimeSpec(backend, precision, **{"threads": 2, "block_images": BLOCK, **changes})
    if spec not in _loaded:
        _loaded[spec] = load_model("builtin", spec)
    return _loaded[spec]


def golden():
    with np.load(BUILTIN_FOLDER / "golden.npz") as arrays:
        return dict(arrays)


def some_images(count, seed=0):
    """Golden images, noise, and blends of both."""
    inputs = golden()["inputs"]
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, *inputs.shape[1:])).astype(np.uint8)
    share = rng.random((count, 1, 1, 1))
    return (share * noise + (1 - share) * inputs[np.arange(count) % len(inputs)]).astype(np.uint8)


class TestResults:
    @RUNTIMES
    def test_golden_outputs_are_reproduced(self, backend, precision):
        arrays = golden()
        expected = arrays[f"{backend}_{precision}"]
        result = loaded(backend, precision).run(arrays["inputs"])
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=0.05 if precision == "int8" else 1e-4)
        assert expected.max() - expected.min() > 0.05  # or it would prove nothing

    @RUNTIMES
    def test_all_runtimes_run_the_same_network(self, backend, precision):
        images = some_images(24)
        reference = loaded("litert", "float32").predict(images)
        tolerance = 0.15 if precision == "int8" else 1e-4
        np.testing.assert_allclose(loaded(backend, precision).predict(images), reference, atol=tolerance)

    @RUNTIMES
    def test_an_image_has_its_probability_in_any_place_and_company(self, backend, precision):
        model, images = loaded(backend, precision), some_images(2 * BLOCK)
        alone = np.concatenate([model.predict(image[None]) for image in images])
        rng = np.random.default_rng(1)
        for count in (1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 2):
            for _ in range(4):
                chosen = rng.integers(0, len(images), count)
                assert np.array_equal(model.predict(images[chosen]), alone[chosen]), (count, chosen)

    @RUNTIMES
    def test_companions_of_any_kind_change_nothing(self, backend, precision):
        model, image = loaded(backend, precision), some_images(1)
        alone = model.predict(image)
        for filler in (np.zeros_like(image), np.full_like(image, 255), some_images(1, seed=7)):
            for place in range(BLOCK):
                block = np.repeat(filler, BLOCK, axis=0)
                block[place] = image[0]
                assert np.array_equal(model.predict(block)[place], alone[0])

    @RUNTIMES
    def test_no_images_have_no_probabilities(self, backend, precision):
        model = loaded(backend, precision)
        result = model.predict(np.empty((0, *golden()["inputs"].shape[1:]), np.uint8))
        assert (result.shape, result.dtype) == ((0, len(model.manifest.class_names)), np.float32)

    @RUNTIMES
    def test_threads_may_share_a_model(self, backend, precision):
        model, images = loaded(backend, precision), some_images(4 * BLOCK)
        expected = model.predict(images)
        starts = [*range(0, len(images), BLOCK)] * 6
        with ThreadPoolExecutor(6) as pool:
            results = pool.map(lambda start: model.predict(images[start : start + BLOCK]), starts)
            for start, result in zip(starts, results, strict=True):
                assert np.array_equal(result, expected[start : start + BLOCK])

    @RUNTIMES
    def test_a_result_is_not_overwritten_by_the_next_one(self, backend, precision):
        model, images = loaded(backend, precision, threads=1), some_images(2 * BLOCK)
        first = model.predict(images[:BLOCK])
        kept = first.copy()
        model.predict(images[BLOCK:])
        assert np.array_equal(first, kept)

    @pytest.mark.parametrize("precision", ["int8", "float32"])
    def test_the_size_of_blocks_changes_nothing(self, precision):
        images = some_images(7)
        results = [loaded("litert", precision, block_images=size).predict(images) for size in (1, 4, BLOCK, 32)]
        assert all(np.array_equal(result, results[0]) for result in results)

    @RUNTIMES
    def test_probabilities_lie_between_0_and_1(self, backend, precision):
        result = loaded(backend, precision).predict(some_images(32, seed=3))
        assert ((result >= 0) & (result <= 1)).all()


class TestBlocks:
    class Recording(BrightnessBackend):
        def __init__(self):
            super().__init__()
            self.blocks = []

        def run(self, block):
            self.blocks.append(block.copy())
            return super().run(block)

    @pytest.mark.parametrize("count", range(1, 14))
    def test_every_block_is_whole_and_padded_with_zeros(self, count):
        backend = self.Recording()
        images = np.random.default_rng(count).integers(1, 256, (count, 16, 16, 3)).astype(np.uint8)
        result = Model(brightness_model().manifest, backend, 4).run(images)
        assert [block.shape for block in backend.blocks] == [(4, 16, 16, 3)] * -(-count // 4)
        joined = np.concatenate(backend.blocks)
        assert np.array_equal(joined[:count], images)
        assert not joined[count:].any()
        np.testing.assert_allclose(result, images.reshape(count, -1).mean(axis=1) / 255, rtol=1e-6)

    def test_litert_runs_as_many_blocks_at_once_as_it_has_threads(self):
        backend = loaded("litert", "int8")._backend
        taken = [backend._take() for _ in range(2)]
        block = some_images(BLOCK)
        done = threading.Event()
        thread = threading.Thread(target=lambda: (backend.run(block), done.set()))
        thread.start()
        assert not done.wait(0.1)
        for interpreter in taken:
            backend._give_back(interpreter)
        assert done.wait(10)
        thread.join()

    def test_a_thread_keeps_its_interpreter_while_others_come_and_go(self):
        backend = loaded("litert", "int8")._backend

        def borrowed():
            interpreter = backend._take()
            backend._give_back(interpreter)
            return interpreter

        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
            mine = one.submit(borrowed).result()
            held = one.submit(backend._take).result()
            theirs = other.submit(borrowed).result()
            backend._give_back(held)
            again = [pool.submit(borrowed).result() for pool in (one, other, other, one, one, other)]
        assert held is mine
        assert theirs is not mine
        assert again == [mine, theirs, theirs, mine, mine, theirs]


class TestSpec:
    @pytest.mark.parametrize(
        ("spec", "output", "needed"),
        [
            (RuntimeSpec(), "litert_int8", {"golden.npz", "model.tflite"}),
            (RuntimeSpec("litert", "float32"), "litert_float32", {"golden.npz", "model_float.tflite"}),
            (
                RuntimeSpec("tensorflow", "float32"),
                "tensorflow_float32",
                {"golden.npz", "saved_model/a", "saved_model/b/c"},
            ),
        ],
    )
    def test_each_runtime_fetches_what_it_reads(self, spec, output, needed):
        names = ["golden.npz", "model.keras", "model.tflite", "model_float.tflite", "saved_model/a", "saved_model/b/c"]
        assert spec.output_name == output
        assert {name for name in names if spec.needs(name)} == needed

    @pytest.mark.parametrize(("backend", "package"), [("litert", "ai-edge-litert"), ("tensorflow", "tensorflow")])
    def test_the_runtime_s_version_is_the_installed_one(self, backend, package):
        assert RuntimeSpec(backend, "float32").runtime_version == f"{package} {metadata.version(package)}"

    @pytest.mark.parametrize(
        ("backend", "package", "command"),
        [
            ("litert", "ai-edge-litert", "'maskdet'"),
            ("tensorflow", "tensorflow", "'maskdet[tensorflow]'"),
            ("onnx", "onnxruntime", "'maskdet[onnx]'"),
        ],
    )
    def test_a_missing_package_is_said_with_the_command_that_installs_it(self, backend, package, command, monkeypatch):
        def missing(name):
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, "version", missing)
        with pytest.raises(ModelError) as caught:
            load_model("/there/is/none", RuntimeSpec(backend, "float32"))
        assert f"expected the package {package}, received 'none installed'" in str(caught.value)
        assert str(caught.value).endswith(f"Run: pip install {command}.")

    def test_litert_brings_no_tensorflow(self):
        code = (
            "import sys; from maskdet.model.backends import *; load_model('builtin', RuntimeSpec(block_images=2));"
            "sys.exit('tensorflow' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.fixture
def copy(tmp_path):
    """A copy of the built-in bundle to spoil."""
    return shutil.copytree(BUILTIN_FOLDER, tmp_path / "bundle")


def reseal(folder, files=None, **changes):
    """Change a bundle as its exporter could: hashes and fingerprint match."""
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    listed = dict(manifest.files)
    for name, data in (files or {}).items():
        if data is None:
            del listed[name]
        else:
            (folder / name).write_bytes(data)
            listed[name] = BundleFile(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    changed = manifest.model_copy(update={"files": listed, **changes}).sealed()
    (folder / "manifest.json").write_text(changed.to_json())
    return str(folder)


def with_golden(folder, **arrays):
    stream = io.BytesIO()
    np.savez(stream, **{name: array for name, array in {**golden(), **arrays}.items() if array is not None})
    return reseal(folder, {"golden.npz": stream.getvalue()})


class TestRefusals:
    @RUNTIMES
    @pytest.mark.parametrize("off", [0.2, float("nan")])
    def test_other_results_than_golden_are_refused(self, copy, backend, precision, off):
        name = f"{backend}_{precision}"
        expected = golden()[name].copy()
        expected[3] += off
        with pytest.raises(ModelError, match="its golden outputs within"):
            load_model(with_golden(copy, **{name: expected}), RuntimeSpec(backend, precision, block_images=BLOCK))

    @pytest.mark.parametrize(
        ("precision", "off", "refused"),
        [("int8", 0.04, False), ("int8", 0.06, True), ("float32", 5e-4, False), ("float32", 2e-3, True)],
    )
    def test_the_tolerance_allows_for_other_processors(self, copy, precision, off, refused):
        spec = RuntimeSpec("litert", precision, block_images=BLOCK)
        arrays = golden()
        shifted = loaded("litert", precision).run(arrays["inputs"]) + np.float32(off)
        uri = with_golden(copy, **{f"litert_{precision}": shifted})
        if refused:
            with pytest.raises(ModelError, match="golden outputs"):
                load_model(uri, spec)
        else:
            load_model(uri, spec)

    def test_golden_outputs_of_this_runtime_must_be_there(self, copy):
        with pytest.raises(ModelError, match="golden outputs 'litert_int8'"):
            load_model(with_golden(copy, litert_int8=None), RuntimeSpec())

    @pytest.mark.parametrize(
        "arrays", [{"inputs": np.zeros((8, 20, 20, 3), np.uint8)}, {"litert_int8": np.zeros(3, np.float32)}]
    )
    def test_golden_arrays_of_another_shape_are_refused(self, copy, arrays):
        with pytest.raises(ModelError, match="golden inputs"):
            load_model(with_golden(copy, **arrays), RuntimeSpec(block_images=BLOCK))

    @RUNTIMES
    def test_another_input_than_the_manifest_says_is_refused(self, copy, backend, precision):
        uri = reseal(copy, input=InputSpec(height=48, width=64))
        with pytest.raises(ModelError, match=r"expected input uint8 \(batch, 48, 64, 3\)"):
            load_model(uri, RuntimeSpec(backend, precision, block_images=BLOCK))

    @pytest.mark.parametrize(
        ("backend", "precision", "name"),
        [
            ("litert", "int8", "model.tflite"),
            ("litert", "float32", "model_float.tflite"),
            pytest.param(
                "tensorflow", "float32", "saved_model/saved_model.pb", marks=pytest.mark.xdist_group("models")
            ),
        ],
    )
    @pytest.mark.parametrize("harm", ["changed", "damaged", "unlisted", "missing"])
    def test_a_model_file_that_is_not_whole_is_refused(self, copy, backend, precision, name, harm):
        data = (copy / name).read_bytes()
        uri = str(copy)
        if harm == "changed":
            (copy / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif harm == "damaged":  # by the exporter itself
            reseal(copy, {name: data[: len(data) // 2]})
        elif harm == "unlisted":  # no hash covers it
            reseal(copy, {name: None})
        else:
            reseal(copy, {name: None})
            (copy / name).unlink()
        with pytest.raises(ModelError) as caught:
            load_model(uri, RuntimeSpec(backend, precision, block_images=BLOCK))
        unreadable = "expected a SavedModel" if backend == "tensorflow" else "cannot load it"
        expected = {"changed": "SHA-256", "damaged": unreadable, "unlisted": "manifest lists", "missing": ""}
        assert expected[harm] in str(caught.value)

    def test_what_the_runtime_does_not_read_may_be_damaged(self, copy):
        (copy / "model.keras").write_bytes(b"x")
        (copy / "notes.txt").write_text("mine")
        load_model(str(copy), RuntimeSpec(block_images=BLOCK))

    @pytest.mark.xdist_group("models")
    def test_a_file_slipped_into_the_saved_model_is_refused(self, copy):
        (copy / "saved_model" / "saved_model.cpb").write_bytes(b"x")
        with pytest.raises(ModelError, match=r"saved_model\.cpb"):
            load_model(str(copy), RuntimeSpec("tensorflow", "float32"))

    @pytest.mark.parametrize("how", ["by place", "by company"])
    def test_a_backend_that_lets_images_change_each_other_is_refused(self, how, monkeypatch):
        sound = loaded("litert", "int8")._backend  # before "litert" means the other

        class Leaking:
            def __init__(self, bundle, spec):
                self.inner = sound

            def run(self, block):
                right = self.inner.run(block)
                if how == "by place":
                    return (right.T + np.linspace(0, 1e-3, len(right), dtype=np.float32)).T
                return right + np.float32(1e-3 * block.mean() / 255)

        leaking = dataclasses.replace(LITERT, make=Leaking)
        monkeypatch.setattr(registry, "BUILT_IN", {**registry.BUILT_IN, "litert": leaking})
        with pytest.raises(ModelError, match="whatever else is in its block"):
            load_model("builtin", RuntimeSpec(block_images=BLOCK))
