"""Charts as inline SVG: drawn here, so that a report needs neither a plotting library nor a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from maskdet.evaluation.metrics import Floats

_SIDE, _LEFT, _BOTTOM, _TOP, _RIGHT = 320, 52, 46, 12, 12
_MAX_POINTS = 600


def roc_chart(alarms: Floats, hits: Floats, operating: tuple[float, float] | None) -> str:
    """The ROC curve.

    Args:
        alarms: false-alarm rates, ascending, ``(points,)``.
        hits: sensitivities, ``(points,)``.
        operating: false-alarm rate and sensitivity at the model's own thresholds, if defined.
    """
    thin = np.unique(np.linspace(0, len(alarms) - 1, min(len(alarms), _MAX_POINTS)).astype(int))
    points = [(float(alarms[i]), float(hits[i])) for i in thin]
    parts = [_line([(0, 0), (1, 1)], "diagonal"), _line(points, "curve")]
    if operating is not None:
        parts.append(_dot(*operating, 5, "mark", f"at the thresholds: {operating[0]:.3f}, {operating[1]:.3f}"))
    label = "ROC curve: sensitivity against false-alarm rate"
    return _frame(parts, label, "unmasked faces labelled mask", "masked faces labelled mask")


def precision_recall_chart(recall: Floats, precision: Floats) -> str:
    """Precision against recall, as it is at each score.

    Args:
        recall: ascending, ``(points,)``.
        precision: ``(points,)``.
    """
    thin = np.unique(np.linspace(0, len(recall) - 1, min(len(recall), _MAX_POINTS)).astype(int))
    line = _line([(float(recall[i]), float(precision[i])) for i in thin], "curve")
    return _frame([line], "Precision against recall at IoU .5", "faces found (recall)", "detections that are faces")


def reliability_chart(predicted: Floats, observed: Floats, counts: Floats) -> str:
    """Share of masked faces against the mean probability of each bin; a dot's area grows with its faces.

    Args:
        predicted: mean probability, ``(bins,)``.
        observed: share masked, ``(bins,)``.
        counts: faces, ``(bins,)``.
    """
    largest = max(float(counts.max(initial=1.0)), 1.0)
    parts = [_line([(0, 0), (1, 1)], "diagonal")]
    for said, seen, count in zip(predicted.tolist(), observed.tolist(), counts.tolist(), strict=True):
        radius = 3 + 5 * (count / largest) ** 0.5
        parts.append(_dot(said, seen, radius, "bin", f"{count:,.0f} faces: said {said:.3f}, masked {seen:.3f}"))
    return _frame(parts, "Reliability diagram", "mean probability of mask", "share of faces masked")


def histogram_chart(masked: Floats, unmasked: Floats) -> str:
    """Faces of each class by probability, on a logarithmic scale.

    Args:
        masked: faces in each of equally wide bins, ``(bins,)``.
        unmasked: likewise.
    """
    top = max(float(np.log10(1 + max(masked.max(initial=0), unmasked.max(initial=0)))), 1e-9)
    width, parts = 1 / len(masked), []
    for number, pair in enumerate(zip(unmasked.tolist(), masked.tolist(), strict=True)):
        for place, (count, style) in enumerate(zip(pair, ("unmasked", "masked"), strict=True)):
            if count:
                height = float(np.log10(1 + count)) / top
                left = _x(width * (number + 0.08 + 0.42 * place))
                parts.append(
                    f'<rect class="{style}" x="{left:.1f}" y="{_y(height):.1f}" width="{_SIDE * width * 0.42:.1f}" '
                    f'height="{_SIDE * height:.1f}"><title>{count:,.0f} faces {style}</title></rect>'
                )
    ticks = [(float(np.log10(1 + 10**power)) / top, f"{10**power:,}") for power in range(int(top) + 1)]
    return _frame(parts, "Faces of each class by probability", "probability of mask", "faces (logarithmic)", ticks)


def history_chart(
    epochs: Sequence[int], curves: Mapping[str, tuple[str, Sequence[float | None]]], quantity: str
) -> str:
    """Curves of a quantity over the epochs of a training, on a scale of their own.

    Args:
        epochs: ascending.
        curves: name → style, and the value after each epoch; a ``None`` breaks the line.
        quantity: what they show.
    """
    known = [value for _, values in curves.values() for value in values if value is not None]
    ticks = nice_ticks(min(known), max(known))
    low, span = ticks[0], ticks[-1] - ticks[0]
    first, last = epochs[0] - 0.5, epochs[-1] + 0.5
    parts = []
    for name, (style, values) in curves.items():
        run: list[tuple[float, float]] = []
        for epoch, value in [*zip(epochs, values, strict=True), (0, None)]:
            if value is None:
                parts += [_line(run, f"curve {style}")] if run else []
                run = []
                continue
            run.append(((epoch - first) / (last - first), (value - low) / span))
            parts.append(_dot(*run[-1], 3, f"epoch {style}", f"epoch {epoch}, {name}: {value:.4f}"))
    every = max(1, math.ceil(len(epochs) / 8))
    x_ticks = [((epoch - first) / (last - first), str(epoch)) for epoch in epochs[::every]]
    y_ticks = [((tick - low) / span, f"{tick:g}") for tick in ticks]
    return _frame(parts, f"{quantity} by epoch", "epoch", quantity, y_ticks, x_ticks)


def nice_ticks(low: float, high: float) -> list[float]:
    """About five round values, evenly spaced, that a range lies between; at least two."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 4 >= span * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]


def interval_bar(low: float | None, value: float | None, high: float | None) -> str:
    """A value and its interval on a scale from 0 to 1, small enough for a table cell."""
    if low is None or value is None or high is None:
        return ""
    return (
        '<svg class="bar" viewBox="0 0 120 12" width="120" height="12" aria-hidden="true">'
        '<rect class="track" x="0" y="5" width="120" height="2"/>'
        f'<rect class="span" x="{120 * low:.1f}" y="3" width="{max(120 * (high - low), 1):.1f}" height="6"/>'
        f'<rect class="point" x="{min(120 * value, 118):.1f}" y="0" width="2" height="12"/></svg>'
    )


def _frame(
    parts: Sequence[str],
    label: str,
    x_label: str,
    y_label: str,
    y_ticks: Sequence[tuple[float, str]] | None = None,
    x_ticks: Sequence[tuple[float, str]] | None = None,
) -> str:
    shares = [(tick / 5, f"{tick / 5:.1f}") for tick in range(6)]
    grid = []
    for at, text in shares if x_ticks is None else x_ticks:
        grid.append(f'<line class="grid" x1="{_x(at):.1f}" x2="{_x(at):.1f}" y1="{_y(0)}" y2="{_y(1)}"/>')
        grid.append(f'<text x="{_x(at):.1f}" y="{_y(0) + 16}" text-anchor="middle">{text}</text>')
    for at, text in shares if y_ticks is None else y_ticks:
        grid.append(f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(at):.1f}" y2="{_y(at):.1f}"/>')
        grid.append(f'<text x="{_LEFT - 6}" y="{_y(at) + 4:.1f}" text-anchor="end">{text}</text>')
    middle = _TOP + _SIDE / 2
    names = (
        f'<text x="{_LEFT + _SIDE / 2}" y="{_TOP + _SIDE + 38}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_label)}</text>'
    )
    box = f"0 0 {_LEFT + _SIDE + _RIGHT} {_TOP + _SIDE + _BOTTOM}"
    return (
        f'<svg class="chart" viewBox="{box}" role="img" aria-label="{escape(label)}"><title>{escape(label)}</title>'
        f"{''.join(grid)}{names}{''.join(parts)}</svg>"
    )


def _line(points: Sequence[tuple[float, float]], style: str) -> str:
    path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
    return f'<polyline class="{style}" points="{path}"/>'


def _dot(x: float, y: float, radius: float, style: str, title: str) -> str:
    return f'<circle class="{style}" cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="{radius:.1f}"><title>{title}</title></circle>'


def _x(share: float) -> float:
    return _LEFT + share * _SIDE


def _y(share: float) -> float:
    return _TOP + (1 - share) * _SIDE
