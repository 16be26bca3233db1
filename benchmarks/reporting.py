"""The page of a comparison, docs/benchmarks.md, and its plot, docs/benchmarks.svg."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.comparison import Run, sentences, split_table, table
from benchmarks.contestants import LABELS, PEERS, ROOT

_VERSIONS = ("apache-beam", "daft", "keras", "onnxruntime", "pillow", "ray", "tensorflow")


@dataclass(frozen=True)
class Section:
    """One data set on the page."""

    data: str
    description: str
    images: int
    runs: tuple[Run, ...]
    cores: int


def write_report(sections: Sequence[Section], folder: Path, plotter: Path) -> str:
    """Write ``benchmarks.md`` and ``benchmarks.svg``.

    Args:
        sections: the data sets, each with at least one run.
        folder: the folder to write to.
        plotter: a Python interpreter that has matplotlib.

    Returns:
        The page.
    """
    page = render(sections)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.md").write_text(page, encoding="utf-8")
    drawing = [
        {"title": f"{section.data}: {section.images:,} images", "runs": _walls(section.runs)} for section in sections
    ]
    subprocess.run(
        [plotter, "-m", "benchmarks.plot_peers", str(folder / "benchmarks.svg")],
        input=json.dumps(drawing),
        text=True,
        check=True,
        cwd=ROOT,
    )
    return page


def render(sections: Sequence[Section]) -> str:
    """The page as Markdown."""
    blocks = ["# Compared with what you would write instead", _preface(sections), "![wall time](benchmarks.svg)"]
    for section in sections:
        rounds = len({run.round for run in section.runs})
        blocks += [
            f"## {section.data}",
            f"{section.images:,} images: {section.description}. {rounds} rounds; median (least–greatest).",
            table(section.runs, section.images, LABELS),
            "\n".join(f"- {line}" for line in sentences(section.runs, list(PEERS), LABELS)),
        ]
        if parts := split_table(section.runs, LABELS):
            blocks += ["Seconds of wall time by part (a stage's thread-seconds divided by the cores):", parts]
        busiest = max(run.load for run in section.runs)
        blocks.append(f"Load average before a run: at most {busiest:.1f} on {section.cores} cores.")
    return "\n\n".join(block for block in blocks if block) + "\n"


def _preface(sections: Sequence[Section]) -> str:
    cores = sections[0].cores if sections else 0
    pinned = dict(line.split("==") for line in (ROOT / "benchmarks" / "constraints.txt").read_text().split())
    versions = ", ".join(f"{name} {pinned[name]}" for name in _VERSIONS)
    ours = importlib.metadata.version("ai-edge-litert")
    return (
        "Written by `make bench-peers`; [benchmarks/compare_peers.py](../benchmarks/compare_peers.py) says what is "
        "measured, [benchmarks/peers](../benchmarks/peers) holds the peers. Whole processes, interleaved, same files, "
        "same weights (the reference CNN; float32 for the peers, int8 for ours and for the limit), each image one "
        f"face. {cores} cores, {platform.machine()}; Python {platform.python_version()}, {versions}; ours on LiteRT "
        f"{ours}."
    )


def _walls(runs: Sequence[Run]) -> dict[str, list[float]]:
    return {
        LABELS[name].replace("*", ""): [run.wall_s for run in runs if run.contestant == name and run.exit_code == 0]
        for name in LABELS
        if any(run.contestant == name and run.exit_code == 0 for run in runs)
    }
