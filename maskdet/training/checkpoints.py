"""A training run's full state after each epoch, on disk: everything needed to continue as if nothing had happened."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import OutputError

HistoryRow = Mapping[str, float]

_FILE = re.compile(r"epoch-(\d+)\.npz")
_STATE = "state"
_FOLDER_DIGITS = 12
_log = logging.getLogger(__name__)


class Saved(NamedTuple):
    """A checkpoint that was read."""

    history: tuple[HistoryRow, ...]
    """One row per finished epoch."""
    variables: tuple[NDArray[Any], ...]
    """Weights, moving averages and the random state of dropout, in the network's order."""
    optimizer_variables: tuple[NDArray[Any], ...]


class Checkpoints:
    """The checkpoints of one run: ``<start of the fingerprint>/epoch-0003.npz`` is the state after three epochs.

    Files are written under a temporary name and renamed, so that a file under its final name is complete. Different
    runs leave each other's files alone: a setting changed by mistake costs no checkpoint.
    """

    def __init__(self, parent: Path, fingerprint: str) -> None:
        """Take the folder of all runs' folders, none of which has to exist yet, and this run's fingerprint."""
        self.folder = parent / fingerprint[:_FOLDER_DIGITS]
        self._fingerprint = fingerprint

    def save(self, model: Any, history: Sequence[HistoryRow], *, kept: int, best: int | None = None) -> None:
        """Write the state after ``len(history)`` epochs and remove older ones.

        Args:
            model: a compiled ``keras.Model`` with a built optimizer.
            history: one row per finished epoch.
            kept: how many of the latest checkpoints stay.
            best: the number of epochs after which one more checkpoint is kept.
        """
        arrays = dict(_named("variable", model.variables)) | dict(_named("optimizer", model.optimizer.variables))
        state = json.dumps({"fingerprint": self._fingerprint, "history": [dict(row) for row in history]})
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **{_STATE: np.array(state)}, **arrays)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(len(history)), content.getvalue())
        for path, epochs in self._files():
            if epochs <= len(history) - kept and epochs != best:
                path.unlink()

    def latest(self, at_most: int) -> Saved | None:
        """The newest readable checkpoint after at most some number of epochs."""
        for path, epochs in reversed(self._files()):
            saved = self._read(path) if epochs <= at_most else None
            if saved is not None:
                return saved
        return None

    def after(self, epochs: int) -> Saved:
        """The checkpoint after some number of epochs.

        Raises:
            OutputError: it is gone.
        """
        saved = self._read(self._path(epochs)) if self._path(epochs).is_file() else None
        if saved is None:
            raise OutputError(str(self._path(epochs)), "the best epoch's checkpoint", "none", "Train with --restart.")
        return saved

    def others(self) -> bool:
        """Whether there are checkpoints of another run."""
        return any(path.parent != self.folder for path in self.folder.parent.glob("*/epoch-*.npz"))

    def clear(self) -> None:
        """Remove this run's checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, epochs: int) -> Path:
        return self.folder / f"epoch-{epochs:04d}.npz"

    def _files(self) -> list[tuple[Path, int]]:
        entries = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [(path, _FILE.fullmatch(path.name)) for path in entries]
        return sorted(((path, int(match[1])) for path, match in found if match), key=lambda entry: entry[1])

    def _read(self, path: Path) -> Saved | None:
        try:
            # Opened here: NumPy leaves a damaged file open.
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                state = json.loads(str(file[_STATE]))
                if state["fingerprint"] != self._fingerprint:
                    return None
                return Saved(tuple(state["history"]), _numbered(file, "variable"), _numbered(file, "optimizer"))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            _log.warning("passed over, unreadable checkpoint: %s: %s", path, error)
            return None


def restore(model: Any, saved: Saved, *, weights_only: bool = False) -> None:
    """Put a checkpoint's state into a network, and into its built optimizer unless ``weights_only``.

    Raises:
        OutputError: the network is another one.
    """
    pairs = [(model.variables, saved.variables)]
    if not weights_only:
        pairs.append((model.optimizer.variables, saved.optimizer_variables))
    for variables, values in pairs:
        if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
            raise OutputError("checkpoint", "the recipe's network", "another one's", "Train with --restart.")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a local file so that it appears complete or not at all, even if the machine stops."""
    building = path.with_name(f".{path.name}.tmp")
    with building.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)


def _named(prefix: str, variables: Iterable[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    import keras

    for index, variable in enumerate(variables):
        yield f"{prefix}_{index:04d}", keras.ops.convert_to_numpy(variable.value)


def _numbered(file: Any, prefix: str) -> tuple[NDArray[Any], ...]:
    return tuple(file[name] for name in sorted(file.files) if name.startswith(f"{prefix}_"))
