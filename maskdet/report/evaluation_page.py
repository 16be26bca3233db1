"""One self-contained HTML page about an evaluation: no scripts, no fonts, no references outside the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from markupsafe import Markup

from maskdet.evaluation import classes, metrics, mistakes, slices
from maskdet.evaluation.intervals import DESCRIPTIONS
from maskdet.evaluation.metrics import MASK
from maskdet.evaluation.results import Evaluation
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.evaluation.slice_figures import weakest
from maskdet.evaluation.training_history import History
from maskdet.images.preprocessing import ImageLimits
from maskdet.report import charts, faces_page
from maskdet.report.face_crops import read_crops
from maskdet.report.face_tiles import data_uri
from maskdet.report.templating import figure, interval, rendered

REPORT_FILE = "report.html"
_HISTOGRAM_BINS = 20
_NAMES_SHOWN = 10
_PICTURE_PX = 96
_LACKING_TOLD = 3


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
        slices=[
            (one, {found.metric: found for found in evaluation.by_slice[one.name]}) for one in evaluation.slice_figures
        ],
        faces_section=None if evaluation.faces is None else faces_page.section(evaluation.faces),
        history=history,
        training={} if history is None else _training(history),
        mistakes=_mistakes(evaluation, settings),
        classes=evaluation.classes,
        class_descriptions=classes.DESCRIPTIONS,
        class_curves=_class_curves(evaluation),
        trained_on=trained_on(evaluation),
        unknown_names=_unknown_names(evaluation),
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


def _class_curves(evaluation: Evaluation) -> dict[str, Markup]:
    """Class → its ROC curve against the rest."""
    curves = evaluation.classes.curves if evaluation.classes is not None else {}
    return {name: charts.roc_chart(*points, None, one=name) for name, points in curves.items()}


def trained_on(evaluation: Evaluation) -> str:
    """How many of the images the model was trained on, in words."""
    found = evaluation.trained_on
    if found is None:
        return "the model's bundle does not say which images it was trained on"
    return f"{found.images:,} of {found.of:,} images were trained on"


def _unknown_names(evaluation: Evaluation) -> str:
    """Class names that are unknown, with their counts, and how to say what they mean."""
    names = evaluation.labelled.unknown_names
    if not names:
        return ""
    shown = ", ".join(f"{name} ({count:,})" for name, count in list(names.items())[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    example = json.dumps([next(iter(names))], ensure_ascii=False)
    return f"{shown}{more}; name them in truth.mask, truth.incorrect or truth.no_mask: --set 'truth.mask={example}'"


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


def _mistakes(evaluation: Evaluation, settings: EvaluateSettings) -> list[dict[str, Any]]:
    """The kinds of mistakes that occur, with pictures if they are wanted."""
    captions = {
        mistakes.WRONG_LABEL: f"{_units(evaluation)} labelled wrong or uncertain",
        mistakes.MISSED: "annotated faces that were missed, the largest first",
        mistakes.FALSE_POSITIVE: "detections that are no annotated face, the surest first",
    }
    found = []
    for kind, caption in captions.items():
        chosen = evaluation.mistakes.filter(pc.equal(evaluation.mistakes["kind"], kind))
        if chosen.num_rows:
            rows = chosen.slice(0, settings.mistakes_shown).to_pylist()
            pictures = _pictures(rows, settings) if settings.mistakes_pictures else []
            found.append({"caption": caption, "total": chosen.num_rows, "shown": rows, "pictures": pictures})
    return found


def _pictures(rows: Sequence[dict[str, Any]], settings: EvaluateSettings) -> list[str]:
    """Each row's face or whole image as a data URI, or why there is none."""
    limits = ImageLimits.of(settings.imaging, settings.scoring.decoder_seconds)
    crops = read_crops(rows, limits, _PICTURE_PX, settings.scoring.fetch_attempts)
    return [crop if isinstance(crop, str) else data_uri(crop) for crop in crops]


def _units(evaluation: Evaluation) -> str:
    """What the rows of the data are."""
    return "images" if evaluation.faces is None else "found faces"


def _weakest_slice(evaluation: Evaluation) -> list[str]:
    figures = [one for one in evaluation.slice_figures if one.name != slices.ALL]
    least, lacking = weakest(figures), [one for one in figures if one.lacking]
    lines = []
    if least is not None:
        recalls = f"mean recall of {', '.join(name for name, faces in least.faces.items() if faces)}"
        value = f"balanced accuracy {figure(least.balanced.value)} ({interval(least.balanced)})"
        lines.append(f"  weakest slice: {least.name}, {value}, the {recalls}")
    if lacking:
        told = "; ".join(f"{one.name} lacks {', '.join(one.lacking)}" for one in lacking[:_LACKING_TOLD])
        more = f"; and {len(lacking) - _LACKING_TOLD} more" if len(lacking) > _LACKING_TOLD else ""
        lines.append(f"  not compared: {told}{more}")
    return lines


def describe(evaluation: Evaluation, root: str) -> str:
    """The evaluation in a few lines for the terminal."""
    counts, overall = evaluation.labelled.counts, evaluation.overall
    images = evaluation.run.images
    lines = faces_page.describe(evaluation.faces) if evaluation.faces is not None else []
    incorrect = f", and {counts['incorrect']:,} with a mask worn incorrectly" if counts["incorrect"] else ""
    lines.append(
        f"evaluated {counts['mask']:,} masked and {counts['no_mask']:,} unmasked {_units(evaluation)}"
        f"{incorrect}; "
        f"{counts['truth_unknown']:,} of unknown truth, {images.no_face:,} images without a face, "
        f"{images.failed:,} failed"
    )
    if counts["truth_unknown"]:
        lines.append(f"  truth unknown, for example: {evaluation.labelled.unknown[0]}")
    if names := _unknown_names(evaluation):
        lines.append(f"  names that tell no class: {names}")
    lines.append(f"  {trained_on(evaluation)}")
    for name in DESCRIPTIONS:
        one = overall[name]
        lines.append(f"  {name:<18} {figure(one.value):>7}   {interval(one):<17}  {DESCRIPTIONS[name]}")
    confusion = evaluation.confusion if evaluation.classes is None else evaluation.classes.confusion
    for truth, row in confusion.items():
        lines.append(f"  truly {truth:<12} " + ", ".join(f"{count:,} {label}" for label, count in row.items()))
    for one in evaluation.classes.estimates if evaluation.classes is not None else ():
        text = classes.DESCRIPTIONS[one.metric]
        lines.append(f"  {one.metric:<24} {figure(one.value):>7}   {interval(one):<17}  {text}")
    for shortcut in evaluation.baselines:
        lines.append(f"  {shortcut.name}: accuracy {figure(shortcut.accuracy.value)}, on the held-out half")
    lines += _weakest_slice(evaluation)
    return "\n".join([*lines, f"  page    {root}/{REPORT_FILE}"])
