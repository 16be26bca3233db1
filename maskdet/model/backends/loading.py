"""Load a bundle's network on a backend, and check it against its outputs from when the bundle was made.

Every backend gives an image the same probability, bit for bit, whatever other images share its block: blocks have a
fixed size (a short one is padded), and :func:`load_model` checks the property on the golden images before the first
real one. So tables are identical for any shard size, order and number of threads.
"""

from __future__ import annotations

import numpy as np

from maskdet.errors import ModelError
from maskdet.model.backends.base import Backend, Images, Probabilities, RuntimeSpec, refuse_signature
from maskdet.model.bundle import Bundle, open_bundle
from maskdet.model.manifest import GOLDEN_FILE, Manifest
from maskdet.model.safety import refuse_unsafe

# Golden outputs were made on another machine, perhaps with other vector instructions. Float kernels then differ in the
# last bits; int8 kernels may round a few values to the neighbouring step, and steps add up over a network's layers.
_GOLDEN_TOLERANCE = {"float32": 1e-3, "int8": 0.05}


class Model:
    """A verified, warmed-up model."""

    def __init__(self, manifest: Manifest, backend: Backend, block_images: int) -> None:
        self.manifest = manifest
        self.block_images = block_images
        self._backend = backend

    def predict(self, images: Images) -> Probabilities:
        """Probabilities of the classes, for any number of images.

        Args:
            images: uint8 RGB ``(n, height, width, 3)`` of the manifest's input size.

        Returns:
            float32 ``(n, classes)``, in the order of the manifest's ``class_names``; a row depends on its own image
            alone, and adds to 1. With two classes, that of ``mask`` is the network's output, and the other is 1 minus
            it.
        """
        outputs = self.run(images)
        return outputs if outputs.ndim == 2 else np.stack([np.float32(1) - outputs, outputs], axis=1)

    def run(self, images: Images) -> Probabilities:
        """The network's output for any number of images.

        Args:
            images: uint8 RGB ``(n, height, width, 3)`` of the manifest's input size.

        Returns:
            float32 ``(n,)`` or ``(n, classes)``, as :meth:`Backend.run`.
        """
        size = self.block_images
        if len(images) == size:
            return self._backend.run(images)
        outputs = np.empty(self.manifest.output_shape(len(images)), np.float32)
        for start in range(0, len(images), size):
            part = images[start : start + size]
            block = (
                part
                if len(part) == size
                else np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.uint8)])
            )
            outputs[start : start + size] = self._backend.run(block)[: len(part)]
        return outputs


def load_model(uri: str, spec: RuntimeSpec) -> Model:
    """Open a bundle, load it on a backend, check it against its golden outputs and warm it up.

    Raises: ModelError: the bundle is missing, damaged, of another shape than its manifest says, does not reproduce its
    golden outputs, or lets one image change another's result. StorageError: the bundle cannot be read.
    """
    spec.runtime_version  # noqa: B018  says which package is missing before anything is fetched
    bundle = open_bundle(uri, spec.needs)
    _refuse_unlisted(bundle, spec)
    _refuse_absent(uri, bundle, spec)
    refuse_unsafe(bundle, spec.needs)
    make = spec.backend_type.make
    try:
        backend = make(bundle, spec)
    except ModelError:
        raise
    except Exception as error:  # runtimes raise errors of any kind for files that they cannot read
        raise ModelError(f"model {uri}: {spec.backend} cannot load it: {error}. Export the bundle again.") from error
    model = Model(bundle.manifest, backend, spec.block_images)
    _check_golden(bundle, model, spec)
    return model


def _refuse_unlisted(bundle: Bundle, spec: RuntimeSpec) -> None:
    """A file that the runtime would read although no hash in the manifest covers it."""
    present = (path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file())
    unlisted = sorted(name for name in present if spec.needs(name) and name not in bundle.manifest.files)
    if unlisted:
        raise ModelError(
            f"model {bundle.folder}", "only files that its manifest lists", unlisted, "Copy the bundle again, in whole."
        )


def _refuse_absent(uri: str, bundle: Bundle, spec: RuntimeSpec) -> None:
    if any(name != GOLDEN_FILE and spec.needs(name) for name in bundle.manifest.files):
        return
    raise ModelError(
        f"model {uri}",
        f"a file for backend {spec.backend!r} in {spec.precision}",
        "none",
        f"Make one: maskdet export --model {uri} --output DIR; then use --model DIR.",
    )


def _check_golden(bundle: Bundle, model: Model, spec: RuntimeSpec) -> None:
    inputs, expected = bundle.golden(spec.output_name)
    shape = (len(inputs), model.manifest.input.height, model.manifest.input.width, 3)
    if inputs.shape != shape or expected.shape != model.manifest.output_shape(len(inputs)):
        raise refuse_signature(bundle.manifest, f"golden inputs {list(inputs.shape)}, outputs {list(expected.shape)}")
    received = model.run(inputs)
    worst = float(np.max(np.abs(received - expected)))
    tolerance = _GOLDEN_TOLERANCE[spec.precision]
    if not worst <= tolerance:  # also refuses NaN
        raise ModelError(
            f"model {bundle.manifest.model_id} on {spec.runtime_version}, {spec.precision}",
            f"its golden outputs within {tolerance}",
            f"{worst:.4f} off",
            "The runtime computes something else than at export; export the bundle with this version.",
        )
    filler = np.repeat(inputs[::-1], -(-spec.block_images // len(inputs)), axis=0)[: spec.block_images]
    block = np.concatenate([filler[: spec.block_images // 2], inputs])
    shifted = model.run(block)[spec.block_images // 2 :]
    if not np.array_equal(shifted, received):
        raise ModelError(
            f"model {bundle.manifest.model_id} on {spec.runtime_version}, {spec.precision}",
            "the same result for an image whatever else is in its block",
            "different results",
            "Use another backend or precision; tables from this one would not be reproducible.",
        )
