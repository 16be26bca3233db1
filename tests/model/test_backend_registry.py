"""Backends by name: the package's own, one that another package adds, and how one is chosen."""

import dataclasses
import sys
from importlib import metadata

import numpy as np
import pytest

from maskdet.errors import ConfigError, ModelError
from maskdet.model import onnx_export
from maskdet.model.backends import RuntimeSpec, choosing, load_model
from maskdet.model.backends.choosing import Candidate, choose_runtime
from maskdet.model.backends.registry import BUILT_IN, backend_names, find_backend
from maskdet.model.bundle import read_manifest

TOY = """
from maskdet.model.backends.base import BackendType
from maskdet.model.backends.litert import LiteRTBackend
TOY = BackendType("toy", "toy-backend", "toy-backend", {"float32": "litert_float"}, LiteRTBackend)
NO_BACKEND = "a text"
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """An installed package that adds backends: one that runs LiteRT's float file, and two that are faulty."""
    (tmp_path / "toy_backend.py").write_text(TOY)
    info = tmp_path / "toy_backend-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-backend\nVersion: 3.1\n")
    entries = "toy = toy_backend:TOY\nbroken = no_such_module:X\nwrong = toy_backend:NO_BACKEND\n"
    (info / "entry_points.txt").write_text(f"[maskdet.backends]\n{entries}")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield
    sys.modules.pop("toy_backend", None)


def manifest_with(*names):
    """The built-in bundle's manifest, reduced to these files."""
    manifest = read_manifest("builtin")
    some = next(iter(manifest.files.values()))
    return manifest.model_copy(update={"files": dict.fromkeys(names, some)})


def test_a_package_adds_a_backend_that_runs_a_bundle(toy):
    assert backend_names() == [*BUILT_IN, "broken", "toy", "wrong"]
    spec = RuntimeSpec("toy", "float32")
    assert (spec.runtime_version, spec.output_name) == ("toy-backend 3.1", "litert_float32")
    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3)).astype(np.uint8)
    expected = load_model("builtin", RuntimeSpec("litert", "float32")).predict(images)
    np.testing.assert_array_equal(load_model("builtin", spec).predict(images), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lite-rt", "Did you mean 'litert'"),
        ("tensorrt", "one of litert, tensorflow, onnx, broken, toy, wrong, auto"),
        ("broken", "ModuleNotFoundError"),
        ("wrong", "a BackendType of this name"),
    ],
)
def test_a_backend_that_is_not_there_or_not_right_is_refused(toy, name, message):
    with pytest.raises(ConfigError, match=message):
        find_backend(name)


@pytest.mark.parametrize(
    ("files", "given", "expected"),
    [
        (("model.tflite", "model_float.tflite", "model.onnx"), (None, None), ("litert", "int8")),
        (("model.tflite", "model_float.tflite"), (None, "float32"), ("litert", "float32")),
        (("model_float.tflite", "saved_model/saved_model.pb"), (None, None), ("litert", "float32")),
        (("saved_model/saved_model.pb", "model.onnx"), (None, None), ("tensorflow", "float32")),
        (("model.onnx",), (None, None), ("onnx", "float32")),
        (("model.tflite", "model.onnx"), ("onnx", None), ("onnx", "float32")),
        (("model.onnx",), ("litert", None), ("litert", "int8")),  # loading says that the file is missing
        ((), (None, None), ("litert", "int8")),
    ],
)
def test_without_a_choice_the_bundle_s_files_decide(files, given, expected):
    assert choose_runtime("a bundle", manifest_with(*files), *given) == Candidate(*expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("onnx", "int8"), "model.precision: expected float32, which backend 'onnx' runs"),
        (("litert", None, "cuda"), "model.device: expected one of cpu for backend litert"),
    ],
)
def test_what_a_backend_cannot_do_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        choose_runtime("builtin", manifest_with("model.tflite"), *given)


def test_auto_takes_the_fastest_that_is_installed(toy, monkeypatch):
    seconds = {("litert", "int8"): 0.3, ("litert", "float32"): 0.2, ("toy", "float32"): 0.1}
    monkeypatch.setattr(choosing, "_block_seconds", lambda uri, one, device: seconds[one])
    monkeypatch.setattr(choosing, "backend_names", lambda: ["litert", "tensorflow", "toy"])
    manifest = manifest_with("model.tflite", "model_float.tflite")
    assert choose_runtime("builtin", manifest, "auto", None) == ("toy", "float32")
    assert choose_runtime("builtin", manifest, "auto", "int8") == ("litert", "int8")


def test_auto_measures_blocks_of_the_bundle():
    assert choosing._block_seconds("builtin", Candidate("litert", "int8"), "cpu") > 0


def test_auto_without_any_that_runs_the_bundle_says_how_to_make_one(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ModelError, match="maskdet export --model builtin"):
        choose_runtime("builtin", manifest_with("model.onnx"), "auto", None)


def test_a_device_is_part_of_what_ran():
    spec = RuntimeSpec("onnx", "float32")
    assert dataclasses.replace(spec, device="cuda").runtime_version == f"{spec.runtime_version} on cuda"


def test_without_a_gpu_a_gpu_is_refused_with_what_to_install():
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime runs on GPUs")
    with pytest.raises(ModelError, match=r"CUDAExecutionProvider, received '.*CPUExecutionProvider'.*onnxruntime-gpu"):
        onnx_export.open_session_of(b"", "cuda")


def test_a_provider_that_gives_way_to_another_is_refused(identity, monkeypatch):
    """ONNX Runtime goes on without a provider that it cannot start: the run is then slow, or its bits differ."""
    monkeypatch.setitem(onnx_export.PROVIDERS, "cuda", ("AzureExecutionProvider", {}))
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider"])
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *given, providers: real(*given, providers=["CPUExecutionProvider"])
    )
    with pytest.raises(ModelError, match="do driver, CUDA and cuDNN fit"):
        onnx_export.open_session_of(identity, "cuda")


def test_the_path_of_a_device_runs_on_another_provider(identity, monkeypatch):
    """The code path of a GPU, with the CPU's provider in its place: this was written without a GPU."""
    monkeypatch.setitem(onnx_export.PROVIDERS, "cuda", onnx_export.PROVIDERS["cpu"])
    session = onnx_export.open_session_of(identity, "cuda")
    np.testing.assert_array_equal(session.run(None, {"x": np.float32([1, 2])})[0], np.float32([1, 2]))


@pytest.fixture
def identity():
    """An ONNX file whose output is its input."""
    onnx = pytest.importorskip("onnx")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8
    ).SerializeToString()
