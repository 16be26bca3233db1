"""The available backends: those of this package, and those that installed packages add by an entry point.

An entry point in the group ``maskdet.backends`` adds one: its name is the backend's, and it refers to a
:class:`maskdet.model.backends.base.BackendType`. It is loaded when a run asks for it by name, or for ``auto``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import metadata

from maskdet.errors import ConfigError
from maskdet.model.backends.base import BackendType
from maskdet.model.backends.litert import LITERT
from maskdet.model.backends.onnx import ONNX
from maskdet.model.backends.tensorflow import TENSORFLOW

ENTRY_POINTS = "maskdet.backends"
AUTO = "auto"
BUILT_IN: Mapping[str, BackendType] = {backend.name: backend for backend in (LITERT, TENSORFLOW, ONNX)}
"""In order of preference: a run that leaves the choice open takes the first that can run its bundle."""


def find_backend(name: str) -> BackendType:
    """The backend with a name.

    Raises:
        ConfigError: there is none, or the package that adds it cannot be loaded.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    for entry in metadata.entry_points(group=ENTRY_POINTS, name=name):
        return _loaded(entry)
    names = backend_names()
    close = difflib.get_close_matches(name, names, n=1)
    remedy = f"Did you mean {close[0]!r}?" if close else "Install the package that adds it."
    raise ConfigError("model.backend", f"one of {', '.join(names)}, {AUTO}", name, remedy)


def backend_names() -> list[str]:
    """Names of the backends, those of this package first."""
    added = {entry.name for entry in metadata.entry_points(group=ENTRY_POINTS)}
    return [*BUILT_IN, *sorted(added - BUILT_IN.keys())]


def _loaded(entry: metadata.EntryPoint) -> BackendType:
    try:
        found = entry.load()
    except Exception as error:  # another package's code
        problem = f"{type(error).__name__}: {error}"
        raise ConfigError(f"backend {entry.name}", f"{entry.value} to load", problem, "Install it again.") from error
    if not isinstance(found, BackendType) or found.name != entry.name:
        raise ConfigError(
            f"backend {entry.name}", f"a BackendType of this name at {entry.value}", repr(found), "Ask its makers."
        )
    return found
