"""Ranges of the online augmentation, measured by where it moves a bright dot."""

import numpy as np
import pytest

from maskdet.training.online import online_augmenter
from maskdet.training.recipe import OnlineAugmentation

pytestmark = [pytest.mark.training, pytest.mark.xdist_group("tensorflow")]

SIDE_PX = 64
BATCH = 200


def centroids(settings, row_px, column_px, seed=(3, 4)):
    """Where a dot of 4 x 4 pixels around a corner of pixels goes, from the image's centre: ``(batch, 2)``, (y, x)."""
    pixels = np.zeros((BATCH, SIDE_PX, SIDE_PX, 3), np.uint8)
    pixels[:, row_px - 2 : row_px + 2, column_px - 2 : column_px + 2] = 255
    changed = augmented(settings, pixels, seed)
    mass = changed.sum(axis=-1)
    axis = np.arange(SIDE_PX) + 0.5 - SIDE_PX / 2
    total = mass.sum(axis=(1, 2))
    return np.stack([(mass.sum(axis=2) @ axis) / total, (mass.sum(axis=1) @ axis) / total], axis=1)


def augmented(settings, pixels, seed=(3, 4)):
    import tensorflow as tf

    augment = tf.function(online_augmenter(OnlineAugmentation(**settings)))
    return augment(tf.constant(pixels), tf.constant(seed, tf.int32)).numpy()


def test_rotation_stays_within_and_reaches_its_bounds():
    moved = centroids({"rotation_degrees": 40.0}, 32, 52)
    angles = np.degrees(np.arctan2(moved[:, 0], moved[:, 1]))
    np.testing.assert_allclose(np.hypot(*moved.T), 20.0, atol=0.7)
    assert np.abs(angles).max() <= 41.0
    assert angles.min() < -35.0
    assert angles.max() > 35.0


def test_shifts_stay_within_and_reach_their_bounds():
    down, right = centroids({"width_shift": 0.2, "height_shift": 0.1}, 32, 32).T
    assert 0.18 < np.abs(right / SIDE_PX).max() <= 0.202
    assert 0.09 < np.abs(down / SIDE_PX).max() <= 0.102
    assert abs(right.mean()) < 1.5


def test_shear_moves_rows_by_a_share_of_their_height():
    above, below = (centroids({"shear_degrees": 11.3}, row, 32) for row in (16, 48))
    np.testing.assert_allclose(above[:, 0], -16.0, atol=0.6)
    # tan(11.3 degrees) = 0.2
    slopes = (below[:, 1] - above[:, 1]) / 32.0
    assert 0.17 < slopes.max() <= 0.21
    assert -0.21 <= slopes.min() < -0.17


def test_zoom_scales_each_side_on_its_own():
    down, right = (centroids({"zoom": 0.2}, 48, 48) / 16.0).T
    for scale in (down, right):
        # A side shown from 0.8 to 1.2 times its length makes what is in it 1/0.8 to 1/1.2 times as large.
        assert 1 / 1.2 - 0.04 <= scale.min() < 0.88
        assert 1.18 < scale.max() <= 1 / 0.8 + 0.04
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.3


def test_half_are_mirrored():
    right = centroids({"horizontal_flip": True}, 32, 52)[:, 1]
    np.testing.assert_allclose(np.abs(right), 20.0, atol=1e-4)
    assert 0.35 < (right < 0).mean() < 0.65


def test_a_seed_gives_the_same_views_and_another_seed_others():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    settings = {
        "rotation_degrees": 40.0,
        "width_shift": 0.2,
        "shear_degrees": 11.3,
        "zoom": 0.2,
        "horizontal_flip": True,
    }
    first = augmented(settings, pixels, (1, 2))
    np.testing.assert_array_equal(first, augmented(settings, pixels, (1, 2)))
    assert not np.array_equal(first, augmented(settings, pixels, (1, 3)))
    assert first.dtype == np.float32
    assert 0.0 <= first.min() <= first.max() <= 255.0


def test_edges_repeat_and_nothing_is_nothing():
    flat = np.full((8, 16, 16, 3), 77, np.uint8)
    everything = {"rotation_degrees": 40.0, "width_shift": 0.2, "height_shift": 0.2, "shear_degrees": 11.3, "zoom": 0.2}
    np.testing.assert_allclose(augmented(everything, flat), 77.0, atol=1e-3)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    np.testing.assert_array_equal(augmented({}, pixels), pixels)
