"""`maskdet export` from end to end on the built-in bundle."""

from __future__ import annotations

import contextlib
import io
import re

import pytest

from maskdet.cli import main as command
from maskdet.cli.export import main
from maskdet.model.bundle import BUILTIN_FOLDER, open_bundle

pytestmark = [
    pytest.mark.xdist_group("models"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The built-in model in every format, and what the command printed."""
    folder = tmp_path_factory.mktemp("exports") / "compact"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert command.main(["export", "--model", "builtin", "--output", str(folder)]) == 0
    return folder, printed.getvalue()


def test_every_format_is_written_and_shown_with_size_and_difference(exported):
    folder, printed = exported
    bundle = open_bundle(str(folder))
    assert printed.startswith(f"{bundle.manifest.model_id}: {folder}\n")
    rows = re.findall(r"^  (\w+) +(\S+) +([\d.]+) +([\d.]+) +([\d.]+)  (\w+)$", printed, flags=re.MULTILINE)
    assert [(name, path, origin) for name, path, _, _, _, origin in rows] == [
        ("keras", "model.keras", "copied"),
        ("saved_model", "saved_model", "copied"),
        ("litert_float", "model_float.tflite", "copied"),
        ("litert_int8", "model.tflite", "copied"),
        ("onnx", "model.onnx", "made"),
    ]
    for _, path, size_mb, difference, allowed, _ in rows:
        files = [file for file in (folder / path, *(folder / path).rglob("*")) if file.is_file()]
        assert float(size_mb) == pytest.approx(sum(file.stat().st_size for file in files) / 1e6, abs=0.006)
        assert float(difference) <= float(allowed) <= 0.2


def test_the_bundle_scores_with_onnx_as_with_litert(exported, demo, score, tmp_path):
    model = ("--model", str(exported[0]), "--precision", "float32", "--set", "failure_budget.max_ratio=1")
    onnx = score(tmp_path / "onnx", demo.folder, flags=(*model, "--backend", "onnx"))
    litert = score(tmp_path / "litert", demo.folder, flags=model)
    assert onnx.code == litert.code == 0
    tables = [
        output.table("predictions").select(["image_uri", "probability_mask", "label"]) for output in (onnx, litert)
    ]
    assert tables[0].num_rows == tables[1].num_rows > 0
    assert tables[0]["image_uri"] == tables[1]["image_uri"]
    assert tables[0]["label"] == tables[1]["label"]
    assert tables[0]["probability_mask"].to_pylist() == pytest.approx(
        tables[1]["probability_mask"].to_pylist(), abs=1e-4
    )


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--model", "builtin", "--formats", "onnx,caffe"], 2, "received 'caffe'"),
        (["--model", "builtin", "--formats", " , "], 2, "some of keras,saved_model"),
        (["--model", "builtin", "--format", "onnx"], 2, "Did you mean"),
        (["--model", "/there/is/none", "--formats", "onnx"], 4, "a model bundle"),
    ],
)
def test_a_mistake_ends_with_its_exit_code_and_nothing_written(flags, code, message, tmp_path, capsys):
    assert main([*flags, "--output", str(tmp_path / "out")]) == code
    error = capsys.readouterr().err
    assert error.startswith("maskdet export: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_there_is_replaced_only_where_asked_for(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    before = (BUILTIN_FOLDER / "manifest.json").read_text()
    (tmp_path / "out" / "manifest.json").write_text(before)
    command = ["--model", "builtin", "--formats", "litert_int8", "--output", str(tmp_path / "out")]
    assert main(command) == 8
    error = capsys.readouterr().err
    assert "expected an absent or empty folder, received 'a model bundle'" in error and "--overwrite" in error
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "manifest.json"]
    assert (tmp_path / "out" / "manifest.json").read_text() == before
    assert main([*command, "--overwrite"]) == 0
    assert "model.tflite" in open_bundle(str(tmp_path / "out")).manifest.files


def test_an_output_in_the_way_is_kept(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["--model", "builtin", "--output", str(tmp_path), "--formats", "litert_int8"]) == 8
    assert "received 'something else'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
