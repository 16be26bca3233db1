"""Draw which parts of the package import which others: docs/images/imports.svg.

    python -m tools.draw_imports [--output FILE]

A part, here called a room, is a folder or module at the top of the package. Each room is drawn below those that import
it, so every arrow points down; circular imports end the command with an error. An arrow that follows from two others is
left out: a room may import from every room that can be reached along arrows.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tools.documents import svg

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "maskdet"
OUTPUT = ROOT / "docs" / "images" / "imports.svg"

_BOX_WIDTH, _BOX_HEIGHT, _ROW, _COLUMN, _PASSAGE, _MARGIN = 116.0, 30.0, 62.0, 138.0, 24.0, 24.0

Graph = Mapping[str, frozenset[str]]


def read_imports(package: Path = PACKAGE) -> Graph:
    """Each room (a folder or a module at the top of the package), and the other rooms that it imports from."""
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        if room == "__init__":  # it only exports the public API
            continue
        found.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _names(node):
                words = name.split(".")
                if words[0] == package.name and len(words) > 1 and words[1] not in (room, "__version__"):
                    found[room].add(words[1])
    return {room: frozenset(others & found.keys()) for room, others in found.items()}


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def levels(graph: Graph) -> dict[str, int]:
    """The level of each room: one above the highest room that it imports, or 0.

    Raises:
        graphlib.CycleError: rooms import each other in a circle.
    """
    level: dict[str, int] = {}
    for room in TopologicalSorter(graph).static_order():
        level[room] = 1 + max((level[other] for other in graph[room]), default=-1)
    return level


def direct(graph: Graph) -> dict[str, list[str]]:
    """The arrows that do not follow from two others."""
    below: dict[str, set[str]] = {}
    for room in TopologicalSorter(graph).static_order():
        below[room] = set(graph[room]).union(*(below[other] for other in graph[room]))
    return {
        room: sorted(other for other in others if not any(other in below[third] for third in others))
        for room, others in graph.items()
    }


def draw(graph: Graph) -> str:
    """The drawing, as SVG."""
    level, arrows = levels(graph), direct(graph)
    for room in graph:  # a room that imports nothing is drawn just below the lowest of those that import it
        above = [level[other] for other in graph if room in graph[other]]
        level[room] = min(above) - 1 if above and not graph[room] else level[room]
    paths = {(room, other): _path(room, other, level) for room in sorted(graph) for other in arrows[room]}
    place, width = _places(graph, level, paths)
    lines = [svg.arrow(_curve([place[point] for point in path])) for path in paths.values()]
    boxes = [_box(room, place[room], graph[room]) for room in sorted(graph)]
    height = (max(level.values()) + 1) * _ROW - (_ROW - _BOX_HEIGHT) + 2 * _MARGIN
    return svg.document(width, height, "Rooms of the package, and what each imports", [*lines, *boxes])


def _path(room: str, other: str, level: Mapping[str, int]) -> list[str]:
    """The points of an arrow: the rooms at its ends, and one point for each row between them."""
    between = range(level[room] - 1, level[other], -1)
    return [room, *(f"{room} {other} {number}" for number in between), other]


def _places(
    graph: Graph, level: Mapping[str, int], paths: Mapping[tuple[str, str], list[str]]
) -> tuple[dict[str, tuple[float, float]], float]:
    """The place (middle, upper edge) of each room and point, near those that it is joined to; and the total width."""
    rows: dict[int, list[str]] = {}
    joined: dict[str, set[str]] = {}
    for room in sorted(graph):
        rows.setdefault(level[room], []).append(room)
    for path in paths.values():
        for number, (upper, lower) in enumerate(itertools.pairwise(path), 1):
            joined.setdefault(upper, set()).add(lower)
            joined.setdefault(lower, set()).add(upper)
            if lower != path[-1]:
                rows.setdefault(level[path[0]] - number, []).append(lower)
    x: dict[str, float] = {}
    for sweep in range(12):
        for number in sorted(rows, reverse=sweep % 2 == 0):
            wanted = {
                point: _mean([x[other] for other in sorted(joined.get(point, ())) if other in x])
                for point in rows[number]
            }
            rows[number] = [point for _, point in sorted((place, point) for point, place in wanted.items())]
            _spread(rows[number], wanted, x, graph)
    left = min(x[point] - _half(point, graph) for point in x)
    width = max(x[point] + _half(point, graph) for point in x) - left + 2 * _MARGIN
    top = max(rows)
    return {
        point: (round(x[point] - left + _MARGIN, 1), _MARGIN + (top - number) * _ROW)
        for number, row in rows.items()
        for point in row
    }, round(width)


def _half(point: str, graph: Graph) -> float:
    return _COLUMN / 2 if point in graph else _PASSAGE / 2


def _spread(row: list[str], wanted: Mapping[str, float], x: dict[str, float], graph: Graph) -> None:
    """Place the points of a row where they are wanted, but without overlap, and centre the row on the wanted places."""
    right = None
    for point in row:
        least = wanted[point] if right is None else right + _half(point, graph)
        x[point] = max(wanted[point], least)
        right = x[point] + _half(point, graph)
    shift = _mean([wanted[point] - x[point] for point in row])
    for point in row:
        x[point] += shift


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 6) if values else 0.0


def _curve(points: list[tuple[float, float]]) -> str:
    """An arrow's path from the lower edge of the first box, through the rows between, to the upper edge of the last."""
    (x, y), *rest = points
    y += _BOX_HEIGHT
    words = [f"M{x:g} {y:g}"]
    for number, (next_x, top) in enumerate(rest, 1):
        bend = (top - y) / 2
        words.append(f"C{x:g} {y + bend:g} {next_x:g} {top - bend:g} {next_x:g} {top:g}")
        if number < len(rest):
            words.append(f"V{top + _BOX_HEIGHT:g}")
        x, y = next_x, top + _BOX_HEIGHT
    return " ".join(words)


def _box(room: str, place: tuple[float, float], imports: frozenset[str]) -> str:
    x, y = place
    words = svg.text(x, y + 20, room, bold=True)
    tip = f"<title>{room} imports {', '.join(sorted(imports)) or 'no other room'}</title>"
    return f"<g>{tip}{svg.box(x - _BOX_WIDTH / 2, y, _BOX_WIDTH, _BOX_HEIGHT)}{words}</g>"


def main(argv: list[str] | None = None) -> int:
    """Write the drawing."""
    parser = argparse.ArgumentParser(prog="tools.draw_imports", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="FILE", help="an SVG file (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    try:
        drawing = draw(read_imports())
    except CycleError as error:
        print(f"rooms import each other in a circle: {' -> '.join(error.args[1])}", file=sys.stderr)
        return 1
    arguments.output.write_text(drawing, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
