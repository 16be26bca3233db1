"""Fit a network as its recipe says, epoch by epoch, and export it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ConfigError
from maskdet.labels import TWO_CLASSES
from maskdet.model.architectures import build_model
from maskdet.model.export import check_vacant, export_bundle
from maskdet.model.manifest import InputSpec, Manifest, TrainingData
from maskdet.training import devices, distillation, finetuning, pretrained
from maskdet.training.batches import Examples, class_weights, examples_of, training_batches
from maskdet.training.checkpoints import Checkpoints, HistoryRow, restore, write_atomically
from maskdet.training.data import LabelledArrays
from maskdet.training.fused import with_fused_normalization
from maskdet.training.operating_point import PREDICT_BATCH, Point, set_operating_point
from maskdet.training.pretrained import cached_features
from maskdet.training.recipe import Recipe
from maskdet.training.sets import load_plain, load_training, representative, trained_on
from maskdet.training.stopping import best_epoch, should_stop

Resume = Literal["if_possible", "required", "never"]

# What may change between a run and its continuation: descriptions, what happens after fitting, what is kept on disk.
_OUTSIDE_FIT = {
    "name",
    "description",
    "data_description",
    "data",
    "photographs",
    "validation_data",
    "operating_point",
    "representative_images",
    "early_stopping",
    "checkpoints_kept",
    "tensorboard",
    "on_unreadable",
}

_NEUTRAL = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFiles:
    """The files that a training run leaves beside its bundle."""

    output: Path

    @property
    def history(self) -> Path:
        """One row per epoch."""
        return self._beside("history.csv")

    @property
    def checkpoints(self) -> Path:
        """The state after the latest epochs, and a frozen base's features."""
        return self._beside("checkpoints")

    @property
    def fitted(self) -> Path:
        """The network alone, where no bundle can be exported."""
        return self._beside("keras")

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's events."""
        return self._beside("tensorboard")

    def hold_epoch(self, epochs: int) -> bool:
        """Whether there is a checkpoint of any run after that many epochs."""
        return any(self.checkpoints.glob(f"*/epoch-{epochs:04d}.npz"))

    def _beside(self, suffix: str) -> Path:
        return self.output.with_name(f"{self.output.name}.{suffix}")


def train(
    recipe: Recipe, root: str, output: Path, *, resume: Resume = "if_possible", overwrite: bool = False
) -> Manifest | None:
    """Fit a recipe's network and write its bundle.

    Where Keras runs on a backend other than TensorFlow, which exports need, only the fitted network is written, as
    ``<output>.keras``; such a file can be a teacher. The same call on TensorFlow then finds the last epoch's checkpoint
    and exports it.

    Args:
        recipe: what to do.
        root: folder that the recipe's relative data sources start from.
        output: the bundle's folder. :class:`RunFiles` says what stands beside it.
        resume: whether to continue from a checkpoint of the same recipe and images.
        overwrite: whether a bundle that is already in the folder may be replaced.

    Returns:
        The bundle's manifest; ``None`` if none was written.

    Raises:
        OutputError: ``output`` holds something that is not a bundle, or a bundle that may not be replaced.
        StorageError: nothing can be written beside ``output``.
        SourceError: training data is missing, or lacks a class, or is unreadable and the recipe says to stop.
        ConfigError: the architecture is unknown or does not fit the input size, pre-trained weights cannot be had,
            there is nothing to resume though it is required, or Keras (or TensorBoard, if asked for) is missing.
    """
    check_vacant(output, overwrite=overwrite)
    devices.prepare(recipe.seed, deterministic=recipe.deterministic)
    if recipe.tensorboard:
        devices.check_tensorboard()
    with devices.precision(mixed=recipe.mixed_precision) as policy:
        model = build_model(recipe.architecture, recipe.height, recipe.width, recipe.classes)
    if recipe.frozen_base:
        pretrained.split_base(model)  # now, rather than after all images are decoded, in case it has none
    pretrained.load_base_weights(model, recipe.weights)
    if devices.on_tensorflow():
        model = with_fused_normalization(model)
    files = RunFiles(output)
    training, validation = _load(model, recipe, root, files, resume)
    finetuning.warn_if_few(recipe, training.labels)
    _log.info("training on %d images, %d unreadable, in %s", len(training.labels), len(training.unreadable), policy)
    fit(model, recipe, training, validation, files, resume=resume)
    # In float32, whatever precision it was trained in.
    fitted = build_model(recipe.architecture, recipe.height, recipe.width, recipe.classes)
    fitted.set_weights(model.get_weights())
    if not devices.on_tensorflow():
        fitted.save(files.fitted)
        return None
    point = set_operating_point(fitted, recipe, training, root)
    if (bundle := pretrained.starting_bundle(recipe.weights)) is not None and point.characteristics is not None:
        finetuning.print_before_and_after(bundle, recipe, point)
    return export_bundle(
        fitted,
        output,
        _draft(recipe, training, point),
        representative=representative(recipe, training),
        training_images=trained_on(recipe, training, root),
    )


def _draft(recipe: Recipe, training: LabelledArrays, point: Point) -> Manifest:
    """What the bundle says about itself, before its files exist."""
    return Manifest(
        name=recipe.name,
        architecture=recipe.architecture,
        description=recipe.description,
        input=InputSpec(height=recipe.height, width=recipe.width),
        class_names=recipe.classes,
        decision=point.decision,
        calibration=point.calibration,
        operating_characteristics=point.characteristics,
        training_data=TrainingData(
            description=recipe.data_description, images=len(training.labels), fingerprint=training.fingerprint
        ),
    )


def _load(
    model: Any, recipe: Recipe, root: str, files: RunFiles, resume: Resume
) -> tuple[LabelledArrays, LabelledArrays | None]:
    """Images to train and to validate on; one view of each is enough for a run that has ended."""
    validation = load_plain(recipe, recipe.validation_data, root)
    if resume != "never" and files.hold_epoch(recipe.epochs):
        training = load_training(recipe, root, views=1)
        if _Fitting(model, recipe, training, validation, files).ended():
            return training, validation
    return load_training(recipe, root), validation


def fit(
    model: Any,
    recipe: Recipe,
    training: LabelledArrays,
    validation: LabelledArrays | None,
    files: RunFiles,
    *,
    resume: Resume = "if_possible",
) -> list[HistoryRow]:
    """Fit a built network in place, or its head alone if the base is frozen.

    Args:
        model: a ``keras.Model`` of :func:`maskdet.model.architectures.build_model`.
        recipe: how to fit.
        training: images and labels.
        validation: what each epoch's loss and accuracy are measured on, if anything.
        files: where history and checkpoints go.
        resume: whether to continue from a checkpoint.

    Returns:
        One row per epoch, including those before a resumption.

    Raises:
        ConfigError: there is nothing to resume though it is required, or the base is to be frozen and there is none.
    """
    fitting = _Fitting(model, recipe, training, validation, files)
    learner, checkpoints = fitting.learner, fitting.checkpoints
    _compile(learner, recipe)
    history = _resume(learner, checkpoints, resume, recipe.epochs)
    if len(history) < recipe.epochs and not should_stop(history, recipe.early_stopping):
        seen, checked = fitting.examples()
        _run_epochs(learner, recipe, seen, checked, _Epochs(learner, recipe, files, checkpoints, history))
    if recipe.early_stopping and recipe.early_stopping.restore_best:
        best = best_epoch(history, recipe.early_stopping)
        restore(learner, checkpoints.after(best + 1), weights_only=True)
        print(f"weights of epoch {best + 1}, the best {recipe.early_stopping.monitor}")
    return history


class _Fitting:
    """What is fitted, on what, and where its checkpoints are."""

    def __init__(
        self, model: Any, recipe: Recipe, training: LabelledArrays, validation: LabelledArrays | None, files: RunFiles
    ) -> None:
        self._recipe, self._training, self._validation, self._files = recipe, training, validation, files
        self._teachers = distillation.load_teachers(recipe)
        self._base: Any = None
        self.learner = model
        if recipe.frozen_base:
            self._base, self.learner = pretrained.split_base(model)
        others = [*self._teachers, self._base] if self._base else self._teachers
        fingerprint = _sha256(
            _fingerprint(recipe, training, validation), *(pretrained.weights_sha256(other) for other in others)
        )
        self.checkpoints = Checkpoints(files.checkpoints, fingerprint)

    def ended(self) -> bool:
        """Whether the last epoch's checkpoint is there."""
        saved = self.checkpoints.latest(at_most=self._recipe.epochs)
        return saved is not None and len(saved.history) == self._recipe.epochs

    def examples(self) -> tuple[Examples, Examples | None]:
        """To learn from, and to check each epoch on."""
        folder, classes = self._files.checkpoints, self._recipe.classes
        told = distillation.targets(self._teachers, self._recipe, self._training, folder)

        def of(arrays: LabelledArrays, name: str, targets: NDArray[np.float32] | None = None) -> Examples:
            features = cached_features(self._base, arrays.pixels, folder, f"{name}-features") if self._base else None
            return examples_of(arrays, features, targets, classes)

        return of(self._training, "training", told), of(self._validation, "validation") if self._validation else None


class _Epochs:
    """What happens at the end of each epoch."""

    def __init__(
        self, model: Any, recipe: Recipe, files: RunFiles, checkpoints: Checkpoints, history: list[HistoryRow]
    ) -> None:
        self._model, self._recipe, self.files = model, recipe, files
        self._checkpoints = checkpoints
        self.history = history
        self._began_s = time.perf_counter()

    def end(self, epoch: int, figures: dict[str, float]) -> None:
        """Record an epoch: history, checkpoint, a line; ask the network to stop if it is time."""
        now_s = time.perf_counter()
        duration_s, self._began_s = now_s - self._began_s, now_s
        row = {"epoch": epoch, **{name: float(value) for name, value in figures.items()}, "duration_s": duration_s}
        self.history.append(row)
        stopping = self._recipe.early_stopping
        best = best_epoch(self.history, stopping) + 1 if stopping and stopping.restore_best else None
        self._checkpoints.save(self._model, self.history, kept=self._recipe.checkpoints_kept, best=best)
        write_history(self.files.history, self.history)
        self._model.stop_training = should_stop(self.history, stopping)
        print(describe_epoch(self.history, self._recipe.epochs, stopped=self._model.stop_training), flush=True)


def describe_epoch(history: Sequence[HistoryRow], epochs: int, *, stopped: bool = False) -> str:
    """An epoch in words: its number, duration, figures, and how long the rest will take."""
    row = history[-1]
    figures = [f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "duration_s")]
    text = " · ".join([f"epoch {len(history)} of {epochs}", f"{row['duration_s']:.0f} s", *figures])
    left = epochs - len(history)
    if stopped:
        return f"{text} · stopped early"
    if left == 0:
        return text
    minutes, seconds = divmod(round(left * row["duration_s"]), 60)
    return f"{text} · {minutes}:{seconds:02d} left"


def write_history(file: Path, history: Sequence[HistoryRow]) -> None:
    """Write every epoch's row as CSV, including those before a resumption."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text.getvalue().encode())


def _run_epochs(model: Any, recipe: Recipe, training: Examples, validation: Examples | None, epochs: _Epochs) -> None:
    import keras

    first_epoch = len(epochs.history)
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=epochs.end)]
    if recipe.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(log_dir=str(epochs.files.tensorboard), write_graph=False))
    model.fit(
        training_batches(recipe, training, first_epoch),
        steps_per_epoch=recipe.steps_per_epoch,
        initial_epoch=first_epoch,
        epochs=recipe.epochs,
        class_weight=class_weights(recipe, training),
        validation_data=validation and (validation.inputs[:, 0], validation.targets[:, 0]),
        validation_batch_size=PREDICT_BATCH,
        callbacks=callbacks,
        shuffle=False,  # batch_at() shuffles
        verbose=0,
    )


def _resume(model: Any, checkpoints: Checkpoints, resume: Resume, epochs: int) -> list[HistoryRow]:
    """Restore the latest checkpoint's state, if there is one and it is wanted; returns its history."""
    saved = None if resume == "never" else checkpoints.latest(at_most=epochs)
    if saved is not None:
        restore(model, saved)
        print(f"resumed after epoch {len(saved.history)} from {checkpoints.folder}", flush=True)
        return list(saved.history)
    others = checkpoints.others()
    if resume == "required":
        raise ConfigError(
            "--resume",
            f"a checkpoint of this recipe and these images in {checkpoints.folder.parent}",
            "only those of others" if others else "none",
            "Leave --resume out to begin anew.",
        )
    if others and resume == "if_possible":
        _log.warning("beginning anew: the checkpoints in %s are of another recipe or images", checkpoints.folder.parent)
    checkpoints.clear()
    return []


def _fingerprint(recipe: Recipe, training: LabelledArrays, validation: LabelledArrays | None) -> str:
    """A fingerprint of everything that the next epoch's weights depend on."""
    # A constant rate does not look ahead: such a run may continue for more epochs than first planned.
    outside = _OUTSIDE_FIT | ({"epochs"} if recipe.learning_rate_schedule == "constant" else set())
    # Runs from before there were three classes all had two, and can still continue.
    outside |= {"classes"} if recipe.classes == TWO_CLASSES else set()
    settings = json.dumps(recipe.model_dump(mode="json", exclude=outside), sort_keys=True)
    repeats = json.dumps(sorted((image.path, image.repeats) for image in training.images))
    return _sha256(settings, training.fingerprint, repeats, validation.fingerprint if validation else "")


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _agreement(targets: Any, probabilities: Any) -> Any:
    """Whether both name the same class; a teacher's targets are not the labels that Keras' accuracy would expect.

    With one output: whether both are on the same side of 0.5; with several: whether the largest is the same.
    """
    import keras

    if targets.shape[-1] > 1:
        first = keras.ops.equal(keras.ops.argmax(targets, axis=-1), keras.ops.argmax(probabilities, axis=-1))
        return keras.ops.cast(first, "float32")
    same = keras.ops.equal(targets >= _NEUTRAL, probabilities >= _NEUTRAL)
    return keras.ops.mean(keras.ops.cast(same, "float32"), axis=-1)


def _compile(model: Any, recipe: Recipe) -> None:
    import keras

    rate: Any = recipe.learning_rate
    if recipe.learning_rate_schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, recipe.epochs * recipe.steps_per_epoch)
    optimizer = {"rmsprop": keras.optimizers.RMSprop, "adam": keras.optimizers.Adam}[recipe.optimizer](rate)
    two = recipe.classes == TWO_CLASSES
    kind = keras.losses.BinaryCrossentropy if two else keras.losses.CategoricalCrossentropy
    model.compile(
        optimizer=optimizer,
        loss=kind(label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.MeanMetricWrapper(_agreement, name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)  # now, not at the first step: a checkpoint may fill it
