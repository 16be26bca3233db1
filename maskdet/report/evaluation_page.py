"""One HTML page about an evaluation, with everything in it: no script, no font, no address outside the file."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pyarrow.compute as pc

from maskdet.evaluation import metrics, mistakes, slices
from maskdet.evaluation.intervals import DESCRIPTIONS
from maskdet.evaluation.metrics import MASK
from maskdet.evaluation.results import Evaluation
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.evaluation.training_history import History
from maskdet.report import charts, faces_page
from maskdet.report.page_parts import figure, interval, left, table

REPORT_FILE = "report.html"
_HISTOGRAM_BINS = 20

_STYLE = """
:root { --ink:#1b1f24; --soft:#57606a; --line:#d0d7de; --back:#fff; --mask:#0b6bcb; --bare:#b35900; --note:#fff4d6; }
@media (prefers-color-scheme: dark) {
  :root { --ink:#e6e9ed; --soft:#a0a8b1; --line:#3a424c; --back:#14181d; --mask:#62b0ff; --bare:#ff9e45;
    --note:#3d3415; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0 auto;
  max-width: 1240px; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 8px; }
p { max-width: 78ch; margin: 6px 0; } .soft, caption, figcaption { color: var(--soft); }
.note { background: var(--note); padding: 8px 12px; border-radius: 6px; max-width: 76ch; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px; min-width: 150px; }
.tile b { display: block; font-size: 26px; line-height: 1.25; } .tile span { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 6px; } thead th { border-bottom: 2px solid var(--line); }
th, td { padding: 4px 12px 4px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; } th { font-weight: 600; }
.left { float: left; } tbody th { font-weight: 400; }
td.right { color: var(--mask); font-weight: 600; } td.wrong { color: var(--bare); font-weight: 600; }
td.path { white-space: normal; overflow-wrap: anywhere; text-align: left; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 20px; }
figure { margin: 0; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.chart { width: 100%; max-width: 400px; } .grid { stroke: var(--line); stroke-width: 1; }
.diagonal { fill: none; stroke: var(--soft); stroke-dasharray: 4 4; } .curve { fill: none; stroke: var(--mask);
  stroke-width: 2.5; } .mark, .unmasked { fill: var(--bare); } .masked { fill: var(--mask); }
.curve.bare { stroke: var(--bare); } .epoch.held { fill: var(--mask); } .epoch.bare { fill: var(--bare); }
.bin { fill: var(--mask); fill-opacity: .65; stroke: var(--mask); }
.track { fill: var(--line); } .span { fill: var(--mask); fill-opacity: .45; } .point { fill: var(--ink); }
.key::before { content: ""; display: inline-block; width: 10px; height: 10px; margin: 0 5px 0 10px;
  background: currentColor; }
.key.m { color: var(--mask); } .key.u { color: var(--bare); }
"""


def render(evaluation: Evaluation, settings: EvaluateSettings, history: History | None = None) -> str:
    """The page's HTML.

    Args:
        evaluation: what it is about.
        settings: the evaluation's.
        history: of the model's training, where it is known.
    """
    title = f"{evaluation.run.model['id']} on {', '.join(settings.input)}"
    body = [
        _head(evaluation, settings),
        faces_page.section(evaluation.faces) if evaluation.faces is not None else "",
        _charts(evaluation),
        _confusion(evaluation),
        _all_metrics(evaluation, settings),
        _thresholds(evaluation),
        _slices(evaluation),
        _calibration(evaluation),
        _baselines(evaluation),
        _history(history) if history is not None else "",
        _mistakes(evaluation, settings.mistakes_shown),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _head(evaluation: Evaluation, settings: EvaluateSettings) -> str:
    run, counts, overall = evaluation.run, evaluation.labelled.counts, evaluation.overall
    tiles = "".join(
        f'<div class="tile"><span>{name.replace("_", " ")}</span><b>{figure(overall[name].value)}</b>'
        f"<span>{interval(overall[name])}</span></div>"
        for name in ("balanced_accuracy", "sensitivity", "specificity", "roc_auc", "ece")
    )
    unknown = counts["truth_unknown"] + counts["failed_truth_unknown"]
    evaluated = f"{counts['mask']:,} masked and {counts['no_mask']:,} unmasked {_units(evaluation)}"
    facts = (
        f"{run.images.listed:,} files listed: {evaluated} evaluated, "
        f"{counts['truth_unknown']:,} scored but of unknown truth, {run.images.no_face:,} images without a face, "
        f"{run.images.failed:,} failed, {run.images.skipped:,} skipped."
    )
    note = (
        f'<p class="note">The truth of {unknown:,} {_units(evaluation)} could not be told; no figure counts them.</p>'
    )
    grouped = settings.intervals.group_column
    width = f"by groups of {escape(grouped)!r}" if grouped else "that take images for independent"
    return (
        f"<h1>Evaluation of {escape(run.model['id'])}</h1>"
        f'<p class="soft">{escape(", ".join(settings.input))} · {escape(run.model["runtime"])} · '
        f"{escape(str(run.decision))} · run {escape(run.run_id)}</p><p>{facts}</p>{note if unknown else ''}"
        f'<div class="tiles">{tiles}</div><p class="soft">{settings.intervals.confidence:.0%} intervals {width}. '
        "An uncertain label counts as wrong in accuracy, sensitivity and specificity.</p>"
    )


def _charts(evaluation: Evaluation) -> str:
    tally = evaluation.tally
    figures = []
    if tally.masked_total and tally.unmasked_total:
        called, totals = tally.counted(MASK), (tally.masked_total, tally.unmasked_total)
        operating = (float(called[1] / totals[1]), float(called[0] / totals[0]))
        caption = "ROC curve; the dot is where the model's own thresholds put it."
        figures.append((charts.roc_chart(*metrics.roc_curve(tally), operating), caption))
    bins = metrics.equal_mass_bins(tally)
    every = np.bincount(bins, tally.masked + tally.unmasked).astype(np.float64)
    used = every > 0
    said = np.bincount(bins, (tally.masked + tally.unmasked) * tally.values)[used] / every[used]
    seen = np.bincount(bins, tally.masked)[used] / every[used]
    caption = "Reliability: on the diagonal the probabilities are honest. Bins of about equal size."
    figures.append((charts.reliability_chart(said, seen, every[used]), caption))
    place = np.minimum((tally.values * _HISTOGRAM_BINS).astype(np.intp), _HISTOGRAM_BINS - 1)
    masked, unmasked = (
        np.bincount(place, counts, _HISTOGRAM_BINS).astype(np.float64) for counts in (tally.masked, tally.unmasked)
    )
    caption = 'Probabilities of <span class="key m">masked</span><span class="key u">unmasked</span> faces.'
    figures.append((charts.histogram_chart(masked, unmasked), caption))
    drawn = "".join(f"<figure>{svg}<figcaption>{caption}</figcaption></figure>" for svg, caption in figures)
    return f'<h2>Curves</h2><div class="charts">{drawn}</div>'


def _confusion(evaluation: Evaluation) -> str:
    labels = ("mask", "no_mask", "uncertain")
    rows = []
    for truth, counts in evaluation.confusion.items():
        total = sum(counts.values())
        cells = "".join(
            f'<td class="{"right" if label == truth else "wrong" if counts[label] else ""}">{counts[label]:,}'
            f"{f' ({counts[label] / total:.1%})' if total else ''}</td>"
            for label in labels
        )
        rows.append(f'<tr><th scope="row">truly {truth}</th>{cells}<td>{total:,}</td></tr>')
    heads = [f"labelled {label}" for label in labels]
    caption = f"{_units(evaluation).capitalize()}, and share of the row"
    return "<h2>Confusion matrix</h2>" + table(caption, ["", *heads, _units(evaluation)], rows)


def _all_metrics(evaluation: Evaluation, settings: EvaluateSettings) -> str:
    rows = [
        f'<tr><th scope="row">{name}</th><td>{figure(one.value)}</td><td>{interval(one)}</td>'
        f"<td>{charts.interval_bar(one.low, one.value, one.high) if name != 'log_loss' else ''}</td>"
        f'<td>{one.count:,}</td><td class="text">{one.method}</td><td class="text">{DESCRIPTIONS[name]}</td></tr>'
        for name, one in evaluation.overall.items()
    ]
    bootstrap = settings.intervals
    caption = f"All {_units(evaluation)}; bootstrap of {bootstrap.resamples:,} resamples, seed {bootstrap.seed}"
    heads = ["metric", "value", "interval", "0 to 1", "faces", *map(left, ("method", "meaning"))]
    return "<h2>Metrics</h2>" + table(caption, heads, rows)


def _thresholds(evaluation: Evaluation) -> str:
    rows = [
        f'<tr><th scope="row">{row.threshold:g}</th>'
        + "".join(f"<td>{figure(one.value)}</td><td class='soft'>{interval(one)}</td>" for one in row[1:])
        + "</tr>"
        for row in evaluation.thresholds
    ]
    names = ("sensitivity", "specificity", "balanced accuracy", "precision")
    heads = ["mask from", *(text for name in names for text in (name, ""))]
    caption = "If every face were labelled mask from this probability on, and no_mask below"
    return "<h2>Thresholds</h2>" + table(caption, heads, rows)


def _slices(evaluation: Evaluation) -> str:
    rows = []
    for name, estimates in evaluation.by_slice.items():
        found = {one.metric: one for one in estimates}
        balanced = found["balanced_accuracy"]
        cells = "".join(
            f"<td>{figure(found[metric].value)}</td>" for metric in ("sensitivity", "specificity", "roc_auc", "ece")
        )
        bar = charts.interval_bar(balanced.low, balanced.value, balanced.high)
        counts = f"<td>{found['sensitivity'].count:,}</td><td>{found['specificity'].count:,}</td>"
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th>{counts}<td>{figure(balanced.value)}</td>'
            f'<td class="soft">{interval(balanced)}</td><td>{bar}</td>{cells}</tr>'
        )
    figures = ("sensitivity", "specificity", "ROC AUC", "ECE")
    heads = ["slice", "masked", "unmasked", "balanced accuracy", "", "0 to 1", *figures]
    caption = "Parts of the data; a dash where a part lacks a class"
    return "<h2>Slices</h2>" + table(caption, heads, rows) if len(rows) > 1 else ""


def _calibration(evaluation: Evaluation) -> str:
    fit, band, lines = evaluation.temperature, evaluation.band, []
    if fit is not None:
        lines.append(
            f"<p>Temperature scaling fitted on {fit.fitted_on:,} images gives T = {fit.temperature:.3f}; on the other "
            f"{fit.measured_on:,}, log loss goes from {fit.log_loss_before:.4f} to {fit.log_loss_after:.4f} and ECE "
            f"from {fit.ece_before:.4f} to {fit.ece_after:.4f}.</p>"
        )
    if band is not None:
        lines.append(
            f"<p>For an error rate of {band.max_error:.1%} in each class, the same half chooses no_mask below "
            f"{band.no_mask_below:g} and mask from {band.mask_from:g}; on the other half that calls "
            f"{band.masked_as_no_mask:.2%} of masked faces no_mask, {band.unmasked_as_mask:.2%} of unmasked ones mask, "
            f"and {band.uncertain:.2%} of all uncertain.</p>"
        )
    lines.append('<p class="soft">Advice only: every other figure here is of the model as it is.</p>')
    return "<h2>Calibration</h2>" + "".join(lines) if len(lines) > 1 else ""


def _baselines(evaluation: Evaluation) -> str:
    rows = [
        f'<tr><th scope="row">{escape(row.name)}</th>'
        + "".join(f"<td>{figure(one.value)}</td><td class='soft'>{interval(one)}</td>" for one in row[1:])
        + "</tr>"
        for row in evaluation.baselines
    ]
    caption = (
        "Fitted on one half of these images, measured on the other. Where a shortcut does well, so can a bad model."
    )
    heads = ["", "accuracy", "", "balanced accuracy", ""]
    return "<h2>Shortcuts</h2>" + table(caption, heads, rows) if rows else ""


def _history(history: History) -> str:
    styles = {"training": "bare", "validation": "held"}
    keys = {"training": '<span class="key u">training</span>', "validation": '<span class="key m">validation</span>'}
    figures = []
    for quantity in ("loss", "accuracy"):
        if curves := history.curves(quantity):
            drawn = {name: (styles[name], values) for name, values in curves.items()}
            caption = f"{quantity.capitalize()} of {''.join(keys[name] for name in curves)} images."
            svg = charts.history_chart(history.epochs, drawn, quantity)
            figures.append(f"<figure>{svg}<figcaption>{caption}</figcaption></figure>")
    count = f"{len(history.epochs):,} epoch{'s' if len(history.epochs) > 1 else ''}"
    return (
        f'<h2>Training</h2><p class="soft">{count}, from {escape(history.uri)}</p>'
        f'<div class="charts">{"".join(figures)}</div>'
        if figures
        else ""
    )


def _mistakes(evaluation: Evaluation, shown: int) -> str:
    captions = {
        mistakes.WRONG_LABEL: f"{_units(evaluation)} labelled wrong or uncertain",
        mistakes.MISSED: "annotated faces that were missed, the largest first",
        mistakes.FALSE_POSITIVE: "detections that are no annotated face, the surest first",
    }
    heads = ["truth", "label", "probability", "score", "box", "pixels", left("image")]
    parts = []
    for kind, caption in captions.items():
        chosen = evaluation.mistakes.filter(pc.equal(evaluation.mistakes["kind"], kind))
        rows = [_mistake_row(row) for row in chosen.slice(0, shown).to_pylist()]
        text = f"The worst {len(rows):,} of {chosen.num_rows:,} {caption}; mistakes.parquet has all"
        parts += [table(text, heads, rows)] if rows else []
    return "<h2>Worst mistakes</h2>" + ("".join(parts) or "<p>None.</p>")


def _mistake_row(row: dict[str, Any]) -> str:
    sides = [row[f"face_{side}_px"] for side in ("left", "top", "width", "height")]
    box = "—" if None in sides else "{:.0f}, {:.0f}: {:.0f} × {:.0f}".format(*sides)
    numbers = ("—" if row[name] is None else f"{row[name]:.3f}" for name in ("probability_mask", "face_score"))
    cells = (row["truth"] or "—", row["label"] or "—", *numbers, box, f"{row['width_px']} × {row['height_px']}")
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}<td class='path'>{escape(row['image_uri'])}</td></tr>"


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
