"""One HTML page about an evaluation, with everything in it: no script, no font, no address outside the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
from markupsafe import Markup

from maskdet.evaluation import metrics, mistakes, slices
from maskdet.evaluation.intervals import DESCRIPTIONS
from maskdet.evaluation.metrics import MASK
from maskdet.evaluation.results import Evaluation
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.evaluation.training_history import History
from maskdet.report import charts, faces_page
from maskdet.report.templating import figure, interval, rendered

REPORT_FILE = "report.html"
_HISTOGRAM_BINS = 20


def render(evaluation: Evaluation, settings: EvaluateSettings, history: History | None = None) -> str:
    """The page's HTML.

    Args:
        evaluation: what it is about.
        settings: the evaluation's.
        history: of the model's training, where it is known.
    """
    return rendered(
        "evaluation.html.j2",
        evaluation=evaluation,
        settings=settings,
        run=evaluation.run,
        decision=str(evaluation.run.decision),
        counts=evaluation.labelled.counts,
        overall=evaluation.overall,
        units=_units(evaluation),
        descriptions=DESCRIPTIONS,
        slices={name: {one.metric: one for one in found} for name, found in evaluation.by_slice.items()},
        faces_section=None if evaluation.faces is None else faces_page.section(evaluation.faces),
        history=history,
        training={} if history is None else _training(history),
        mistakes=_mistakes(evaluation, settings.mistakes_shown),
        **_curves(evaluation),
    )


def _curves(evaluation: Evaluation) -> dict[str, Markup | None]:
    tally, roc = evaluation.tally, None
    if tally.masked_total and tally.unmasked_total:
        called, totals = tally.counted(MASK), (tally.masked_total, tally.unmasked_total)
        operating = (float(called[1] / totals[1]), float(called[0] / totals[0]))
        roc = charts.roc_chart(*metrics.roc_curve(tally), operating)
    bins = metrics.equal_mass_bins(tally)
    every = np.bincount(bins, tally.masked + tally.unmasked).astype(np.float64)
    used = every > 0
    said = np.bincount(bins, (tally.masked + tally.unmasked) * tally.values)[used] / every[used]
    seen = np.bincount(bins, tally.masked)[used] / every[used]
    place = np.minimum((tally.values * _HISTOGRAM_BINS).astype(np.intp), _HISTOGRAM_BINS - 1)
    masked, unmasked = (
        np.bincount(place, counts, _HISTOGRAM_BINS).astype(np.float64) for counts in (tally.masked, tally.unmasked)
    )
    return {
        "roc": roc,
        "reliability": charts.reliability_chart(said, seen, every[used]),
        "histogram": charts.histogram_chart(masked, unmasked),
    }


def _training(history: History) -> dict[str, dict[str, Any]]:
    """Quantity → its chart, and the names of its curves."""
    styles = {"training": "bare", "validation": "held"}
    found = {}
    for quantity in ("loss", "accuracy"):
        if curves := history.curves(quantity):
            drawn = {name: (styles[name], values) for name, values in curves.items()}
            chart = charts.history_chart(history.epochs, drawn, quantity)
            found[quantity] = {"chart": chart, "names": list(curves)}
    return found


def _mistakes(evaluation: Evaluation, shown: int) -> list[dict[str, Any]]:
    """Kinds of mistakes of which there are some."""
    captions = {
        mistakes.WRONG_LABEL: f"{_units(evaluation)} labelled wrong or uncertain",
        mistakes.MISSED: "annotated faces that were missed, the largest first",
        mistakes.FALSE_POSITIVE: "detections that are no annotated face, the surest first",
    }
    found = []
    for kind, caption in captions.items():
        chosen = evaluation.mistakes.filter(pc.equal(evaluation.mistakes["kind"], kind))
        if chosen.num_rows:
            rows = chosen.slice(0, shown).to_pylist()
            found.append({"caption": caption, "total": chosen.num_rows, "shown": rows})
    return found


def _units(evaluation: Evaluation) -> str:
    """What rows of the data are."""
    return "images" if evaluation.faces is None else "found faces"


def _weakest_slice(evaluation: Evaluation) -> list[str]:
    found = [
        (one.value, name, interval(one))
        for name, estimates in evaluation.by_slice.items()
        for one in estimates
        if name != slices.ALL and one.metric == "balanced_accuracy" and one.value is not None
    ]
    return [
        f"  weakest slice: {name}, balanced accuracy {value:.4f} ({low_to_high})"
        for value, name, low_to_high in sorted(found)[:1]
    ]


def describe(evaluation: Evaluation, root: str) -> str:
    """The evaluation in a few lines, for the terminal."""
    counts, overall = evaluation.labelled.counts, evaluation.overall
    images = evaluation.run.images
    lines = faces_page.describe(evaluation.faces) if evaluation.faces is not None else []
    lines.append(
        f"evaluated {counts['mask']:,} masked and {counts['no_mask']:,} unmasked {_units(evaluation)}; "
        f"{counts['truth_unknown']:,} of unknown truth, {images.no_face:,} images without a face, "
        f"{images.failed:,} failed"
    )
    if counts["truth_unknown"]:
        lines.append(f"  truth unknown, for example: {evaluation.labelled.unknown[0]}")
    for name in DESCRIPTIONS:
        one = overall[name]
        lines.append(f"  {name:<18} {figure(one.value):>7}   {interval(one):<17}  {DESCRIPTIONS[name]}")
    for truth, row in evaluation.confusion.items():
        lines.append(f"  truly {truth:<12} " + ", ".join(f"{count:,} {label}" for label, count in row.items()))
    for shortcut in evaluation.baselines:
        lines.append(f"  {shortcut.name}: accuracy {figure(shortcut.accuracy.value)}, on the held-out half")
    lines += _weakest_slice(evaluation)
    return "\n".join([*lines, f"  page    {root}/{REPORT_FILE}"])
