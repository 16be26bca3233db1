"""Writes a comparison as Markdown, and puts it between two marks of a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maskdet.errors import ConfigError
from maskdet.evaluation.intervals import Estimate
from tools.comparison.cases import Kind, Relation
from tools.comparison.robustness import ViewRow
from tools.comparison.settings import CompareSettings, RobustnessSettings
from tools.comparison.tables import CompareRow, Robustness

BEGIN, END = "<!-- compare: begin -->", "<!-- compare: end -->"
_HEADS = (
    *("test set", "model", "relation to its training", "images"),
    *("any mask", "worn correctly", "unmasked right", "called incorrect"),
    *("accuracy", "balanced accuracy", "ROC AUC", "ECE"),
)
_VIEW_HEADS = (
    *("view", "any mask", "worn correctly", "unmasked right", "called mask", "called incorrect"),
    *("balanced accuracy", "change, points"),
)


def render_text(
    settings: CompareSettings, rows: Sequence[CompareRow], robustness: Robustness | None, command: str
) -> str:
    """The Markdown of a comparison; it depends only on the figures, the settings and the command.

    Args:
        settings: the comparison's settings.
        rows: the rows, data set by data set.
        robustness: models on views of faces, if that was asked for.
        command: the command that makes the comparison again.
    """
    parts = [_opening(settings, command), _table(_HEADS, map(_cells, rows), text_columns=3), _commands(rows)]
    if robustness is not None and settings.robustness is not None:
        parts.append(_robustness(robustness, settings.robustness))
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_rows(rows: Sequence[CompareRow]) -> str:
    """The comparison for the terminal, one line per row."""
    lines, title = [], ""
    for row in rows:
        lines += [row.title] if row.title != title else []
        title = row.title
        kind = f", {_relation(row.relation)}" if row.relation else ""
        found = [_figure(row.figures.get(name)) for name in ("accuracy", "balanced_accuracy")]
        said = row.note or f"accuracy {found[0]}, balanced {found[1]}{kind}"
        lines.append(f"  {row.model}: {said}")
    return "\n".join(lines)


def check_marks(text: str, place: str) -> None:
    """Refuse a document that does not have exactly one place for a comparison.

    Raises:
        ConfigError: a mark is missing or appears twice, or the end comes before the beginning.
    """
    found = [text.count(mark) for mark in (BEGIN, END)]
    if found != [1, 1] or text.index(BEGIN) > text.index(END):
        remedy = "Put the two lines where the tables are to appear."
        raise ConfigError(f"--card {place}", f"{BEGIN!r} and after it {END!r}, once each", found, remedy)


def replace_between_marks(document: str, text: str, place: str) -> str:
    """A document with the text between its marks replaced.

    Raises:
        ConfigError: as :func:`check_marks`.
    """
    check_marks(document, place)
    before, _, rest = document.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{rest.partition(END)[2]}"


def _opening(settings: CompareSettings, command: str) -> str:
    return (
        f"Made by `{command}`. In brackets {settings.confidence:.0%} intervals: Wilson's for shares, widened by a "
        "bootstrap over groups where images are not independent; a bootstrap for ROC AUC and ECE. *Uncertain* labels "
        "count as wrong. *Any mask*: masked images labelled `mask` or `incorrect`; accuracy and the columns after it "
        "count these as right. *Worn correctly*: those labelled `mask`. *Called incorrect*: unmasked images labelled "
        "`incorrect`. The shortcuts, which do not look at faces, are fitted on one half of a test set, divided by "
        "group, and measured on the other: where they do well, so can a bad model."
    )


def _cells(row: CompareRow) -> list[str]:
    if not row.figures:
        return [row.title, row.model, _relation(row.relation), "not made here", *[""] * (len(_HEADS) - 4)]
    counts, figures = row.counts, row.figures
    right = ["", "", "", ""] if not counts else _rights(counts)
    uncertain = f" ({counts['uncertain']:,} uncertain)" if counts.get("uncertain") else ""
    found = [_figure(figures.get(name)) for name in ("accuracy", "balanced_accuracy", "roc_auc", "ece")]
    model = row.model if row.relation else f"*shortcut: {row.model}*"
    return [row.title, model, _relation(row.relation), f"{row.images:,}{uncertain}", *right, *found]


def _rights(counts: Mapping[str, Any]) -> list[str]:
    """Cells: masked images called any mask and worn correctly; unmasked images called unmasked and incorrect."""
    correct = called = ""
    wrong, bare = counts.get("masked_as_incorrect"), counts.get("unmasked_as_incorrect")
    if wrong is not None and bare is not None:
        correct, called = f"{counts['masked_right'] - wrong:,} of {counts['masked']:,}", f"{bare:,}"
    any_mask, unmasked = (f"{counts[f'{name}_right']:,} of {counts[name]:,}" for name in ("masked", "unmasked"))
    return [any_mask, correct, unmasked, called]


def _relation(relation: Relation | None) -> str:
    if relation is None:
        return ""
    count = relation.trained if relation.kind is Kind.TRAINED else relation.shared
    if not count:
        return relation.kind.words
    what = "" if relation.kind in (Kind.TRAINED, Kind.SHARED) else " share groups"
    return f"{relation.kind.words} ({count:,} of {relation.images:,}{what})"


def _commands(rows: Sequence[CompareRow]) -> str:
    commands = dict.fromkeys(row.command for row in rows if row.command)
    notes = dict.fromkeys(f"# {row.model}: {row.note}" for row in rows if row.note)
    intro = "To evaluate one model on one test set again, from the files that the command above leaves:"
    return "\n".join([intro, "", "```sh", *commands, *notes, "```"])


def _robustness(robustness: Robustness, settings: RobustnessSettings) -> str:
    parts = [
        f"Faces made smaller, larger and blurred: {robustness.images:,} images of {' and '.join(robustness.titles)}. "
        f"Every view but *plain* is stored as JPEG of quality {settings.jpeg_quality}; blur is Gaussian, its radius "
        f"{settings.blur:g} of the longer side. *Called mask* counts unmasked faces labelled `mask` or `incorrect`, "
        "*called incorrect* the latter; *change* is that of balanced accuracy against *plain*."
    ]
    for model, rows in robustness.rows.items():
        trained = f"trained on {robustness.trained[model]:,} of these images"
        cells = (_view_cells(row, first=row is rows[0]) for row in rows)
        parts += [f"`{model}`, {trained}:", _table(_VIEW_HEADS, cells, text_columns=1)]
    parts += [f"`{model}`: not made here." for model in robustness.notes]
    return "\n\n".join(parts)


def _view_cells(row: ViewRow, *, first: bool) -> list[str]:
    any_mask, correct, unmasked, called = _rights(row._asdict())
    as_mask = f"{row.unmasked_as_mask:,} ({row.unmasked_as_mask / row.unmasked:.1%})"
    change = "" if first else f"{row.balanced_change:+.2f}"
    return [row.view, any_mask, correct, unmasked, as_mask, called, _figure(row.balanced_accuracy), change]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int) -> str:
    rule = ["---"] * text_columns + ["---:"] * (len(heads) - text_columns)
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in cells)} |" for cells in [heads, rule, *rows])


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|").replace("\n", " ")


def _figure(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return ""
    value = _share(estimate.value, 4)
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({_share(estimate.low, 3)}–{_share(estimate.high, 3)})"


def _share(value: float, places: int) -> str:
    """A share as this project writes it: ``.9960``, ``1.0000``."""
    return f"{value:.{places}f}".removeprefix("0")
