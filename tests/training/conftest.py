"""A recipe that trains in seconds, and images for it."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from maskdet.training.data import LabelledArrays, LabelledImage
from maskdet.training.recipe import Recipe

PROJECT = Path(__file__).parents[2]
SIDE_PX = 32


@pytest.fixture(scope="session")
def recipe():
    """Make a tiny recipe; ``recipe(epochs=3)`` changes a setting."""

    def make(**changes):
        settings = {
            "name": "tiny",
            "architecture": "compact",
            "height": SIDE_PX,
            "width": SIDE_PX,
            "data": [{"mask": "with", "no_mask": "without"}],
            "data_description": "blue below or red below",
            "batch_size": 8,
            "optimizer": "adam",
            "learning_rate": 0.005,
            "steps_per_epoch": 12,
            "epochs": 2,
        }
        return Recipe.model_validate(settings | changes)

    return make


@pytest.fixture(scope="session")
def shallow():
    """Settings of a network with few layers, for tests of code around a network; tracing takes a third of the time."""
    return {"architecture": "reference_cnn", "height": 46, "width": 46}


@pytest.fixture
def root(tmp_path):
    """Grey patches whose lower half is tinted blue in one class and red in the other; "new" has more of each."""
    rng = np.random.default_rng(0)
    for label, channel in (("with", 2), ("without", 0), ("new/with", 2), ("new/without", 0)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for index in range(24):
            pixels = rng.integers(0, 256, (8, 8, 1)).repeat(4, axis=0).repeat(4, axis=1).repeat(3, axis=2)
            pixels[16:, :, channel] = 255
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / label / f"{index}.png")
    return tmp_path / "data"


@pytest.fixture
def environment(root):
    """The environment of the training command as a process, on those images."""
    return os.environ | {"MASKDET_DATA": str(root), "PYTHONPATH": str(PROJECT), "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture
def train_command(tmp_path):
    """The training command as a process: ``train_command(settings, output, *flags)`` → its arguments."""

    def arguments(settings, output, *flags):
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        shared = ["--config", str(tmp_path / "tiny.yaml"), "--output", str(output), *flags]
        return [sys.executable, "-m", "maskdet.cli.train", *shared]

    return arguments


@pytest.fixture(scope="session")
def arrays():
    """Make five images whose pixels encode image, copy and column; the odd ones are masked."""

    def make(repeats=(1, 1, 1, 1, 1), copies=3):
        images = tuple(LabelledImage(f"{row}.png", "", row % 2, count) for row, count in enumerate(repeats))
        row, copy, _, column, channel = np.indices((5, copies, 2, 2, 3))
        pixels = np.select([channel == 0, channel == 1], [row, copy], column).astype(np.uint8)
        labels = np.array([image.label for image in images], np.uint8)
        return LabelledArrays(images, pixels, labels, ("",) * 5, ())

    return make


@pytest.fixture(scope="session")
def torch_file():
    """The module in this folder that writes PyTorch checkpoints."""
    spec = importlib.util.spec_from_file_location("torch_file", Path(__file__).with_name("torch_file.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
