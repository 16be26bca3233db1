"""Boxes, tags and text on pictures: how a label looks, at a legible size."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from maskdet.errors import FailureCode
from maskdet.labels import INCORRECT, MASK, NO_MASK, THREE_CLASSES, UNCERTAIN

Colour = tuple[int, int, int]
Place = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
GREY: Colour = (150, 150, 150)
"""The colour of what has no picture or no label."""

CHANGED = "changed since it was scored"
GONE = "gone since it was scored"
NAMELESS = "its name is hidden (privacy.uri), so it cannot be shown"
"""Why there is no picture."""

_PADDING_PX = 3
_SMALLEST_SIDE_PX = 8
_DOTS = "..."


class Style(NamedTuple):
    """How a label looks."""

    colour: Colour
    ink: Colour
    """The colour of text on it; the contrast is at least 4.5 : 1, as WCAG 2 requires."""


# Blue, black, vermilion and yellow of Okabe and Ito, "Color universal design", 2008: told apart in all kinds of colour
# blindness. Black and yellow are far darker and lighter than the others; these two differ in hue for whoever lacks red
# or green. The palette's green, purple, sky blue and orange each come close to one of the others in some sight.
STYLES = {
    MASK: Style((0, 114, 178), WHITE),
    INCORRECT: Style(BLACK, WHITE),
    NO_MASK: Style((213, 94, 0), BLACK),
    UNCERTAIN: Style((240, 228, 66), BLACK),
}
UNLABELLED = Style(GREY, BLACK)


def why_missing(code: FailureCode) -> str:
    """Why there is no picture of something that can no longer be read."""
    return GONE if code is FailureCode.NOT_FOUND else f"unreadable: {code}"


def probability_of(label: str, probabilities: Mapping[str, float | None]) -> float:
    """The probability shown with a label: its own; that of any mask where it has none, as ``uncertain``.

    Args:
        label: a model's or a person's.
        probabilities: of ``mask`` and, if the model tells it, of ``incorrect``; they and ``no_mask`` add to 1.
    """
    mask, incorrect = probabilities[MASK] or 0.0, probabilities.get(INCORRECT)
    worn = mask + (incorrect or 0.0)
    own = {MASK: mask, INCORRECT: incorrect, NO_MASK: 1.0 - worn}.get(label)
    return worn if own is None else own


def shown_probability(row: Mapping[str, Any]) -> float:
    """The probability shown with the label of a row of the predictions; see :func:`probability_of`."""
    return probability_of(row["label"], {MASK: row["probability_mask"], INCORRECT: row["probability_incorrect"]})


def answer(label: str, name: str, probability: str, *, tells_incorrect: bool = True) -> str:
    """A label and the probability shown with it, in words that say of what it is.

    Args:
        label: a model's or a person's.
        name: the label as people read it.
        probability: that of :func:`probability_of`, as text.
        tells_incorrect: whether the model gives a probability of ``incorrect``.
    """
    is_own = label in THREE_CLASSES and (label != INCORRECT or tells_incorrect)
    return f"{name} {probability}" if is_own else f"{name}, mask {probability}"


class Tag(NamedTuple):
    """A box and its text."""

    box: Place
    text: str
    style: Style


@functools.cache
def font_of(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font at a size, which needs no system font."""
    return ImageFont.load_default(size_px)


def text_size(text: str, size_px: int) -> tuple[int, int]:
    """Width and height in pixels of one line of text."""
    font = font_of(size_px)
    # The height of a line, not of its letters, so that tags of one size look alike.
    return int(font.getbbox(text)[2] + 0.99), int(font.getbbox("Ag")[3] + 0.99)


def fit_text(text: str, size_px: int, width_px: int) -> str:
    """Text cut to a width: what is too long loses its middle, because names differ at their ends."""
    if text_size(text, size_px)[0] <= width_px:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = text[: (kept + 1) // 2] + _DOTS + text[len(text) - kept // 2 :]
        if text_size(shorter, size_px)[0] <= width_px:
            return shorter
    return _DOTS


def printable(text: str) -> str:
    """Text on one line without control characters, which file names may contain."""
    return "".join(character if character.isprintable() else "?" for character in text)


def draw_tags(canvas: Image.Image, tags: Sequence[Tag], line_px: int, text_px: range) -> None:
    """Draw boxes, then their tags where they hide least of other boxes and tags.

    Args:
        canvas: RGB; is drawn on.
        tags: what to draw, the most important first.
        line_px: width of a box's line, which is inside the box.
        text_px: smallest and, as its end, one more than the largest text; a tag's follows from its box's width.
    """
    draw = ImageDraw.Draw(canvas)
    boxes = [_large_enough(tag.box) for tag in tags]
    for (left, top, right, bottom), tag in zip(boxes, tags, strict=True):
        # A hairline outside, black or white, so that a box is visible on any background.
        draw.rectangle((left - 1, top - 1, right, bottom), outline=tag.style.ink)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=tag.style.colour, width=line_px)
    taken: list[Place] = []
    for index, (box, tag) in enumerate(zip(boxes, tags, strict=True)):
        size_px = min(max((box[2] - box[0]) // 5, text_px.start), text_px.stop - 1)
        others = [*boxes[:index], *boxes[index + 1 :]]
        place = _tag_place(canvas.size, box, text_size(tag.text, size_px), others, taken)
        taken.append(place)
        draw_tag(draw, place, tag.text, size_px, tag.style)


def draw_tag(draw: ImageDraw.ImageDraw, place: Place, text: str, size_px: int, style: Style) -> None:
    """Draw text on a filled rectangle."""
    left, top, right, bottom = place
    draw.rectangle((left, top, right - 1, bottom - 1), fill=style.colour)
    draw.text((left + _PADDING_PX, top + _PADDING_PX), text, fill=style.ink, font=font_of(size_px))


def _large_enough(box: Place) -> Place:
    """A box with room for its lines; that of a small face in a large image shrinks to nothing when shown."""
    left, top, right, bottom = box
    return left, top, max(right, left + _SMALLEST_SIDE_PX), max(bottom, top + _SMALLEST_SIDE_PX)


def _tag_place(
    canvas: tuple[int, int], box: Place, text: tuple[int, int], others: Sequence[Place], taken: Sequence[Place]
) -> Place:
    """Above, below, or within the box: where the tag lies on the canvas and covers the least."""
    width, height = (side + 2 * _PADDING_PX for side in text)
    left = max(min(box[0], canvas[0] - width), 0)
    tops = [box[1] - height, box[3], box[1], box[3] - height]
    on_canvas = [top for top in tops if 0 <= top <= canvas[1] - height]
    places = [(left, top, left + width, top + height) for top in on_canvas or [0]]

    def covered(place: Place) -> int:
        # Text over text cannot be read.
        return sum(_common(place, other) for other in others) + 4 * sum(_common(place, other) for other in taken)

    return min(places, key=covered)


def _common(one: Place, other: Place) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)
