"""From a network to what TensorFlow reads: a Keras file and a SavedModel."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet.model.folding import folded


def graph_output(model: Any, pixels: Any) -> dict[str, Any]:
    """The output of a network's graphs, under its name in every format.

    Args:
        model: a ``keras.Model`` of :func:`maskdet.model.architectures.build_model`.
        pixels: float32 ``(batch, height, width, 3)``.

    Returns:
        ``probability_mask`` ``(batch,)`` for a network of two classes, else ``probabilities`` ``(batch, classes)``.
    """
    import tensorflow as tf

    given = model(pixels, training=False)
    return {"probability_mask": tf.reshape(given, [-1])} if model.output_shape[-1] == 1 else {"probabilities": given}


def write_keras(model: Any, file: Path) -> None:
    """Write a compressed Keras file: Keras does not compress, and a quarter of its HDF5 is padding.

    Args:
        model: a ``keras.Model`` without optimizer.
        file: where to.
    """
    model.save(file)
    with zipfile.ZipFile(file) as stored:
        parts = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as compressed:
        for name, data in parts.items():
            compressed.writestr(name, data)


def load_keras(file: Path) -> Any:
    """The ``keras.Model`` of a Keras file; layers that hold Python code are refused."""
    import keras

    return keras.saving.load_model(file, compile=False, safe_mode=True)


def run_keras(file: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Score images with a Keras file, in one batch.

    Args:
        file: a Keras file.
        images: RGB uint8 ``(batch, height, width, 3)``.

    Returns:
        Probabilities of "mask", float32 ``(batch,)``, or of the classes, ``(batch, classes)``.
    """
    probabilities: NDArray[np.float32] = load_keras(file)(images.astype(np.float32), training=False).numpy()
    return probabilities.reshape(-1) if probabilities.shape[1] == 1 else probabilities


def write_saved_model(model: Any, folder: Path) -> None:
    """Write a SavedModel with one signature.

    Its signature takes ``images`` uint8 ``(batch, height, width, 3)`` and gives what :func:`graph_output` says.

    Args:
        model: a ``keras.Model`` of :func:`maskdet.model.architectures.build_model`.
        folder: where to; it does not exist yet.
    """
    import tensorflow as tf

    model = folded(model)  # half as many variables, whose names and paths take more space than their values

    class Scorer(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            # Weights only: the Keras model itself would include its training graphs.
            self.weights = [variable.value for variable in model.variables]

        @tf.function(input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="images")])  # type: ignore[untyped-decorator]
        def score(self, images: Any) -> dict[str, Any]:
            return graph_output(model, tf.cast(images, tf.float32))

    scorer = Scorer()
    tf.saved_model.save(scorer, str(folder), signatures={"serving_default": scorer.score})
    (folder / "assets").rmdir()  # empty, and so lost in stores, where folders are only parts of names


def run_saved_model(folder: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Score images with a SavedModel, in one batch.

    Args:
        folder: a SavedModel that this module wrote.
        images: RGB uint8 ``(batch, height, width, 3)``.

    Returns:
        Probabilities of "mask", float32 ``(batch,)``, or of the classes, ``(batch, classes)``.
    """
    import tensorflow as tf

    score = tf.saved_model.load(str(folder)).signatures["serving_default"]
    (given,) = score(images=tf.constant(images)).values()
    probabilities: NDArray[np.float32] = given.numpy()
    return probabilities
