"""Earlier revisions of this repository, to compare with."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


@contextmanager
def worktree(folder: Path, revision: str) -> Iterator[Path]:
    """Check out the files of a revision in a folder while the body runs."""
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def command_module(folder: Path) -> str:
    """The module of the command line in a revision; before 0.2 it was outside the package."""
    return "maskdet.cli.main" if (folder / "maskdet" / "cli" / "main.py").is_file() else "pipelines.cli"
