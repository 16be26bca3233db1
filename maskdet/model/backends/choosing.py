"""Choose the backend for a bundle where a run leaves it open: the usual one, or the fastest on this machine."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

import numpy as np

from maskdet.config import Device, Precision
from maskdet.errors import ConfigError, MaskdetError, ModelError
from maskdet.model.backends.base import BackendType, RuntimeSpec
from maskdet.model.backends.loading import load_model
from maskdet.model.backends.registry import AUTO, BUILT_IN, backend_names, find_backend
from maskdet.model.manifest import Manifest

_LOGGER = logging.getLogger(__name__)
_REPEATS = 5
_MIN_BLOCK_S = 0.05


class Candidate(NamedTuple):
    """A backend that can run a bundle here."""

    backend: str
    precision: Precision


def choose_runtime(
    uri: str, manifest: Manifest, backend: str | None, precision: Precision | None, device: Device = "cpu"
) -> Candidate:
    """The backend and precision of a run.

    Args:
        uri: the bundle's.
        manifest: the bundle's.
        backend: a name; ``auto``: the fastest on this machine; ``None``: the first of :data:`BUILT_IN` whose file the
            bundle has.
        precision: ``None``: the backend's usual one that the bundle has.
        device: on which it runs.

    Raises:
        ConfigError: the backend is unknown, or does not run the precision, or on the device.
        ModelError: no backend here runs the bundle that way.
    """
    if backend == AUTO:
        return _fastest(uri, manifest, precision, device)
    if backend is None:
        usual = [kind for kind in BUILT_IN.values() if device in kind.devices]
        able = [kind for kind in usual if _runnable(kind, manifest, precision)]
        found = (able or usual)[0]
    else:
        found = find_backend(backend)
    if device not in found.devices:
        expected = f"one of {', '.join(found.devices)} for backend {found.name}"
        raise ConfigError("model.device", expected, device, "Choose another device or backend.")
    if precision is not None and precision not in found.formats:
        expected = f"{' or '.join(found.formats)}, which backend {found.name!r} runs"
        raise ConfigError("model.precision", expected, precision, "Choose another precision or backend.")
    runnable = _runnable(found, manifest, precision)
    # Without any, take the usual one: loading the bundle then says what is missing.
    return Candidate(found.name, next(iter(runnable or ([precision] if precision else found.formats))))


def _runnable(kind: BackendType, manifest: Manifest, precision: Precision | None) -> list[Precision]:
    return [known for known in kind.precisions_of(manifest) if precision in (None, known)]


def _fastest(uri: str, manifest: Manifest, precision: Precision | None, device: Device) -> Candidate:
    kinds = [kind for kind in map(find_backend, backend_names()) if kind.version is not None and device in kind.devices]
    candidates = [Candidate(kind.name, known) for kind in kinds for known in _runnable(kind, manifest, precision)]
    if not candidates:
        expected = f"a file that an installed backend runs on {device}" + (f" in {precision}" if precision else "")
        remedy = f"Make one: maskdet export --model {uri} --output DIR; then use --model DIR."
        raise ModelError(f"model {uri}", expected, "none", remedy)
    if len(candidates) == 1:
        return candidates[0]
    seconds = {candidate: _block_seconds(uri, candidate, device) for candidate in candidates}
    words = ", ".join(f"{one.backend} {one.precision} {1e3 * took:.2f} ms" for one, took in seconds.items())
    _LOGGER.info("backends on this machine, time of a block of images: %s", words)
    return min(seconds, key=lambda candidate: seconds[candidate])


def _block_seconds(uri: str, candidate: Candidate, device: Device) -> float:
    """The shortest time for a block of images on one thread; infinite if the bundle cannot be loaded."""
    try:
        spec = RuntimeSpec(candidate.backend, candidate.precision, device=device)
        model = load_model(uri, spec)
    except MaskdetError as error:
        _LOGGER.warning("backend %s is left out: %s", candidate.backend, error)
        return float("inf")
    size = model.manifest.input
    block = np.random.default_rng(0).integers(0, 256, (spec.block_images, size.height, size.width, 3), np.uint8)
    shortest, spent, runs = float("inf"), 0.0, 0
    while runs < _REPEATS or spent < _MIN_BLOCK_S:
        start = time.perf_counter()
        model.run(block)
        took = time.perf_counter() - start
        shortest, spent, runs = min(shortest, took), spent + took, runs + 1
    return shortest
