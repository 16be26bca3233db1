"""Numbers as people read them: how a report's page formats figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any

from maskdet.compliance.change import NAIVE
from maskdet.compliance.state import Counts
from maskdet.labels import INCORRECT, MASK, NO_MASK, UNCERTAIN, Decision
from maskdet.report.figures import Change, Comparison

MISSING = "—"

_LABEL_WORDS = {MASK: "mask", INCORRECT: "worn incorrectly", NO_MASK: "no mask", UNCERTAIN: "uncertain"}


def share(value: float | None, decimals: int = 1) -> str:
    """A share in percent. Only nothing is 0%, and only everything is 100%."""
    text = bare_share(value, decimals)
    return text if text == MISSING else f"{text}%"


def bare_share(value: float | None, decimals: int = 1) -> str:
    """A share in percent without the sign, for the first of two."""
    if value is None:
        return MISSING
    least, text = 10.0**-decimals, f"{100 * value:.{decimals}f}"
    if value > 0 and float(text) == 0:
        return f"<{least:g}"
    if value < 1 and float(text) == 100:
        return f">{100 - least:g}"
    return text


def points(difference: float) -> str:
    """A difference of shares, in percentage points."""
    return f"{bare_points(difference)} points"


def bare_points(difference: float) -> str:
    """The same, without the unit."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def label_words(label: str) -> str:
    """A label in words."""
    return _LABEL_WORDS[label]


def label_counts(counts: Counts, labels: Iterable[str]) -> list[int]:
    """How many faces have each label."""
    return [getattr(counts, f"faces_{label}") for label in labels]


def no_face_share(counts: Counts) -> float | None:
    """The share of readable images in which no face was found."""
    read = counts.images_scored + counts.images_no_face
    return counts.images_no_face / read if read else None


def group_name(values: Sequence[Any]) -> str:
    """A group's values as its name."""
    return " · ".join("(none)" if value is None else str(value) for value in values)


def day(value: date) -> str:
    """A day."""
    return f"{value.day} {value:%B %Y}"


def period_words(comparison: Comparison) -> str:
    """Which periods are compared, in words."""
    days = (comparison.after[1] - comparison.after[0]).days + 1
    return "The last day beside the one before" if days == 1 else f"The last {days} days beside the {days} before"


def pairs_words(change: Change, clusters: str) -> str:
    """What the interval of a change accounts for, in words.

    Args:
        change: the change of all groups together.
        clusters: which faces are alike, in words.
    """
    if change.interval is None:
        return "There is no interval: one of the periods has fewer than two clusters, or no labelled face"
    if change.method == NAIVE:
        return "The intervals take all faces for independent"
    alike = f"The intervals are those of maskdet diff: {clusters} are alike"
    if change.pairs < 2:
        return f"{alike}, and at most one such cluster is in both periods"
    return f"{alike}, and {change.pairs:,} such clusters are in both periods, which the intervals take into account"


def change_words(change: Change) -> str:
    """Whether a change is more than chance, in words."""
    if change.interval is None:
        return "how much of it is chance cannot be said"
    within = change.interval.low <= 0 <= change.interval.high
    return "this may be chance" if within else "more than chance alone explains"


def thresholds(decision: Decision) -> list[float]:
    """The probabilities at which the answer to whether there is a mask changes."""
    return sorted({decision.no_mask_below, decision.mask_from})


WORDS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(share, bare_share, points, bare_points, label_words, label_counts, no_face_share, group_name),
        *(day, period_words, pairs_words, change_words, thresholds),
    )
} | {"zip": zip}
"""Filters of templates."""
