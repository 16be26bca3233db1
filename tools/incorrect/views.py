"""Random views of items, made alike for every class: cut as by a detector, shrunk, blurred, lit, compressed."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from maskdet.faces.crops import CropOptions, crop_face
from maskdet.training.augment import move, recolor, reframe, shrink
from maskdet.training.recipe import Augmentation
from tools.incorrect.frame import Floats
from tools.incorrect.sources import Item

SIDE_PX = 112

SETTINGS = Augmentation(
    copies=1,
    min_side_px=16,
    max_side_px=224,
    jpeg_quality=(20, 95),
    max_blur=0.02,
    max_motion_blur=0.12,
    max_zoom_in=1.3,
    max_zoom_out=1.8,
    max_rotation_degrees=20.0,
    color_jitter=0.35,
    gray_share=0.05,
)

CUT_SHARE = {"crop": 0.5}
"""Kind of item → share of its views that are cut by its face's box; the others use the whole picture. Default: all."""


def make_view(item: Item, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One view of an item, uint8 RGB ``(112, 112, 3)``."""
    picture = Image.open(io.BytesIO(item.data)).convert("RGB")
    whole = item.box is None or (item.kind in CUT_SHARE and rng.random() >= CUT_SHARE[item.kind])
    view = reframe(picture, SETTINGS, rng) if whole else _cut(picture, np.asarray(item.box), rng)
    view = shrink(view, SETTINGS, rng)
    if rng.random() < 0.5:
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0, SETTINGS.max_blur) * max(view.size)))
    if rng.random() < 0.2:
        view = move(view, rng.uniform(0, SETTINGS.max_motion_blur) * max(view.size), rng)
    view = recolor(_lit(view, rng), SETTINGS, rng)
    file = io.BytesIO()
    view.save(file, "JPEG", quality=int(rng.integers(20, 96)), subsampling=int(rng.integers(0, 3)))
    seen = Image.open(io.BytesIO(file.getvalue())).convert("RGB")
    return np.asarray(seen.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))


def _cut(picture: Image.Image, box: Floats, rng: np.random.Generator) -> Image.Image:
    """Cut by scoring's own crop function, around a box that is as inexact as a detector's."""
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    wanted = side * np.exp(rng.normal(0, 0.10))
    if rng.random() < 0.2:
        wanted *= np.exp(rng.uniform(0, 0.5))
    across, down = (left + right) / 2 + rng.normal(0, 0.06) * side, (top + bottom) / 2 + rng.normal(0, 0.06) * side
    if rng.random() < 0.5:
        mean = np.asarray(picture.resize((1, 1), Image.Resampling.BOX))[0, 0]
        fill = (int(mean[0]), int(mean[1]), int(mean[2]))
        picture = picture.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR, center=(across, down), fillcolor=fill)
    pixels = int(min(224, max(16, round(wanted * 1.1))))
    pixels = max(pixels, 64) if wanted > 40 else pixels
    half = wanted / 2
    square = np.array([across - half, down - half, across + half, down + half], np.float32)
    return Image.fromarray(crop_face(picture, square, np.zeros((5, 2), np.float32), pixels, pixels, CropOptions()))


def _lit(view: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The view with other exposure, tint, dim light, coloured light or light from one side."""
    pixels = np.asarray(view, np.float32) / 255
    if rng.random() < 0.5:
        pixels = pixels ** np.exp(rng.uniform(-0.5, 0.5))
    if rng.random() < 0.3:
        pixels = pixels * rng.uniform(0.75, 1.25, 3).astype(np.float32)
    if rng.random() < 0.12:
        pixels = pixels * rng.uniform(0.2, 0.6) + rng.normal(0, rng.uniform(0, 0.03), pixels.shape)
    if rng.random() < 0.05:
        colour = rng.uniform(0.15, 1, 3)
        colour[rng.integers(3)] = 1
        mixing = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.2, 0.2, 0.6]], np.float32)
        pixels = pixels @ mixing * colour
    if rng.random() < 0.2:
        height, width = pixels.shape[:2]
        angle = rng.uniform(0, 2 * np.pi)
        across, down = np.cos(angle) * np.linspace(-1, 1, width), np.sin(angle) * np.linspace(-1, 1, height)
        pixels = pixels * (1 + rng.uniform(0.1, 0.5) * (across[np.newaxis] + down[:, np.newaxis]))[..., np.newaxis]
    return Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))
