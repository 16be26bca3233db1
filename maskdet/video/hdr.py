"""High dynamic range to 8-bit sRGB.

Samples are turned into light by the inverse of their transfer function (SMPTE ST 2084, PQ; ARIB STD-B67, HLG, for a
display of 1,000 cd/m²), relative to the white of paper and skin at 203 cd/m² (ITU-R BT.2408). BT.2020 primaries become
BT.709's by the matrix of ITU-R BT.2087. Highlights are compressed by Reinhard's extended curve, applied to the
brightest channel so that hues stay, with 1,000 cd/m² as white; then the curve of sRGB is applied.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from maskdet.images.codecs import Pixels

PQ, HLG = 16, 18
TRANSFERS = frozenset((PQ, HLG))
"""FFmpeg's numbers (AVColorTransferCharacteristic) of transfer functions that are HDR."""

REFERENCE_WHITE = 203.0
PEAK = 1000.0

Floats = NDArray[np.float32]

# ITU-R BT.2087-0, annex 2.
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)
_LEVELS = 65536


def to_sdr(samples: NDArray[np.uint16], transfer: int) -> Pixels:
    """Tone-map a picture.

    Args:
        samples: uint16 RGB ``(height, width, 3)`` with BT.2020 primaries, full range.
        transfer: :data:`PQ` or :data:`HLG`.

    Returns:
        uint8 sRGB ``(height, width, 3)``.
    """
    light = _light_of(transfer)[samples]
    if transfer == HLG:  # the display's own gamma, by luminance (BT.2100, table 5)
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        light = light * (np.maximum(luminance, 1e-6) ** np.float32(0.2))[..., None] * np.float32(PEAK)
    light = np.maximum((light / np.float32(REFERENCE_WHITE)) @ _TO_709.T, 0)
    brightest = np.maximum(light.max(axis=2, keepdims=True), 1e-6)
    white = np.float32(PEAK / REFERENCE_WHITE)
    compressed = brightest * (1 + brightest / white**2) / (1 + brightest)
    linear = np.clip(light * (compressed / brightest), 0, 1)
    picture: Pixels = _srgb_table()[np.rint(linear * (_LEVELS - 1)).astype(np.uint16)]
    return picture


@functools.cache
def _light_of(transfer: int) -> Floats:
    """The light of each sample value: in cd/m² for PQ, of the scene from 0 to 1 for HLG."""
    signal = np.arange(_LEVELS) / (_LEVELS - 1)
    if transfer == PQ:
        m1, m2 = 2610 / 16384, 2523 / 4096 * 128
        c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
        root = signal ** (1 / m2)
        return (10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


@functools.cache
def _srgb_table() -> Pixels:
    linear = np.arange(_LEVELS) / (_LEVELS - 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: Pixels = np.rint(curve * 255).astype(np.uint8)
    return table
