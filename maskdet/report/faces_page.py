"""How well faces were found, in words: a section of the page, and lines for the terminal."""

from __future__ import annotations

from markupsafe import Markup

from maskdet.evaluation.faces import DESCRIPTIONS, RATES, FaceFigures
from maskdet.report import charts
from maskdet.report.templating import figure, interval, rendered


def section(faces: FaceFigures) -> Markup:
    """The page's section."""
    curve = None
    if faces.curve is not None and len(faces.curve.scores):
        curve = charts.precision_recall_chart(faces.curve.recall, faces.curve.precision)
    return rendered(
        "faces.html.j2",
        faces=faces,
        facts=_facts(faces),
        notes=_notes(faces),
        descriptions=DESCRIPTIONS,
        rates=RATES,
        curve=curve,
    )


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
    """Images that only the annotations or only the run have."""
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
