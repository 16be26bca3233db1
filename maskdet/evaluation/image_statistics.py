"""What a second reading of the images adds: brightness, sharpness, and thumbnails for the baselines, all in memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet import storage
from maskdet.cores import available_cores
from maskdet.errors import ImageFault, StorageError
from maskdet.evaluation.metrics import Floats
from maskdet.images.preprocessing import ImageLimits, prepare_image

THUMBNAIL_SIDE_PX = 16
_MEASURED_SIDE_PX = 128
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Looks(NamedTuple):
    """How images look; an image that could not be read again has NaN and black."""

    brightness: Floats
    """Mean luma, 0 to 255, ``(images,)``."""
    sharpness: Floats
    """Variance of the luma's Laplacian at 128 × 128, ``(images,)``."""
    thumbnails: NDArray[np.uint8]
    """RGB ``(images, 16, 16, 3)``."""


def look_at(uris: Sequence[str], limits: ImageLimits) -> Looks:
    """Read and decode images, as scoring decodes them.

    Args:
        uris: where they are.
        limits: the scoring run's.
    """
    side = THUMBNAIL_SIDE_PX
    looks = Looks(
        np.full(len(uris), np.nan), np.full(len(uris), np.nan), np.zeros((len(uris), side, side, 3), np.uint8)
    )

    def fill(row: int) -> None:
        try:
            data = storage.read_bytes(uris[row])
            looks.thumbnails[row] = prepare_image(data, side, side, limits).pixels
            luma = prepare_image(data, _MEASURED_SIDE_PX, _MEASURED_SIDE_PX, limits).pixels @ _LUMA
        except (ImageFault, StorageError):
            return  # it was readable when it was scored, so its prediction is valid; only these columns lack it
        looks.brightness[row] = luma.mean()
        looks.sharpness[row] = laplacian_variance(luma)

    with ThreadPoolExecutor(available_cores(), thread_name_prefix="look") as pool:
        list(pool.map(fill, range(len(uris))))
    return looks


def laplacian_variance(luma: NDArray[np.float32]) -> float:
    """Variance of the 4-neighbour Laplacian of ``(height, width)``: the larger, the sharper.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(laplacian.var())
