"""What the sections of the page are put together from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from maskdet.evaluation.intervals import Estimate


def left(head: str) -> str:
    """The head of a column of text."""
    return f'<span class="left">{head}</span>'


def table(caption: str, heads: Sequence[str], rows: Iterable[str]) -> str:
    """A table.

    Args:
        caption: above it, in HTML.
        heads: of its columns, in HTML.
        rows: ``<tr>`` elements.
    """
    head = "".join(f'<th scope="col">{text}</th>' if text else "<td></td>" for text in heads)
    return (
        f'<div class="scroll"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def figure(value: float | None) -> str:
    """A value with four decimals, or a dash."""
    return "—" if value is None else f"{value:.4f}"


def interval(estimate: Estimate) -> str:
    """A confidence interval; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.4f} – {estimate.high:.4f}"
