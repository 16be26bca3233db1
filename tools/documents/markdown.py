"""Pieces of Markdown."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; line breaks within cells become spaces, and bars are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def prose(text: str) -> str:
    """A docstring's paragraph as Markdown: double backticks and reStructuredText roles become code."""
    text = re.sub(r":(?:class|func|meth|mod|data|attr):`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def attribute_docstrings(cls: type[Any]) -> dict[str, str]:
    """The string that follows each attribute in a class body, by the attribute's name; bases included."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        try:
            tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(one)))
        except (OSError, TypeError):  # a class without source, such as object
            continue
        body = tree.body[0]
        assert isinstance(body, ast.ClassDef)
        for before, after in zip(body.body, body.body[1:], strict=False):
            name = _assigned(before)
            if name and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[name] = " ".join(str(after.value.value).split())
    return found


def _assigned(node: ast.stmt) -> str | None:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None
