"""Read the history of a training, which `maskdet train` writes beside its bundle, one row per epoch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

from maskdet import storage
from maskdet.errors import ConfigError
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.model.bundle import BUILTIN

HISTORY_SUFFIX = ".history.csv"
_EPOCH = "epoch"


@dataclass(frozen=True)
class History:
    """A training, epoch by epoch.

    Attributes:
        uri: from where it was read.
        epochs: epochs, counted from 1.
        columns: name of a quantity → its value after each epoch, ``None`` where none was written.
    """

    uri: str
    epochs: tuple[int, ...]
    columns: Mapping[str, tuple[float | None, ...]]

    def curves(self, quantity: str) -> dict[str, tuple[float | None, ...]]:
        """The curves of ``loss`` or ``accuracy``, for ``training`` and, where there was one, ``validation``."""
        named = {"training": quantity, "validation": f"val_{quantity}"}
        found = {name: self.columns.get(column, ()) for name, column in named.items()}
        return {name: values for name, values in found.items() if any(value is not None for value in values)}


def find_history(settings: EvaluateSettings) -> str | None:
    """Where the history of the model's training is: where the setting says, or beside the bundle if it exists.

    Raises:
        ConfigError: the setting names a file that does not exist.
        StorageError: the store cannot be asked.
    """
    if settings.history is not None:
        uri = storage.normalize(settings.history)
        if not storage.exists(uri):
            remedy = "Correct the path, or leave it out: a page without a history lacks the section."
            raise ConfigError("history", f"a file such as models/compact{HISTORY_SUFFIX}", uri, remedy)
        return uri
    if settings.model.uri == BUILTIN:
        return None
    beside = storage.normalize(settings.model.uri) + HISTORY_SUFFIX
    return beside if storage.exists(beside) else None


def read_history(uri: str) -> History:
    """Read a history; anything but a finite number (nothing, a diverged loss) becomes a gap.

    Args:
        uri: CSV with a column ``epoch``, counted from 0, and one per quantity.

    Raises:
        ConfigError: the file is of another kind, or has no epochs.
        StorageError: it cannot be read.
    """
    try:
        reader = csv.DictReader(io.StringIO(storage.read_bytes(uri).decode("utf-8")))
        rows = list(reader)
        epochs = tuple(int(row[_EPOCH]) + 1 for row in rows)
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise _malformed(uri, str(error)) from error
    if not rows:
        raise _malformed(uri, "no row")
    names = [name for name in reader.fieldnames or () if name != _EPOCH]
    return History(uri, epochs, {name: tuple(_number(row[name]) for row in rows) for name in names})


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _malformed(uri: str, received: str) -> ConfigError:
    expected = f"CSV of a training, a row per epoch with a whole number as {_EPOCH!r}"
    return ConfigError(f"history {uri}", expected, received, "Name what `maskdet train` wrote, or remove the file.")
