"""A network fitted with another backend of Keras, and exported with TensorFlow by the same command."""

import subprocess

import numpy as np
import pytest

pytestmark = [
    pytest.mark.training,
    pytest.mark.xdist_group("tensorflow"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@pytest.fixture
def command(recipe, shallow, train_command, environment, tmp_path):
    """Run the training command under a backend; returns what it prints."""
    settings = recipe(
        epochs=2,
        steps_per_epoch=6,
        flip=True,
        augmentation={"copies": 3},
        validation_data=[{"mask": "new/with", "no_mask": "new/without"}],
        representative_images=8,
        **shallow,
    )

    def run(backend, *flags):
        return subprocess.run(
            train_command(settings, tmp_path / "out", *flags),
            env=environment | {"KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_repeatable_operations_are_tensorflows(command):
    refused = command("jax", "--set", "deterministic=true")
    assert refused.returncode == 2
    assert "deterministic: true: expected Keras on tensorflow, received 'jax'" in refused.stderr
