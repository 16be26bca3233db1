"""Templates of pages, and how they format figures."""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from maskdet.evaluation.intervals import Estimate
from maskdet.report.words import WORDS


def rendered(template: str, **values: Any) -> Markup:
    """Render a template of :mod:`maskdet.report` with values; text is escaped, markup is not.

    Args:
        template: file name in the package's folder ``templates``.
        values: what the template names; a missing one is an error.
    """
    return Markup(_environment().get_template(template).render(values))


def figure(value: float | None, decimals: int = 4) -> str:
    """A value with some number of decimals, or a dash."""
    return "—" if value is None else f"{value:.{decimals}f}"


def interval(estimate: Estimate) -> str:
    """A confidence interval; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.4f} – {estimate.high:.4f}"


def thousands(number: int) -> str:
    """A count with separators between thousands."""
    return f"{number:,}"


def percent(share: float, decimals: int = 0) -> str:
    """A share as a percentage."""
    return f"{share:.{decimals}%}"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("maskdet.report"),
        autoescape=True,  # whatever a file is called
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {function.__name__: function for function in (figure, interval, thousands, percent)}
    environment.filters |= WORDS
    return environment
