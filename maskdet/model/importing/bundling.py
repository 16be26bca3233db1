"""From a user's model file to a bundle: copied, inspected, declared, converted, checked, and then put in place."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from maskdet import storage
from maskdet.errors import ConfigError, ModelError, NotFoundError, TooLargeError
from maskdet.labels import Codes, Decision
from maskdet.model.bundle import file_sha256
from maskdet.model.export import check_vacant, list_files, replaced_whole
from maskdet.model.importing import conversion
from maskdet.model.importing.check import Check, Trial
from maskdet.model.importing.conversion import Conversion, Job
from maskdet.model.importing.facts import KINDS, Facts, Kind
from maskdet.model.importing.inspection import inspect, kind_of, list_external_files
from maskdet.model.importing.keras_file import MOST_BYTES
from maskdet.model.importing.limited import CONVERSION, run_limited
from maskdet.model.importing.reading import Reading
from maskdet.model.importing.saved_model import GRAPH_FILE
from maskdet.model.manifest import MANIFEST_FILE, ImportedFrom, InputSpec, Manifest, ResizeFilter, TrainingData

ARCHITECTURE = "imported"

_NEEDS: dict[Kind, tuple[str, ...]] = {
    "keras": ("tensorflow", "h5py"),
    "h5": ("tensorflow", "h5py"),
    "saved_model": ("tensorflow",),
    "onnx": ("onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
}
_PACKAGES: dict[Kind, tuple[str, ...]] = {
    "keras": ("tensorflow", "keras", "ai-edge-litert"),
    "h5": ("tensorflow", "keras", "ai-edge-litert"),
    "saved_model": ("tensorflow", "ai-edge-litert"),
    "onnx": ("onnx", "onnxruntime"),
    "litert": ("ai-edge-litert",),
}
_MOST_FILES = 64


@dataclass(frozen=True)
class Source:
    """A model that was copied to a private folder and inspected."""

    name: str
    """The name of its file or folder."""
    file: Path
    """The copy."""
    facts: Facts
    sha256: str


@dataclass(frozen=True)
class Declaration:
    """What a user declares about a model.

    Attributes:
        reading: what its input and outputs mean.
        height: of its input, in pixels.
        width: of its input, in pixels.
        name: the bundle's.
        faces: what it was trained on; ``None`` if not declared.
        decision: thresholds of the labels.
        resize_filter: how images were resized in training.
    """

    reading: Reading
    height: int
    width: int
    name: str
    faces: Literal["detect", "whole"] | None = None
    decision: Decision = Decision()
    resize_filter: ResizeFilter = "bilinear"

    @property
    def input(self) -> InputSpec:
        """What the bundle takes as input."""
        return InputSpec(height=self.height, width=self.width, resize_filter=self.resize_filter)


@dataclass(frozen=True)
class Sample:
    """Images for a conversion, uint8 RGB ``(images, height, width, 3)`` in the model's size.

    Attributes:
        labelled: those on which the declaration is checked.
        classes: codes of their classes, ``(images,)``.
        representative: those on which int8 ranges are measured.
    """

    labelled: NDArray[np.uint8] | None = None
    classes: Codes | None = None
    representative: NDArray[np.uint8] | None = None


class ContradictedError(ModelError):
    """The error for a declaration that labelled images refute.

    Args:
        check: the result of checking it.
    """

    def __init__(self, check: Check) -> None:
        better = check.clearly_better
        assert better is not None, "a check that refutes"
        super().__init__(
            f"as declared, {_figures(check.declared)} on {check.declared.images} labelled images; by {better.reading}, "
            f"{_figures(better)}. Correct the flags, or, if they are right, the labels. Nothing was written."
        )
        self.check = check


def _figures(trial: Trial) -> str:
    return f"{trial.accuracy:.1%} right, log loss {trial.log_loss:.3f}"


@contextmanager
def opened_source(uri: str) -> Iterator[Source]:
    """Copy a model to a private folder, so that what is inspected is what is loaded, and inspect it.

    Args:
        uri: a file, or the folder of a SavedModel, in any storage.

    Raises:
        ModelError: there is none, it is damaged, or it has something that is not allowed.
        ConfigError: a package that its kind needs is not installed.
        StorageError: it cannot be read.
    """
    location = storage.normalize(uri)
    name = location.rstrip("/").rpartition("/")[2]
    with tempfile.TemporaryDirectory(prefix="maskdet-import-") as folder:
        file = Path(folder) / (name or "model")
        _copy(location, file)
        kind = kind_of(file)
        _check_installed(kind)
        file = _with_ending(file, kind)
        if kind == "onnx":
            for beside in list_external_files(file):
                _copy_file(storage.join(storage.parent(location), beside), Path(folder) / beside)
        yield Source(name, file, inspect(file), _digest(file, Path(folder)))


def import_model(
    source: Source, declaration: Declaration, output: str, sample: Sample = Sample(), *, overwrite: bool = False
) -> tuple[Manifest, Conversion]:
    """Make a bundle from a model; it appears under its name once everything has passed.

    Args:
        source: the model.
        declaration: what the user says about it.
        output: the bundle's folder, in any storage.
        sample: images to check the declaration on, and to quantise by.
        overwrite: whether a bundle that is already there may be replaced.

    Returns:
        The manifest, and the result of the conversion.

    Raises:
        ContradictedError: labelled images show that another reading is clearly better.
        ModelError: the network cannot be loaded, run or converted, or a file computes something else than the network.
        ConfigError: the declaration does not fit the network.
        OutputError: the output holds something that is not a bundle, or a bundle that may not be replaced.
        StorageError: the output cannot be written.
    """
    location = storage.normalize(output)
    check_vacant(location, overwrite=overwrite)
    with _output_folder(location) as folder, replaced_whole(folder) as building:
        with tempfile.TemporaryDirectory(prefix="maskdet-images-") as arrays:
            job = _job(source, declaration, building, sample, Path(arrays))
            made = Conversion(**run_limited(f"{conversion.__name__}:convert_task", job.model_dump(), CONVERSION))
        if made.check is not None and made.check.clearly_better is not None:
            raise ContradictedError(made.check)
        files = dict(list_files(building))
        draft = _manifest(source, declaration, made)
        manifest = draft.model_copy(update={"files": files}).sealed()
        (building / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest, made


def _with_ending(file: Path, kind: Kind) -> Path:
    """The copy under a name with its kind's ending, by which Keras tells the two kinds of its files apart."""
    if kind not in ("keras", "h5") or file.suffix == f".{kind}":
        return file
    return file.rename(file.with_suffix(f".{kind}"))


@contextmanager
def _output_folder(location: str) -> Iterator[Path]:
    """A local folder for a bundle; for other storage it is uploaded at the end, the manifest last."""
    if storage.is_local(location):
        yield storage.local_path(location)
        return
    with tempfile.TemporaryDirectory(prefix="maskdet-bundle-") as parent:
        folder = Path(parent) / "bundle"
        yield folder
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == MANIFEST_FILE):
            storage.write_bytes(storage.join(location, path.relative_to(folder).as_posix()), path.read_bytes())


def _copy(location: str, target: Path) -> None:
    """Copy a file, or the part of a SavedModel's folder that is read when it is loaded."""
    graph = storage.join(location, GRAPH_FILE)
    if storage.is_local_folder(location) or (not storage.is_local(location) and storage.exists(graph)):
        if not storage.exists(graph):
            remedy = "Name the model's file, or the folder of a SavedModel."
            raise ModelError("the model", f"a file, or a folder with {GRAPH_FILE}", location, remedy)
        _copy_file(graph, target / GRAPH_FILE)
        found = [file.uri for file in storage.list_folder(storage.join(location, "variables"))]
        if len(found) > _MOST_FILES:
            expected = f"at most {_MOST_FILES} files of variables"
            raise ModelError("the SavedModel", expected, len(found), "Save it again.")
        for uri in found:
            _copy_file(uri, target / "variables" / uri.rpartition("/")[2])
        return
    _copy_file(location, target)


def _copy_file(uri: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.write_bytes(storage.read_bytes(uri, MOST_BYTES))
    except NotFoundError as error:
        raise ModelError("the model", "a file", uri, f"Nothing is there; {storage.did_you_mean(uri)}") from error
    except TooLargeError as error:
        raise ModelError("the model", f"a file of at most {MOST_BYTES:,} bytes", uri, "Save a smaller one.") from error


def _check_installed(kind: Kind) -> None:
    missing = [module for module in _NEEDS[kind] if importlib.util.find_spec(module) is None]
    if missing:
        extra = "onnx" if kind == "onnx" else "tensorflow"
        raise ConfigError(
            f"import of {KINDS[kind]}", f"the package {missing[0]}", "none", f"Run: pip install 'maskdet[{extra}]'."
        )


def _digest(file: Path, folder: Path) -> str:
    """SHA-256 of a file, or of the names and hashes of several."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if paths == [file]:
        return file_sha256(file)
    lines = [f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _job(source: Source, declaration: Declaration, folder: Path, sample: Sample, arrays: Path) -> Job:
    labelled = representative = None
    if sample.labelled is not None and sample.classes is not None:
        labelled = str(arrays / "labelled.npz")
        np.savez(labelled, allow_pickle=False, images=sample.labelled, classes=sample.classes)
    if sample.representative is not None:
        representative = str(arrays / "representative.npy")
        np.save(representative, sample.representative, allow_pickle=False)
    return Job(
        kind=source.facts.kind,
        file=str(source.file),
        reading=declaration.reading,
        height=declaration.height,
        width=declaration.width,
        folder=str(folder),
        labelled=labelled,
        representative=representative,
    )


def _manifest(source: Source, declaration: Declaration, made: Conversion) -> Manifest:
    reading, facts = declaration.reading, source.facts
    return Manifest(
        name=declaration.name,
        architecture=ARCHITECTURE,
        description=f"Imported from {source.name}, {KINDS[facts.kind]} of {facts.made_with or 'an unknown library'}.",
        input=declaration.input,
        class_names=reading.class_names,
        decision=declaration.decision,
        training_data=TrainingData(description="unknown: the network was imported", images=0, fingerprint=""),
        faces=declaration.faces,
        imported=ImportedFrom(
            source=source.name,
            sha256=source.sha256,
            made_with=facts.made_with,
            activation=made.activation,
            **reading.model_dump(exclude={"activation"}),
        ),
        versions={package: importlib.metadata.version(package) for package in (*_PACKAGES[facts.kind], "numpy")},
    )
