import itertools

import numpy as np
import pytest

from maskdet.errors import ModelError
from tools.detector.canvases import Boxes, together
from tools.detector.centerface import LAYERS, Layer, read_layers, write_layers
from tools.detector.narrowing import KEPT_CHANNELS, Narrowed, blocks, eliminate, without_channels


def squared_error(channels, outputs, kept):
    regressors = np.concatenate([channels[:, list(kept)], np.ones((len(channels), 1))], axis=1)
    coefficients = np.linalg.lstsq(regressors, outputs, rcond=None)[0]
    return ((outputs - regressors @ coefficients) ** 2).sum()


@pytest.mark.parametrize("seed", range(5))
def test_each_channel_that_goes_is_the_one_that_is_missed_least(seed):
    rng = np.random.default_rng(seed)
    channels = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) + rng.normal(size=6)
    outputs = channels @ rng.normal(size=(6, 3)) + rng.normal(size=(400, 3))
    expected = tuple(range(6))
    for left in (5, 4, 3):
        expected = min(itertools.combinations(expected, left), key=lambda kept: squared_error(channels, outputs, kept))
        assert tuple(eliminate(channels, outputs, left).kept) == expected


def test_the_coefficients_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    channels, outputs = rng.normal(2, 1, (300, 5)), rng.normal(size=(300, 2))
    result = eliminate(channels, outputs, 3)
    regressors = np.concatenate([channels[:, result.kept], np.ones((300, 1))], axis=1)
    expected = np.linalg.lstsq(regressors, outputs, rcond=None)[0]
    np.testing.assert_allclose(np.concatenate([result.coefficients, result.intercept[np.newaxis]]), expected, atol=1e-3)
    share = squared_error(channels, outputs, result.kept) / ((outputs - outputs.mean(axis=0)) ** 2).sum()
    assert result.error == pytest.approx(share, abs=1e-4)


def test_channels_that_say_what_others_say_go_without_a_loss():
    rng = np.random.default_rng(1)
    basis = rng.normal(size=(500, 3))
    channels = np.concatenate([basis, basis[:, ::-1], np.full((500, 1), 4.0), np.zeros((500, 1))], axis=1)
    result = eliminate(channels, basis @ rng.normal(size=(3, 4)) + 7, 3)
    assert sorted(kept % 3 if kept < 3 else 5 - kept for kept in result.kept) == [0, 1, 2]
    assert result.error < 1e-6


def test_a_block_loses_the_channel_in_its_three_layers():
    rng = np.random.default_rng(2)
    layers = [
        Layer(rng.normal(size=(1, 1, 4, 6)), rng.normal(size=6)),
        Layer(rng.normal(size=(3, 3, 6, 1)), rng.normal(size=6)),
        Layer(rng.normal(size=(1, 1, 6, 5)), rng.normal(size=5)),
        Layer(rng.normal(size=(1, 1, 5, 8)), rng.normal(size=8)),
    ]
    kept, coefficients, intercept = np.array([0, 2, 5]), rng.normal(size=(3, 5)), rng.normal(size=5)
    changed = without_channels(layers, (0, 1, 2), Narrowed(kept, coefficients, intercept, 0.0))
    np.testing.assert_array_equal(changed[0].kernel, layers[0].kernel[:, :, :, [0, 2, 5]])
    np.testing.assert_array_equal(changed[1].bias, layers[1].bias[[0, 2, 5]])
    assert changed[1].kernel.shape == (3, 3, 3, 1)
    np.testing.assert_allclose(changed[2].kernel[0, 0], coefficients, rtol=1e-6)
    assert changed[3] is layers[3]


def test_blocks_are_the_stem_and_the_seventeen_of_mobilenet():
    assert blocks()[0] == (0, 1, 2)
    assert blocks()[-1] == (48, 49, 50)
    assert len(blocks()) == len(KEPT_CHANNELS) == 17


def test_weights_come_back_as_they_were_written(tmp_path):
    rng = np.random.default_rng(3)
    layers = [Layer(rng.normal(size=(1, 1, 2, 3)).astype(np.float16), np.arange(3.0)) for _ in range(LAYERS)]
    write_layers(tmp_path / "weights.npz", layers)
    for layer, expected in zip(read_layers(tmp_path / "weights.npz"), layers, strict=True):
        np.testing.assert_array_equal(layer.kernel, expected.kernel)
        np.testing.assert_array_equal(layer.bias, expected.bias)
        assert layer.kernel.dtype == np.float32


def test_a_file_with_other_weights_is_refused(tmp_path):
    np.savez(tmp_path / "weights.npz", kernel00=np.zeros(3))
    with pytest.raises(ModelError, match=r"63 kernels and biases.*1 arrays"):
        read_layers(tmp_path / "weights.npz")


def test_a_face_that_was_found_and_annotated_is_one_face_and_sure():
    found = np.array([[10, 10, 30, 34], [100, 100, 120, 120]], np.float32)
    annotated = np.array([[11, 10, 31, 33], [200, 50, 220, 72]], np.float64)
    faces = together(found, np.array([0.5, 0.9], np.float32), annotated)
    assert isinstance(faces, Boxes)
    np.testing.assert_array_equal(faces.boxes, [*found, annotated[1]])
    np.testing.assert_allclose(faces.scores, [0.75, 0.8, 0.6])
