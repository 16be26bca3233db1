"""The history of a training, read back and drawn."""

import re

import pytest

from maskdet.config import load_yaml
from maskdet.errors import ConfigError
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.evaluation.training_history import find_history, read_history
from maskdet.report.charts import history_chart, nice_ticks

TEXT = """epoch,accuracy,loss,val_accuracy,val_loss,duration_s
0,0.5,1.0,0.25,2.0,3.5
1,0.75,nan,0.5,,3.25
2,1.0,0.25,0.75,0.5,3
"""


def written(path, text=TEXT):
    path.write_text(text)
    return str(path)


def test_epochs_count_from_one_and_what_is_no_number_is_a_gap(tmp_path):
    history = read_history(written(tmp_path / "m.history.csv"))
    assert history.epochs == (1, 2, 3)
    assert history.curves("loss") == {"training": (1.0, None, 0.25), "validation": (2.0, None, 0.5)}
    assert history.curves("accuracy")["training"] == (0.5, 0.75, 1.0)
    assert history.columns["duration_s"] == (3.5, 3.25, 3.0)


def test_a_training_without_validation_has_one_curve(tmp_path):
    history = read_history(written(tmp_path / "m.history.csv", "epoch,loss,val_loss\n0,0.5,\n"))
    assert history.curves("loss") == {"training": (0.5,)}
    assert history.curves("accuracy") == {}


@pytest.mark.parametrize(
    "content", [b"", b"epoch,loss\n", b"step,loss\n1,2\n", b"epoch,loss\nfirst,2\n", b"\xff\xfe"], ids=str
)
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=r"history .*m\.csv: expected CSV of a training"):
        read_history(str(tmp_path / "m.csv"))


def test_the_history_lies_beside_the_bundle_or_where_it_is_said_to(tmp_path):
    def found(*overrides):
        return find_history(load_yaml(EvaluateSettings, None, overrides))

    assert found() is None  # the built-in model has none
    assert found(f"model.uri={tmp_path}/model/") is None
    beside = written(tmp_path / "model.history.csv")
    assert found(f"model.uri={tmp_path}/model/") == beside
    named = written(tmp_path / "other.csv")
    assert found(f"model.uri={tmp_path}/model", f"history={named}") == named
    with pytest.raises(ConfigError, match="history: expected a file"):
        found(f"history={tmp_path}/none.csv")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (0.01, 0.21, [0.0, 0.05, 0.1, 0.15, 0.2, 0.25]),
        (0.96, 0.999, [0.96, 0.97, 0.98, 0.99, 1.0]),
        (3.0, 3.0, [3.0, 4.0]),
        (0.0, 0.0, [0.0, 0.5]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low, high, expected):
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_a_gap_breaks_the_line_and_every_epoch_has_its_dot():
    drawn = history_chart((1, 2, 3, 4), {"training": ("bare", (1.0, None, 0.0, 0.5))}, "loss")
    lines = [points.split() for points in re.findall(r'<polyline class="curve bare" points="([^"]+)"', drawn)]
    assert [len(points) for points in lines] == [1, 2]
    heights = [float(y) for y in re.findall(r'<circle class="epoch bare" cx="[\d.]+" cy="([\d.]+)"', drawn)]
    # The frame is 320 units high, from 12 (the highest tick, 1) to 332 (the lowest, 0).
    assert heights == pytest.approx([12, 332, 172])
    assert re.findall(r"epoch (\d), training: ([\d.]+)", drawn) == [("1", "1.0000"), ("3", "0.0000"), ("4", "0.5000")]
