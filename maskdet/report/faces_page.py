"""How faces were found, in words: a section of the page, and lines for the terminal."""

from __future__ import annotations

from html import escape

from maskdet.evaluation.faces import DESCRIPTIONS, RATES, FaceFigures
from maskdet.report import charts
from maskdet.report.page_parts import figure, interval, left, table


def section(faces: FaceFigures) -> str:
    """The page's section, in HTML."""
    rows = [
        f'<tr><th scope="row">{one.metric}</th><td>{figure(one.value)}</td><td>{interval(one)}</td>'
        f"<td>{charts.interval_bar(one.low, one.value, one.high) if one.metric not in RATES else ''}</td>"
        f'<td>{one.count:,}</td><td class="text">{one.method}</td><td class="text">{DESCRIPTIONS[one.metric]}</td></tr>'
        for one in faces.estimates
    ]
    heads = ["metric", "value", "interval", "0 to 1", "faces or images", *map(left, ("method", "meaning"))]
    notes = "".join(f'<p class="note">{escape(note)}.</p>' for note in _notes(faces))
    facts = f"<p>{_facts(faces)}. The sections below are about the labels of the faces that were found.</p>"
    found = table("Sizes are those of the box's longer side", heads, rows)
    return f"<h2>Faces found</h2>{facts}{notes}{found}{_curve(faces)}"


def _curve(faces: FaceFigures) -> str:
    if faces.curve is None or not len(faces.curve.scores):
        return ""
    svg = charts.precision_recall_chart(faces.curve.recall, faces.curve.precision)
    caption = "From the surest detection at the left to faces.min_score at the right."
    return f'<div class="charts"><figure>{svg}<figcaption>{caption}</figcaption></figure></div>'


def describe(faces: FaceFigures) -> list[str]:
    """Lines for the terminal."""
    lines = [_facts(faces), *(f"  {note}" for note in _notes(faces))]
    for one in faces.estimates:
        lines.append(f"  {one.metric:<25} {figure(one.value):>7}   {interval(one):<17}  {DESCRIPTIONS[one.metric]}")
    return lines


def _facts(faces: FaceFigures) -> str:
    counts = faces.counts
    return (
        f"{counts['faces']:,} annotated faces in {counts['images']:,} images; not asked for: "
        f"{counts['faces_too_small']:,} below faces.min_face_px, {counts['faces_ignored']:,} marked as ignored, "
        f"{counts['faces_failed']:,} in {counts['images_failed']:,} images that failed"
    )


def _notes(faces: FaceFigures) -> list[str]:
    """What the annotations and the run do not have in common."""
    texts = {
        "annotations_unlisted": "annotations of images that the run did not list",
        "annotations_by_file": "annotations matched by their own files' names, since those they hold name no image",
        "images_unannotated": "images without annotation (see truth.unannotated)",
    }
    return [
        f"{faces.counts[name]:,} {text}, for example {faces.examples[name][0]}"
        for name, text in texts.items()
        if faces.counts[name]
    ]
