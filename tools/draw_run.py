"""Draw how a run works: docs/images/run.svg, which README and the site show.

python -m tools.draw_run [--output FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.documents import svg

OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "run.svg"

STEPS = (
    ("list", "paths, versions,", "sites and times"),
    ("pack", "shards of up to", "1,000 images"),
    ("score", "decode, find faces,", "mask or no mask"),
    ("account", "every image", "is counted"),
    ("aggregate", "rates and", "intervals"),
)
TABLES = (
    (2, "predictions", "one row per face"),
    (2, "failures", "why an image failed"),
    (2, "no_face", "no face was found"),
    (4, "compliance", "one row per group"),
)
EQUATION = "listed = scored + no face + failed + skipped"

_LEFT, _STEP, _WIDTH, _TOP, _HEIGHT = 150.0, 150.0, 122.0, 40.0, 78.0
_TABLE_TOP, _TABLE_HEIGHT, _TABLE_WIDTH = 178.0, 42.0, 136.0


def draw() -> str:
    """The drawing, as SVG."""
    width = _LEFT + len(STEPS) * _STEP + 6
    parts = [*_photographs(), *_steps(), *_tables()]
    parts.append(svg.text(_middle(3), _TOP - 14, EQUATION, size=12, colour=svg.MUTED))
    return svg.document(width, _TABLE_TOP + _TABLE_HEIGHT + 24, "How a run works", parts)


def _middle(step: int) -> float:
    return _LEFT + step * _STEP + _WIDTH / 2


def _photographs() -> Iterator[str]:
    """Three sheets, each with a face; the first two faces wear masks."""
    for number in (2, 1, 0):
        x, y = 26 + number * 12, _TOP + 4 + number * 8
        yield svg.box(x, y, 62, 54, fill="#f8fafc", stroke=svg.LINE)
        yield from _face(x + 31, y + 24, masked=number < 2)
    yield svg.text(69, _TOP + _HEIGHT + 14, "photographs", size=12, colour=svg.MUTED)
    yield svg.arrow(f"M118 {_TOP + _HEIGHT / 2:g} H{_LEFT - 3:g}")


def _face(x: float, y: float, *, masked: bool) -> Iterator[str]:
    yield f'<circle cx="{x:g}" cy="{y:g}" r="15" fill="#f2c9a1"/>'
    for eye in (x - 5, x + 5):
        yield f'<circle cx="{eye:g}" cy="{y - 4:g}" r="1.6" fill="{svg.INK}"/>'
    if masked:
        top, low = y + 1, y + 14
        sides = f"Q{x + 11:g} {low:g} {x:g} {low + 1:g} Q{x - 11:g} {low:g} {x - 13:g} {top:g}"
        yield f'<path d="M{x - 13:g} {top:g} Q{x:g} {top - 4:g} {x + 13:g} {top:g} {sides} z" fill="#7fb3d5"/>'
    else:
        mouth = f"M{x - 5:g} {y + 7:g} Q{x:g} {y + 11:g} {x + 5:g} {y + 7:g}"
        yield f'<path d="{mouth}" fill="none" stroke="{svg.INK}"/>'


def _steps() -> Iterator[str]:
    for number, (name, *lines) in enumerate(STEPS):
        left = _LEFT + number * _STEP
        yield svg.box(left, _TOP, _WIDTH, _HEIGHT)
        yield svg.text(_middle(number), _TOP + 26, name, size=15, bold=True)
        for line, words in enumerate(lines):
            yield svg.text(_middle(number), _TOP + 46 + line * 16, words, size=12, colour=svg.MUTED)
        if number:
            yield svg.arrow(f"M{left - _STEP + _WIDTH:g} {_TOP + _HEIGHT / 2:g} H{left - 3:g}")


def _tables() -> Iterator[str]:
    """The tables below the steps, each with an arrow from the step that writes it."""
    for number, (step, name, words) in enumerate(TABLES):
        middle = _middle(number + 1)
        yield svg.box(
            middle - _TABLE_WIDTH / 2, _TABLE_TOP, _TABLE_WIDTH, _TABLE_HEIGHT, fill="#ecfdf5", stroke="#0f766e"
        )
        yield svg.text(middle, _TABLE_TOP + 18, name, bold=True)
        yield svg.text(middle, _TABLE_TOP + 34, words, size=11, colour=svg.MUTED)
        start, top, bottom = _middle(step), _TABLE_TOP - 3, _TOP + _HEIGHT
        bend = (bottom + top) / 2
        yield svg.arrow(f"M{start:g} {bottom:g} C{start:g} {bend:g} {middle:g} {bend:g} {middle:g} {top:g}")


def main(argv: list[str] | None = None) -> int:
    """Write the drawing."""
    parser = argparse.ArgumentParser(prog="tools.draw_run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="FILE", help="an SVG file (default: %(default)s)"
    )
    parser.parse_args(argv).output.write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
