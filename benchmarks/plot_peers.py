"""Draw a comparison from standard input: `python -m benchmarks.plot_peers FILE.svg`; needs matplotlib."""

from __future__ import annotations

import json
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "maskdet"  # the same results give the same file

from matplotlib import pyplot as plt  # noqa: E402 (after the backend is chosen)

OURS, OTHERS, LIMIT = "#0072B2", "#999999", "#009E73"  # colour-blind readers can distinguish them, too


def main() -> None:
    sections = [section for section in json.load(sys.stdin) if section["runs"]]
    if not sections:
        return
    heights = [len(section["runs"]) + 1.5 for section in sections]
    figure, panels = plt.subplots(
        len(sections), 1, figsize=(9, 0.36 * sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for panel, section in zip(panels[:, 0], sections, strict=True):
        draw(panel, section["title"], section["runs"])
    figure.savefig(sys.argv[1], metadata={"Date": None})


def draw(panel: plt.Axes, title: str, runs: dict[str, list[float]]) -> None:
    """Draw one data set: for each contestant a bar to its median wall time, and a line from the least to the most."""
    names = sorted(runs, key=lambda name: statistics.median(runs[name]), reverse=True)
    middles = [statistics.median(runs[name]) for name in names]
    reach = [
        [middle - min(runs[name]) for name, middle in zip(names, middles, strict=True)],
        [max(runs[name]) - middle for name, middle in zip(names, middles, strict=True)],
    ]
    colours = [OURS if name.startswith("maskdet") else LIMIT if name.startswith("limit") else OTHERS for name in names]
    panel.barh(names, middles, xerr=reach, color=colours, error_kw={"elinewidth": 1, "capsize": 2})
    for index, (name, middle) in enumerate(zip(names, middles, strict=True)):
        panel.annotate(f"{middle:.1f} s", (max(runs[name]), index), (5, 0), textcoords="offset points", va="center")
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xlabel("wall time of the whole process, s")
    panel.set_xlim(0, 1.12 * max(max(values) for values in runs.values()))
    panel.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
