"""A training that is killed in mid-epoch and started again ends bit for bit like one that was not interrupted."""

import csv
import functools
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

EPOCHS = 5
WAIT_S = 120.0

pytestmark = [pytest.mark.training, pytest.mark.xdist_group("tensorflow")]


@pytest.fixture
def command(recipe, train_command):
    """The training command for an output; the recipe uses everything random, and a falling learning rate."""
    settings = recipe(
        epochs=EPOCHS,
        steps_per_epoch=25,
        learning_rate_schedule="cosine",
        deterministic=True,
        online_augmentation={"rotation_degrees": 20.0, "zoom": 0.1, "horizontal_flip": True},
        augmentation={"copies": 2},
        validation_data=[{"mask": "new/with", "no_mask": "new/without"}],
        representative_images=8,
    )
    return functools.partial(train_command, settings)


def checkpoint(output, epochs):
    """The path of the checkpoint after a number of epochs, once it is there."""
    return next(Path(f"{output}.checkpoints").glob(f"*/epoch-{epochs:04d}.npz"), None)


def wait_for_checkpoint(output, epochs, process):
    began = time.monotonic()
    while checkpoint(output, epochs) is None:
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() - began < WAIT_S
        time.sleep(0.01)


def final_state(output):
    with np.load(checkpoint(output, EPOCHS)) as file:
        return {name: file[name] for name in file.files if name != "state"}


def history(output):
    with Path(f"{output}.history.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "duration_s"} for row in csv.DictReader(file)]


@pytest.mark.thorough
def test_killed_and_resumed_is_bit_for_bit_the_uninterrupted_run(command, environment, tmp_path):
    whole, broken = tmp_path / "models" / "whole", tmp_path / "models" / "broken"
    pipes = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    alone = subprocess.Popen(command(whole, "--restart"), **pipes)
    victim = subprocess.Popen(command(broken), **pipes)
    wait_for_checkpoint(broken, 2, victim)
    time.sleep(0.05)  # into the third epoch's steps
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    assert not broken.exists()
    assert 2 <= len(history(broken)) < EPOCHS
    resumed = subprocess.run(command(broken, "--resume"), check=True, **pipes).stdout
    assert resumed.startswith("resumed after epoch ")
    assert alone.communicate()[0].startswith(f"epoch 1 of {EPOCHS}")
    assert alone.returncode == 0
    assert history(broken) == history(whole)
    assert [row["epoch"] for row in history(whole)] == [str(epoch) for epoch in range(EPOCHS)]
    expected, received = final_state(whole), final_state(broken)
    assert expected.keys() == received.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(values, received[name], err_msg=name)
