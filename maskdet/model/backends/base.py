"""Backends: libraries that run a bundle's network, and which of the bundle's files they use.

Each backend is a :class:`BackendType` in a file of its own in this folder; packages add others by an entry point, which
:mod:`maskdet.model.backends.registry` finds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from maskdet.config import Device, Precision
from maskdet.errors import ConfigError, ModelError
from maskdet.model.bundle import Bundle
from maskdet.model.formats import FORMATS, Format
from maskdet.model.manifest import GOLDEN_FILE, Manifest

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]


class Backend(Protocol):
    """Runs a model on blocks of one fixed size; safe to call from several threads."""

    def run(self, block: Images) -> Probabilities:
        """The network's output.

        Args:
            block: uint8 RGB ``(block_images, height, width, 3)``.

        Returns:
            float32: with two classes, the probability of ``mask``, ``(block_images,)``; with three, that of each
            class, ``(block_images, 3)``.
        """


@dataclass(frozen=True)
class BackendType:
    """A library that runs networks.

    Attributes:
        name: what ``model.backend`` calls it.
        package: the distribution whose version becomes part of a run's fingerprint.
        install: the argument of ``pip install`` that installs it.
        formats: precision → key of :data:`maskdet.model.formats.FORMATS` that it runs; the first is the default.
        make: loads a bundle.
        devices: on which it can run.
        variants: other distributions of the same library, such as one for GPUs.
    """

    name: str
    package: str
    install: str
    formats: Mapping[Precision, str]
    make: Callable[[Bundle, RuntimeSpec], Backend]
    devices: tuple[Device, ...] = ("cpu",)
    variants: tuple[str, ...] = ()

    @property
    def version(self) -> str | None:
        """Name and version of the installed package; ``None`` if there is none."""
        for package in (self.package, *self.variants):
            with contextlib.suppress(metadata.PackageNotFoundError):
                return f"{package} {metadata.version(package)}"
        return None

    def precisions_of(self, manifest: Manifest) -> list[Precision]:
        """The precisions in which it can run a bundle, in its own order."""
        return [precision for precision, name in self.formats.items() if FORMATS[name].is_in(manifest.files)]


@dataclass(frozen=True)
class RuntimeSpec:
    """Which backend runs a bundle, and how."""

    backend: str = "litert"
    precision: Precision = "int8"
    threads: int = 1
    """How many blocks run concurrently, on one thread each (TensorFlow: how many threads run a block)."""
    block_images: int = 8
    device: Device = "cpu"

    @property
    def backend_type(self) -> BackendType:
        """The backend.

        Raises:
            ConfigError: there is none of this name.
        """
        from maskdet.model.backends.registry import find_backend  # it imports the backends, which import this module

        return find_backend(self.backend)

    @property
    def format(self) -> Format:
        """The format of the network that it runs.

        Raises:
            ConfigError: the backend does not run this precision.
        """
        formats = self.backend_type.formats
        if self.precision not in formats:
            expected = f"{' or '.join(formats)}, which backend {self.backend!r} runs"
            raise ConfigError("model.precision", expected, self.precision, "Choose another precision or backend.")
        return FORMATS[formats[self.precision]]

    @property
    def output_name(self) -> str:
        """The golden output that this runtime must reproduce."""
        return self.format.golden_output

    @property
    def runtime_version(self) -> str:
        """Name and version of the library that runs the model, and the device; part of a run's fingerprint."""
        found = self.backend_type
        version = found.version
        if version is None:
            remedy = f"Run: pip install '{found.install}'."
            raise ModelError(
                f"model.backend {self.backend!r}", f"the package {found.package}", "none installed", remedy
            )
        return version if self.device == "cpu" else f"{version} on {self.device}"

    def needs(self, name: str) -> bool:
        """Whether this runtime reads a file of a bundle."""
        return name == GOLDEN_FILE or self.format.holds(name)


def refuse_signature(manifest: Manifest, received: str) -> ModelError:
    """The error for a network whose input or output differs from its manifest."""
    output = "(batch,)" if manifest.outputs == 1 else f"(batch, {manifest.outputs})"
    wanted = f"input uint8 (batch, {manifest.input.height}, {manifest.input.width}, 3), output float32 {output}"
    return ModelError(f"model {manifest.name}", wanted, received, "Export the bundle again.")
