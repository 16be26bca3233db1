"""Backgrounds without faces, drawn from a seed: gradients, noise, stripes, shapes and photographs blurred to colour.

A detector must find nothing on them, so they contain what may be mistaken for small faces: ovals in the colour of skin
with dark spots, repeated texture, hard edges at every size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from maskdet.images.preprocessing import ImageLimits, open_upright

Pixels = NDArray[np.uint8]

# A photograph is reduced to this many pixels a side and enlarged again; no face survives that.
_BLURRED_SIDE_PX = 7
_SKIN_TONES = ((224, 172, 138), (198, 134, 98), (141, 85, 54), (92, 58, 40))


def draw_background(rng: np.random.Generator, width: int, height: int, photographs: Sequence[Path] = ()) -> Image.Image:
    """Draw one background.

    Args:
        rng: decides everything that varies.
        width: columns, in pixels.
        height: rows, in pixels.
        photographs: image files whose colours may serve as background, blurred beyond recognition.

    Returns:
        An RGB image, 8 bits a channel.

    Raises:
        ImageFault: a photograph cannot be decoded.
    """
    painters = [_gradient, _noise, _stripes, _shapes]
    if photographs and rng.random() < 1 / (len(painters) + 1):
        return _blurred(rng, width, height, photographs[int(rng.integers(len(photographs)))])
    return _pick(rng, painters)(rng, width, height)


def _pick(
    rng: np.random.Generator, painters: Sequence[Callable[[np.random.Generator, int, int], Image.Image]]
) -> Callable[[np.random.Generator, int, int], Image.Image]:
    return painters[int(rng.integers(len(painters)))]


def _gradient(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Colour that changes smoothly over a grid of 2 x 2 to 4 x 4 corners."""
    corners = rng.integers(20, 236, (*rng.integers(2, 5, 2), 3)).astype(np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)


def _noise(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Noise of several grain sizes, finer ones weaker."""
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(int(rng.integers(2, 7))):
        grain = max(2, 2 ** (octave + 1))
        coarse = rng.normal(0, 40 / (octave + 1), (grain, grain, 3)).clip(-127, 127) + 128
        layer = Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(layer, np.float32) - 128
    total += rng.normal(0, rng.uniform(0, 12), (height, width, 1)).astype(np.float32)
    return Image.fromarray((total + rng.uniform(60, 190, 3).astype(np.float32)).clip(0, 255).astype(np.uint8))


def _stripes(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Stripes of any direction and period, crossed by a second set in about half of the images."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    pixels = np.broadcast_to(rng.uniform(70, 180, 3).astype(np.float32), (height, width, 3)).copy()
    for _ in range(int(rng.integers(1, 3))):
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, 90)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
        profile = np.sign(wave) if rng.random() < 0.5 else wave
        pixels += profile[..., None].astype(np.float32) * rng.uniform(-50, 50, 3).astype(np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _shapes(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Boxes, ovals and lines of all sizes on a gradient; some ovals have the colour of skin and two dark spots."""
    image = _gradient(rng, width, height)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(8, 40))):
        kind = int(rng.integers(4))
        size = float(np.exp(rng.uniform(np.log(8), np.log(min(width, height) / 2))))
        left, top = rng.uniform(-size / 2, width), rng.uniform(-size / 2, height)
        right, bottom = left + size * rng.uniform(0.4, 1.6), top + size * rng.uniform(0.4, 1.6)
        red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
        if kind == 0:
            pen.rectangle((left, top, right, bottom), (red, green, blue))
        elif kind == 1:
            pen.ellipse((left, top, right, bottom), (red, green, blue))
        elif kind == 2:
            pen.line((left, top, right, bottom), (red, green, blue), max(1, int(size / 12)))
        else:
            _decoy(rng, pen, (left, top), size)
    return image


def _decoy(rng: np.random.Generator, pen: ImageDraw.ImageDraw, corner: tuple[float, float], size: float) -> None:
    left, top = corner
    skin = _SKIN_TONES[int(rng.integers(len(_SKIN_TONES)))]
    pen.ellipse((left, top, left + 0.8 * size, top + size), skin)
    radius = 0.06 * size
    for _ in range(2):  # in the lower half, because in the place of eyes they would make it a face
        x, y = left + rng.uniform(0.1, 0.7) * size, top + rng.uniform(0.5, 0.9) * size
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), (40, 30, 30))


def _blurred(rng: np.random.Generator, width: int, height: int, photograph: Path) -> Image.Image:
    image, _ = open_upright(photograph.read_bytes(), ImageLimits())
    small = image.resize((_BLURRED_SIDE_PX, _BLURRED_SIDE_PX), Image.Resampling.BOX)
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    grain = rng.normal(0, rng.uniform(1, 8), (height, width, 1)).astype(np.float32)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))
