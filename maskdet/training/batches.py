"""Which images each step sees: a function of seed, epoch and step alone, so that a resumed run sees the same images."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.labels import CODES, TWO_CLASSES, ClassNames
from maskdet.training import devices
from maskdet.training.data import LabelledArrays, network_targets
from maskdet.training.online import online_augmenter
from maskdet.training.recipe import ClassWeights, Recipe

_ORDER_STREAM, _DRAW_STREAM = 1, 4  # 2 draws faces (reading.py), 3 picks representative images
_PREFETCHED_BATCHES = 4
_LARGEST_SEED = 2**31 - 1


class Examples(NamedTuple):
    """What a network learns from."""

    inputs: NDArray[Any]
    """``(images, copies, …)``: uint8 pixels ``(height, width, 3)`` of each view, or float32 features of it."""
    labels: NDArray[np.uint8]
    repeats: NDArray[np.int64]
    """How often each image is shown in a pass."""
    targets: NDArray[np.float32]
    """``(images, copies, outputs)``: what the network should say of each view; the label, unless a teacher knows
    better."""


class Batch(NamedTuple):
    """What one step learns from."""

    inputs: NDArray[Any]
    """``(batch, …)``."""
    labels: NDArray[np.float32]
    """``(batch, outputs)``."""
    seed: NDArray[np.int32]
    """``(2,)``: what the online augmentation of this batch is drawn from."""


def examples_of(
    arrays: LabelledArrays,
    inputs: NDArray[Any] | None = None,
    targets: NDArray[np.float32] | None = None,
    class_names: ClassNames = TWO_CLASSES,
) -> Examples:
    """The images of a set, or ``inputs`` computed from them row by row, with targets other than the labels, if any."""
    repeats = np.array([image.repeats for image in arrays.images], np.int64)
    if inputs is None:
        inputs = arrays.pixels
    if targets is None:
        rows = network_targets(arrays.labels, class_names)
        targets = np.broadcast_to(rows[:, np.newaxis], (*inputs.shape[:2], rows.shape[1]))
    return Examples(inputs, arrays.labels, repeats, targets)


def batch_at(recipe: Recipe, examples: Examples, epoch: int, step: int) -> Batch:
    """The batch of one step.

    Every image is shown ``repeats`` times per pass, each time as one of its views, drawn at random and mirrored or not.
    Each pass is shuffled anew, and passes follow each other regardless of epochs.

    Args:
        recipe: batch size, steps per epoch, seed, flip.
        examples: the images.
        epoch: from 0.
        step: within the epoch, from 0.
    """
    first = (epoch * recipe.steps_per_epoch + step) * recipe.batch_size
    rows = _rows_at(recipe.seed, np.repeat(np.arange(len(examples.labels)), examples.repeats), first, recipe.batch_size)
    rng = np.random.default_rng([recipe.seed, _DRAW_STREAM, epoch, step])
    views = rng.integers(examples.inputs.shape[1], size=len(rows))
    inputs = examples.inputs[rows, views]
    mirrored = np.flatnonzero(rng.random(len(rows)) < 0.5) if recipe.flip else np.empty(0, np.int64)
    inputs[mirrored] = inputs[mirrored, :, ::-1]
    seed = rng.integers(_LARGEST_SEED, size=2, dtype=np.int32)
    return Batch(inputs, examples.targets[rows, views], seed)


def _rows_at(seed: int, one_pass: NDArray[np.int64], first: int, count: int) -> NDArray[np.int64]:
    """Positions ``first`` to ``first + count`` of the endless sequence of shuffled passes."""
    first_pass, offset = divmod(first, len(one_pass))
    passes = range(first_pass, (first + count - 1) // len(one_pass) + 1)
    shuffled = [np.random.default_rng([seed, _ORDER_STREAM, number]).permutation(one_pass) for number in passes]
    return np.concatenate(shuffled)[offset : offset + count]


def training_batches(recipe: Recipe, examples: Examples, first_epoch: int) -> Any:
    """The input of ``keras.Model.fit``: (inputs, labels) for every step from the start of an epoch to the last.

    Batches are gathered, augmented and handed over while the network works on earlier ones.
    """
    # Online augmentation uses TensorFlow's operations; other batches reach other backends without them.
    if recipe.online_augmentation is None and not devices.on_tensorflow():
        return _gathered_ahead(recipe, examples, first_epoch)
    return _batch_dataset(recipe, examples, first_epoch)


def _steps(recipe: Recipe, first_epoch: int) -> Iterator[tuple[int, int]]:
    """Epoch and step of every batch to come."""
    return itertools.product(range(first_epoch, recipe.epochs), range(recipe.steps_per_epoch))


def _gathered_ahead(
    recipe: Recipe, examples: Examples, first_epoch: int
) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
    with ThreadPoolExecutor(_PREFETCHED_BATCHES) as pool:
        ahead: deque[Future[Batch]] = deque()
        for epoch, step in _steps(recipe, first_epoch):
            ahead.append(pool.submit(batch_at, recipe, examples, epoch, step))
            if len(ahead) > _PREFETCHED_BATCHES:
                yield ahead.popleft().result()[:2]
        while ahead:
            yield ahead.popleft().result()[:2]


def _batch_dataset(recipe: Recipe, examples: Examples, first_epoch: int) -> Any:
    import tensorflow as tf

    def batches() -> Iterator[Batch]:
        for epoch, step in _steps(recipe, first_epoch):
            yield batch_at(recipe, examples, epoch, step)

    signature = (
        tf.TensorSpec((recipe.batch_size, *examples.inputs.shape[2:]), examples.inputs.dtype),
        tf.TensorSpec((recipe.batch_size, examples.targets.shape[2]), tf.float32),
        tf.TensorSpec((2,), tf.int32),
    )
    augment: Callable[[Any, Any], Any] = lambda inputs, _seed: inputs  # noqa: E731
    if recipe.online_augmentation is not None:
        augment = online_augmenter(recipe.online_augmentation)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.map(
        lambda inputs, labels, seed: (augment(inputs, seed), labels), num_parallel_calls=tf.data.AUTOTUNE
    )
    return dataset.prefetch(_PREFETCHED_BATCHES)


def class_weights(recipe: Recipe, examples: Examples) -> dict[int, float] | None:
    """The weight of an image of each class in the loss, by the class's position in the outputs; ``None`` if all are 1.

    ``balanced`` gives each of k classes with n of the N images shown in a pass the weight N / (k n), N / k in total.
    """
    if recipe.class_weights == "none":
        return None
    if isinstance(recipe.class_weights, ClassWeights):
        weights = recipe.class_weights.model_dump()
    else:
        shown = np.bincount(examples.labels, weights=examples.repeats, minlength=len(recipe.classes))
        weights = {name: float(shown.sum() / (len(recipe.classes) * shown[CODES[name]])) for name in recipe.classes}
    return {place: weights[name] for place, name in enumerate(recipe.classes)}
