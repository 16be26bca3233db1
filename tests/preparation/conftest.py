"""A small labelled collection with every kind of duplicate and fault, and a run of the command on it."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from maskdet.cli import main
from maskdet.demo.drawing import draw_face

FLIP = Image.Transpose.FLIP_LEFT_RIGHT


def face(seed, masked, size_px=120):
    return draw_face(np.random.default_rng(seed), size_px, masked)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.save(buffer, **(options or {"format": "PNG"}))
    path.write_bytes(buffer.getvalue())


def plant(folder: Path) -> None:
    """Write 24 faces in folders by split and class, then copies of some of them, then broken files."""
    for seed in range(24):
        split = "Train" if seed < 16 else "Test"
        kind = "masked" if seed % 2 else "bare"
        save(face(seed, bool(seed % 2)), folder / split / kind / f"face{seed:02d}.png")
    shutil.copy(folder / "Train/bare/face00.png", folder / "Train/bare/face00_copy.png")
    save(face(2, False).resize((80, 80)), folder / "Test/bare/small_of_02.jpg", format="JPEG", quality=70)
    save(face(3, True).transpose(FLIP), folder / "Test/masked/flip_of_03.png")
    shutil.copy(folder / "Train/bare/face04.png", folder / "Train/masked/wrong_04.png")
    save(face(5, True), folder / "Train/bare/wrong_05.jpg", format="JPEG", quality=60)
    (folder / "Train/bare/empty.png").write_bytes(b"")
    (folder / "Train/bare/text.jpg").write_bytes(b"this is no image")
    whole = (folder / "Train/bare/face06.png").read_bytes()
    (folder / "Train/bare/cut.png").write_bytes(whole[: len(whole) // 2])
    save(face(30, True), folder / "Train/neither/face30.png")
    (folder / "Train/notes.md").write_text("no image")


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """The folder of the planted collection; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("planted")
    plant(folder)
    return folder


@pytest.fixture
def prepare(tmp_path):
    """Run `maskdet prepare` with sources given as a dictionary: ``prepare(output, sources, *flags)`` → exit code."""

    def run(output, sources, *flags, **settings):
        config = tmp_path / "prepare.yaml"
        tree = {"sources": sources, "failure_budget": {"max_ratio": 0.2}, **settings}
        config.write_text(yaml.safe_dump(tree))
        return main.main(["prepare", "--config", str(config), "--output", str(output), "--quiet", *flags])

    return run


@pytest.fixture
def source(planted):
    """Settings of a source that is the planted collection."""

    def make(**changes):
        return {
            "input": str(planted),
            "labels": {"masked": "mask", "bare": "no_mask"},
            "splits": {"Train": "train", "Test": "test"},
            **changes,
        }

    return make
