import numpy as np
import pytest

from maskdet.training.batches import _gathered_ahead, batch_at, class_weights, examples_of, training_batches


@pytest.fixture
def take(recipe):
    """Inputs and labels of the first batches, in one array each; 4 batches are an epoch."""

    def take(count, training, **changes):
        settings = recipe(steps_per_epoch=4, epochs=50, **changes)
        chosen = [batch_at(settings, examples_of(training), *divmod(i, 4)) for i in range(count)]
        return np.concatenate([batch.inputs for batch in chosen]), np.concatenate([batch.labels for batch in chosen])

    return take


def test_images_repeat_as_asked_and_keep_labels(take, arrays):
    pixels, labels = take(3, arrays(repeats=(1, 1, 1, 1, 8)), batch_size=4)
    assert np.bincount(pixels[:, 0, 0, 0]).tolist() == [1, 1, 1, 1, 8]  # one pass is twelve images
    np.testing.assert_array_equal(labels[:, 0], pixels[:, 0, 0, 0] % 2)
    assert labels.dtype == np.float32
    assert labels.shape == (12, 1)


def test_every_pass_holds_every_image_once_across_batches_and_epochs(take, arrays):
    pixels, _ = take(15, arrays(), batch_size=3)  # 45 images: nine passes over five, one and a half epochs apart
    passes = pixels[:, 0, 0, 0].reshape(9, 5)
    np.testing.assert_array_equal(np.sort(passes), np.tile(np.arange(5), (9, 1)))
    assert len({tuple(one) for one in passes}) > 1


def test_a_batch_may_hold_more_than_two_passes(take, arrays):
    pixels, _ = take(1, arrays(), batch_size=20)
    assert np.bincount(pixels[:, 0, 0, 0]).tolist() == [4] * 5


def test_every_copy_is_drawn_and_half_are_mirrored(take, arrays):
    pixels, _ = take(40, arrays(), flip=True, batch_size=5)
    assert set(pixels[:, 0, 0, 1]) == {0, 1, 2}
    mirrored = pixels[:, 0, 0, 2] == 1
    np.testing.assert_array_equal(pixels[:, 0, 1, 2] == 0, mirrored)
    assert 0.35 < mirrored.mean() < 0.65
    unflipped, _ = take(4, arrays(), flip=False, batch_size=5)
    assert not unflipped[:, 0, 0, 2].any()


def test_a_batch_depends_on_seed_epoch_and_step_alone(recipe, arrays):
    examples = examples_of(arrays())
    settings = recipe(seed=3, flip=True)
    first = batch_at(settings, examples, 1, 2)
    for _ in range(3):
        batch_at(settings, examples, 0, 0)
    again = batch_at(recipe(seed=3, flip=True, epochs=9), examples, 1, 2)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    for different in (
        batch_at(settings, examples, 2, 2),
        batch_at(settings, examples, 1, 3),
        batch_at(recipe(seed=4, flip=True), examples, 1, 2),
    ):
        assert not np.array_equal(first.inputs, different.inputs)
        assert not np.array_equal(first.seed, different.seed)


def test_mirroring_leaves_the_training_images_as_they_are(take, arrays):
    training = arrays()
    before = training.pixels.copy()
    take(10, training, flip=True)
    np.testing.assert_array_equal(training.pixels, before)


@pytest.mark.xdist_group("tensorflow")
def test_dataset_from_a_later_epoch_is_the_rest_of_the_whole(recipe, arrays):
    geometry = {"rotation_degrees": 20.0, "zoom": 0.2, "horizontal_flip": True}
    settings = recipe(batch_size=4, steps_per_epoch=3, epochs=4, online_augmentation=geometry)
    whole = list(training_batches(settings, examples_of(arrays()), 0).as_numpy_iterator())
    rest = list(training_batches(settings, examples_of(arrays()), 2).as_numpy_iterator())
    assert (len(whole), len(rest)) == (12, 6)
    for (pixels, labels), (pixels_again, labels_again) in zip(whole[6:], rest, strict=True):
        np.testing.assert_array_equal(pixels, pixels_again)
        np.testing.assert_array_equal(labels, labels_again)


def test_batches_gathered_ahead_come_in_their_order(recipe, arrays):
    settings, examples = recipe(batch_size=4, steps_per_epoch=3, epochs=4, flip=True), examples_of(arrays())
    ahead = list(_gathered_ahead(settings, examples, 1))
    assert len(ahead) == 9
    for number, (inputs, labels) in enumerate(ahead):
        expected = batch_at(settings, examples, 1 + number // 3, number % 3)
        np.testing.assert_array_equal(inputs, expected.inputs)
        np.testing.assert_array_equal(labels, expected.labels)


def test_class_weights(recipe, arrays):
    # Images 1 and 3 are masked; of twelve showings 2 + 1 are: 12 / (2 x 3) and 12 / (2 x 9).
    examples = examples_of(arrays(repeats=(1, 2, 1, 1, 7)))
    assert class_weights(recipe(class_weights="balanced"), examples) == {0: pytest.approx(12 / 18), 1: 2.0}
    assert class_weights(recipe(), examples) is None
    given = recipe(class_weights={"mask": 3.0, "no_mask": 0.5})
    assert class_weights(given, examples) == {0: 0.5, 1: 3.0}
