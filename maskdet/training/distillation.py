"""A large network's word as the target of a small one.

Source: Geoffrey Hinton, Oriol Vinyals and Jeff Dean, "Distilling the Knowledge in a Neural Network" (2015); here with
one unit, at temperature 1, and the teacher asked about every view that the student will see.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ConfigError
from maskdet.model.manifest import KERAS_FILE
from maskdet.training.data import LabelledArrays
from maskdet.training.pretrained import cached_features
from maskdet.training.recipe import Recipe


def targets(recipe: Recipe, training: LabelledArrays, folder: Path) -> NDArray[np.float32] | None:
    """What the network should say of each view: ``teacher_weight`` of the teacher's probability, the rest the label.

    Args:
        recipe: names the teacher's bundle.
        training: the views.
        folder: where the teacher's probabilities are kept for a run that goes on.

    Returns:
        float32 ``(images, copies)``, or ``None`` without a teacher.

    Raises:
        ConfigError: there is no such bundle, or its network takes another size.
    """
    if not recipe.teacher:
        return None
    import keras

    file = Path(recipe.teacher) / KERAS_FILE
    if not file.is_file():
        raise ConfigError("teacher", "a model bundle", f"no {file}", "Train it first: its recipe says how.")
    teacher = keras.saving.load_model(file, compile=False)
    if tuple(teacher.input_shape[1:3]) != (recipe.height, recipe.width):
        size = f"{teacher.input_shape[1]} × {teacher.input_shape[2]}"
        raise ConfigError("teacher", f"input of {recipe.height} × {recipe.width} pixels", size, "Make the sizes agree.")
    probabilities = cached_features(teacher, training.pixels, folder, "teacher-probabilities")[..., 0]
    labels = training.labels[:, np.newaxis].astype(np.float32)
    return labels + np.float32(recipe.teacher_weight) * (probabilities - labels)
