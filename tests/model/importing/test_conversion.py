"""Files of every kind, made here, become bundles whose results equal those of the files' own libraries."""

import importlib.util
import shutil
import warnings
from contextlib import contextmanager

import numpy as np
import pytest

from maskdet.errors import ConfigError, ModelError
from maskdet.labels import codes_of
from maskdet.model.backends import RuntimeSpec, load_model
from maskdet.model.importing.bundling import ContradictedError, Declaration, Sample, import_model, opened_source
from maskdet.model.importing.reading import SCALES, Reading


class Library:
    """A library by its name, imported only where it is used: in the worker that runs these tests."""

    def __init__(self, name):
        self.__name__ = name

    def __getattr__(self, attribute):
        if attribute.startswith("_") or attribute == "pytestmark":  # what pytest looks for in everything of a module
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self.__name__), attribute)


tf, keras, onnx, onnxruntime = LIBRARIES = [Library(name) for name in ("tensorflow", "keras", "onnx", "onnxruntime")]
INSTALLED = all(importlib.util.find_spec(library.__name__) for library in LIBRARIES)
pytestmark = [
    pytest.mark.usefixtures("in_this_process"),
    pytest.mark.skipif(not INSTALLED, reason="a library is not installed"),
    pytest.mark.xdist_group("tensorflow"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs were expected"),
]

SIDE, MOBILE_SIDE, IMAGES = 48, 64, 48
NO_IMAGES = Sample()


@pytest.fixture(scope="module")
def images(patches):
    return {side: patches(IMAGES, side, side, seed=5) for side in (SIDE, MOBILE_SIDE)}


def notebook():
    """A small form of the network of common tutorials on mask classifiers."""
    layers = keras.layers
    body = [
        part
        for filters in (8, 8, 12, 12)
        for part in (layers.Conv2D(filters, 3, activation="relu"), layers.MaxPool2D())
    ]
    head = [layers.Flatten(), layers.Dense(32, activation="relu"), layers.Dense(1, activation="sigmoid")]
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), *body, *head])


def mobilenet(units, activation):
    """MobileNetV2 down to its first sum: it has every kind of layer by then, and the other blocks repeat them."""
    base = keras.applications.MobileNetV2(
        input_shape=(MOBILE_SIDE, MOBILE_SIDE, 3), alpha=0.35, weights=None, include_top=False
    )
    pooled = keras.layers.GlobalAveragePooling2D()(base.get_layer("block_2_add").output)
    return keras.Model(base.input, keras.layers.Dense(units, activation=activation)(pooled))


def nested():
    """A network within a network, as transfer learning makes them, with logits for three classes."""
    images = keras.Input((MOBILE_SIDE, MOBILE_SIDE, 3))
    inner = keras.Sequential([keras.Input((MOBILE_SIDE, MOBILE_SIDE, 3)), keras.layers.Conv2D(8, 5, strides=4)])
    pooled = keras.layers.GlobalMaxPooling2D()(keras.layers.BatchNormalization()(inner(images)))
    return keras.Model(images, keras.layers.Dense(3)(keras.layers.Dropout(0.3)(pooled)))


def spread(model, pixels):
    """A last layer whose logits on these pixels lie around 0 and spread over a few units."""
    last = model.layers[-1]
    features = keras.Model(model.inputs[0], last.input)(pixels, training=False).numpy()
    kernel, _ = last.get_weights()
    logits = features @ kernel
    kernel *= 2 / logits.std()
    last.set_weights([kernel, -(features @ kernel).mean(axis=0)])
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory, images):
    """Folder of the files, and the Keras networks that they were made from."""
    keras.utils.set_random_seed(11)
    folder = tmp_path_factory.mktemp("files")
    unit, centred = images[SIDE] / np.float32(255), images[MOBILE_SIDE] / np.float32(127.5) - 1
    networks = {
        "notebook": spread(notebook(), unit),
        "mobilenet": spread(mobilenet(2, "softmax"), centred),
        "nested": spread(nested(), centred),
    }
    networks["notebook"].save(folder / "notebook.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        networks["mobilenet"].save(folder / "mobilenet.h5")
        networks["nested"].save(folder / "nested.keras")
    networks["nested"].export(folder / "saved", verbose=False)
    write_onnx(networks["notebook"], folder / "nchw.onnx")
    write_litert(networks["notebook"], unit, folder)
    return folder, networks


def write_onnx(model, file):
    import tf2onnx

    signature = [tf.TensorSpec((1, SIDE, SIDE, 3), tf.float32, name="x")]  # a batch of one, as many exporters write
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    network, _ = tf2onnx.convert.from_function(function, signature, opset=13, inputs_as_nchw=["x"])
    onnx.save(network, str(file))


def write_litert(model, samples, folder):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (folder / "float.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    (folder / "quantised.tflite").write_bytes(converter.convert())


def declared(classes, scale, side, layout="NHWC", **changes):
    chosen = SCALES[scale]
    reading = Reading(
        classes=classes,
        scale=scale,
        factor=chosen.factor,
        offset=chosen.offset,
        channels=changes.pop("channels", chosen.channels),
        layout=layout,
        activation=changes.pop("activation", None),
    )
    return Declaration(reading, side, side, "mine", **changes)


@contextmanager
def source_of(folder, name):
    with opened_source(str(folder / name)) as source:
        yield source


def imported(made, name, target, declaration, sample=NO_IMAGES):
    with source_of(made[0], name) as source:
        return import_model(source, declaration, str(target), sample)


def same(found, expected, classes=2):
    """Equal within 1e-4, with equal labels unless the label depends on the last digits."""
    np.testing.assert_allclose(found, expected, atol=1e-4)
    clear = np.abs(expected - 1 / classes).min(axis=1) > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found[clear].argmax(axis=1), expected[clear].argmax(axis=1))


def no_mask_and_mask(no_mask):
    return np.stack([no_mask, 1 - no_mask], axis=1)


def predicted(folder, images, backend, precision="float32"):
    return load_model(str(folder), RuntimeSpec(backend, precision)).predict(images)


def test_the_notebook_s_keras_file_whose_1_means_no_mask(made, images, tmp_path):
    manifest, conversion = imported(
        made, "notebook.keras", tmp_path / "b", declared(("mask", "no_mask"), "1/255", SIDE)
    )
    expected = no_mask_and_mask(made[1]["notebook"](images[SIDE] / np.float32(255), training=False).numpy()[:, 0])
    assert conversion.activation == "sigmoid"
    assert expected[:, 1].std() > 0.2
    for backend in ("tensorflow", "litert"):
        same(predicted(tmp_path / "b", images[SIDE], backend), expected)
    assert manifest.class_names == ("no_mask", "mask")
    assert {"model.keras", "model_float.tflite", "golden.npz"} < set(manifest.files)
    assert "model.tflite" not in manifest.files


@pytest.mark.parametrize(
    ("name", "other", "side"), [("notebook.keras", "a.h5", SIDE), ("mobilenet.h5", "a.keras", MOBILE_SIDE)]
)
def test_a_keras_file_under_the_other_format_s_name(name, other, side, made, images, tmp_path):
    shutil.copy(made[0] / name, tmp_path / other)
    declaration = declared(("no_mask", "mask"), "none", side)
    imported((tmp_path, {}), other, tmp_path / "b", declaration)
    given = made[1][name.partition(".")[0]](images[side].astype(np.float32), training=False).numpy()
    np.testing.assert_allclose(predicted(tmp_path / "b", images[side], "tensorflow")[:, 1], given[:, -1], atol=1e-4)


@pytest.mark.parametrize("scale", ["imagenet", "caffe"])
def test_scales_in_the_first_convolution_change_nothing(scale, made, images, tmp_path):
    """A convolution with 'valid' padding absorbs any scale; results equal those of pixels that were scaled before."""
    imported(made, "notebook.keras", tmp_path / "b", declared(("no_mask", "mask"), scale, SIDE))
    pixels = declared(("no_mask", "mask"), scale, SIDE).reading.pixels.apply(images[SIDE])
    mask = made[1]["notebook"](pixels, training=False).numpy()[:, 0]
    np.testing.assert_allclose(predicted(tmp_path / "b", images[SIDE], "tensorflow")[:, 1], mask, atol=1e-4)


def test_a_mobilenet_h5_with_a_softmax_of_two(made, images, tmp_path):
    imported(made, "mobilenet.h5", tmp_path / "b", declared(("mask", "no_mask"), "-1..1", MOBILE_SIDE))
    pixels = images[MOBILE_SIDE] / np.float32(127.5) - 1
    expected = made[1]["mobilenet"](pixels, training=False).numpy()[:, ::-1]
    for backend in ("tensorflow", "litert"):
        same(predicted(tmp_path / "b", images[MOBILE_SIDE], backend), expected)


@pytest.mark.parametrize("name", ["saved", "nested.keras"])
def test_logits_of_three_classes_in_an_order_of_their_own(name, made, images, tmp_path):
    classes = ("no_mask", "mask", "incorrect")
    declaration = declared(classes, "-1..1", MOBILE_SIDE)
    decision = declaration.decision.model_copy(update={"incorrect_from": 0.5})
    declaration = Declaration(declaration.reading, MOBILE_SIDE, MOBILE_SIDE, "mine", decision=decision)
    manifest, conversion = imported(made, name, tmp_path / "b", declaration)
    logits = made[1]["nested"](images[MOBILE_SIDE] / np.float32(127.5) - 1, training=False).numpy().astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert conversion.activation == "logits"
    for backend in ("tensorflow", "litert"):
        same(predicted(tmp_path / "b", images[MOBILE_SIDE], backend), shares[:, [1, 2, 0]], classes=3)
    assert manifest.class_names == ("mask", "incorrect", "no_mask")


def test_an_onnx_file_of_channels_first(made, images, tmp_path):
    declaration = declared(("mask", "no_mask"), "imagenet", SIDE, layout="NCHW", channels="BGR")
    imported(made, "nchw.onnx", tmp_path / "b", declaration)
    session = onnxruntime.InferenceSession((made[0] / "nchw.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    scaled = (images[SIDE] / 255.0 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    pixels = scaled[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    given = np.concatenate([session.run(None, {"x": one[None]})[0] for one in pixels])
    same(predicted(tmp_path / "b", images[SIDE], "onnx"), no_mask_and_mask(given[:, 0]))


@pytest.mark.parametrize("scale", ["1/255", "caffe"])
def test_a_litert_file(scale, made, images, tmp_path):
    declaration = declared(("mask", "no_mask"), scale, SIDE)
    imported(made, "float.tflite", tmp_path / "b", declaration)
    given = made[1]["notebook"](declaration.reading.pixels.apply(images[SIDE]), training=False).numpy()
    same(predicted(tmp_path / "b", images[SIDE], "litert"), no_mask_and_mask(given[:, 0]))


def test_a_litert_file_of_int8_takes_pixels_as_they_are(made, images, tmp_path):
    manifest, _ = imported(made, "quantised.tflite", tmp_path / "b", declared(("mask", "no_mask"), "1/255", SIDE))
    given = made[1]["notebook"](images[SIDE] / np.float32(255), training=False).numpy()
    found = predicted(tmp_path / "b", images[SIDE], "litert", "int8")
    assert np.abs(found[:, 0] - given[:, 0]).mean() < 0.05
    assert {"model.tflite"} == {name for name in manifest.files if name.endswith(".tflite")}


def test_int8_is_made_by_calibration_images(made, images, tmp_path):
    sample = Sample(representative=images[SIDE])
    _, conversion = imported(
        made, "notebook.keras", tmp_path / "b", declared(("mask", "no_mask"), "1/255", SIDE), sample
    )
    given = made[1]["notebook"](images[SIDE] / np.float32(255), training=False).numpy()
    found = predicted(tmp_path / "b", images[SIDE], "litert", "int8")
    assert np.abs(found[:, 0] - given[:, 0]).mean() < 0.02
    assert next(one for one in conversion.written if one.format == "litert_int8").equal_labels >= 0.95


def test_a_declaration_that_images_refute_is_refused_and_nothing_written(made, images, tmp_path):
    given = made[1]["notebook"](images[SIDE] / np.float32(255), training=False).numpy()[:, 0]
    classes = codes_of("no_mask" if value >= 0.5 else "mask" for value in given)  # 1 means no mask
    sample = Sample(labelled=images[SIDE], classes=classes)
    _, conversion = imported(
        made, "notebook.keras", tmp_path / "right", declared(("mask", "no_mask"), "1/255", SIDE), sample
    )
    assert conversion.check.declared.accuracy == 1.0
    with pytest.raises(ContradictedError, match=r"by --classes mask,no_mask, 100\.0% right") as caught:
        imported(made, "notebook.keras", tmp_path / "wrong", declared(("no_mask", "mask"), "1/255", SIDE), sample)
    assert caught.value.exit_code == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["right"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"activation": "softmax"}, ModelError, "those of a softmax"),
        ({"classes": ("mask", "incorrect", "no_mask")}, ConfigError, "1 output,"),
        ({"side": 50}, ModelError, "height 50"),
    ],
)
def test_declarations_that_do_not_fit_are_refused_and_nothing_written(changes, error, message, made, tmp_path):
    given = {"classes": ("mask", "no_mask"), "scale": "1/255", "side": SIDE, **changes}
    with pytest.raises(error, match=message):
        imported(made, "notebook.keras", tmp_path / "b", declared(**given))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["py_function", "write_file"])
def test_a_saved_model_of_tensorflow_s_that_calls_out_is_refused(call, tmp_path):
    class Evil(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32)])
        def score(self, images):
            if call == "py_function":
                return tf.reshape(tf.py_function(lambda x: x[:, 0, 0, :1], [images], tf.float32), (-1, 1))
            with tf.control_dependencies([tf.io.write_file(str(tmp_path / "written"), "x")]):
                return images[:, 0, 0, :1]

    evil = Evil()
    tf.saved_model.save(evil, str(tmp_path / "evil"), signatures={"serving_default": evil.score})
    found = {"py_function": "EagerPyFunc", "write_file": "WriteFile"}[call]
    with pytest.raises(ModelError, match=f"the operation {found}"), opened_source(str(tmp_path / "evil")):
        pass
    assert not (tmp_path / "written").exists()


def test_a_lambda_layer_of_keras_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x[:, 0, 0, :1])])
    model.save(tmp_path / "evil.keras")
    with pytest.raises(ModelError, match="Lambda"), opened_source(str(tmp_path / "evil.keras")):
        pass
