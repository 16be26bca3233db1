"""From a model file and its declaration to the files of a bundle, each compared with the network itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from maskdet.errors import ModelError
from maskdet.model.export import golden_inputs
from maskdet.model.formats import FORMATS
from maskdet.model.importing.check import Check, check_reading
from maskdet.model.importing.facts import Kind, input_facts
from maskdet.model.importing.litert_conversion import convert_litert
from maskdet.model.importing.networks import Network, model_errors, open_network
from maskdet.model.importing.onnx_conversion import convert_onnx
from maskdet.model.importing.reading import Activation, Columns, Floats, Reading, told_activation
from maskdet.model.importing.tensorflow_conversion import TensorFlowConverter
from maskdet.model.manifest import GOLDEN_FILE, LITERT_FLOAT_FILE, LITERT_INT8_FILE, ONNX_FILE

FLOAT_TOLERANCE = 1e-4
"""How far a float32 file's probability may differ from the network's own."""
MIN_INT8_AGREEMENT = 0.95
"""Share of the calibration images that int8 has to label like float32."""
_COMPARED_IMAGES = 64


class Job(BaseModel):
    """The task of a conversion; images are arrays in files, since they cross between processes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    file: str
    reading: Reading
    height: int
    width: int
    folder: str
    """Where the files go; it exists."""
    labelled: str | None = None
    """``.npz`` of ``images``, uint8 RGB ``(n, height, width, 3)``, and ``classes``, their codes."""
    representative: str | None = None
    """``.npy`` of images on which int8 ranges are measured."""


class Written(BaseModel):
    """One file of the bundle, compared with the network."""

    model_config = ConfigDict(frozen=True)

    format: str
    images: int
    """How many images were compared."""
    difference: float
    """Largest difference of a probability."""
    equal_labels: float
    """Share of the images whose likeliest class is the same."""
    left_out: str = ""
    """Why the file is not in the bundle, if it is not."""


class Conversion(BaseModel):
    """The result of a conversion."""

    model_config = ConfigDict(frozen=True)

    activation: Activation
    check: Check | None = None
    written: tuple[Written, ...] = ()
    """Empty where the check refused the declaration."""


def convert_task(argument: Mapping[str, Any]) -> dict[str, Any]:
    """Like :func:`convert`, with what JSON can hold."""
    return convert(Job(**argument)).model_dump()


def convert(job: Job) -> Conversion:
    """Check a declaration, if there are labelled images, and write the files of a bundle, without its manifest.

    Raises:
        ModelError: the network cannot be loaded or run, or one of the files computes something else.
        ConfigError: the declaration does not fit the network.
    """
    network = open_network(job.kind, Path(job.file))
    _check_size(network, job)
    golden = golden_inputs(job.height, job.width)
    given = network.run(job.reading.pixels.apply(golden))
    # Noise in addition to the drawings: on few images, a saturated network's outputs look like probabilities.
    noise = np.random.default_rng(0).integers(0, 256, golden.shape).astype(np.uint8)
    values = np.concatenate([given, network.run(job.reading.pixels.apply(noise))])
    reading = job.reading.model_copy(update={"activation": _activation(job.reading, values)})
    columns = reading.columns(given.shape[1])
    check = _checked(job, network, reading)
    if check is not None and check.clearly_better is not None:
        return Conversion(activation=reading.activation or "logits", check=check)
    written = _write(job, network, reading, columns)
    kept = [one.format for one in written if not one.left_out]
    outputs = {FORMATS[name].golden_output: _run(job, name, golden) for name in kept if FORMATS[name].golden_output}
    np.savez_compressed(Path(job.folder) / GOLDEN_FILE, allow_pickle=False, inputs=golden, **outputs)
    return Conversion(activation=reading.activation or "logits", check=check, written=tuple(written))


def _activation(reading: Reading, values: Floats) -> Activation:
    """The declared activation, if the values bear it out, or the one that the values show."""
    declared = reading.activation
    if declared == "logits":
        return declared
    told = told_activation(values)
    if declared not in (None, told):
        remedy = "Leave --activation out, or correct it."
        raise ModelError("the network's outputs", f"those of a {declared}", f"those of {told}", remedy)
    return told


def _check_size(network: Network, job: Job) -> None:
    found = input_facts(network.shape)
    stated = {"height": job.height, "width": job.width, "layout": job.reading.layout}
    for name, value in found.items():
        if value is not None and value != stated[name]:
            raise ModelError("the network's input", f"{name} {stated[name]}", value, "Correct --size or --layout.")


def _checked(job: Job, network: Network, reading: Reading) -> Check | None:
    if job.labelled is None:
        return None
    with np.load(job.labelled, allow_pickle=False) as arrays:
        return check_reading(network.run, reading, arrays["images"], arrays["classes"])


def _write(job: Job, network: Network, reading: Reading, columns: Columns) -> list[Written]:
    folder, size = Path(job.folder), (job.height, job.width)
    representative = None if job.representative is None else np.load(job.representative, allow_pickle=False)
    compared = _compared_images(job, representative)
    expected = columns.apply(network.run(reading.pixels.apply(compared)))
    if job.kind == "onnx":
        converted = convert_onnx(network.loaded, reading.pixels, columns, size)
        (folder / ONNX_FILE).write_bytes(converted)
        return [_compare(job, "onnx", compared, expected)]
    if job.kind == "litert":
        file, quantised = convert_litert(network.loaded, reading.pixels, columns)
        (folder / (LITERT_INT8_FILE if quantised else LITERT_FLOAT_FILE)).write_bytes(file)
        return [_compare(job, "litert_int8" if quantised else "litert_float", compared, expected)]
    converter = TensorFlowConverter(network, reading, columns, size)
    writers: dict[str, Callable[[Path], None]] = {"saved_model": converter.write_saved_model}
    if job.kind != "saved_model":
        writers = {"keras": converter.write_keras, **writers}
    writers["litert_float"] = converter.write_litert_float
    if representative is not None:
        writers["litert_int8"] = lambda target: converter.write_litert_int8(target, representative)
    return [_made(job, name, write, compared, expected) for name, write in writers.items()]


def _made(job: Job, name: str, write: Callable[[Path], None], compared: NDArray[np.uint8], expected: Floats) -> Written:
    """Write a format and compare it; what LiteRT cannot represent is left out, since there is a SavedModel."""
    path = Path(job.folder) / FORMATS[name].path
    try:
        with model_errors(f"a network that can be written as {name}"):
            write(Path(job.folder))
            return _compare(job, name, compared, expected)
    except ModelError as error:
        if not name.startswith("litert"):
            raise
        path.unlink(missing_ok=True)
        return Written(format=name, images=0, difference=0.0, equal_labels=0.0, left_out=str(error))


def _compared_images(job: Job, representative: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Images on which files are compared with the network: real ones if there are any, and the golden drawings."""
    parts = [golden_inputs(job.height, job.width)]
    if representative is not None:
        parts.append(representative[:_COMPARED_IMAGES])
    if job.labelled is not None:
        with np.load(job.labelled, allow_pickle=False) as arrays:
            parts.append(arrays["images"][:_COMPARED_IMAGES])
    return np.concatenate(parts)


def _compare(job: Job, name: str, compared: NDArray[np.uint8], expected: Floats) -> Written:
    received = _run(job, name, compared)
    if received.shape != expected.shape:
        raise ModelError(f"format {name}", f"outputs {expected.shape}", received.shape, "Save the model again.")
    difference = float(np.abs(received - expected).max())
    equal = float((_likeliest(received) == _likeliest(expected)).mean())
    exact = name != "litert_int8"
    if (exact and not difference <= FLOAT_TOLERANCE) or (not exact and not equal >= MIN_INT8_AGREEMENT):
        wanted = f"probabilities within {FLOAT_TOLERANCE}" if exact else f"{MIN_INT8_AGREEMENT:.0%} equal labels"
        found = f"up to {difference:.5f} off" if exact else f"{equal:.1%} of {len(compared)} images"
        raise ModelError(f"format {name}, held against the network itself", wanted, found, "It is of no use so.")
    return Written(format=name, images=len(compared), difference=difference, equal_labels=equal)


def _likeliest(probabilities: Floats) -> NDArray[np.int64]:
    likeliest = probabilities >= 0.5 if probabilities.ndim == 1 else probabilities.argmax(axis=1)
    return np.asarray(likeliest, np.int64)


def _run(job: Job, name: str, images: NDArray[np.uint8]) -> Floats:
    return FORMATS[name].run(Path(job.folder) / FORMATS[name].path, images)
