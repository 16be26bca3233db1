"""Parts for tests: a model that needs no weights, images with a known answer, storage that fails on demand."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from maskdet import storage
from maskdet.labels import THREE_CLASSES, Decision
from maskdet.model.backends import Images, Model, Probabilities
from maskdet.model.manifest import InputSpec, Manifest, TrainingData


class BrightnessBackend:
    """Returns the mean of an image's pixels divided by 255: a model whose answer is easy to compute.

    Attributes:
        calls: blocks run so far.
    """

    def __init__(self) -> None:
        self.calls = 0

    def run(self, block: Images) -> Probabilities:
        """As :meth:`maskdet.model.backends.Backend.run`."""
        self.calls += 1
        means: Probabilities = block.reshape(len(block), -1).mean(axis=1, dtype=np.float64).astype(np.float32)
        return means / np.float32(255)


class HeldBackend(BrightnessBackend):
    """The same, but it answers only once it is let go, or after 20 s.

    Attributes:
        go: once it is set, every call answers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def run(self, block: Images) -> Probabilities:
        """As :meth:`maskdet.model.backends.Backend.run`."""
        self.go.wait(20)
        return super().run(block)


class TintBackend:
    """Returns the shares of blue, green and red in an image: a model of three classes whose answer is easy to compute.

    Blue is ``mask``, green ``incorrect`` and red ``no_mask``; a black image is none of them, and gets a third each.
    """

    def run(self, block: Images) -> Probabilities:
        """As :meth:`maskdet.model.backends.Backend.run`."""
        sums = block.reshape(len(block), -1, 3).sum(axis=1, dtype=np.float64)[:, ::-1] + 1e-6
        shares: Probabilities = (sums / sums.sum(axis=1, keepdims=True)).astype(np.float32)
        return shares


def tint_model(side_px: int = 16, block_images: int = 8) -> Model:
    """A model of :class:`TintBackend`."""
    manifest = Manifest(
        name="tint",
        architecture="sum",
        input=InputSpec(height=side_px, width=side_px),
        class_names=THREE_CLASSES,
        decision=Decision(no_mask_below=0.4, mask_from=0.6, incorrect_from=0.5),
        training_data=TrainingData(description="none", images=0, fingerprint=""),
    )
    return Model(manifest.sealed(), TintBackend(), block_images)


def brightness_model(side_px: int = 16, block_images: int = 8) -> Model:
    """A model of :class:`BrightnessBackend`."""
    manifest = Manifest(
        name="brightness",
        architecture="mean",
        input=InputSpec(height=side_px, width=side_px),
        training_data=TrainingData(description="none", images=0, fingerprint=""),
    )
    return Model(manifest.sealed(), BrightnessBackend(), block_images)


def solid_image(value: int | tuple[int, int, int], side_px: int = 24, file_format: str = "PNG") -> bytes:
    """An image file of one colour (an ``int``: grey)."""
    colour = (value, value, value) if isinstance(value, int) else value
    stream = io.BytesIO()
    Image.new("RGB", (side_px, side_px), colour).save(stream, file_format)
    return stream.getvalue()


class FaultyReader:
    """Reads like storage, after raising the errors planned for a URI, one per try.

    Args:
        faults: URI → errors to raise before the file is read.
        read: what reads it then.

    Attributes:
        tries: how often each URI was read.
    """

    def __init__(
        self, faults: Mapping[str, Sequence[Exception]], read: Callable[[str], bytes] = storage.read_bytes
    ) -> None:
        self._faults = {uri: list(errors) for uri, errors in faults.items()}
        self._read = read
        self._lock = threading.Lock()
        self.tries: Counter[str] = Counter()

    def __call__(self, uri: str) -> bytes:
        """Raise the next planned error, or read the file."""
        with self._lock:
            self.tries[uri] += 1
            planned = self._faults.get(uri)
            error = planned.pop(0) if planned else None
        if error is not None:
            raise error
        return self._read(uri)
