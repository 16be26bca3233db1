"""Random views of an image, the same for all classes, so that resolution, compression and framing reveal no label.

Every view ends as an encoded file that goes through :func:`maskdet.images.preprocessing.prepare_image`: in
training, a model sees what the shared preprocessing makes of small, blurred, badly compressed files.
"""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from maskdet.images.preprocessing import ImageLimits, open_upright, prepare_image
from maskdet.training.recipe import Augmentation


def make_views(
    data: bytes, height: int, width: int, settings: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Make random views of an image.

    Args:
        data: the image file's bytes.
        height: rows of each view.
        width: columns of each view.
        settings: how far views differ.
        rng: the only source of randomness.

    Returns:
        uint8 RGB ``(copies, height, width, 3)``.

    Raises:
        ImageFault: the image is unreadable.
    """
    limit_px = settings.max_side_px
    image, _ = open_upright(data, ImageLimits(), at_least=(limit_px, limit_px))
    image.thumbnail((2 * limit_px, 2 * limit_px), Image.Resampling.BOX)
    views = [_view(image, settings, rng) for _ in range(settings.copies)]
    limits = ImageLimits(min_side_px=1)  # a narrow photo shrunk to 24 px may have a shorter side under 8
    return np.stack([prepare_image(view, height, width, limits).pixels for view in views])


def _view(image: Image.Image, settings: Augmentation, rng: np.random.Generator) -> bytes:
    """One view as a JPEG file."""
    view = reframe(image, settings, rng)
    view = shrink(view, settings, rng)
    if rng.random() < 0.5:
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, settings.max_blur) * max(view.size)))
    if settings.max_motion_blur and rng.random() < 0.25:
        view = move(view, rng.uniform(0.0, settings.max_motion_blur) * max(view.size), rng)
    view = recolor(view, settings, rng)
    encoded = io.BytesIO()
    lowest, highest = settings.jpeg_quality
    view.save(encoded, "JPEG", quality=int(rng.integers(lowest, highest + 1)), subsampling=int(rng.integers(0, 3)))
    return encoded.getvalue()


def reframe(image: Image.Image, settings: Augmentation, rng: np.random.Generator) -> Image.Image:
    """Rotate a little, then crop more tightly or place in a larger frame, at a random position."""
    angle_degrees = rng.uniform(-settings.max_rotation_degrees, settings.max_rotation_degrees)
    if rng.random() < 0.5:
        image = image.rotate(angle_degrees, Image.Resampling.BILINEAR, fillcolor=_some_color(rng))
    zoom = math.exp(rng.uniform(-math.log(settings.max_zoom_out), math.log(settings.max_zoom_in)))
    stretch = math.exp(rng.uniform(-0.1, 0.1))
    frame_width = max(8, round(image.width / zoom * stretch))
    frame_height = max(8, round(image.height / zoom / stretch))
    left = _place(image.width - frame_width, rng)
    top = _place(image.height - frame_height, rng)
    box = (left, top, left + frame_width, top + frame_height)
    if left >= 0 and top >= 0 and box[2] <= image.width and box[3] <= image.height:
        return image.crop(box)
    frame = _background(image, (frame_width, frame_height), rng)
    frame.paste(image, (-left, -top))
    return frame


def _place(slack_px: int, rng: np.random.Generator) -> int:
    """Where the frame starts; before the image's own edge (negative) if the frame is larger."""
    return int(rng.integers(min(0, slack_px), max(0, slack_px) + 1))


def _background(image: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    if rng.random() < 0.5:
        return Image.new("RGB", size, _some_color(rng))
    coarse = image.resize((4, 4), Image.Resampling.BOX, box=_border_box(image, rng))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def _border_box(image: Image.Image, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A strip along the top or bottom: its colours are plausible surroundings."""
    strip_px = max(1, image.height // 8)
    top = 0 if rng.random() < 0.5 else image.height - strip_px
    return 0, top, image.width, top + strip_px


def _some_color(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def shrink(image: Image.Image, settings: Augmentation, rng: np.random.Generator) -> Image.Image:
    """Resize to a longer side drawn between the smallest and the largest, with equal chances for each octave."""
    side_px = math.exp(rng.uniform(math.log(settings.min_side_px), math.log(settings.max_side_px)))
    ratio = side_px / max(image.size)
    # Small images are enlarged too; otherwise large views would only come from the class whose files are large.
    size = (max(8, round(image.width * ratio)), max(8, round(image.height * ratio)))
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BOX, Image.Resampling.BICUBIC)
    return image.resize(size, filters[int(rng.integers(len(filters)))])


def move(image: Image.Image, streak_px: float, rng: np.random.Generator) -> Image.Image:
    """Blur along a line, as for a moving face: the mean of the image shifted along the streak."""
    angle_rad = rng.uniform(0.0, math.pi)
    steps, border_px = math.ceil(streak_px) + 2, math.ceil(streak_px / 2) + 1
    framed = _with_edges(image, border_px)
    total = np.zeros((image.height, image.width, 3), np.float32)
    for along_px in np.linspace(-streak_px / 2, streak_px / 2, steps):
        shift = (1.0, 0.0, float(along_px * math.cos(angle_rad)), 0.0, 1.0, float(along_px * math.sin(angle_rad)))
        moved = framed.transform(framed.size, Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR)
        total += np.asarray(ImageOps.crop(moved, border_px), np.float32)
    return Image.fromarray((total / steps + 0.5).astype(np.uint8))


def _with_edges(image: Image.Image, border_px: int) -> Image.Image:
    """The image in a frame that continues its outermost pixels."""
    padded = np.pad(np.asarray(image), ((border_px, border_px), (border_px, border_px), (0, 0)), mode="edge")
    return Image.fromarray(padded)


def recolor(image: Image.Image, settings: Augmentation, rng: np.random.Generator) -> Image.Image:
    """Change brightness, contrast and saturation, sometimes down to grey."""
    low, high = 1.0 - settings.color_jitter, 1.0 + settings.color_jitter
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(low, high))
    return image.convert("L").convert("RGB") if rng.random() < settings.gray_share else image
