"""Hooks for mkdocs: add generated pages, and those at the top of the repository, to those in the folder ``docs``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # mkdocs loads this file by its path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.documents import reference

# Pages at the top of the repository, where readers look for them → their place in the site.
TOP_LEVEL = {
    "MODEL_CARD.md": "model-card.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing/contribute.md",
    "SECURITY.md": "security.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference pages and those at the top of the repository."""
    for path, text in reference.pages().items():
        files.append(File.generated(config, path, content=text))
    for name, path in TOP_LEVEL.items():
        text = (reference.ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, path, content=relocate(text, path)))
    return files


def relocate(text: str, path: str) -> str:
    """A top-level page with its links, into ``docs`` and to other such pages, adapted to its place in the site."""
    up = "../" * path.count("/")

    def moved(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if target in TOP_LEVEL:
            return f"]({up}{TOP_LEVEL[target]}{anchor})"
        return f"]({up}{target.removeprefix('docs/')}{anchor})"

    return re.sub(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)", moved, text)


def on_page_content(html: str, **_: Any) -> str:
    """Turn reStructuredText roles in docstrings into code."""
    return re.sub(r":(?:class|func|meth|mod|data|attr):<code>~?", "<code>", html)


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Replace links to files outside ``docs``, which the site does not hold, by their text."""
    folder = (reference.ROOT / "docs" / page.file.src_uri).parent

    def plain(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        outside = not target.is_relative_to(reference.ROOT / "docs")
        return match[1] if outside and target.exists() else match[0]

    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)\)", plain, markdown)
