"""Draw what counts as a mask worn correctly: docs/images/classes.svg, which the page on classes shows.

python -m tools.draw_classes [--output FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from maskdet.labels import INCORRECT, MASK, NO_MASK
from tools.documents import svg

OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "classes.svg"

# Okabe and Ito's blue and orange, and a grey: distinct for any colour vision, and the label is written below.
COLOURS = {MASK: "#0072b2", INCORRECT: "#d55e00", NO_MASK: "#64748b"}

_SKIN, _HAIR, _CLOTH, _EDGE, _FEATURE = "#e7b58f", "#5b4636", "#a9d5ea", "#4a90b0", "#8a5a3c"
_CELL_WIDTH, _CELL_HEIGHT, _COLUMNS, _TOP = 144.0, 168.0, 6, 12.0


def draw() -> str:
    """The drawing, as SVG."""
    rows = -(-len(_FACES) // _COLUMNS)
    parts = []
    for number, (label, words, paint) in enumerate(_FACES):
        x, y = number % _COLUMNS * _CELL_WIDTH + _CELL_WIDTH / 2, number // _COLUMNS * _CELL_HEIGHT + _TOP
        drawn = "".join([*_face(), *paint()])
        parts.append(f'<g transform="translate({x:g} {y:g})">{drawn}</g>')
        parts.append(svg.text(x, y + 128, words, size=11))
        parts.append(svg.text(x, y + 144, label, size=12, colour=COLOURS[label], bold=True))
    return svg.document(
        _COLUMNS * _CELL_WIDTH, rows * _CELL_HEIGHT + _TOP, "Worn correctly, incorrectly, or not", parts
    )


def _face() -> Iterator[str]:
    """A head about (0, 56): eyes at 46, tip of the nose at 66, mouth at 82, chin at 104."""
    yield f'<ellipse cx="0" cy="42" rx="40" ry="40" fill="{_HAIR}"/>'
    for side in (-1, 1):
        yield f'<ellipse cx="{36 * side}" cy="58" rx="6" ry="9" fill="{_SKIN}"/>'
    yield f'<ellipse cx="0" cy="58" rx="34" ry="46" fill="{_SKIN}"/>'
    for side in (-1, 1):
        yield f'<ellipse cx="{13 * side}" cy="46" rx="4" ry="3" fill="#1f2937"/>'
    yield _line("M 0 50 L -5 66 L 4 67")
    yield _line("M -11 82 Q 0 89 11 82")


def _line(path: str, colour: str = _FEATURE, width: float = 2) -> str:
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}" stroke-linecap="round"/>'


def _mask(top: float, bottom: float, *, half: float = 29, strap_to: float = 54) -> Iterator[str]:
    """A mask from one height to another, with straps to the ears."""
    for side in (-1, 1):
        yield _line(f"M {half * side:g} {top + 6:g} L {37 * side} {strap_to:g}", _EDGE, 1.5)
    yield (
        f'<path d="M {-half:g} {top + 4:g} Q 0 {top - 6:g} {half:g} {top + 4:g} L {half - 5:g} {bottom - 8:g} '
        f'Q 0 {bottom + 8:g} {5 - half:g} {bottom - 8:g} Z" fill="{_CLOTH}" stroke="{_EDGE}" stroke-width="1.2"/>'
    )


def _over_nose_and_mouth() -> Iterator[str]:
    yield from _mask(59, 102)


def _scarf() -> Iterator[str]:
    yield '<path d="M -38 62 Q 0 50 38 62 L 34 106 Q 0 122 -34 106 Z" fill="#b5838d" stroke="#8d5f69"/>'
    yield _line("M -32 76 Q 0 66 32 76", "#8d5f69", 1.2)


def _see_through() -> Iterator[str]:
    yield from _mask(59, 102)
    yield f'<rect x="-14" y="74" width="28" height="17" rx="7" fill="{_SKIN}" stroke="{_EDGE}"/>'
    yield _line("M -9 82 Q 0 88 9 82")


def _below_nose() -> Iterator[str]:
    yield from _mask(74, 106)


def _on_chin() -> Iterator[str]:
    yield from _mask(92, 110, half=24, strap_to=60)


def _on_ear() -> Iterator[str]:
    yield _line("M 37 54 L 42 70", _EDGE, 1.5)
    yield f'<path d="M 36 68 L 52 72 L 48 104 L 34 98 Z" fill="{_CLOTH}" stroke="{_EDGE}" stroke-width="1.2"/>'


def _held() -> Iterator[str]:
    yield f'<path d="M -18 74 L 22 70 L 24 98 L -16 100 Z" fill="{_CLOTH}" stroke="{_EDGE}" stroke-width="1.2"/>'
    yield f'<ellipse cx="27" cy="92" rx="9" ry="12" fill="{_SKIN}" stroke="{_FEATURE}"/>'


def _nothing() -> Iterator[str]:
    yield from ()


def _hand() -> Iterator[str]:
    for finger in range(4):
        yield (
            f'<rect x="-20" y="{70 + 8 * finger}" width="46" height="8" rx="4" fill="#d9a27a" stroke="{_FEATURE}" '
            'stroke-width="0.8"/>'
        )


def _cup() -> Iterator[str]:
    yield '<path d="M -15 76 L 15 76 L 11 112 L -11 112 Z" fill="#f4f1ea" stroke="#64748b"/>'


def _beard() -> Iterator[str]:
    yield f'<path d="M -33 66 Q 0 74 33 66 Q 30 112 0 112 Q -30 112 -33 66 Z" fill="{_HAIR}"/>'
    yield _line("M -11 84 Q 0 90 11 84", "#c98a78", 3)


def _shield() -> Iterator[str]:
    yield (
        '<path d="M -42 26 L 42 26 L 40 104 Q 0 120 -40 104 Z" fill="#cfe8f3" fill-opacity="0.45" stroke="#64748b"/>'
    )


_FACES: tuple[tuple[str, str, Callable[[], Iterator[str]]], ...] = (
    (MASK, "over nose and mouth", _over_nose_and_mouth),
    (MASK, "scarf or gaiter pulled up", _scarf),
    (MASK, "with a clear window", _see_through),
    (INCORRECT, "below the nose", _below_nose),
    (INCORRECT, "on or under the chin", _on_chin),
    (INCORRECT, "hanging from an ear", _on_ear),
    (INCORRECT, "held before the mouth", _held),
    (NO_MASK, "nothing", _nothing),
    (NO_MASK, "hand", _hand),
    (NO_MASK, "cup, banana, telephone", _cup),
    (NO_MASK, "beard", _beard),
    (NO_MASK, "face shield alone", _shield),
)


def main() -> int:
    """Write the drawing; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.draw_classes", description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output: Path = parser.parse_args().output
    output.write_text(draw(), encoding="utf-8")
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
