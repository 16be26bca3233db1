"""A lean network gives the same as its file, bit for bit, whatever its first layers are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from maskdet.model import litert_export
from maskdet.model.bundle import BUILTIN_FOLDER
from maskdet.model.litert_graph import LiteRTGraph, lean, pair_kernel, takes_shifted
from maskdet.model.manifest import LITERT_FLOAT_FILE, LITERT_INT8_FILE

pytestmark = [
    pytest.mark.xdist_group("models"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

# Kind of the first convolution → whether it is changed to work on pairs of columns.
PAIRED = {
    "reference": True,
    "wide kernel": True,
    "even kernel": False,  # an odd number of columns comes out
    "odd width": False,
    "padded": False,
    "strided": False,
}
STEMS = {
    "wide kernel": {"kernel_size": (3, 5)},
    "even kernel": {"kernel_size": 2},
    "padded": {"padding": "same"},
    "strided": {"strides": 2},
}


def network(name):
    import keras
    from keras import layers

    pixels = keras.Input((24, 29 if name == "odd width" else 30, 3), name="images")
    tensor = layers.Rescaling(1 / 255, name="rescaling")(pixels)
    tensor = layers.Conv2D(10, **{"kernel_size": 3, "activation": "relu", **STEMS.get(name, {})})(tensor)
    tensor = layers.MaxPooling2D(2)(tensor)
    tensor = layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3, activation="relu")(tensor))
    tensor = layers.Dense(1, name="logit")(tensor)
    return keras.Model(pixels, layers.Activation("sigmoid", name="probability_mask")(tensor))


def run(file, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file, num_threads=1)
    [pixels], [probability] = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(pixels["index"], images.shape)
    interpreter.allocate_tensors()
    shifted = (images.astype(np.int16) - 128).astype(np.int8)
    interpreter.set_tensor(pixels["index"], shifted if takes_shifted(pixels) else images)
    interpreter.invoke()
    return interpreter.get_tensor(probability["index"])


def operators(file):
    graph = LiteRTGraph(file)
    names = {value: name for name, value in vars(graph.schema.BuiltinOperator).items() if isinstance(value, int)}
    return [names[graph.code(operator)] for operator in graph.operators]


@pytest.mark.parametrize("name", PAIRED)
def test_a_lean_network_computes_the_same_bits(name, patches, randomize):
    model = randomize(network(name))
    height, width = model.input_shape[1:3]
    file = litert_export.convert_int8(model, patches(16, height, width, seed=1))
    images = np.concatenate([patches(8, height, width, seed=2), np.zeros((1, height, width, 3), np.uint8)])
    images[-1, ::2] = 255
    expected = run(file, images)
    assert expected.std() > 0.05
    np.testing.assert_array_equal(run(lean(file), images), expected)
    assert operators(file)[:2] == ["QUANTIZE", "CONV_2D"]
    begins = ["RESHAPE", "CONV_2D", "RESHAPE"] if PAIRED[name] else ["CONV_2D", "MAX_POOL_2D"]
    assert operators(lean(file))[: len(begins)] == begins
    assert len(operators(lean(file))) == len(operators(file)) - 1 + 2 * PAIRED[name]


def test_the_built_in_network_computes_the_same_bits():
    file = (BUILTIN_FOLDER / LITERT_INT8_FILE).read_bytes()
    with np.load(BUILTIN_FOLDER / "golden.npz") as golden:
        images = golden["inputs"]
    np.testing.assert_array_equal(run(lean(file), images), run(file, images))
    assert "QUANTIZE" not in operators(lean(file))


def test_a_network_that_begins_otherwise_is_left_alone():
    file = (BUILTIN_FOLDER / LITERT_FLOAT_FILE).read_bytes()
    assert lean(file) is file
    shortened = lean((BUILTIN_FOLDER / LITERT_INT8_FILE).read_bytes())
    assert lean(shortened) is shortened


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
def test_a_paired_kernel_gives_both_columns(filters, rows, columns, channels, seed):
    rng = np.random.default_rng(seed)
    kernel = rng.integers(-128, 128, (filters, rows, columns, channels)).astype(np.int8)
    out_columns = 4
    # As many columns as the last pair of outputs reads, including those under the kernel's zeros.
    image = rng.integers(-128, 128, (rows, out_columns - 2 + (columns // 2 + 1) * 2, channels)).astype(np.int8)
    paired = pair_kernel(kernel)
    pairs = image.reshape(rows, -1, 2 * channels)
    assert paired.shape == (2 * filters, rows, columns // 2 + 1, 2 * channels)
    np.testing.assert_array_equal(
        convolved(pairs, paired).reshape(out_columns, filters), convolved(image, kernel)[:out_columns]
    )


def convolved(image, kernel):
    """One row of a convolution without padding: int64 ``(columns out, filters)``."""
    windows = sliding_window_view(image.astype(np.int64), kernel.shape[1:]).reshape(-1, *kernel.shape[1:])
    return np.einsum("wrcd,frcd->wf", windows, kernel.astype(np.int64))
