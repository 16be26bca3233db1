"""Paint something over a real face so that it looks as if photographed with it: lit, grainy, with soft edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from maskdet.demo.drawing import Pen, Pose

_PAINTED_SIDE_PX = 320
_UNDYED = np.ones(3)

Colour = tuple[int, int, int]
Painter = Callable[[Pen, Colour, np.random.Generator], None]
"""Paints in head units; the colour is that of the face's skin."""


def painted_over(
    face: Image.Image,
    pose: Pose,
    rng: np.random.Generator,
    paint: Painter,
    *,
    details: Painter | None = None,
    opacity: float = 1.0,
    dye: NDArray[np.float64] = _UNDYED,
) -> Image.Image:
    """Paint over a face: enlarged, so that edges are fine; lit like the face; and shrunk again.

    Args:
        face: RGB.
        pose: pose of the head.
        rng: decides light and grain.
        paint: paints what covers the face.
        details: paints details, which appear only on what ``paint`` painted.
        opacity: opacity of everything painted.
        dye: factors for red, green and blue of everything painted.

    Returns:
        RGB of the same size.
    """
    factor = max(1.0, _PAINTED_SIDE_PX / max(face.size))
    size = (round(face.width * factor), round(face.height * factor))
    large = face.resize(size, Image.Resampling.BICUBIC)
    painted = large.copy()
    skin = _skin_colour(face, pose)
    paint(Pen(painted, pose), skin, rng)
    changed = ImageChops.difference(large, painted).convert("L").point(lambda value: 255 if value else 0)
    if details is not None:
        detailed = painted.copy()
        details(Pen(detailed, pose), skin, rng)
        painted = Image.composite(detailed, painted, changed)
    edge = changed.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.0)))
    dyed = np.asarray(painted, np.float32) * dye.astype(np.float32)
    lit = Image.fromarray(_lit(dyed, np.asarray(large, np.float32), rng))
    merged = Image.composite(lit, large, edge.point(lambda value: round(value * opacity)))
    return merged.resize(face.size, Image.Resampling.BOX)


def _lit(painted: NDArray[np.float32], face: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light painted pixels ``(height, width, 3)``: about as bright as the face, darker to one side, and grainy."""
    height, width = painted.shape[:2]
    across, down = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    slopes = rng.normal(0, 0.2, 2).astype(np.float32)
    gain = 1 + slopes[0] * across[None, :] + slopes[1] * down[:, None]
    gain *= np.float32(np.clip(face.mean() / 128, 0.45, 1.25) * rng.uniform(0.8, 1.15))
    coarse = rng.normal(0, rng.uniform(2, 9), (max(2, height // 24), max(2, width // 24))).astype(np.float32)
    folds = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.normal(0, rng.uniform(1, 8), (height, width)).astype(np.float32)
    lit: NDArray[np.uint8] = np.clip(painted * gain[..., None] + (folds + grain)[..., None], 0, 255).astype(np.uint8)
    return lit


def _skin_colour(face: Image.Image, pose: Pose) -> Colour:
    """The median colour of a spot between eyes and mouth, where there is hardly ever anything but skin."""
    unit_px = pose.unit * face.width
    x, y = pose.x * face.width, pose.y * face.width + 0.1 * unit_px
    half = max(2.0, 0.25 * unit_px)
    box = [round(value) for value in (x - half, y - half / 2, x + half, y + half / 2)]
    pixels = np.asarray(face)[max(0, box[1]) : max(1, box[3]), max(0, box[0]) : max(1, box[2])].reshape(-1, 3)
    if len(pixels) == 0:
        return (200, 160, 130)
    red, green, blue = (int(value) for value in np.median(pixels, axis=0))
    return red, green, blue
