"""A detector of your own: recognised by its outputs, made to accept any size, verified like any other."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskdet.config import FacesSettings
from maskdet.errors import ModelError
from maskdet.faces.bundle import open_detector
from maskdet.faces.detector import load_detector
from maskdet.faces.importing import import_detector

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def network(names):
    """A network that gives its input under some names."""
    canvas = onnx.helper.make_tensor_value_info("canvas", onnx.TensorProto.FLOAT, [1, 3, 32, 32])
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 32, 32]) for name in names]
    nodes = [onnx.helper.make_node("Identity", ["canvas"], [name]) for name in names]
    graph = onnx.helper.make_graph(nodes, "network", [canvas], outputs)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)


def test_a_network_with_other_outputs_is_refused_and_nothing_written(tmp_path):
    onnx.save(network(["boxes", "scores"]), str(tmp_path / "other.onnx"))
    with pytest.raises(ModelError, match="boxes, scores"):
        import_detector(tmp_path / "other.onnx", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_file_that_is_no_network_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ModelError, match="ONNX file"):
        import_detector(tmp_path / "text.onnx", tmp_path / "bundle")


def test_a_bundle_is_told_by_its_outputs_and_takes_any_size(tmp_path):
    onnx.save(network(["537", "538", "539", "540"]), str(tmp_path / "centerface.onnx"))
    manifest = import_detector(tmp_path / "centerface.onnx", tmp_path / "bundle")
    assert (manifest.architecture, manifest.runtime, manifest.licence) == ("centerface", "onnx", "MIT")
    bundle = open_detector(tmp_path / "bundle")
    canvas, maps = bundle.golden()
    assert maps["537"].shape == (3, *canvas.shape[:2])  # exported for 32 x 32
    np.testing.assert_array_equal(maps["538"], canvas.transpose(2, 0, 1))


@pytest.mark.data
def test_yunet_finds_a_face(data_folder, tmp_path):
    file = Path(os.environ.get("MASKDET_PEERS", "../shared/peers")) / "yunet_n_640.onnx"
    if not file.is_file():
        pytest.skip(f"no {file}; set MASKDET_PEERS")
    import_detector(file, tmp_path / "bundle")
    face = Image.open(sorted((data_folder / "k12" / "Test" / "WithoutMask").iterdir())[0]).convert("RGB")
    street = Image.new("RGB", (640, 480), (120, 130, 125))
    street.paste(face.resize((120, 120)), (200, 100))
    found = load_detector(FacesSettings(), folder=tmp_path / "bundle").detect(street)
    assert len(found.scores) == 1
    assert np.abs(found.boxes[0] - (212, 104, 308, 216)).max() < 20
