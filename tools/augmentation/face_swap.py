"""Put tight face crops on bodies: on those in photographs, in place of the face there, or on drawn ones.

In collections, unmasked faces are tight crops and masked ones have shoulders and streets around them; a classifier that
saw nothing else would learn the surroundings instead of the mask.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from maskdet.demo.drawing import EYES_Y, FABRICS, HALF_WIDTH, MOUTH_Y, Pen, Pose, pick, shade
from tools.augmentation.geometry import Points, similarity

_MASK_SIDE_PX = 96


class Donor(NamedTuple):
    """A face to be put somewhere else."""

    image: Image.Image
    """RGB."""
    landmarks: Points
    """``(5, 2)``, as :func:`tools.augmentation.geometry.head_pose` takes them."""
    pose: Pose


def replace_face(scene: Image.Image, scene_landmarks: Points, donor: Donor, rng: np.random.Generator) -> Image.Image:
    """Put a face over another one, a little larger, with soft edges.

    Args:
        scene: RGB photograph.
        scene_landmarks: landmarks of the face that is covered, ``(5, 2)``.
        donor: the face that covers it.
        rng: decides how much larger it is, and how far its colours follow those of the covered face.

    Returns:
        RGB of the scene's size.
    """
    target = _axis(scene_landmarks)
    middle = target.mean(axis=0)
    target = middle + (target - middle) * rng.uniform(1.05, 1.25)
    return _pasted(scene, target, donor, rng, follow=rng.uniform(0.0, 0.7))


def draw_bust(surroundings: Image.Image | None, donor: Donor, side_px: int, rng: np.random.Generator) -> Image.Image:
    """Put a face on a drawn neck and shoulders.

    Args:
        surroundings: RGB photograph for the background, which is blurred; without one, it is drawn.
        donor: the face.
        side_px: the result's longer side in pixels.
        rng: decides framing, clothes and background.

    Returns:
        RGB; the face takes up a seventh to a third of it.
    """
    size = (side_px, side_px) if rng.random() < 0.5 else (round(side_px * rng.uniform(0.6, 1.0)), side_px)
    image = _background(surroundings, size, rng)
    unit = rng.uniform(0.12, 0.26)
    pose = Pose(rng.uniform(0.35, 0.65), rng.uniform(0.3, 0.5) * size[1] / size[0], unit, 0.0, 0.0, rng.normal(0, 0.06))
    pen = Pen(image, pose)
    skin = _median_colour(donor.image)
    shirt = pick(rng, FABRICS)
    pen.half([(0, 0.5), (0.42, 0.5), (0.36, 1.3), (0.6, 1.6), (0, 1.8)], shade(skin, 0.85))
    wide = rng.uniform(1.4, 2.1)
    pen.half([(0, 1.5), (0.36, 1.32), (0.75, 1.42), (wide * 0.85, 1.62), (wide, 2.3), (wide * 1.05, 8), (0, 8)], shirt)
    for _ in range(int(rng.integers(0, 12))):
        x = rng.uniform(-wide, wide)
        pen.line([(x, 1.7), (x + rng.normal(0, 0.3), 3), (x, 8)], 0.06, shade(shirt, rng.uniform(0.7, 1.3)), 150)
    if rng.random() < 0.6:
        hair = shade(skin, rng.uniform(0.1, 0.6))
        pen.oval(0, -0.15, HALF_WIDTH * rng.uniform(1.1, 1.5), rng.uniform(1.15, 1.5), hair)
    image = image.filter(ImageFilter.GaussianBlur(side_px * 0.004))
    unit_px = unit * size[0]
    centre = np.array([pose.x, pose.y]) * size[0]
    down = np.array([-np.sin(pose.roll_rad), np.cos(pose.roll_rad)]) * unit_px
    return _pasted(image, np.stack([centre + EYES_Y * down, centre + MOUTH_Y * down]), donor, rng, follow=0.0)


def _axis(landmarks: Points) -> Points:
    """The middle between the eyes and the middle of the mouth, ``(2, 2)``."""
    return np.stack([landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)])


def _pasted(scene: Image.Image, target: Points, donor: Donor, rng: np.random.Generator, follow: float) -> Image.Image:
    coefficients = similarity(_axis(donor.landmarks), target)
    # Shrinking by interpolation alone would cause aliasing, which no camera does.
    shrinkage = float(np.hypot(coefficients[0], coefficients[3]))
    source = donor.image.filter(ImageFilter.GaussianBlur(0.4 * shrinkage)) if shrinkage > 1.5 else donor.image
    moved = source.transform(scene.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    outline = _outline(donor, rng).transform(
        scene.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    if follow > 0:
        moved = _recoloured(moved, scene, outline, follow)
    return Image.composite(moved, scene, outline)


def _outline(donor: Donor, rng: np.random.Generator) -> Image.Image:
    """The part of a donor that is pasted: its head, with soft edges, as far as it lies within its picture."""
    outline = Image.new("L", donor.image.size, 0)
    unit_px = donor.pose.unit * donor.image.width
    x, y = donor.pose.x * donor.image.width, donor.pose.y * donor.image.width
    across, up, low = HALF_WIDTH * rng.uniform(1.05, 1.3), rng.uniform(0.9, 1.25), rng.uniform(1.1, 1.25)
    box = (x - across * unit_px, y - up * unit_px, x + across * unit_px, y + low * unit_px)
    ImageDraw.Draw(outline).ellipse(box, fill=255)
    soft_px = max(1.0, 0.07 * unit_px)
    edge = round(1.5 * soft_px)
    frame = Image.new("L", outline.size, 0)
    inner = (max(1, outline.width - 2 * edge), max(1, outline.height - 2 * edge))
    frame.paste(outline.crop((edge, edge, edge + inner[0], edge + inner[1])), (edge, edge))
    return frame.filter(ImageFilter.GaussianBlur(soft_px))


def _recoloured(moved: Image.Image, scene: Image.Image, outline: Image.Image, follow: float) -> Image.Image:
    """Shift the pasted face's mean colour towards that of the area it covers."""
    inside = np.asarray(outline) > 128
    if not inside.any():
        return moved
    pixels = np.asarray(moved, np.float32)
    shift = np.asarray(scene, np.float32)[inside].mean(axis=0) - pixels[inside].mean(axis=0)
    return Image.fromarray(np.clip(pixels + follow * shift, 0, 255).astype(np.uint8))


def _background(surroundings: Image.Image | None, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    if surroundings is None:
        coarse = (
            rng.uniform(30, 240) + rng.normal(0, 25, 3) + rng.normal(0, 30, (4, 4, 1)) + rng.normal(0, 12, (4, 4, 3))
        )
        return Image.fromarray(_clipped(coarse)).resize(size, Image.Resampling.BICUBIC)
    blurred = surroundings.resize(size, Image.Resampling.BOX)
    return blurred.filter(ImageFilter.GaussianBlur(size[1] * rng.uniform(0.01, 0.06)))


def _median_colour(image: Image.Image) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.median(np.asarray(image).reshape(-1, 3), axis=0))
    return red, green, blue


def _clipped(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(values, 0, 255).astype(np.uint8)
