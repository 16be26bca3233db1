"""Find out which kind of model a file is, and what it says, without running any of it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maskdet.errors import ModelError
from maskdet.model.importing.facts import KINDS, Facts, Kind
from maskdet.model.importing.keras_file import inspect_h5, inspect_keras
from maskdet.model.importing.limited import INSPECTION, run_limited
from maskdet.model.importing.litert_file import inspect_litert
from maskdet.model.importing.onnx_file import external_files, inspect_onnx
from maskdet.model.importing.saved_model import GRAPH_FILE, inspect_saved_model

_INSPECT: Mapping[Kind, Callable[[Path], Facts]] = {
    "keras": inspect_keras,
    "h5": inspect_h5,
    "saved_model": inspect_saved_model,
    "onnx": inspect_onnx,
    "litert": inspect_litert,
}
_ENDINGS: Mapping[str, Kind] = {
    ".keras": "keras",
    ".h5": "h5",
    ".hdf5": "h5",
    ".onnx": "onnx",
    ".tflite": "litert",
    ".lite": "litert",
}
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy", ".npz", ".ckpt")
_HDF5, _ZIP, _PICKLE = b"\x89HDF", b"PK\x03\x04", b"\x80"


def inspect(file: Path) -> Facts:
    """Inspect a model in a process of its own with limits.

    Args:
        file: a file, or the folder of a SavedModel, on this machine.

    Raises:
        ModelError: it is of an unknown kind, is damaged, or has something that is not allowed.
    """
    return Facts(**run_limited(f"{__name__}:inspect_task", {"file": str(file)}, INSPECTION))


def inspect_task(argument: Mapping[str, Any]) -> dict[str, Any]:
    """The task of :func:`inspect`."""
    return look_at(Path(argument["file"])).model_dump()


def list_external_files(file: Path) -> list[str]:
    """The files beside an ONNX file that hold its weights, found in a process of its own with limits.

    Raises:
        ModelError: one is not beside it, or the file is damaged.
    """
    names: list[str] = run_limited(f"{__name__}:external_files_task", {"file": str(file)}, INSPECTION)
    return names


def external_files_task(argument: Mapping[str, Any]) -> list[str]:
    """The task of :func:`list_external_files`."""
    return external_files(Path(argument["file"]))


def look_at(file: Path) -> Facts:
    """As :func:`inspect`, in this process."""
    return _INSPECT[kind_of(file)](file)


def kind_of(file: Path) -> Kind:
    """Which kind of model something is, by its name and its first bytes.

    Raises:
        ModelError: it is not one that can be imported.
    """
    if file.is_dir():
        if (file / GRAPH_FILE).is_file():
            return "saved_model"
        raise ModelError("the model", f"a file, or a folder with {GRAPH_FILE}", str(file), "Name the model itself.")
    with file.open("rb") as stream:
        head = stream.read(8)
    if file.suffix.lower() in _PICKLES or head[:1] == _PICKLE or _is_torch(file, head):
        remedy = "Reading a pickle runs the code in it. Export it: torch.onnx.export(model, example, 'model.onnx')."
        raise ModelError("the model file", _kinds(), f"a pickle, or what may hold one: {file.name}", remedy)
    kind = _ENDINGS.get(file.suffix.lower())
    if head[:4] == _ZIP:
        kind = "keras"
    elif head[:4] == _HDF5:
        kind = "h5"  # whatever its name: Keras goes by the name, and would take it for the other kind
    if kind is None:
        raise ModelError("the model file", _kinds(), file.name, "Name a file with one of these endings.")
    return kind


def _is_torch(file: Path, head: bytes) -> bool:
    if head[:4] != _ZIP:
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith(("data.pkl", ".npy")) for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _kinds() -> str:
    return ", ".join(KINDS.values())
