"""A bundle by MLflow's contract of loader modules; with MLflow itself where it is installed."""

from __future__ import annotations

import io
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from maskdet.api import open_model
from maskdet.demo.drawing import draw_face
from maskdet.errors import ConfigError
from maskdet.model.bundle import BUILTIN_FOLDER
from maskdet.scoring import pyfunc


def png(image):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def images():
    canvas = np.full((320, 400, 3), 90, np.uint8)
    canvas[60:220, 100:260] = np.asarray(draw_face(np.random.default_rng(3), 160, masked=True))
    return pd.DataFrame({"image": [png(canvas), b"no image", png(np.zeros((40, 50, 3), np.uint8))]}, index=[7, 8, 9])


def check(found, images):
    """One row per image, in order, equal to the model's own answer."""
    expected = open_model(str(BUILTIN_FOLDER)).predict(list(images["image"]))
    assert list(found.index) == [7, 8, 9]
    for (_, row), prediction in zip(found.iterrows(), expected, strict=True):
        assert [face["label"] for face in row["faces"]] == list(prediction.labels)
        for face, other in zip(row["faces"], prediction.faces, strict=True):
            assert face["probabilities"] == pytest.approx(other.probabilities)
            assert face["box"] == pytest.approx({f"{side}_px": v for side, v in other.box._asdict().items()})
    assert "not_an_image" in found["fault"][8]
    assert found["fault"].isna().tolist() == [True, False, True]
    assert (found["width_px"][7], found["height_px"][7]) == (400, 320)


def test_the_loader_gives_what_the_model_at_hand_gives(images):
    check(pyfunc._load_pyfunc(str(BUILTIN_FOLDER)).predict(images, params=None), images)
    assert "mlflow" not in sys.modules


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pd.DataFrame({"picture": [b""]}), "a column 'image', received \\['picture'\\]"),
        (pd.DataFrame({"image": ["/etc/passwd"]}), "bytes of image files, received 'str'"),
        (["a.jpg"], "received \\['list'\\]"),
    ],
)
def test_other_tables_and_paths_are_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        pyfunc.PyfuncModel(None).predict(given)


def test_mlflow_saves_loads_and_predicts(images, tmp_path):
    mlflow = pytest.importorskip("mlflow.pyfunc", reason="MLflow is not installed: pip install mlflow-skinny")
    shutil.copytree(BUILTIN_FOLDER, tmp_path / "bundle")
    mlflow.save_model(
        str(tmp_path / "saved"),
        loader_module="maskdet.scoring.pyfunc",
        data_path=str(tmp_path / "bundle"),
        pip_requirements=["maskdet"],
    )
    assert not list((tmp_path / "saved").rglob("*.pkl"))
    check(mlflow.load_model(str(tmp_path / "saved")).predict(images), images)
