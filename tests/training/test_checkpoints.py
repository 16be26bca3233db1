import logging

import numpy as np
import pytest

from maskdet.errors import OutputError
from maskdet.training.checkpoints import Checkpoints, restore

pytestmark = [
    pytest.mark.training,
    pytest.mark.xdist_group("tensorflow"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


def network(units=3):
    """A small network with moving averages, dropout's random state and an optimizer that has taken two steps."""
    import keras

    keras.utils.set_random_seed(units)
    layers = [keras.layers.Dense(units), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    inputs = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    model.fit(inputs, inputs[:, :1], batch_size=4, verbose=0)
    return model


def values(model):
    return [np.array(variable) for variable in (*model.variables, *model.optimizer.variables)]


@pytest.fixture
def model():
    return network()


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "tiny.checkpoints", "f1")


def rows(count):
    return [{"epoch": epoch, "loss": 1.0 / (epoch + 3)} for epoch in range(count)]


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_everything_comes_back_bit_for_bit(model, checkpoints):
    import keras

    kept = values(model)
    # Two dense layers, four vectors of batch normalisation, dropout's seed; Adam: steps, rate, two moments of six.
    assert (len(model.variables), len(model.optimizer.variables)) == (2 + 4 + 1 + 2, 2 + 2 * 6)
    checkpoints.save(model, rows(2), kept=2)
    for variable in (*model.variables, *model.optimizer.variables):
        variable.assign(keras.ops.zeros_like(variable))
    saved = checkpoints.latest(9)
    assert list(saved.history) == rows(2)
    restore(model, saved)
    for before, after in zip(kept, values(model), strict=True):
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype


def test_weights_alone(model, checkpoints):
    checkpoints.save(model, rows(1), kept=1)
    steps = model.optimizer.iterations
    steps.assign(99)
    restore(model, checkpoints.latest(9), weights_only=True)
    assert int(steps.numpy()) == 99


def test_older_ones_go_but_the_best_stays(model, checkpoints):
    for epochs in range(1, 6):
        checkpoints.save(model, rows(epochs), kept=2, best=min(epochs, 2))
    assert names(checkpoints) == ["epoch-0002.npz", "epoch-0004.npz", "epoch-0005.npz"]
    assert len(checkpoints.after(2).history) == 2
    with pytest.raises(OutputError, match=r"epoch-0003\.npz: expected the best epoch's checkpoint"):
        checkpoints.after(3)


def test_those_of_another_fingerprint_do_not_count(model, checkpoints):
    checkpoints.save(model, rows(3), kept=2)
    other = Checkpoints(checkpoints.folder.parent, "f2")
    assert (checkpoints.others(), other.others()) == (False, True)
    assert other.latest(9) is None
    other.save(model, rows(1), kept=1)
    other.clear()
    assert len(checkpoints.latest(9).history) == 3
    absent = Checkpoints(checkpoints.folder / "absent", "f1")
    assert absent.latest(9) is None
    assert not absent.others()


def test_a_copied_file_of_another_run_does_not_count(model, checkpoints):
    checkpoints.save(model, rows(3), kept=2)
    other = Checkpoints(checkpoints.folder.parent, "f2")
    checkpoints.folder.rename(other.folder)
    assert other.latest(9) is None


def test_later_ones_than_asked_for_do_not_count(model, checkpoints):
    for epochs in (2, 3):
        checkpoints.save(model, rows(epochs), kept=2)
    assert len(checkpoints.latest(2).history) == 2
    assert checkpoints.latest(1) is None


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"x" + data[1:]]
)
def test_a_damaged_one_is_passed_over_and_named(model, checkpoints, caplog, damage):
    for epochs in (1, 2):
        checkpoints.save(model, rows(epochs), kept=2)
    file = checkpoints.folder / "epoch-0002.npz"
    file.write_bytes(damage(file.read_bytes()))
    (checkpoints.folder / ".epoch-0003.npz.tmp").write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        assert len(checkpoints.latest(9).history) == 1
    assert "epoch-0002.npz" in caplog.text


def test_another_network_is_refused(model, checkpoints):
    checkpoints.save(network(units=4), rows(1), kept=1)
    with pytest.raises(OutputError, match="another one's"):
        restore(model, checkpoints.latest(9))
