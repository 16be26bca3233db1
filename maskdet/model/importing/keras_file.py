"""Inspect Keras files without Keras: a zip of configuration and weights or, in the older format, one HDF5 file."""

from __future__ import annotations

import json
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskdet.errors import ModelError
from maskdet.model.importing.facts import Facts, damaged, unsafe
from maskdet.model.importing.keras_config import check_config, config_facts

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MOST_ENTRIES = 64
MOST_BYTES = 4 * 1024**3
"""Most bytes of a network's weights, unpacked."""
_MOST_TEXT_BYTES = 64 * 1024**2
# Weights compress to .9 of their size; untrained ones are constant, and small.
_MOST_RATIO = 200
_RATIO_FROM_BYTES = 16 * 1024**2
_MOST_OBJECTS = 100_000
_WRITE_ANEW = "Save the model again with model.save('model.keras')."


def inspect_keras(file: Path) -> Facts:
    """Inspect a ``.keras`` file.

    Raises:
        ModelError: it is damaged, has something that Keras files do not need, or unpacks to more than it should.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            _check_entries(archive)
            texts = {name: _read_text(archive, name) for name in (_CONFIG, _METADATA)}
            with tempfile.TemporaryDirectory() as folder:
                _check_weights(archive, Path(folder) / "weights.h5")
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:
        raise damaged("keras", f"{type(error).__name__}: {error}") from error
    config, metadata = (_parse(text, "keras") for text in texts.values())
    # How it was compiled is not loaded, so custom losses and metrics do not matter.
    check_config({name: part for name, part in config.items() if name != "compile_config"})
    return Facts(kind="keras", made_with=f"Keras {metadata.get('keras_version', '')}".strip(), **config_facts(config))


def inspect_h5(file: Path) -> Facts:
    """Inspect an ``.h5`` file.

    Raises:
        ModelError: it is damaged, has only weights, or has or names something that networks do not need.
    """
    attributes = check_hdf5(file)
    if "model_config" not in attributes:
        remedy = "model.save_weights wrote it; call model.save('model.keras') instead."
        raise ModelError("the model file", "a network with its layers", "weights alone", remedy)
    config = _parse(attributes["model_config"], "h5")
    check_config(config)
    return Facts(kind="h5", made_with=f"Keras {attributes.get('keras_version', '')}".strip(), **config_facts(config))


def check_hdf5(file: Path) -> dict[str, str]:
    """Make sure that an HDF5 file holds plain arrays of limited size, and refers to no other file.

    Returns:
        The attributes of its root that are text.

    Raises:
        ModelError: it does not.
    """
    import h5py

    try:
        with h5py.File(file, "r") as content:
            total = 0
            for number, (name, item) in enumerate(_members(content)):
                if number > _MOST_OBJECTS:
                    raise unsafe(f"more than {_MOST_OBJECTS} objects", _WRITE_ANEW)
                if isinstance(item, h5py.Dataset):
                    _check_array(name, item)
                    total += item.size * item.dtype.itemsize
                    if total > MOST_BYTES:
                        raise unsafe(f"arrays of more than {MOST_BYTES / 1024**3:.0f} GiB", _WRITE_ANEW)
            return {name: _text(value) for name, value in content.attrs.items() if isinstance(value, str | bytes)}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise damaged("h5", f"{type(error).__name__}: {error}") from error


def _members(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything below a group; links to other files and names are refused."""
    import h5py

    waiting = [(path, group)]
    seen = set()
    while waiting:
        above, current = waiting.pop()
        for name in current:
            link = current.get(name, getlink=True)
            place = f"{above}/{name}"
            if isinstance(link, h5py.ExternalLink):
                raise unsafe(f"{place}, a link to the file {link.filename}", _WRITE_ANEW)
            if isinstance(link, h5py.SoftLink):
                raise unsafe(f"{place}, a link to {link.path}", _WRITE_ANEW)
            item = current[name]
            yield place, item
            if isinstance(item, h5py.Group):
                key = h5py.h5o.get_info(item.id).addr
                if key not in seen:  # a group may contain itself
                    seen.add(key)
                    waiting.append((place, item))


def _check_array(name: str, array: Any) -> None:
    if array.external:
        raise unsafe(f"{name}, an array in the file {array.external[0][0]}", _WRITE_ANEW)
    if array.is_virtual:
        raise unsafe(f"{name}, an array made of other files", _WRITE_ANEW)
    stored, size = array.id.get_storage_size(), array.size * array.dtype.itemsize
    if size > _RATIO_FROM_BYTES and size > _MOST_RATIO * max(1, stored):
        raise unsafe(f"{name}, {stored:,} bytes that unpack to {size:,}", _WRITE_ANEW)


def _check_entries(archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(entries) > _MOST_ENTRIES or len(set(names)) < len(names):
        raise unsafe(f"{len(entries)} entries, {len(set(names))} names", _WRITE_ANEW)
    for entry in entries:
        if stat.S_ISLNK(entry.external_attr >> 16) or entry.filename not in (_CONFIG, _METADATA, _WEIGHTS):
            raise unsafe(f"the entry {entry.filename!r}", _WRITE_ANEW)
        ratio = entry.file_size / max(1, entry.compress_size)
        if entry.file_size > MOST_BYTES or (entry.file_size > _RATIO_FROM_BYTES and ratio > _MOST_RATIO):
            sizes = f"{entry.compress_size:,} bytes that unpack to {entry.file_size:,}"
            raise unsafe(f"{entry.filename}, {sizes}", _WRITE_ANEW)


def _read_text(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as stream:
        data = stream.read(_MOST_TEXT_BYTES + 1)
    if len(data) > _MOST_TEXT_BYTES:
        raise unsafe(f"{name} of more than {_MOST_TEXT_BYTES:,} bytes", _WRITE_ANEW)
    return data.decode("utf-8", "replace")


def _check_weights(archive: zipfile.ZipFile, target: Path) -> None:
    with archive.open(_WEIGHTS) as stream, target.open("wb") as out:
        left = MOST_BYTES  # whatever the entry claims about its size
        while piece := stream.read(min(left, 1024**2)):
            left -= len(piece)
            out.write(piece)
    check_hdf5(target)


def _parse(text: str, kind: Any) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise damaged(kind, f"a configuration that is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise damaged(kind, f"a configuration that is a {type(parsed).__name__}")
    return parsed


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
