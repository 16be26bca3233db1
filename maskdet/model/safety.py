"""Inspect bundles whose files could do more than compute, as in an import, before a library loads them.

A manifest's hashes say that a file is as its maker sealed it, not who that was. A SavedModel is a graph that can read
and write files, and a Keras file can name Python code; so the allow-lists of :mod:`maskdet.model.importing` apply to
every bundle, whoever made it. LiteRT and ONNX files are networks and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from maskdet.errors import ModelError
from maskdet.model.bundle import Bundle
from maskdet.model.importing.keras_file import inspect_keras
from maskdet.model.importing.saved_model import inspect_saved_model
from maskdet.model.manifest import KERAS_FILE, SAVED_MODEL_FOLDER

_REMEDY = "Nothing of it was run. Do not use this bundle unless you know why it holds this."


def refuse_unsafe(bundle: Bundle, needs: Callable[[str], bool] = lambda name: True) -> None:
    """Refuse a bundle with a file that could reach beyond its network.

    Args:
        bundle: verified.
        needs: tells by name which files will be loaded.

    Raises:
        ModelError: a SavedModel has an operation, or a Keras file a layer, that is not allowed, or one is damaged.
    """
    names = [name for name in bundle.manifest.files if needs(name)]
    try:
        if any(name.startswith(f"{SAVED_MODEL_FOLDER}/") for name in names):
            inspect_saved_model(bundle.folder / SAVED_MODEL_FOLDER)
        if KERAS_FILE in names:
            inspect_keras(bundle.folder / KERAS_FILE)
    except ModelError as error:
        raise ModelError(f"model {bundle.folder}", error.expected, error.received, _REMEDY) from error
