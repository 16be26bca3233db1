"""From a bundle to a bundle with other formats, each checked against the network's golden float32 outputs."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet import storage
from maskdet.errors import MaskdetError, ModelError, OutputError
from maskdet.model import tensorflow_export
from maskdet.model.bundle import Bundle, open_bundle, read_manifest, resolve
from maskdet.model.export import check_vacant, list_files, replaced_whole
from maskdet.model.formats import FORMATS, REFERENCE_OUTPUT, Format, select_formats
from maskdet.model.manifest import GOLDEN_FILE, KERAS_FILE, MANIFEST_FILE, TRAINING_IMAGES_FILE, Manifest
from maskdet.model.safety import refuse_unsafe

_ALWAYS_COPIED = (GOLDEN_FILE, TRAINING_IMAGES_FILE)


@dataclass(frozen=True)
class Written:
    """One format of the new bundle."""

    format: Format
    size_bytes: int
    difference: float
    """The largest difference between a golden input's probability and the network's in float32."""
    copied: bool
    """Whether the bundle had it already; if not, it was made from the Keras file."""


def convert_bundle(
    uri: str, folder: Path, names: Iterable[str], *, overwrite: bool = False
) -> tuple[Manifest, list[Written]]:
    """Write a bundle with another bundle's network in the formats asked for.

    Formats that the bundle has are copied byte for byte; the others are made from its Keras file. The new bundle
    appears under its name once every format has passed; until then, and if one fails, nothing is there.

    Args:
        uri: ``builtin``, or a bundle's folder in any storage.
        folder: the new bundle's.
        names: keys of :data:`maskdet.model.formats.FORMATS`.
        overwrite: whether a bundle that is already in the folder may be replaced.

    Returns:
        The new manifest, and what was written, in the order of the formats.

    Raises:
        ConfigError: a format is unknown, or a package that it needs is missing.
        ModelError: the bundle is missing or damaged, lacks what a format is made from, or a format fails its check.
        OutputError: the folder is the bundle itself, or holds something that is not a bundle or may not be replaced.
        StorageError: the bundle cannot be read, or the folder cannot be written.
    """
    formats = select_formats(names)
    check_vacant(folder, overwrite=overwrite)
    _refuse_own_folder(uri, folder)
    listed = read_manifest(uri).files
    missing = [made for made in formats if not made.is_in(listed)]
    for made in formats:
        made.check_installed(to_make=made in missing)
    _refuse_impossible(uri, listed, missing)
    needed = [*formats, FORMATS["keras"]] if missing else formats
    bundle = open_bundle(uri, lambda name: name in _ALWAYS_COPIED or any(made.holds(name) for made in needed))
    refuse_unsafe(bundle, lambda name: any(made.holds(name) for made in needed))
    with replaced_whole(folder) as building:
        _copy_files(bundle, building, [made for made in formats if made not in missing])
        _make(bundle, building, missing)
        outputs = {made.name: _run(bundle, building, made) for made in formats}
        differences = {made.name: _check(bundle, made, outputs[made.name]) for made in formats}
        _write_golden(bundle, building, {made.golden_output: outputs[made.name] for made in missing})
        manifest = _manifest(bundle.manifest, building, missing)
    sizes = {made.name: sum(f.size_bytes for name, f in manifest.files.items() if made.holds(name)) for made in formats}
    return manifest, [
        Written(made, sizes[made.name], differences[made.name], copied=made not in missing) for made in formats
    ]


def _refuse_own_folder(uri: str, folder: Path) -> None:
    location = resolve(uri)
    if storage.is_local(location) and storage.local_path(location).resolve() == folder.resolve():
        # It would lose the formats that were not asked for.
        raise OutputError("--output", "another folder than the model's", str(folder), "Name another output folder.")


def _refuse_impossible(uri: str, listed: Iterable[str], missing: Sequence[Format]) -> None:
    for made in missing:
        if made.write is None:
            remedy = "It is made of training images, which no bundle holds: export from the bundle that training wrote."
            raise ModelError(f"model {uri}", f"{made.path}, for format {made.name}", "none", remedy)
    if missing and KERAS_FILE not in listed:
        remedy = f"Ask for the formats it has, or export from a bundle with {KERAS_FILE}."
        raise ModelError(f"model {uri}", f"{KERAS_FILE}, to make {missing[0].name} from", "none", remedy)


@contextmanager
def _model_errors(bundle: Bundle, what: str) -> Iterator[None]:
    try:
        yield
    except MaskdetError:
        raise
    except Exception as error:  # converters and runtimes raise errors of any kind
        raise ModelError(f"model {bundle.folder}: {what}: {error}. Leave the format out, or train again.") from error


def _copy_files(bundle: Bundle, building: Path, formats: Sequence[Format]) -> None:
    for name in bundle.manifest.files:
        if name in _ALWAYS_COPIED or any(made.holds(name) for made in formats):
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / name, building / name)


def _make(bundle: Bundle, building: Path, formats: Sequence[Format]) -> None:
    if not formats:
        return
    with _model_errors(bundle, f"{KERAS_FILE} cannot be loaded"):
        model = tensorflow_export.load_keras(bundle.folder / KERAS_FILE)
    _check_shapes(bundle, model)
    for made in formats:
        with _model_errors(bundle, f"{made.name} cannot be made"):
            if made.write is not None:  # _refuse_impossible made sure of it
                made.write(model, building / made.path)


def _check_shapes(bundle: Bundle, model: Any) -> None:
    stated = bundle.manifest.input
    expected = ((None, stated.height, stated.width, 3), (None, bundle.manifest.outputs))
    if (model.input_shape, model.output_shape) != expected:
        received = (model.input_shape, model.output_shape)
        raise ModelError(f"{KERAS_FILE} of {bundle.folder}", f"shapes {expected}", received, "Train it again.")


def _run(bundle: Bundle, building: Path, made: Format) -> NDArray[np.float32]:
    inputs, _ = bundle.golden(REFERENCE_OUTPUT)
    with _model_errors(bundle, f"{made.name} cannot be run"):
        return made.run(building / made.path, inputs)


def _check(bundle: Bundle, made: Format, probabilities: NDArray[np.float32]) -> float:
    """The largest difference between a format's golden probabilities and the network's in float32.

    Raises:
        ModelError: it is larger than the format's tolerance, or the outputs have another shape.
    """
    _, expected = bundle.golden(REFERENCE_OUTPUT)
    if probabilities.shape != expected.shape:
        raise ModelError(f"format {made.name}", f"output {expected.shape}", probabilities.shape, "Leave it out.")
    difference = float(np.max(np.abs(probabilities - expected)))
    if not difference <= made.tolerance:  # also refuses NaN
        raise ModelError(
            f"format {made.name} of model {bundle.manifest.model_id}",
            f"the golden probabilities of {REFERENCE_OUTPUT} within {made.tolerance}",
            f"{difference:.6f} off",
            "Nothing was written. Leave this format out, or train again and export with these versions.",
        )
    return difference


def _write_golden(bundle: Bundle, building: Path, made: Mapping[str, NDArray[np.float32]]) -> None:
    """Add the golden outputs of the formats that were made; without any, the copied file stays as it is."""
    # The reference stays as training wrote it; otherwise errors would add up from bundle to bundle.
    added = {name: output for name, output in made.items() if name not in ("", REFERENCE_OUTPUT)}
    if not added:
        return
    with np.load(bundle.folder / GOLDEN_FILE, allow_pickle=False) as arrays:
        golden: dict[str, NDArray[Any]] = {**arrays, **added}
    np.savez_compressed(building / GOLDEN_FILE, allow_pickle=False, **golden)


def _manifest(source: Manifest, building: Path, missing: Sequence[Format]) -> Manifest:
    made_with = {package for made in missing for package in made.made_with}
    versions = {**source.versions, **{package: importlib.metadata.version(package) for package in sorted(made_with)}}
    files = dict(list_files(building))
    manifest = source.model_copy(update={"versions": versions, "files": files}).sealed()
    (building / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest
