"""Fit a network as its recipe says, and export it."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet.drawing import draw_face
from maskdet.errors import ConfigError, SourceError
from maskdet.imaging import prepare_image
from maskdet.model.architectures import build_model
from maskdet.model.export import check_output_folder, export_bundle
from maskdet.model.manifest import Decision, InputSpec, Manifest, OperatingCharacteristics, TrainingData
from maskdet.training.augment import make_views
from maskdet.training.data import (
    MASK,
    NO_MASK,
    LabelledArrays,
    LabelledImage,
    ViewMaker,
    decode,
    list_labelled,
)
from maskdet.training.leakage import THUMBNAIL_SIDE_PX, near_duplicates
from maskdet.training.operating_point import choose_threshold, measure
from maskdet.training.recipe import DataSource, Recipe

_PREDICT_BATCH = 64
_SYNTHETIC_SIDES_PX = (64, 224)

_log = logging.getLogger(__name__)


def train(recipe: Recipe, root: str, output: Path) -> Manifest:
    """Fit a recipe's network and write its bundle.

    Beside the bundle, ``<output>.history.csv`` gets one row an epoch.

    Args:
        recipe: what to do.
        root: folder that the recipe's relative data sources start from.
        output: the bundle's folder; replaced if it holds a bundle.

    Returns:
        The bundle's manifest.

    Raises:
        OutputError: ``output`` holds something that is no bundle.
        SourceError: training data is missing, or lacks a class.
        ConfigError: the architecture is unknown or does not fit the input size, or TensorFlow is not installed.
    """
    check_output_folder(output)
    _seed(recipe.seed)
    model = build_model(recipe.architecture, recipe.height, recipe.width)
    training = load_training(recipe, root)
    _log.info("training on %d images, %d unreadable", len(training.labels), len(training.unreadable))
    fit(model, recipe, training, load_plain(recipe, recipe.validation_data, root), _history_file(output))
    decision, characteristics = operating_point(model, recipe, training, root)
    draft = Manifest(
        name=recipe.name,
        architecture=recipe.architecture,
        description=recipe.description,
        input=InputSpec(height=recipe.height, width=recipe.width),
        decision=decision,
        operating_characteristics=characteristics,
        training_data=TrainingData(
            description=recipe.data_description, images=len(training.labels), fingerprint=training.fingerprint
        ),
    )
    return export_bundle(model, output, draft, representative=_representative(recipe, training))


def load_training(recipe: Recipe, root: str) -> LabelledArrays:
    """Decode a recipe's training images, augmented if it says so, and add its drawn faces.

    Returns:
        Arrays of pixels uint8 ``(images, copies, height, width, 3)``.

    Raises:
        SourceError: images are missing, or a class is.
    """
    copies = recipe.augmentation.copies if recipe.augmentation else 1
    listed = _first_of_each_class(list_labelled(recipe.data, root), recipe.max_images_per_class)
    arrays = decode(listed, recipe.height, recipe.width, copies=copies, make_views=_view_maker(recipe, "photos"))
    if recipe.synthetic_faces == 0:
        return arrays
    return arrays.joined_with(_draw_faces(recipe, copies))


def load_plain(recipe: Recipe, sources: Sequence[DataSource], root: str) -> LabelledArrays | None:
    """Decode images as scoring does, without augmentation; ``None`` if there are no sources.

    Raises:
        SourceError: images are missing, or a class is.
    """
    if not sources:
        return None
    listed = _first_of_each_class(list_labelled(sources, root), recipe.max_images_per_class)
    return decode(listed, recipe.height, recipe.width)


def fit(
    model: Any, recipe: Recipe, training: LabelledArrays, validation: LabelledArrays | None, history_file: Path
) -> None:
    """Fit a built network in place.

    Args:
        model: a ``keras.Model`` of :func:`maskdet.model.architectures.build_model`.
        recipe: how to fit.
        training: images and labels.
        validation: what each epoch's loss and accuracy are measured on, if anything.
        history_file: CSV that gets one row an epoch.
    """
    import keras

    history_file.parent.mkdir(parents=True, exist_ok=True)
    model.compile(
        optimizer=_optimizer(recipe),
        loss=keras.losses.BinaryCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy")],
    )
    model.fit(
        _dataset(recipe, training),
        steps_per_epoch=recipe.steps_per_epoch,
        epochs=recipe.epochs,
        validation_data=validation and (validation.pixels[:, 0], validation.labels[:, np.newaxis].astype(np.float32)),
        validation_batch_size=_PREDICT_BATCH,
        callbacks=[keras.callbacks.CSVLogger(str(history_file))],
        shuffle=False,  # batches() shuffles
        verbose=2,
    )


def operating_point(
    model: Any, recipe: Recipe, training: LabelledArrays, root: str
) -> tuple[Decision, OperatingCharacteristics | None]:
    """Choose the decision threshold and measure the error rates at it.

    Near duplicates of training images are left out of both sets; if the recipe says of its test data that it shares
    groups with the training data anyway, they are kept.

    Args:
        model: a fitted ``keras.Model``.
        recipe: names the images to choose on and to measure on.
        training: what the model was fitted on.
        root: folder that relative data sources start from.

    Raises:
        SourceError: images are missing, or a class is, or all of one were trained on.
    """
    point, decision = recipe.operating_point, Decision()
    seen = _thumbnails(training)
    chosen_on = load_plain(recipe, point.threshold_data, root)
    if chosen_on is not None:
        chosen_on = _without_duplicates(chosen_on, seen)
        threshold = choose_threshold(_predict(model, chosen_on), chosen_on.labels)
        decision = Decision(no_mask_below=threshold, mask_from=threshold)
    tested_on = load_plain(recipe, point.test_data, root)
    if tested_on is None:
        return decision, None
    shares_groups = point.test_shares_groups_with_training
    tested_on = tested_on if shares_groups else _without_duplicates(tested_on, seen)
    probabilities = _predict(model, tested_on)
    return decision, measure(
        probabilities, tested_on.labels, decision, point.test_description, shares_groups_with_training=shares_groups
    )


def _thumbnails(arrays: LabelledArrays) -> NDArray[np.uint8]:
    """The images as files show them, whatever views were made of them; drawn ones have no files."""
    from_files = [image for image in arrays.images if image.uri]
    return decode(from_files, THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX).pixels[:, 0]


def _without_duplicates(arrays: LabelledArrays, seen: NDArray[np.uint8]) -> LabelledArrays:
    duplicates = near_duplicates(_thumbnails(arrays), seen)
    _log.info("left out %d of %d images: near duplicates of training images", duplicates.sum(), len(duplicates))
    kept = arrays.selected(~duplicates)
    if len(set(kept.labels.tolist())) < len((NO_MASK, MASK)):
        raise SourceError(
            "held-out images",
            "some of each class that were not trained on",
            f"{len(kept.labels)} of {len(duplicates)} images without a near duplicate in the training data",
            "Name other folders or hash bands in the recipe's operating_point.",
        )
    return kept


def batches(recipe: Recipe, training: LabelledArrays) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Endless shuffled batches, the same sequence for the same seed.

    Every image comes ``repeats`` times a pass, each time as one of its views drawn at random, mirrored or not.

    Yields:
        Pixels uint8 ``(batch, height, width, 3)`` and labels float32 ``(batch, 1)``.
    """
    rng = np.random.default_rng([recipe.seed, 1])
    order = np.repeat(np.arange(len(training.labels)), [image.repeats for image in training.images])
    pending = np.empty(0, np.int64)
    while True:
        while len(pending) < recipe.batch_size:
            pending = np.concatenate([pending, rng.permutation(order)])
        rows, pending = pending[: recipe.batch_size], pending[recipe.batch_size :]
        pixels = training.pixels[rows, rng.integers(training.pixels.shape[1], size=len(rows))]
        mirrored = np.flatnonzero(rng.random(len(rows)) < 0.5) if recipe.flip else np.empty(0, np.int64)
        pixels[mirrored] = pixels[mirrored, :, ::-1]
        yield pixels, training.labels[rows, np.newaxis].astype(np.float32)


def _seed(seed: int) -> None:
    try:
        import keras
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "training", "TensorFlow", str(error), "Install it: pip install 'maskdet[tensorflow]'."
        ) from error
    keras.utils.set_random_seed(seed)


def _dataset(recipe: Recipe, training: LabelledArrays) -> Any:
    import tensorflow as tf

    signature = (
        tf.TensorSpec((recipe.batch_size, recipe.height, recipe.width, 3), tf.uint8),
        tf.TensorSpec((recipe.batch_size, 1), tf.float32),
    )
    dataset = tf.data.Dataset.from_generator(lambda: batches(recipe, training), output_signature=signature)
    return dataset.prefetch(4)


def _optimizer(recipe: Recipe) -> Any:
    import keras

    rate: Any = recipe.learning_rate
    if recipe.learning_rate_schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, recipe.epochs * recipe.steps_per_epoch)
    return {"rmsprop": keras.optimizers.RMSprop, "adam": keras.optimizers.Adam}[recipe.optimizer](rate)


def _view_maker(recipe: Recipe, stream: str) -> ViewMaker | None:
    settings = recipe.augmentation
    if settings is None:
        return None
    stream_key = int.from_bytes(stream.encode(), "big")

    def views_of(data: bytes, index: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng([recipe.seed, stream_key, index])
        return make_views(data, recipe.height, recipe.width, settings, rng)

    return views_of


def _draw_faces(recipe: Recipe, copies: int) -> LabelledArrays:
    """Drawn faces, masked and not in turn, as if read from files."""
    make = _view_maker(recipe, "drawn") or (
        lambda data, _index: prepare_image(data, recipe.height, recipe.width).pixels[np.newaxis]
    )
    images: list[LabelledImage] = []
    digests: list[str] = []
    pixels = np.empty((recipe.synthetic_faces, copies, recipe.height, recipe.width, 3), np.uint8)
    for index in range(recipe.synthetic_faces):
        label = (NO_MASK, MASK)[index % 2]
        rng = np.random.default_rng([recipe.seed, 2, index])
        encoded = io.BytesIO()
        draw_face(rng, int(rng.integers(*_SYNTHETIC_SIDES_PX)), masked=label == MASK).save(encoded, "BMP")
        pixels[index] = make(encoded.getvalue(), index)
        images.append(LabelledImage(f"synthetic/{recipe.seed}/{index}", "", label, 1))
        digests.append(hashlib.sha256(encoded.getvalue()).hexdigest())
    labels = np.array([image.label for image in images], np.uint8)
    return LabelledArrays(tuple(images), pixels, labels, tuple(digests), ())


def _first_of_each_class(images: list[LabelledImage], limit: int | None) -> list[LabelledImage]:
    if limit is None:
        return images
    return [image for label in (NO_MASK, MASK) for image in [i for i in images if i.label == label][:limit]]


def _predict(model: Any, arrays: LabelledArrays) -> NDArray[np.float32]:
    probabilities: NDArray[np.float32] = model.predict(arrays.pixels[:, 0], batch_size=_PREDICT_BATCH, verbose=0)
    return probabilities[:, 0]


def _representative(recipe: Recipe, training: LabelledArrays) -> NDArray[np.uint8]:
    count = min(recipe.representative_images, len(training.labels))
    rows = np.random.default_rng([recipe.seed, 3]).choice(len(training.labels), count, replace=False)
    views: NDArray[np.uint8] = training.pixels[np.sort(rows), 0]
    return views


def _history_file(output: Path) -> Path:
    return output.with_name(f"{output.name}.history.csv")
