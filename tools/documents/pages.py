"""The documents: where they are, which blocks of code they hold, and where their links lead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(
    r"(?:<!-- run(?:: (?P<folders>[\w -]+))? -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
    flags=re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: the file that holds it.
        line: number of its first line of code.
        language: such as ``sh``; may be empty.
        text: the code.
        folders: folders that it needs in order to run; ``None`` if it is not to be run.
    """

    page: Path
    line: int
    language: str
    text: str
    folders: tuple[str, ...] | None

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page that people write: at the top of the repository, and in ``docs``."""
    return [path for path in sorted(ROOT.glob("*.md")) if path.name != "CHANGELOG.md"] + sorted(
        (ROOT / "docs").rglob("*.md")
    )


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page; one after the comment ``<!-- run -->`` or ``<!-- run: photos -->`` is to be run."""
    source = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(source):
        indent = len(match["indent"])
        text = "".join(line[indent:] if line.strip() else line for line in match["text"].splitlines(keepends=True))
        marked = match[0].startswith("<!--")
        folders = tuple((match["folders"] or "").split()) if marked else None
        line = source.count("\n", 0, match.start("text")) + 1
        yield Block(page, line, match["language"], text, folders)


def inline_code(page: Path) -> Iterator[tuple[str, str]]:
    """The pieces of inline code in a page, and the place of each."""
    source = page.read_text(encoding="utf-8")
    outside = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), source)
    for match in re.finditer(r"`([^`]+)`", outside):
        line = outside.count("\n", 0, match.start()) + 1
        yield " ".join(match[1].split()), f"{page.relative_to(ROOT)}:{line}"


def broken_links(page: Path) -> list[str]:
    """Links in a page to files and headings that do not exist. Links to other hosts are not followed."""
    source = page.read_text(encoding="utf-8")
    outside = re.sub(r"`[^`\n]+`", "", _FENCE.sub("", source))
    broken = []
    for match in _LINK.finditer(outside):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists():
            # Pages that are made when the site is built, or taken from the top of the repository.
            if path.is_relative_to(ROOT / "docs") and _is_made(path.relative_to(ROOT / "docs").as_posix()):
                continue
            broken.append(f"{page.relative_to(ROOT)}: {match['target']}")
        elif anchor and path.suffix == ".md" and anchor not in headings(path):
            broken.append(f"{page.relative_to(ROOT)}: {match['target']}")
    return broken


def _is_made(path: str) -> bool:
    from tools.documents.hooks import TOP_LEVEL
    from tools.documents.reference import pages as made

    return path in TOP_LEVEL.values() or path in made()


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in found}
