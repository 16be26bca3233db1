"""Model bundles: find, fetch and verify one before anything in it runs.

A bundle is a folder: ``manifest.json`` and the files that it lists with their SHA-256. Nothing in it is executed as
Python and nothing is unpickled. A bundle in an object store is fetched once per machine, into a cache keyed by its
fingerprint.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from maskdet import storage
from maskdet.errors import ModelError, NotFoundError
from maskdet.model.manifest import GOLDEN_FILE, MANIFEST_FILE, Manifest

BUILTIN = "builtin"
BUILTIN_FOLDER = Path(__file__).parent / "builtin" / "compact"
CACHE_VARIABLE = "MASKDET_CACHE"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on this machine."""

    manifest: Manifest
    folder: Path

    def golden(self, output: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Inputs, and the network's outputs for them on one backend when the bundle was made.

        Args:
            output: ``"tensorflow_float32"``, ``"litert_float32"``, ``"litert_int8"`` or ``"onnx_float32"``.

        Returns:
            uint8 RGB ``(n, height, width, 3)``, and the network's outputs, float32 ``(n,)`` or ``(n, classes)``.

        Raises:
            ModelError: the bundle has no such output.
        """
        if GOLDEN_FILE not in self.manifest.files:
            raise ModelError(f"model {self.folder}", f"the file {GOLDEN_FILE}", "none", "Export the bundle again.")
        with np.load(self.folder / GOLDEN_FILE, allow_pickle=False) as arrays:
            if output not in arrays:
                raise ModelError(
                    f"model {self.manifest.name}", f"golden outputs {output!r}", sorted(arrays), "Export it again."
                )
            return arrays["inputs"], arrays[output]


def resolve(uri: str) -> str:
    """The location of a bundle: ``builtin`` names the one that ships with the package."""
    return str(BUILTIN_FOLDER) if uri == BUILTIN else storage.normalize(uri)


def read_manifest(uri: str) -> Manifest:
    """Read and check a bundle's manifest, without its files.

    Raises:
        ModelError: there is no bundle, or its manifest is damaged or of another version.
        StorageError: the location cannot be read.
    """
    location = resolve(uri)
    try:
        text = storage.read_bytes(storage.join(location, MANIFEST_FILE))
    except NotFoundError as error:
        remedy = "Check the path, or use 'builtin'; maskdet import makes a bundle of a model file of your own."
        raise ModelError("--model", f"a model bundle (a folder with {MANIFEST_FILE})", location, remedy) from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ModelError(f"{location}/{MANIFEST_FILE}: {place}: {problem['msg']}. Export the bundle again.") from error
    if manifest.fingerprint != manifest.computed_fingerprint():
        raise ModelError(
            f"{location}/{MANIFEST_FILE}",
            f"content with fingerprint {manifest.fingerprint}",
            manifest.computed_fingerprint(),
            "The manifest was changed after export; restore it or export the bundle again.",
        )
    return manifest


def open_bundle(uri: str, needs: Callable[[str], bool] = lambda name: True) -> Bundle:
    """Fetch a bundle to this machine if necessary, and verify it.

    Args:
        uri: ``builtin``, or a bundle's folder in any storage.
        needs: tells, by name, which files to fetch and verify.

    Raises:
        ModelError: there is no bundle, or a file is missing or changed.
        StorageError: the location cannot be read.
    """
    location = resolve(uri)
    manifest = read_manifest(uri)
    names = [name for name in manifest.files if needs(name)]
    _refuse_escapes(location, names)  # before anything is written under its name
    if storage.is_local(location):
        bundle = Bundle(manifest, storage.local_path(location))
    else:
        bundle = Bundle(manifest, _fetch(location, manifest, names))
    for name in names:
        _verify(bundle, name, location)
    return bundle


def file_sha256(path: Path) -> str:
    """SHA-256 of a local file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fetch(location: str, manifest: Manifest, names: Iterable[str]) -> Path:
    default = Path(tempfile.gettempdir()) / f"maskdet-{os.getuid()}"
    cache = Path(os.environ.get(CACHE_VARIABLE, default)) / "bundles" / manifest.fingerprint
    for name in names:
        path = cache / name
        if path.is_file() and file_sha256(path) == manifest.files[name].sha256:
            continue
        with contextlib.suppress(NotFoundError):  # verification says which file is missing
            # Several workers on a machine may fetch at once; each writes whole files atomically.
            storage.write_bytes(str(path), storage.read_bytes(storage.join(location, name)))
    return cache


def _refuse_escapes(location: str, names: Iterable[str]) -> None:
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"model {location}", "file names within the bundle", name, "Do not use this bundle.")


def _verify(bundle: Bundle, name: str, location: str) -> None:
    path = bundle.folder / name
    if not path.is_file():
        raise ModelError(f"model {location}", f"the file {name}", "none", "Copy the bundle again, in whole.")
    digest = file_sha256(path)
    if digest != bundle.manifest.files[name].sha256:
        raise ModelError(
            f"model {location}",
            f"{name} with SHA-256 {bundle.manifest.files[name].sha256}",
            digest,
            "The file was changed or damaged; copy the bundle again.",
        )
