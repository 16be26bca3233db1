"""Use the outputs of large networks as the target of a small one.

Source: Geoffrey Hinton, Oriol Vinyals and Jeff Dean, "Distilling the Knowledge in a Neural Network" (2015); here with
probabilities at temperature 1, and the teachers asked about every view that the student will see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ConfigError
from maskdet.labels import TWO_CLASSES
from maskdet.model.manifest import KERAS_FILE
from maskdet.training.data import LabelledArrays, network_targets
from maskdet.training.pretrained import cached_features
from maskdet.training.recipe import Recipe


def load_teachers(recipe: Recipe) -> list[Any]:
    """The networks that a recipe names as its teachers.

    Raises:
        ConfigError: there is no such file, or its network takes another size.
    """
    return [_load(Path(place), recipe) for place in recipe.teachers]


def _load(place: Path, recipe: Recipe) -> Any:
    import keras

    file = place / KERAS_FILE if place.is_dir() else place.with_suffix(".keras")
    if not file.is_file():
        raise ConfigError("teachers", "bundles or .keras files", f"no {file}", "Train it first: its recipe says how.")
    teacher = keras.saving.load_model(file, compile=False)
    if tuple(teacher.input_shape[1:3]) != (recipe.height, recipe.width):
        expected = f"input of {recipe.height} × {recipe.width} pixels"
        received = f"{teacher.input_shape[1]} × {teacher.input_shape[2]}"
        raise ConfigError("teachers", expected, received, "Make the sizes agree.")
    outputs = 1 if recipe.classes == TWO_CLASSES else len(recipe.classes)
    if teacher.output_shape[-1] != outputs:
        expected = f"{outputs} outputs, for the classes {', '.join(recipe.classes)}"
        raise ConfigError("teachers", expected, f"{file}: {teacher.output_shape[-1]}", "Train it on the same classes.")
    return teacher


def targets(teachers: list[Any], recipe: Recipe, training: LabelledArrays, folder: Path) -> NDArray[np.float32] | None:
    """The target for each view: ``teacher_weight`` times the teachers' mean, and the label for the rest.

    Args:
        teachers: images to probabilities.
        recipe: has their weight.
        training: the views.
        folder: where their probabilities are kept for a resumed run.

    Returns:
        float32 ``(images, copies, outputs)``, or ``None`` without teachers.
    """
    if not teachers:
        return None
    told = [
        cached_features(teacher, training.pixels, folder, f"teacher-{number}")
        for number, teacher in enumerate(teachers)
    ]
    labels = network_targets(training.labels, recipe.classes)[:, np.newaxis]
    mixed: NDArray[np.float32] = labels + np.float32(recipe.teacher_weight) * (np.mean(told, axis=0) - labels)
    return mixed
