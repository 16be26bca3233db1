"""From a Keras or TensorFlow network to a SavedModel and LiteRT files that take uint8 RGB and give probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet.model import litert_export, tensorflow_export
from maskdet.model.importing.keras_network import completed, last_dense, with_pixels_folded
from maskdet.model.importing.litert_conversion import put_columns
from maskdet.model.importing.networks import Network
from maskdet.model.importing.reading import Columns, Pixels, Reading
from maskdet.model.litert_graph import LiteRTGraph
from maskdet.model.manifest import KERAS_FILE, LITERT_FLOAT_FILE, LITERT_INT8_FILE, SAVED_MODEL_FOLDER


class TensorFlowConverter:
    """Writes the files of a network.

    Args:
        network: a Keras network or a SavedModel.
        reading: what its ends mean, complete.
        columns: its outputs' arithmetic.
        size: height and width of its input.
    """

    def __init__(self, network: Network, reading: Reading, columns: Columns, size: tuple[int, int]) -> None:
        self._network, self._reading, self._columns, self._size = network, reading, columns, size
        self._model, self._pixels = network.loaded, reading.pixels
        if network.kind != "saved_model":
            self._model, self._pixels = with_pixels_folded(network.loaded, reading.pixels)

    def write_keras(self, folder: Path) -> None:
        """Write a Keras file; for a Keras network only."""
        tensorflow_export.write_keras(
            completed(self._model, self._pixels, self._columns, self._size), folder / KERAS_FILE
        )

    def write_saved_model(self, folder: Path) -> None:
        """Write a SavedModel with one signature, like :func:`maskdet.model.tensorflow_export.write_saved_model`."""
        import tensorflow as tf

        scorer = self._module(self._score, tf.uint8)
        target = folder / SAVED_MODEL_FOLDER
        tf.saved_model.save(scorer, str(target), signatures={"serving_default": scorer.score})
        (target / "assets").rmdir()  # empty, and so lost in stores, where folders are only parts of names

    def write_litert_float(self, folder: Path) -> None:
        """Write a float32 LiteRT file."""
        import tensorflow as tf

        scorer = self._module(self._score, tf.uint8)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([scorer.score.get_concrete_function()], scorer)
        (folder / LITERT_FLOAT_FILE).write_bytes(litert_export.converted(converter))

    def write_litert_int8(self, folder: Path, representative: NDArray[np.uint8]) -> None:
        """Write an int8 LiteRT file; if the network ends with a dense layer, that layer stays float32.

        Args:
            folder: to write to.
            representative: RGB uint8 ``(images, height, width, 3)`` on which ranges are measured.
        """
        import tensorflow as tf

        body, columns = self._body()
        samples = representative.astype(np.float32)
        samples[0, 0, 0] = (0.0, 255.0, 255.0)  # a pixel's whole range, so that its scale comes out as exactly 1

        def one_by_one() -> Iterator[list[NDArray[np.float32]]]:
            return ([sample[np.newaxis]] for sample in samples)

        scorer = self._module(lambda images: {"given": body(self._prepared(images))}, tf.float32)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([scorer.score.get_concrete_function()], scorer)
        litert_export.quantise(converter, one_by_one)
        graph = LiteRTGraph(litert_export.converted(converter))
        litert_export.check_pixels_unscaled(graph)
        put_columns(graph, columns)
        (folder / LITERT_INT8_FILE).write_bytes(graph.to_bytes())

    def _body(self) -> tuple[Callable[[Any], Any], Columns]:
        """The part to be quantised, and the float32 arithmetic after it."""
        found = last_dense(self._model) if self._network.kind != "saved_model" else None
        if found is None:
            return self._given, self._columns
        head, curved = found
        columns = self._columns
        if curved:
            columns = self._reading.model_copy(update={"activation": "logits"}).columns(len(head.bias))
        kernel, bias = head.kernel @ columns.kernel, head.bias @ columns.kernel + columns.bias
        return lambda pixels: head.features(pixels, training=False), Columns(kernel, bias, columns.curve)

    def _module(self, function: Callable[[Any], Any], pixel_type: Any) -> Any:
        import tensorflow as tf

        holder = tf.Module()
        # Weights only: the Keras model itself would include its training graphs.
        keras_model = self._network.kind != "saved_model"
        holder.held = [variable.value for variable in self._model.variables] if keras_model else self._model
        signature = tf.TensorSpec((None, *self._size, 3), pixel_type, name="images")
        holder.score = tf.function(function, input_signature=[signature])
        return holder

    def _score(self, images: Any) -> dict[str, Any]:
        import tensorflow as tf

        given = self._given(self._prepared(tf.cast(images, tf.float32)))
        made = tf.cast(given, tf.float32)
        kernel, bias, curve = self._columns
        if kernel.shape != (1, 1) or kernel[0, 0] != 1 or bias[0]:
            made = tf.matmul(made, tf.constant(kernel)) + tf.constant(bias)
        if curve is not None:
            made = {"sigmoid": tf.sigmoid, "softmax": tf.nn.softmax}[curve](made)
        return {"probability_mask": tf.reshape(made, [-1])} if kernel.shape[1] == 1 else {"probabilities": made}

    def _prepared(self, pixels: Any) -> Any:
        return prepared(pixels, self._pixels)

    def _given(self, pixels: Any) -> Any:
        import tensorflow as tf

        typed = tf.cast(pixels, tf.as_dtype(self._network.dtype))
        if self._network.kind == "saved_model":
            return self._network.call(typed)
        return self._model(typed, training=False)


def prepared(images: Any, pixels: Pixels) -> Any:
    """The arithmetic of :meth:`maskdet.model.importing.reading.Pixels.apply` on a TensorFlow tensor.

    Args:
        images: float32 RGB ``(batch, height, width, 3)``.
        pixels: the arithmetic.
    """
    import tensorflow as tf

    if set(pixels.factor) != {1.0} or any(pixels.offset):
        images = images * tf.constant(pixels.factor, tf.float32) + tf.constant(pixels.offset, tf.float32)
    if pixels.channels == "BGR":
        images = tf.reverse(images, axis=[-1])
    return tf.transpose(images, (0, 3, 1, 2)) if pixels.layout == "NCHW" else images
