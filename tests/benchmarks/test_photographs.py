"""The comparison on photographs: what is counted, measured and printed, for small files and hand-written tables."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.comparison import Run
from benchmarks.face_quality import read_found, read_truth
from benchmarks.int8_peak import measure_peak
from benchmarks.models import BUILTIN
from benchmarks.multiply_adds import _of_network, _of_operation
from benchmarks.photographs import LABELS, _photographs, table
from benchmarks.worktrees import REPOSITORY, command_module

VOC = """<annotation><filename>a.jpg</filename>{}</annotation>"""
FACE = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def row(name, box, label, score=0.9):
    left, top, right, bottom = box
    edges = {"face_left_px": left, "face_top_px": top, "face_width_px": right - left, "face_height_px": bottom - top}
    return {"image_uri": f"/x/{name}", **edges, "face_score": score, "label": label}


def photograph(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


@pytest.fixture
def contest(tmp_path):
    """Two originals, three photographs of them at four times the size, and the originals' annotations."""
    photograph(tmp_path / "in" / "a.jpg", (200, 100))
    photograph(tmp_path / "in" / "b.jpg", (100, 100))
    faces = [
        ("with_mask", 10, 10, 30, 34),
        ("blurred", 50, 10, 90, 50),
        ("without_mask", 100, 10, 170, 90),
    ]
    (tmp_path / "in" / "a.xml").write_text(VOC.format("".join(FACE.format(*face) for face in faces)))
    (tmp_path / "in" / "b.xml").write_text(VOC.format(""))
    folder, originals = _photographs(tmp_path / "in", 3, 200 * 100 * 16 / 1e6, tmp_path / "work")
    return folder, originals, tmp_path


def test_photographs_are_enlarged_and_repeated_and_know_their_originals(contest):
    folder, originals, tmp_path = contest
    assert sorted(path.name for path in folder.iterdir()) == ["0-a.jpg", "0-b.jpg", "1-a.jpg"] == sorted(originals)
    assert originals["1-a.jpg"] == (tmp_path / "in" / "a.jpg", 4.0)
    with Image.open(folder / "1-a.jpg") as image:
        assert image.size == (800, 400)


def test_quality_is_measured_in_the_originals_pixels(contest):
    folder, originals, tmp_path = contest
    truth = read_truth(str(tmp_path / "in"), folder, originals, "blurred")
    rows = [
        row("0-a.jpg", (40, 40, 120, 136), "mask"),  # four times 10, 10, 30, 34: right
        row("0-a.jpg", (400, 40, 680, 360), "mask"),  # the bare face, labelled wrong
        row("0-b.jpg", (0, 0, 40, 40), "no_mask"),  # no face
        row("1-a.jpg", (400, 40, 680, 360), "no_mask"),
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "out.parquet")
    quality = truth.compare(tmp_path / "out.parquet")
    assert quality.bands == ("16–32 px", "32–64 px", "≥ 64 px")
    assert [one.value for one in quality.found.values()] == [0.5, 0, 1]  # of two faces each, one in each copy of a
    assert quality.unmatched.value == pytest.approx(1 / 3)
    assert quality.end_to_end.value == 0.5  # of the two bare faces; labels of blurred ones are ignored
    assert quality.cells()[0].startswith("0.500 (") and quality.cells()[3].startswith("0.33 (")


def test_tables_of_a_run_and_a_peer_s_file_are_read_alike(tmp_path):
    rows = [row("a.jpg", (1, 2, 11, 22), "mask"), row("a.jpg", (5, 5, 9, 9), "no_mask", 0.5)]
    (tmp_path / "run" / "predictions" / "site=1").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "run" / "predictions" / "x.parquet")
    pq.write_table(pa.Table.from_pylist(rows[1:]), tmp_path / "run" / "predictions" / "site=1" / "y.parquet")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "peer.parquet")
    for output in ("run", "peer.parquet"):
        found = read_found(tmp_path / output)["a.jpg"]
        by_score = np.argsort(-found.scores)
        np.testing.assert_array_equal(found.boxes[by_score], [[1, 2, 11, 22], [5, 5, 9, 9]])
        assert [found.labels[i] for i in by_score] == ["mask", "no_mask"]


def test_the_table_names_the_fastest_first():
    runs = [Run("maskdet", 1, 0, 4.0, 6.0, 100.0), Run("maskdet", 2, 0, 6.0, 6.0, 120.0)]
    runs += [Run("yunet_loop", round_, 0, 2.0, 3.0, 90.0) for round_ in (1, 2)]
    lines = table(runs, {}, 100).splitlines()
    assert lines[2] == f"| {LABELS['yunet_loop']} | 50.0 | 2.0 | 30.0 | 90 |"
    assert lines[3] == f"| {LABELS['maskdet']} | 20.0 | 5.0 (4.0–6.0) | 60.0 | 110 (100–120) |"


def test_multiply_adds_of_an_operation_are_those_of_its_shapes():
    shapes = {0: [1, 8, 6, 3], 1: [16, 5, 5, 3], 2: [1, 4, 3, 16], 3: [1, 3, 3, 16], 4: [16, 2, 2, 16], 5: [1, 10]}
    shapes |= {6: [10, 48], 7: [4]}

    def adds(name, inputs, output):
        return _of_operation({"op_name": name, "inputs": inputs, "outputs": [output]}, shapes)

    assert adds("CONV_2D", [0, 1], 2) == (4 * 3 * 16) * (5 * 5 * 3)
    assert adds("DEPTHWISE_CONV_2D", [2, 3], 2) == (4 * 3 * 16) * (3 * 3)
    assert adds("TRANSPOSE_CONV", [7, 4, 2], 2) == (4 * 3) * (16 * 2 * 2 * 16)
    assert adds("FULLY_CONNECTED", [2, 6], 5) == 10 * 48
    assert adds("ADD", [2, 2], 2) == 0


@pytest.mark.xdist_group("models")
def test_the_classifier_s_multiply_adds_are_those_of_its_layers():
    """The manifest's network, counted from the Keras file's layers."""
    import keras

    model = keras.models.load_model(BUILTIN / "model.keras", compile=False)
    expected = 0
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            expected += np.prod(layer.output.shape[1:]) * np.prod(layer.kernel.shape[:2])
        elif isinstance(layer, keras.layers.Conv2D):
            expected += np.prod(layer.output.shape[1:]) * np.prod(layer.kernel.shape[:3])
        elif isinstance(layer, keras.layers.Dense):
            expected += np.prod(layer.kernel.shape)
    adds, area = _of_network(BUILTIN / "model.tflite")
    assert adds == pytest.approx(expected, rel=0.02)
    assert area == np.prod(model.input.shape[1:3])


def test_the_peak_is_that_of_a_machine():
    peak = measure_peak(0.1)
    assert 1e8 < peak.one_core < 1e14 and peak.all_cores > peak.one_core / 4


def test_revisions_have_their_command_line(tmp_path):
    assert command_module(REPOSITORY) == "maskdet.cli.main"
    assert command_module(tmp_path) == "pipelines.cli"
