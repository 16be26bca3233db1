"""Draw synthetic faces with and without masks; they show no real person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from maskdet.errors import ConfigError

MIN_FACE_SIZE_PX = 16

EYES_Y, MOUTH_Y, HALF_WIDTH = -0.12, 0.64, 0.76
"""How far eyes and mouth are below a head's centre, and ears beside it, in head units, in most heads drawn here."""

_Colour = tuple[int, int, int]
_Points = NDArray[np.float64]

_SKINS = [
    (252, 226, 205), (241, 205, 176), (227, 184, 146), (205, 156, 116), (174, 124, 85),
    (142, 95, 64), (108, 71, 50), (78, 52, 39), (56, 39, 31),
]  # fmt: skip
HAIRS = [
    (24, 20, 20), (45, 31, 25), (78, 51, 33), (122, 82, 46),
    (196, 158, 96), (150, 70, 36), (150, 148, 146), (222, 220, 215),
]  # fmt: skip
FABRICS = [
    (40, 52, 84), (120, 40, 48), (52, 96, 76), (196, 170, 120), (92, 84, 100),
    (30, 30, 34), (186, 192, 200), (164, 96, 132), (70, 120, 160), (214, 196, 80),
]  # fmt: skip
_MASK_COLOURS = {
    "surgical": [(150, 194, 222), (122, 178, 212), (236, 240, 242), (156, 208, 188)],
    "ffp2": [(238, 238, 236), (238, 238, 236), (232, 232, 230), (40, 40, 44)],
    "cloth": FABRICS,
}
_IRISES = [(70, 44, 26), (48, 32, 22), (92, 120, 150), (90, 110, 66)]


class _Look(NamedTuple):
    """One person, in head units (see :class:`Pen`); drawn in full before the mask, which thus changes nothing else."""

    skin: _Colour
    hair: _Colour
    shirt: _Colour
    hat: _Colour
    iris: _Colour
    half_width: float
    jaw: float
    eye: float
    brow: float
    lip: float
    hair_style: str
    headwear: str
    beard: str
    glasses: bool


class Pose(NamedTuple):
    """Where the head is: centre and half height in fractions of the image, turns in head units, roll in radians."""

    x: float
    y: float
    unit: float
    yaw: float
    pitch: float
    roll_rad: float


class Pen:
    """Draws in head units: origin at the head's centre, x right, y down, 1 = half the head's height."""

    def __init__(self, image: Image.Image, pose: Pose) -> None:
        self._draw = ImageDraw.Draw(image, "RGBA")
        self._pose = pose
        self._unit_px = pose.unit * image.width
        self._centre_px = np.array([pose.x, pose.y]) * image.width
        cosine, sine = np.cos(pose.roll_rad), np.sin(pose.roll_rad)
        self._rotation = np.array([[cosine, sine], [-sine, cosine]])

    def _to_px(self, points: _Points) -> list[float]:
        # The middle of the face moves more than its edge, as when a round head turns.
        turn = np.array([self._pose.yaw, self._pose.pitch]) * np.clip(1 - points**2, 0, None)
        px = (points + turn) @ self._rotation * self._unit_px + self._centre_px
        return [float(value) for value in px.ravel()]

    def shape(self, points: _Points, colour: _Colour, alpha: int = 255) -> None:
        """Fill a polygon: ``(points, 2)``."""
        self._draw.polygon(self._to_px(points), fill=(*colour, alpha))

    def half(self, right: Sequence[tuple[float, float]], colour: _Colour, alpha: int = 255) -> None:
        """Fill the smooth symmetric shape whose right half runs from the middle line back to the middle line."""
        points = np.array(right)
        self.shape(_smooth(np.concatenate([points, points[::-1] * (-1, 1)]), closed=True), colour, alpha)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: _Colour, alpha: int = 255) -> None:
        """Fill an ellipse."""
        self.shape(_CIRCLE * (rx, ry) + (x, y), colour, alpha)

    def line(self, points: Sequence[tuple[float, float]], width: float, colour: _Colour, alpha: int = 255) -> None:
        """Stroke a smooth line, ``width`` head units wide."""
        smooth = _smooth(np.array(points), closed=False)
        self._draw.line(self._to_px(smooth), (*colour, alpha), max(1, round(width * self._unit_px)))


_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def _smooth(points: _Points, *, closed: bool) -> _Points:
    for _ in range(3):  # Chaikin's corner cutting
        following = np.roll(points, -1, axis=0) if closed else points[1:]
        start = points if closed else points[:-1]
        cut = np.stack([0.75 * start + 0.25 * following, 0.25 * start + 0.75 * following], axis=1).reshape(-1, 2)
        points = cut if closed else np.concatenate([points[:1], cut, points[-1:]])
    return points


def shade(colour: _Colour, factor: float) -> _Colour:
    """A colour made lighter or darker by a factor."""
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def pick(rng: np.random.Generator, colours: Sequence[_Colour]) -> _Colour:
    """One of some colours, changed a little."""
    # In proportion, since otherwise dark colours would change their hue.
    factors = rng.normal(1, 0.06) * rng.normal(1, 0.02, 3)
    red, green, blue = np.clip(np.array(colours[int(rng.integers(len(colours)))]) * factors, 0, 255)
    return int(red), int(green), int(blue)


def _sample_look(rng: np.random.Generator) -> _Look:
    style = str(rng.choice(["short", "short", "curly", "long", "bob", "bun", "bald"]))
    headwear = str(rng.choice(["none", "cap", "beanie", "scarf"], p=[0.7, 0.1, 0.08, 0.12]))
    may_have_beard = headwear != "scarf" and style in ("short", "curly", "bald")
    beard = str(rng.choice(["none", "stubble", "goatee", "full"], p=[0.4, 0.2, 0.15, 0.25]))
    return _Look(
        skin=pick(rng, _SKINS),
        hair=pick(rng, HAIRS),
        shirt=pick(rng, FABRICS),
        hat=pick(rng, FABRICS),
        iris=pick(rng, _IRISES),
        half_width=rng.uniform(0.7, 0.82),
        jaw=rng.uniform(0.6, 0.8),
        eye=rng.uniform(0.9, 1.15),
        brow=rng.uniform(-0.04, 0.04),
        lip=rng.uniform(-0.04, 0.06),
        hair_style=style,
        headwear=headwear,
        beard=beard if may_have_beard else "none",
        glasses=bool(rng.random() < 0.25),
    )


def draw_face(rng: np.random.Generator, size_px: int, masked: bool) -> Image.Image:
    """Draw one synthetic face.

    Generators in equal states give the same face, background, light and noise whether masked or not.

    Args:
        rng: decides everything that varies.
        size_px: height and width of the image, in pixels.
        masked: whether a mask covers nose, mouth and chin.

    Returns:
        An RGB image of ``size_px`` × ``size_px`` pixels, 8 bits per channel.

    Raises:
        ConfigError: ``size_px`` is under :data:`MIN_FACE_SIZE_PX`.
    """
    if size_px < MIN_FACE_SIZE_PX:
        raise ConfigError("size_px", f"at least {MIN_FACE_SIZE_PX} pixels", size_px)
    hair_rng, mask_rng, finish_rng = rng.spawn(3)
    look = _sample_look(rng)
    place, turn = rng.uniform((0.46, 0.46, 0.29), (0.54, 0.53, 0.36)), rng.normal(0, (0.07, 0.04, 0.07))
    pose = Pose(*(float(value) for value in (*place, *turn)))
    oversampling = int(np.clip(384 // size_px, 2, 4))
    backdrop = rng.uniform(60, 215) + rng.normal(0, 20, 3) + rng.normal(0, 20, (3, 3, 1)) + rng.normal(0, 7, (3, 3, 3))
    small = Image.fromarray(np.clip(backdrop, 0, 255).astype(np.uint8))
    image = small.resize((size_px * oversampling,) * 2, Image.Resampling.BICUBIC)
    pen = Pen(image, pose)
    _paint_body(pen, look)
    _paint_eyes(pen, look)
    _paint_nose_and_mouth(pen, look)
    if masked:
        paint_mask(pen, look.half_width, mask_rng)
    if look.glasses:
        _paint_glasses(pen, look)
    _paint_hair(pen, look, hair_rng)
    return _finish(image.reduce(oversampling), _light(look, pose, finish_rng), finish_rng)


def _paint_body(pen: Pen, look: _Look) -> None:
    w, skin, jaw = look.half_width, look.skin, look.jaw
    if look.headwear == "none" and look.hair_style in ("long", "bob"):
        end = 1.6 if look.hair_style == "long" else 0.95
        outline = [(0, -1.2), (0.8, -1.15), (w + 0.25, -0.4), (w + 0.3, 0.4), (w + 0.25, end), (0.4, end), (0, end)]
        pen.half(outline, shade(look.hair, 0.8))
    if look.headwear == "none" and look.hair_style == "bun":
        pen.oval(0, -1.2, 0.32, 0.28, shade(look.hair, 0.85))
    pen.half([(0, 0.6), (0.4, 0.6), (0.36, 1.3), (0.6, 1.6), (0, 1.8)], shade(skin, 0.86))
    pen.half([(0, 1.55), (0.36, 1.32), (0.75, 1.4), (1.5, 1.62), (1.8, 2.2), (1.9, 3.5), (0, 3.5)], look.shirt)
    pen.line([(-0.45, 1.3), (-0.2, 1.55), (0.2, 1.55), (0.45, 1.3)], 0.07, shade(look.shirt, 0.75))
    for side in (-1, 1):
        pen.oval(side * (w + 0.01), 0.03, 0.12, 0.2, shade(skin, 0.92))
        pen.oval(side * (w + 0.03), 0.03, 0.05, 0.11, shade(skin, 0.76))
    if look.headwear == "scarf":
        outline = [(0, -1.2), (0.75, -1.15), (w + 0.25, -0.4), (w + 0.22, 0.5), (0.95, 1.3), (1.3, 1.9), (0, 2)]
        pen.half(outline, shade(look.hat, 0.9))
        pen.line([(0.75, 0.7), (0.5, 1.25), (-0.3, 1.5), (-0.9, 1.7)], 0.04, shade(look.hat, 0.68))
    head = [(0, -1.02), (0.6, -1.02), (w + 0.04, -0.6), (w + 0.02, 0.1), (jaw, 0.72), (0.34, 1.06), (0, 1.05)]
    pen.half(head, skin)


def _paint_eyes(pen: Pen, look: _Look) -> None:
    size, rim = look.eye, shade(look.skin, 0.45)
    for side in (-1, 1):
        x = side * 0.33
        lids = np.array([(-0.16, 0.01), (-0.06, -0.08), (0.06, -0.08), (0.16, 0), (0.05, 0.07), (-0.06, 0.07)])
        pen.shape(_smooth(lids * (size * 1.1 * side, size * 1.15) + (x, -0.12), closed=True), (240, 237, 233))
        pen.oval(x, -0.125, 0.068 * size, 0.072 * size, look.iris)
        pen.oval(x, -0.125, 0.034, 0.036, (12, 10, 10))
        pen.oval(x + 0.025, -0.15, 0.014, 0.014, (255, 255, 255))
        upper = [(x - 0.17 * size, -0.1), (x - 0.06, -0.215), (x + 0.06, -0.215), (x + 0.17 * size, -0.1)]
        pen.line(upper, 0.035, rim)
        pen.line([(x - 0.13, -0.22), (x, -0.28), (x + 0.13, -0.22)], 0.02, rim, 90)
        pen.line([(x - 0.14, -0.05), (x, 0.0), (x + 0.14, -0.05)], 0.02, rim, 90)
        brow = [(x - side * 0.19, -0.34 - look.brow), (x, -0.42), (x + side * 0.2, -0.35 + look.brow)]
        pen.line(brow, 0.07, shade(look.hair, 0.75), 215)


def _paint_nose_and_mouth(pen: Pen, look: _Look) -> None:
    dark = shade(look.skin, 0.62)
    pen.line([(-0.08, -0.1), (-0.08, 0.15), (-0.15, 0.28), (-0.1, 0.36)], 0.025, dark, 110)
    pen.line([(0.08, -0.1), (0.08, 0.15), (0.15, 0.28), (0.1, 0.36)], 0.025, dark, 60)
    pen.line([(-0.14, 0.33), (-0.04, 0.4), (0.04, 0.4), (0.14, 0.33)], 0.035, dark, 150)
    for side in (-1, 1):
        pen.oval(side * 0.065, 0.36, 0.035, 0.02, shade(look.skin, 0.35))
        pen.line([(side * 0.2, 0.36), (side * 0.3, 0.46), (side * 0.34, 0.56)], 0.02, dark, 70)
    _paint_beard(pen, look)
    red = (shade(look.skin, 0.85)[0], shade(look.skin, 0.56)[1], shade(look.skin, 0.58)[2])
    corner, dip = 0.62 - look.lip, 0.62 + look.lip
    pen.half([(0, 0.575), (0.08, 0.55), (0.27, corner), (0.1, 0.72), (0, 0.73)], red)
    if look.lip > 0.035:
        pen.half([(0, 0.61), (0.2, corner), (0.1, 0.68), (0, 0.685)], (238, 232, 224))
    pen.line([(-0.24, corner), (-0.1, dip), (0.1, dip), (0.24, corner)], 0.025, shade(red, 0.5))
    pen.line([(-0.1, 0.8), (0, 0.78), (0.1, 0.8)], 0.025, dark, 80)


def _paint_beard(pen: Pen, look: _Look) -> None:
    w, jaw = look.half_width, look.jaw
    if look.beard == "none":
        return
    alpha = 85 if look.beard == "stubble" else 235
    moustache = [(0, 0.44), (0.2, 0.45), (0.36, 0.62), (0.3, 0.7), (0.2, 0.56), (0, 0.54)]
    if look.beard == "goatee":
        pen.half([(0, 0.74), (0.2, 0.72), (0.28, 0.6), (0.34, 0.66), (0.3, 1.05), (0, 1.12)], look.hair, alpha)
    else:
        cheek = [(0, 0.62), (0.3, 0.6), (0.52, 0.42), (w - 0.1, 0.05), (w + 0.01, 0.0)]
        pen.half([*cheek, (w, 0.25), (jaw, 0.78), (0.38, 1.14), (0, 1.14)], look.hair, alpha)
    pen.half(moustache, look.hair, alpha)


def _paint_glasses(pen: Pen, look: _Look) -> None:
    frame = shade(look.hat, 0.45)
    for side in (-1, 1):
        x, rim = side * 0.33, [(-0.24, -0.29), (0.24, -0.29), (0.24, 0.08), (-0.24, 0.08), (-0.24, -0.29)]
        pen.shape(_smooth(np.array(rim[:4]) + np.array([x, 0]), closed=True), (220, 232, 240), 45)
        pen.line([(x + dx, y) for dx, y in [(0, -0.29), *rim[1:], (0, -0.29)]], 0.04, frame)
        pen.line([(side * 0.53, -0.14), (side * look.half_width, -0.1)], 0.04, frame)
    pen.line([(-0.12, -0.12), (0, -0.17), (0.12, -0.12)], 0.04, frame)


def _paint_hair(pen: Pen, look: _Look, rng: np.random.Generator) -> None:
    w, style = look.half_width, look.hair_style
    line = -0.72 + rng.uniform(-0.08, 0.1)
    outer = [(0.0, -1.17), (0.6, -1.16), (w + 0.12, -0.7)]
    inner = [(w - 0.1, -0.45), (0.5, line - 0.02), (0, line)]
    if look.headwear == "scarf":
        sides = [(w + 0.18, 0.2), (w + 0.1, 0.75), (w - 0.06, 0.75), (w - 0.04, 0.1)]
        pen.half([*outer, *sides, *inner], look.hat)
        pen.half([*outer[:2], (w + 0.05, -0.8), (0.5, -1.0), (0, -1.05)], shade(look.hat, 1.15), 120)
    elif look.headwear in ("cap", "beanie"):
        pen.half([(0, -1.28), (0.65, -1.25), (w + 0.16, -0.75), (w + 0.1, -0.5), (0.5, -0.56), (0, -0.58)], look.hat)
        brim = -0.42 if look.headwear == "cap" else -0.72
        edge = [(0, -0.66), (0.6, -0.64), (w + 0.08, -0.52), (0.6, brim), (0, brim - 0.02)]
        pen.half(edge, shade(look.hat, 0.78))
    elif style != "bald":
        down = {"long": 0.95, "bob": 0.6}.get(style, -0.12)
        sides = [(w + 0.14, down / 2), (w + 0.12, down), (w - 0.01, down), (w - 0.03, -0.1)]
        pen.half([*outer, *sides, *inner], look.hair)
        for x in rng.uniform(-0.55, 0.55, 9):
            pen.line([(x * 0.3, -1.1), (x, -0.98), (x * 1.25, line - 0.06)], 0.02, shade(look.hair, 1.35), 120)
    if look.headwear == "none" and style == "curly":
        for angle in np.linspace(np.pi * 0.93, np.pi * 2.07, 17):
            radius = rng.uniform(0.14, 0.2)
            x, y = np.cos(angle) * (w + 0.12), np.sin(angle) * 0.8 - 0.3
            pen.oval(x, y, radius, radius, shade(look.hair, rng.uniform(0.85, 1.3)))


def paint_mask(pen: Pen, half_width: float, rng: np.random.Generator) -> None:
    """Paint a mask over nose, mouth and chin of a head ``2 * half_width`` head units wide."""
    w, kind = half_width, str(rng.choice(["surgical", "surgical", "ffp2", "cloth"]))
    top, bottom = rng.uniform(0.0, 0.12), rng.uniform(1.08, 1.16)
    high, low = rng.uniform(0.16, 0.26), rng.uniform(0.56, 0.68)
    colour = pick(rng, _MASK_COLOURS[kind])
    side = w - (0.12 if kind == "ffp2" else 0.04)
    for sign in (-1, 1):
        for y, ear_y in ((high + 0.05, -0.08), (low, 0.18)):
            pen.line([(sign * side * 0.96, y), (sign * (w + 0.02), ear_y)], 0.03, shade(colour, 0.92))
    edge = [(0.2, top), (0.45, top + 0.16), (side, high), (side + 0.03, low), (0.55, bottom - 0.16), (0.3, bottom)]
    shape = [(0, top - 0.02), *edge, (0, bottom)]
    pen.half(shape, shade(colour, 0.72))
    pen.half([(x * 0.97, y * 0.97 + 0.022) for x, y in shape], colour)
    _MASK_DETAILS[kind](pen, colour, _MaskEdge(top, bottom, side, low), rng)


def _arc(reach: float, end_y: float, middle: float, middle_y: float) -> list[tuple[float, float]]:
    return [(-reach, end_y), (-middle, middle_y), (middle, middle_y), (reach, end_y)]


class _MaskEdge(NamedTuple):
    """Where a mask ends, in head units."""

    top: float
    bottom: float
    side: float
    low: float


def _paint_pleats(pen: Pen, colour: _Colour, edge: _MaskEdge, rng: np.random.Generator) -> None:
    band = shade(colour, 1.1)
    pen.line(_arc(edge.side * 0.8, 0.24, 0.2, edge.top + 0.1), 0.05, band)
    for y in np.linspace(0.42, 0.8, int(rng.integers(3, 5))):
        reach = edge.side * (0.93 if y < edge.low else 0.72)
        pen.line(_arc(reach, y - 0.04, 0.3, y + 0.05), 0.025, shade(colour, 0.7), 190)
        pen.line(_arc(reach, y, 0.3, y + 0.09), 0.03, band, 160)


def _paint_fold(pen: Pen, colour: _Colour, edge: _MaskEdge, rng: np.random.Generator) -> None:
    rim = [(0.2, edge.top + 0.03), (edge.side * 0.95, 0.3), (edge.side * 0.9, 0.6), (0.3, edge.bottom - 0.04)]
    right = np.array([(0.0, edge.top), *rim, (0.0, edge.bottom)])
    pen.shape(_smooth(right, closed=True), shade(colour, 0.86), 150)
    pen.line([(0, edge.top), (0, edge.bottom)], 0.03, shade(colour, 0.66))
    pen.line([(-edge.side * 0.9, 0.36), (-0.3, 0.2), (0, edge.top + 0.1)], 0.02, shade(colour, 0.75))
    if rng.random() < 0.3:
        pen.oval(-0.34, 0.62, 0.15, 0.15, shade(colour, 0.7))
        pen.oval(-0.34, 0.61, 0.11, 0.11, shade(colour, 1.06))


def _paint_pattern(pen: Pen, colour: _Colour, edge: _MaskEdge, rng: np.random.Generator) -> None:
    pattern, ink = str(rng.choice(["plain", "dots", "stripes"])), pick(rng, FABRICS)
    for row, y in enumerate(np.arange(edge.top + 0.24, edge.bottom - 0.1, 0.15)):
        reach = edge.side * float(np.interp(y, (0.2, 0.35, edge.low, 1.0), (0.6, 0.88, 0.9, 0.5)))
        if pattern == "stripes":
            pen.line([(-reach, y - 0.03), (0, y + 0.05), (reach, y - 0.03)], 0.05, ink, 200)
        for x in np.arange(-0.7 + 0.08 * (row % 2), 0.75, 0.16) if pattern == "dots" else ():
            if abs(x) < reach:
                pen.oval(x, y, 0.035, 0.035, ink)
    pen.line([(0, edge.top), (0.015, edge.bottom)], 0.02, shade(colour, 0.75), 200)


_MASK_DETAILS = {"surgical": _paint_pleats, "ffp2": _paint_fold, "cloth": _paint_pattern}


def _light(look: _Look, pose: Pose, rng: np.random.Generator) -> Image.Image:
    """Light and shadow, drawn so small that enlarging it softens every edge; 128 leaves a pixel unchanged."""
    image = Image.new("RGB", (40, 40), (128,) * 3)
    pen, w = Pen(image, pose), look.half_width
    sun = rng.choice([-1, 1]) * rng.uniform(0.1, 0.3)
    pen.oval(0, 1.3, 0.6, 0.25, (60,) * 3, 200)
    pen.half([(0, -1.05), (0.6, -1.0), (w + 0.05, -0.5), (w, 0.2), (look.jaw, 0.75), (0.35, 1.1), (0, 1.1)], (96,) * 3)
    pen.oval(sun, -0.05, w * 0.85, 0.92, (130,) * 3)
    for side in (-1, 1):
        pen.oval(side * 0.33, -0.2, 0.24, 0.14, (100,) * 3, 150)
        pen.oval(side * 0.42 + sun * 0.3, 0.28, 0.2, 0.17, (152,) * 3, 150)
    pen.oval(sun * 0.2, 0.2, 0.1, 0.26, (154,) * 3, 170)
    pen.oval(sun, -0.6, 0.36, 0.2, (150,) * 3, 150)
    return image.filter(ImageFilter.GaussianBlur(1))


def _finish(image: Image.Image, light: Image.Image, rng: np.random.Generator) -> Image.Image:
    size_px = image.width
    pixels = np.asarray(image, np.float32)
    gain = np.asarray(light.resize(image.size, Image.Resampling.BICUBIC), np.float32) / 128
    ramp = np.linspace(-1, 1, size_px, dtype=np.float32)
    slopes = rng.normal(0, 0.13, 2).astype(np.float32)
    gain *= (1 + slopes[0] * ramp[None, :] + slopes[1] * ramp[:, None])[..., None]
    gain *= (rng.uniform(0.75, 1.15) * rng.normal(1, 0.03, 3)).astype(np.float32)
    noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(1, 7))
    lit = np.clip(pixels * gain, 0, 255)
    blur_px = max(0.0, rng.uniform(-0.004, 0.009)) * size_px
    soft = Image.fromarray(lit.astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur_px))
    return Image.fromarray(np.clip(np.asarray(soft) + noise, 0, 255).astype(np.uint8))
