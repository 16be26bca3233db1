"""Writes a detector's bundle around a network's file."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskdet.faces.bundle import (
    GOLDEN_CANVAS,
    GOLDEN_FILE,
    LICENCE_FILE,
    NETWORK_FILES,
    DetectorBundle,
    DetectorManifest,
)
from maskdet.faces.network import Network
from maskdet.model.bundle import file_sha256
from maskdet.model.export import check_vacant
from maskdet.model.manifest import MANIFEST_FILE, BundleFile

_VERSIONED_PACKAGES = ("tensorflow", "ai-edge-litert", "onnx", "onnxruntime", "numpy", "pillow")


def write_bundle(folder: Path, network: bytes, draft: DetectorManifest, licence: str) -> DetectorManifest:
    """Write a bundle around a network.

    Args:
        folder: absent, empty, or a bundle, which is replaced.
        network: the file that the manifest's runtime runs.
        draft: the manifest without ``versions``, ``files`` and ``fingerprint``.
        licence: the text of the weights' licence.

    Returns:
        The manifest as written, sealed.

    Raises:
        OutputError: the folder holds something that is no bundle.
        StorageError: the folder cannot be written.
        ModelError: what runs the network is not installed.
    """
    check_vacant(folder, overwrite=True)
    folder.mkdir(parents=True, exist_ok=True)
    names = (NETWORK_FILES[draft.runtime], GOLDEN_FILE, LICENCE_FILE)
    (folder / names[0]).write_bytes(network)
    (folder / LICENCE_FILE).write_text(licence, encoding="utf-8")
    canvas = golden_canvas()
    # The golden maps are made by the network as any other reader will load it.
    maps = Network.unchecked(DetectorBundle(draft, folder)).run(canvas)
    np.savez_compressed(folder / GOLDEN_FILE, allow_pickle=False, **{GOLDEN_CANVAS: canvas}, **maps)
    files = {name: BundleFile(size_bytes=(folder / name).stat().st_size, sha256=file_sha256(folder / name))
             for name in names}  # fmt: skip
    manifest = draft.model_copy(update={"versions": _versions(), "files": files}).sealed()
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def golden_canvas() -> NDArray[np.uint8]:
    """Ellipses with eyes and a mouth on a gradient, uint8 RGB ``(192, 256, 3)``: what every load is checked on."""
    canvas = np.broadcast_to(np.linspace(60, 200, 256)[np.newaxis, :, np.newaxis], (192, 256, 3)).copy()
    down, across = np.mgrid[:192, :256]
    for left, top, width, height in ((20, 30, 72, 90), (130, 20, 48, 60), (160, 100, 64, 80)):
        x, y = (across - left) / width - 0.5, (down - top) / height - 0.5
        canvas[x**2 + y**2 < 0.25] = (205, 160, 135)
        for dark in ((x + 0.2) ** 2 + (y + 0.1) ** 2 < 0.004, (x - 0.2) ** 2 + (y + 0.1) ** 2 < 0.004,
                     (x / 2) ** 2 + (y - 0.25) ** 2 < 0.003):  # fmt: skip
            canvas[dark] = (70, 40, 40)
    return canvas.astype(np.uint8)


def _versions() -> dict[str, str]:
    """Versions of the packages that are installed."""
    versions = {}
    for package in _VERSIONED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
