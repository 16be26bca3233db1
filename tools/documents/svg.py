"""A few SVG elements, in colours that are readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
INK, PAPER, LINE, ACCENT, MUTED = "#1f2937", "#ffffff", "#64748b", "#3949ab", "#64748b"


def document(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """A whole drawing on a white sheet with round corners, so that it can be read on a dark page, too."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" font-family="{FONT}">'
    )
    marker = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0.8 L8 4 L0 7.2 z" fill="{LINE}"/></marker></defs>'
    )
    sheet = f'<rect width="{width:g}" height="{height:g}" rx="10" fill="{PAPER}"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", marker, sheet, *parts, "</svg>", ""])


def box(x: float, y: float, width: float, height: float, *, fill: str = "#eef2ff", stroke: str = ACCENT) -> str:
    """A rectangle with round corners, with its upper left corner at ``x``, ``y``."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" fill="{fill}" stroke="{stroke}" '
        'stroke-width="1.2"/>'
    )


def text(
    x: float, y: float, words: str, *, size: float = 13, colour: str = INK, anchor: str = "middle", bold: bool = False
) -> str:
    """Words on one line, with their baseline at ``y``."""
    weight = ' font-weight="600"' if bold else ""
    style = f'font-size="{size:g}" fill="{colour}" text-anchor="{anchor}"{weight}'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>'


def arrow(path: str, *, dashed: bool = False) -> str:
    """A line along an SVG path, with an arrowhead at its end."""
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.2" marker-end="url(#tip)"{dash}/>'
