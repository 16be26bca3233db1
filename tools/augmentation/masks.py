"""Draw masks on real faces: surgical, FFP2 and cloth; printed, skin-coloured or dark; gaiters, some see-through."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from maskdet.demo.drawing import FABRICS, HALF_WIDTH, Pen, Pose, paint_mask, pick, shade
from tools.augmentation.occlusions import paint_beard
from tools.augmentation.overlay import Colour, Painter, painted_over

_NOSE_OUT_SHARE = 0.25
_SKIN_TONED = "skin-toned"
_LOOK_SHARES = {"made": 0.3, "dyed": 0.3, "printed": 0.15, _SKIN_TONED: 0.1, "gaiter": 0.15}


def put_mask_on(face: Image.Image, pose: Pose, rng: np.random.Generator) -> Image.Image:
    """Draw a mask over nose, mouth and chin.

    Args:
        face: RGB, unmasked.
        pose: pose of the head.
        rng: decides kind, colour, cut and light.

    Returns:
        RGB of the same size.
    """
    half_width = HALF_WIDTH * rng.uniform(0.9, 1.1)
    if rng.random() < _NOSE_OUT_SHARE:
        pose = _lower(pose, rng.uniform(0.1, 0.32))  # in head units
    look = str(rng.choice(list(_LOOK_SHARES), p=list(_LOOK_SHARES.values())))
    if look == "gaiter":
        return _put_gaiter_on(face, pose, half_width, rng)
    if look == _SKIN_TONED:
        shape = partial(_paint_skin_toned, half_width=half_width)
        return painted_over(face, pose, rng, shape, opacity=rng.uniform(0.85, 1.0))
    dye = np.clip(rng.uniform(0.1, 1.3) * rng.normal(1, 0.25, 3), 0, 1.4) if look == "dyed" else np.ones(3)
    print_on = _some_print(rng) if look == "printed" else None
    return painted_over(
        face, pose, rng, lambda pen, _skin, draws: paint_mask(pen, half_width, draws), details=print_on, dye=dye
    )


def _some_print(rng: np.random.Generator) -> Painter:
    return _PRINTS[int(rng.integers(len(_PRINTS)))]


def _lower(pose: Pose, by: float) -> Pose:
    """The pose moved down along the head by ``by``, in head units."""
    x, y = pose.x - np.sin(pose.roll_rad) * by * pose.unit, pose.y + np.cos(pose.roll_rad) * by * pose.unit
    return pose._replace(x=float(x), y=float(y))


def _put_gaiter_on(face: Image.Image, pose: Pose, half_width: float, rng: np.random.Generator) -> Image.Image:
    """A tube or kerchief from the nose down over the neck; mouth, nose and beard show through thin ones."""
    see_through = rng.random() < 0.5
    if see_through and rng.random() < 0.5:
        face = painted_over(face, pose, rng, paint_beard, opacity=rng.uniform(0.75, 1.0))
    opacity = rng.uniform(0.5, 0.85) if see_through else 1.0
    print_on = _some_print(rng) if rng.random() < 0.3 else None
    return painted_over(
        face, pose, rng, partial(_paint_gaiter, half_width=half_width), details=print_on, opacity=opacity
    )


def _paint_skin_toned(pen: Pen, skin: Colour, rng: np.random.Generator, *, half_width: float) -> None:
    """A cloth mask of about the colour of the skin, recognisable only by its outline, a seam and shadows."""
    w, colour = half_width, shade(skin, rng.uniform(0.75, 1.2))
    top, bottom = rng.uniform(0.0, 0.12), rng.uniform(1.05, 1.16)
    high, low = rng.uniform(0.16, 0.26), rng.uniform(0.56, 0.68)
    for sign in (-1, 1):
        pen.line([(sign * w * 0.93, high + 0.05), (sign * (w + 0.02), -0.08)], 0.03, shade(colour, 0.85))
    edge = [(0.2, top), (0.45, top + 0.16), (w - 0.05, high), (w - 0.02, low), (0.55, bottom - 0.16), (0.3, bottom)]
    outline = [(0.0, top - 0.02), *edge, (0.0, bottom)]
    pen.half(outline, shade(colour, rng.uniform(0.7, 0.9)))
    pen.half([(x * 0.96, y * 0.97 + 0.022) for x, y in outline], colour)
    pen.line([(0, top), (0.02, bottom)], 0.025, shade(colour, 0.8), 200)
    for y in rng.uniform(0.3, 0.95, int(rng.integers(0, 4))):
        pen.line([(-0.5, y + 0.06), (0, y), (0.5, y + 0.06)], 0.03, shade(colour, rng.choice([0.85, 1.1])), 150)


def _paint_gaiter(pen: Pen, _skin: Colour, rng: np.random.Generator, *, half_width: float) -> None:
    w, colour = half_width, shade(pick(rng, FABRICS), rng.uniform(0.3, 1.2))
    top, end = rng.uniform(-0.02, 0.2), rng.uniform(1.35, 2.0)
    foot = rng.uniform(0.0, 0.25) if rng.random() < 0.35 else rng.uniform(0.55, 0.9)  # a kerchief's tip, or a tube
    edge = [(0.2, top), (0.5, top + 0.08), (w + 0.03, top + 0.1), (w, 0.5), (0.62, 1.0), (foot, end)]
    pen.half([(0.0, top), *edge, (0.0, end + 0.1)], colour)
    pen.line([(-w, top + 0.1), (-0.4, top + 0.06), (0.4, top + 0.06), (w, top + 0.1)], 0.03, shade(colour, 0.8))
    for _ in range(int(rng.integers(2, 7))):
        y, bow = rng.uniform(0.5, end), rng.uniform(-0.1, 0.2)
        reach = w * rng.uniform(0.4, 0.9)
        pen.line([(-reach, y - bow), (0, y), (reach, y - bow)], 0.04, shade(colour, rng.choice([0.75, 1.25])), 140)


def _print_blotches(pen: Pen, _skin: Colour, rng: np.random.Generator) -> None:
    """Leaves, flowers, camouflage."""
    inks, size = [_any_colour(rng) for _ in range(int(rng.integers(1, 4)))], rng.uniform(0.04, 0.16)
    for _ in range(int(rng.integers(15, 60))):
        x, y = rng.uniform(-0.9, 0.9), rng.uniform(0.0, 1.5)
        pen.oval(x, y, size * rng.uniform(0.4, 1.5), size * rng.uniform(0.4, 1.5), inks[int(rng.integers(len(inks)))])


def _print_bands(pen: Pen, _skin: Colour, rng: np.random.Generator) -> None:
    """Broad stripes of several colours: horizontal, vertical or diagonal."""
    angle, width = rng.uniform(0, np.pi), rng.uniform(0.08, 0.3)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    for number in range(-5, 6):
        middle = across * number * width * 2 + (0.0, 0.6)
        pen.line([tuple(middle - 2 * along), tuple(middle), tuple(middle + 2 * along)], width, _any_colour(rng))


def _print_lettering(pen: Pen, _skin: Colour, rng: np.random.Generator) -> None:
    """A row or two of strokes of the size of letters, or one emblem."""
    ink, height = _any_colour(rng), rng.uniform(0.08, 0.22)
    if rng.random() < 0.3:
        x, y = rng.uniform(-0.4, 0.4), rng.uniform(0.4, 0.8)
        pen.oval(x, y, height, height, ink)
        pen.oval(x, y, height * 0.6, height * 0.6, _any_colour(rng))
        return
    for y in rng.uniform(0.35, 0.9, int(rng.integers(1, 3))):
        for x in np.arange(-0.45, 0.46, height * 0.9):
            corners = rng.uniform(-0.5, 0.5, (3, 2)) * height * (0.8, 1.0) + (x, y)
            pen.line([(float(a), float(b)) for a, b in corners], height * 0.18, ink)


def _print_mouth(pen: Pen, skin: Colour, rng: np.random.Generator) -> None:
    """A mouth, with teeth or a moustache, sometimes together with a nose and cheeks in the colour of the skin."""
    y, reach = rng.uniform(0.5, 0.75), rng.uniform(0.2, 0.5)
    if rng.random() < 0.4:
        pen.oval(0, 0.6, 1.0, 0.8, shade(skin, rng.uniform(0.85, 1.15)))
        pen.half([(0, 0.3), (0.12, 0.36), (0.15, 0.4), (0, 0.42)], shade(skin, 0.75))
    lips = (int(rng.integers(120, 230)), int(rng.integers(20, 110)), int(rng.integers(30, 120)))
    smile = rng.uniform(-0.05, 0.12)
    pen.half([(0, y - 0.07), (reach * 0.6, y - 0.08), (reach, y - smile), (reach * 0.6, y + 0.1), (0, y + 0.12)], lips)
    if rng.random() < 0.6:
        pen.half([(0, y - 0.02), (reach * 0.7, y - 0.03), (reach * 0.6, y + 0.04), (0, y + 0.05)], (240, 238, 230))
    if rng.random() < 0.3:
        pen.half([(0, y - 0.2), (reach, y - 0.15), (reach * 1.2, y - 0.05), (0, y - 0.1)], pick(rng, FABRICS))


def _any_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = (int(value) for value in rng.integers(5, 251, 3))
    return red, green, blue


_PRINTS: tuple[Painter, ...] = (_print_blotches, _print_bands, _print_lettering, _print_mouth)
