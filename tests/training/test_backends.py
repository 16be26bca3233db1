"""A network fitted with another backend of Keras, and exported with TensorFlow by the same command."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

PROJECT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.xdist_group("tensorflow"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@pytest.fixture
def command(recipe, root, tmp_path):
    """Run the training command under a backend; what it prints."""
    settings = recipe(
        epochs=2,
        steps_per_epoch=6,
        flip=True,
        augmentation={"copies": 3},
        validation_data=[{"mask": "new/with", "no_mask": "new/without"}],
        representative_images=8,
    )
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    arguments = ["--config", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "out")]
    environment = os.environ | {"MASKDET_DATA": str(root), "PYTHONPATH": str(PROJECT), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def run(backend, *flags):
        return subprocess.run(
            [sys.executable, "-m", "pipelines.train", *arguments, *flags],
            env=environment | {"KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_fitted_with_jax_exported_with_tensorflow(command, tmp_path):
    import keras

    fitting = command("jax")
    assert fitting.returncode == 0, fitting.stderr
    assert "epoch 2 of 2" in fitting.stdout
    assert fitting.stdout.endswith(
        f"fitted: {tmp_path / 'out.keras'}; run this again with KERAS_BACKEND=tensorflow to export it\n"
    )
    assert not (tmp_path / "out").exists()
    exporting = command("tensorflow", "--resume")
    assert exporting.returncode == 0, exporting.stderr
    assert exporting.stdout.startswith("resumed after epoch 2 from")
    assert "epoch 2 of 2" not in exporting.stdout  # nothing was left to fit
    fitted = keras.saving.load_model(tmp_path / "out.keras", compile=False)
    exported = keras.saving.load_model(tmp_path / "out" / "model.keras", compile=False)
    for expected, received in zip(fitted.get_weights(), exported.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, received)


def test_repeatable_operations_are_tensorflows(command):
    refused = command("jax", "--set", "deterministic=true")
    assert refused.returncode == 2
    assert "deterministic: true: expected Keras on tensorflow, received 'jax'" in refused.stderr
