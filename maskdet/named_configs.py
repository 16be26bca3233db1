"""Configs that come with the package: ``demo`` instead of a path, and the list of them.

In a checkout they are in the folder ``configs`` at its top; an installed package has a copy of it.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import NamedTuple

from maskdet.errors import ConfigError

_PACKAGE = Path(__file__).parent
_SUFFIXES = (".yaml", ".yml")

RUNNERS, RECIPES = "runners", "train"
"""Folders of configs that are not settings of a run: Beam's options, and training recipes."""


class NamedConfig(NamedTuple):
    """A config that comes with the package."""

    name: str
    """The name by which it is asked for."""
    folder: str
    """``""``, :data:`RUNNERS` or :data:`RECIPES`."""
    path: Path

    @property
    def summary(self) -> str:
        """The first sentence of its first line."""
        with self.path.open(encoding="utf-8") as lines:
            return next(lines, "").strip("# \n").partition(". ")[0].rstrip(".")


def configs_folder() -> Path:
    """The folder of the configs: the package's own, or that of the checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def list_configs() -> list[NamedConfig]:
    """All of them, by folder and name."""
    root = configs_folder()
    found = (NamedConfig(path.stem, path.relative_to(root).parent.as_posix(), path) for path in root.rglob("*.yaml"))
    every = (config._replace(folder="" if config.folder == "." else config.folder) for config in found)
    return sorted(every, key=lambda config: (config.folder, config.name))


def find_config(given: str | os.PathLike[str], folder: str = "", flag: str = "--config") -> Path:
    """The file that a flag refers to: a path, or the name of a config that comes with the package.

    Args:
        given: the flag's value. It is a path if it has a suffix or a folder.
        folder: where to look for names: ``""``, :data:`RUNNERS` or :data:`RECIPES`.
        flag: for messages.

    Raises:
        ConfigError: there is no such file, or no config of that name.
    """
    path = Path(given)
    names = {config.name: config.path for config in list_configs() if config.folder == folder}
    if path.suffix not in _SUFFIXES and path.name == os.fspath(given) and not path.is_file():
        if path.name in names:
            return names[path.name]
        close = difflib.get_close_matches(path.name, names, n=1)
        remedy = f"Did you mean {close[0]!r}?" if close else f"Names: {', '.join(names)}."
        raise ConfigError(flag, "a YAML file, or the name of a config of the package", path.name, remedy)
    if not path.exists():
        known = path.stem in names
        remedy = f"The package has one: {flag} {path.stem}." if known else "No file is there; check the path."
        raise ConfigError(flag, "a YAML file", os.fspath(given), remedy)
    return path
