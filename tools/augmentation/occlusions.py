"""Hide parts of real faces behind things other than masks: hands, hair, beards, poles, cups, heads, dark glasses.

Such a face still counts as unmasked. A classifier that has seen lower faces hidden only by masks takes beards, hands
and hair for masks.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from maskdet.demo.drawing import FABRICS, HAIRS, Pen, Pose, pick, shade
from tools.augmentation.overlay import Colour, Painter, painted_over


def cover_face(face: Image.Image, pose: Pose, rng: np.random.Generator) -> Image.Image:
    """Hide part of a face behind something other than a mask: a hand, hair, a beard, a pole, a cup, a head.

    Args:
        face: RGB.
        pose: pose of the head.
        rng: decides what hides it, where, and in which colour.

    Returns:
        RGB of the same size.
    """
    painters, shares = zip(*_COVERS.items(), strict=True)
    paint = painters[int(rng.choice(len(painters), p=np.array(shares) / sum(shares)))]
    opacity = rng.uniform(0.75, 1.0) if paint is paint_beard else 1.0
    return painted_over(face, pose, rng, paint, opacity=opacity)


def _paint_hand(pen: Pen, skin: Colour, rng: np.random.Generator) -> None:
    """Fingers side by side, reaching in from below or from a side; sometimes with the back of the hand."""
    tip = np.array([rng.uniform(-0.45, 0.45), rng.uniform(0.2, 0.75)])
    angle = rng.choice([-1, 1]) * rng.uniform(0.0, 1.5)  # from straight up to flat across
    along = np.array([np.sin(angle), -np.cos(angle)])
    side = np.array([-along[1], along[0]])
    width = rng.uniform(0.16, 0.24)
    colour = shade(skin, rng.uniform(0.8, 1.1))
    count = int(rng.integers(1, 5))
    if count > 2:
        knuckles = tip - along * rng.uniform(0.7, 0.9)
        pen.oval(knuckles[0], knuckles[1], width * count * 0.6, width * count * 0.6, shade(colour, 0.97))
    for finger in range(count):
        offset = side * (finger - (count - 1) / 2) * width
        end = tip + offset + along * rng.uniform(-0.12, 0.12)
        bend = end - along * 0.4 + side * rng.normal(0, 0.03)
        root = tip + offset * 0.9 - along * 1.6
        points = [tuple(root), tuple(bend), tuple(end)]
        pen.line(points, width, shade(colour, 0.72))
        pen.line(points, width * 0.86, colour)
        pen.oval(end[0], end[1], width * 0.43, width * 0.43, colour)


def paint_beard(pen: Pen, skin: Colour, rng: np.random.Generator) -> None:
    """Strokes of hair from ear to ear; the lips usually stay free."""
    hair = pick(rng, HAIRS[:4] if rng.random() < 0.8 else HAIRS)
    w, jaw, end = rng.uniform(0.7, 0.84), rng.uniform(0.6, 0.8), rng.uniform(1.05, 1.5)
    high = rng.uniform(0.0, 0.45)
    base = [(0, 0.46), (0.25, 0.5), (0.5, high + 0.2), (w, high - 0.1), (w, 0.3), (jaw, 0.8), (0.4, end), (0, end)]
    pen.half(base, shade(hair, 0.9), 190)
    outline = np.array(base)
    for _ in range(160):
        x, y = rng.uniform(-w, w), rng.uniform(high, end)
        if y > np.interp(abs(x), outline[:4, 0], outline[:4, 1]) and abs(x) < np.interp(
            y, (0.3, 0.8, end), (w, jaw, 0.3)
        ):
            lean = 0.06 * x + rng.normal(0, 0.04)
            pen.line(
                [(x, y), (x + lean, y + 0.07), (x + 2 * lean, y + 0.16)], 0.018, shade(hair, rng.uniform(0.6, 1.7))
            )
    if rng.random() < 0.7:
        lips = (min(255, skin[0]), round(skin[1] * 0.75), round(skin[2] * 0.75))
        pen.half([(0, 0.585), (0.08, 0.565), (0.25, 0.63), (0.1, 0.71), (0, 0.72)], lips)


def _paint_strands(pen: Pen, _skin: Colour, rng: np.random.Generator) -> None:
    """Long hair blown or hanging across the face."""
    hair, side = pick(rng, HAIRS), rng.choice([-1, 1])
    middle, spread = side * rng.uniform(0.0, 0.7), rng.uniform(0.15, 0.5)
    for _ in range(int(rng.integers(30, 110))):
        x = middle + rng.normal(0, spread)
        bow = side * rng.normal(0.25, 0.2)
        points = [
            (x * 0.6, -1.1),
            (x + bow, rng.uniform(-0.4, 0.3)),
            (x + bow * rng.uniform(0, 1.5), rng.uniform(0.7, 1.6)),
        ]
        pen.line(points, rng.uniform(0.015, 0.05), shade(hair, rng.uniform(0.6, 1.5)))


def _paint_pole(pen: Pen, _skin: Colour, rng: np.random.Generator) -> None:
    """A bar, rail, rope or edge of a sign, straight across the picture."""
    colour = _any_colour(rng)
    upright = rng.random() < 0.5
    place, lean, width = rng.uniform(-0.5, 0.5), rng.normal(0, 0.15), rng.uniform(0.12, 0.55)
    ends = [(place - lean, -3.0), (place, 0.0), (place + lean, 3.0)]
    points = ends if upright else [(y, x + 0.55) for x, y in ends]
    pen.line(points, width, shade(colour, 0.7))
    pen.line(points, width * 0.7, colour)


def _paint_thing(pen: Pen, _skin: Colour, rng: np.random.Generator) -> None:
    """A cup, telephone, microphone or sheet of paper in front of mouth or chin."""
    colour, size = _any_colour(rng), rng.uniform(0.2, 0.5)
    x, y = rng.uniform(-0.4, 0.4), rng.uniform(0.4, 0.95)
    if rng.random() < 0.4:
        pen.line([(x, y), (x * 1.5, y + 1.0), (x * 2, y + 2.5)], size * 0.5, shade(colour, 0.7))
        pen.oval(x, y, size * 0.7, size * 0.7, colour)
        return
    tall, lean = size * rng.uniform(0.8, 2.2), rng.normal(0, 0.25)
    corners = np.array(
        [(-size, -tall * 0.5), (size, -tall * 0.5), (size * rng.uniform(0.7, 1), 2 * tall), (-size, 2 * tall)]
    )
    turn = np.array([[np.cos(lean), np.sin(lean)], [-np.sin(lean), np.cos(lean)]])
    pen.shape(corners @ turn + (x, y), colour)
    pen.shape(corners * 0.75 @ turn + (x, y), shade(colour, rng.uniform(0.6, 1.4)))


def _paint_head(pen: Pen, _skin: Colour, rng: np.random.Generator) -> None:
    """The back of someone's head, or a shoulder, in front of chin and mouth."""
    colour = pick(rng, HAIRS) if rng.random() < 0.7 else pick(rng, FABRICS)
    top, reach = rng.uniform(0.25, 0.8), rng.uniform(0.9, 1.7)
    x = rng.uniform(-0.8, 0.8)
    pen.oval(x, top + reach * 1.1, reach, reach * 1.1, colour)
    for _ in range(70):
        start = x + rng.uniform(-0.9, 0.9) * reach
        y = top + reach * rng.uniform(0.1, 1.5)
        pen.line([(start, y), (start + rng.normal(0, 0.08), y + 0.2)], 0.03, shade(colour, rng.uniform(0.6, 1.5)), 170)


def _paint_shadow(pen: Pen, skin: Colour, rng: np.random.Generator) -> None:
    """Deep shadow on the lower face, as against the light."""
    edge = rng.uniform(-0.1, 0.4)
    outline = [(0, edge), (0.5, edge + rng.normal(0, 0.1)), (1.2, edge), (1.6, 2.0), (0, 2.0)]
    pen.half(outline, shade(skin, rng.uniform(0.1, 0.4)), int(rng.integers(120, 215)))


def _paint_glasses(pen: Pen, _skin: Colour, rng: np.random.Generator) -> None:
    """Dark glasses on the eyes, or pushed down to the tip of the nose."""
    lens = (
        shade(_any_colour(rng), rng.uniform(0.1, 0.5))
        if rng.random() < 0.3
        else shade((60, 58, 64), rng.uniform(0.2, 1.2))
    )
    frame, opacity = shade(_any_colour(rng), rng.uniform(0.1, 1.0)), int(rng.integers(170, 256))
    y = rng.uniform(-0.3, 0.1) if rng.random() < 0.5 else rng.uniform(0.1, 0.5)
    wide, tall, apart = rng.uniform(0.2, 0.32), rng.uniform(0.14, 0.3), rng.uniform(0.3, 0.38)
    pen.line([(-0.85, -0.2), (-apart - wide, y - 0.05)], 0.04, frame)
    pen.line([(0.85, -0.2), (apart + wide, y - 0.05)], 0.04, frame)
    pen.line([(-apart + wide * 0.8, y - 0.05), (apart - wide * 0.8, y - 0.05)], 0.05, frame)
    for side in (-1, 1):
        pen.oval(side * apart, y, wide * 1.1, tall * 1.1, frame)
        pen.oval(side * apart, y, wide, tall, lens, opacity)
        if rng.random() < 0.5:
            pen.oval(side * apart - wide * 0.3, y - tall * 0.4, wide * 0.4, tall * 0.2, shade(lens, 2.5), 120)


def _any_colour(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.5:
        return pick(rng, FABRICS)
    red, green, blue = (int(value) for value in rng.integers(10, 250, 3))
    return red, green, blue


_COVERS: dict[Painter, float] = {
    _paint_hand: 3,
    paint_beard: 3,
    _paint_strands: 2,
    _paint_pole: 1.5,
    _paint_thing: 2,
    _paint_head: 2,
    _paint_shadow: 1,
    _paint_glasses: 3.5,
}
"""What may hide a face, and the relative frequency of each."""
