"""Which images a bundle was trained on: the first bytes of their hashes, so that an evaluation can name them.

A bundle's file :data:`TRAINING_IMAGES_FILE` holds the first 8 bytes of the SHA-256 of every image file, read as one
big-endian number, sorted and each once: 8 bytes per image. The probability that one of a million
other images is mistaken for one of 20,000 is 1e-9.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ModelError
from maskdet.model.bundle import open_bundle
from maskdet.model.manifest import TRAINING_IMAGES_FILE

Hashes = NDArray[np.uint64]

_HEAD = 16  # hexadecimal digits of 8 bytes


def hash_heads(digests: Iterable[str]) -> Hashes:
    """The numbers of image files, in order.

    Args:
        digests: SHA-256 of each file, in hexadecimal.
    """
    return np.array([int(digest[:_HEAD], 16) for digest in digests], np.uint64)


def write_training_images(folder: Path, digests: Iterable[str]) -> None:
    """Write the list into a bundle's folder.

    Args:
        folder: a bundle's, while it is being made.
        digests: SHA-256 of each file, in hexadecimal.
    """
    np.save(folder / TRAINING_IMAGES_FILE, np.unique(hash_heads(digests)), allow_pickle=False)


def read_training_images(uri: str) -> Hashes | None:
    """The list of a bundle; ``None`` if it has none, like those of older versions.

    Args:
        uri: ``builtin``, or a bundle's folder in any storage.

    Raises:
        ModelError: there is no bundle, or the list is missing or damaged.
        StorageError: the location cannot be read.
    """
    bundle = open_bundle(uri, lambda name: name == TRAINING_IMAGES_FILE)
    if TRAINING_IMAGES_FILE not in bundle.manifest.files:
        return None
    known: Hashes = np.load(bundle.folder / TRAINING_IMAGES_FILE, allow_pickle=False)
    if known.dtype != np.uint64 or known.ndim != 1:
        received = f"{known.dtype.name} {list(known.shape)}"
        raise ModelError(
            f"{TRAINING_IMAGES_FILE} of {bundle.manifest.name}", "uint64 (images,)", received, "Train the model again."
        )
    return known


def were_trained_on(digests: Iterable[str], known: Hashes) -> NDArray[np.bool_]:
    """Which image files are in a bundle's list, ``(files,)``.

    Args:
        digests: SHA-256 of each file, in hexadecimal.
        known: the list.
    """
    return np.isin(hash_heads(digests), known)
