"""Charts as inline SVG, laid out here and drawn by a template: no plotting library, and no network to read a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from maskdet.evaluation.metrics import Floats
from maskdet.report.templating import rendered

_SIDE, _LEFT, _BOTTOM, _TOP, _RIGHT = 320, 52, 46, 12, 12
_MAX_POINTS = 600

Place = tuple[float, float]
"""A position along the axes, 0 to 1 each; the second grows upwards."""


class Tick(NamedTuple):
    """A line of the grid, and the text at its end."""

    at: float
    text: str


class Line(NamedTuple):
    """Points joined by a line."""

    points: Sequence[Place]
    style: str


class Dot(NamedTuple):
    """A point, and what a reader who points at it sees."""

    at: Place
    radius: float
    style: str
    title: str


class Bar(NamedTuple):
    """A bar that stands on the first axis."""

    left: float
    width: float
    height: float
    style: str
    title: str


_SHARES = tuple(Tick(tick / 5, f"{tick / 5:.1f}") for tick in range(6))


@dataclass(frozen=True)
class Chart:
    """The content of a chart; styles are classes of the page's style sheet."""

    label: str
    x_label: str
    y_label: str
    lines: Sequence[Line] = ()
    dots: Sequence[Dot] = ()
    bars: Sequence[Bar] = ()
    x_ticks: Sequence[Tick] = _SHARES
    y_ticks: Sequence[Tick] = _SHARES

    def drawn(self) -> Markup:
        """The chart as an SVG element."""
        sides = {"side": _SIDE, "left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM}
        return rendered("chart.svg.j2", chart=self, x=_x, y=_y, **sides)


def roc_chart(alarms: Floats, hits: Floats, operating: Place | None, one: str | None = None) -> Markup:
    """The ROC curve.

    Args:
        alarms: false-alarm rates, ascending, ``(points,)``.
        hits: sensitivities, ``(points,)``.
        operating: false-alarm rate and sensitivity at the model's own thresholds, if defined.
        one: the class that is told from the rest; default: a mask from no mask.
    """
    dots = []
    if operating is not None:
        dots.append(Dot(operating, 5, "mark", f"at the thresholds: {operating[0]:.3f}, {operating[1]:.3f}"))
    return Chart(
        "ROC curve: sensitivity against false-alarm rate",
        "unmasked faces labelled mask" if one is None else f"other faces taken for {one}",
        "masked faces labelled mask" if one is None else f"{one} faces taken for it",
        lines=[_DIAGONAL, _thinned(alarms, hits)],
        dots=dots,
    ).drawn()


def precision_recall_chart(recall: Floats, precision: Floats) -> Markup:
    """Precision against recall at each score.

    Args:
        recall: ascending, ``(points,)``.
        precision: ``(points,)``.
    """
    label = "Precision against recall at IoU .5"
    curve = _thinned(recall, precision)
    return Chart(label, "faces found (recall)", "detections that are faces", lines=[curve]).drawn()


def reliability_chart(predicted: Floats, observed: Floats, counts: Floats) -> Markup:
    """Share of masked faces against the mean probability of each bin; a dot's area grows with the number of faces.

    Args:
        predicted: mean probability, ``(bins,)``.
        observed: share masked, ``(bins,)``.
        counts: faces, ``(bins,)``.
    """
    largest = max(float(counts.max(initial=1.0)), 1.0)
    dots = [
        Dot(
            (said, seen),
            3 + 5 * (count / largest) ** 0.5,
            "bin",
            f"{count:,.0f} faces: said {said:.3f}, masked {seen:.3f}",
        )
        for said, seen, count in zip(predicted.tolist(), observed.tolist(), counts.tolist(), strict=True)
    ]
    label = "Reliability diagram"
    return Chart(label, "mean probability of mask", "share of faces masked", lines=[_DIAGONAL], dots=dots).drawn()


def histogram_chart(masked: Floats, unmasked: Floats) -> Markup:
    """Faces of each class by probability, on a logarithmic scale.

    Args:
        masked: faces in each of equally wide bins, ``(bins,)``.
        unmasked: likewise.
    """
    top = max(float(np.log10(1 + max(masked.max(initial=0), unmasked.max(initial=0)))), 1e-9)
    width = 1 / len(masked)
    bars = [
        Bar(
            left=width * (number + 0.08 + 0.42 * place),
            width=width * 0.42,
            height=float(np.log10(1 + count)) / top,
            style=style,
            title=f"{count:,.0f} faces {style}",
        )
        for number, pair in enumerate(zip(unmasked.tolist(), masked.tolist(), strict=True))
        for place, (count, style) in enumerate(zip(pair, ("unmasked", "masked"), strict=True))
        if count
    ]
    ticks = [Tick(float(np.log10(1 + 10**power)) / top, f"{10**power:,}") for power in range(int(top) + 1)]
    label = "Faces of each class by probability"
    return Chart(label, "probability of mask", "faces (logarithmic)", bars=bars, y_ticks=ticks).drawn()


def history_chart(
    epochs: Sequence[int], curves: Mapping[str, tuple[str, Sequence[float | None]]], quantity: str
) -> Markup:
    """Curves of a quantity over the epochs of a training, on their own scale.

    Args:
        epochs: ascending.
        curves: name → style, and the value after each epoch; a ``None`` breaks the line.
        quantity: what the curves show.
    """
    known = [value for _, values in curves.values() for value in values if value is not None]
    ticks = nice_ticks(min(known), max(known))
    low, span = ticks[0], ticks[-1] - ticks[0]
    first, last = epochs[0] - 0.5, epochs[-1] + 0.5
    lines, dots = [], []
    for name, (style, values) in curves.items():
        places = [
            None if value is None else ((epoch - first) / (last - first), (value - low) / span)
            for epoch, value in zip(epochs, values, strict=True)
        ]
        lines += [Line(run, f"curve {style}") for run in _unbroken(places)]
        dots += [
            Dot(place, 3, f"epoch {style}", f"epoch {epoch}, {name}: {value:.4f}")
            for epoch, place, value in zip(epochs, places, values, strict=True)
            if place is not None
        ]
    every = max(1, math.ceil(len(epochs) / 8))
    x_ticks = [Tick((epoch - first) / (last - first), str(epoch)) for epoch in epochs[::every]]
    y_ticks = [Tick((tick - low) / span, f"{tick:g}") for tick in ticks]
    return Chart(f"{quantity} by epoch", "epoch", quantity, lines, dots, x_ticks=x_ticks, y_ticks=y_ticks).drawn()


def nice_ticks(low: float, high: float) -> list[float]:
    """About five round values, evenly spaced, that enclose a range; at least two."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 4 >= span * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]


_DIAGONAL = Line([(0, 0), (1, 1)], "diagonal")


def _thinned(x: Floats, y: Floats) -> Line:
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MAX_POINTS)).astype(int))
    return Line([(float(x[i]), float(y[i])) for i in kept], "curve")


def _unbroken(places: Iterable[Place | None]) -> list[list[Place]]:
    """Runs of points between those that are missing."""
    runs: list[list[Place]] = [[]]
    for place in places:
        if place is None:
            runs.append([])
        else:
            runs[-1].append(place)
    return [run for run in runs if run]


def _x(share: float) -> str:
    return f"{_LEFT + share * _SIDE:.1f}"


def _y(share: float, lower: float = 0.0) -> str:
    """The point in the picture, moved down by some units."""
    return f"{_TOP + (1 - share) * _SIDE + lower:.1f}"
