"""Results of a comparison: statistics over rounds, agreement of decisions, where time goes, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from maskdet.labels import Decision, label_codes

OURS = "maskdet"
STAGES = ("fetch", "decode", "detect", "infer", "write")


@dataclass(frozen=True)
class Run:
    """One contestant's run in one round.

    Attributes:
        contestant: its name.
        round: counted from 1.
        exit_code: 0 if it succeeded.
        wall_s: wall time of the whole process, start-up included.
        cpu_s: user and system time of the process tree.
        peak_mib: peak memory of the process tree.
        load: the machine's load average over the minute before the run.
        scored: rows written; ``None`` where nothing is written.
        agree: share of all images decided as the float32 Keras model decides; ``None`` where nothing is written.
        split: seconds by part of the wall time, for contestants that report them.
    """

    contestant: str
    round: int
    exit_code: int
    wall_s: float
    cpu_s: float
    peak_mib: float
    load: float = 0.0
    scored: int | None = None
    agree: float | None = None
    split: Mapping[str, float] = field(default_factory=dict)


class Spread(NamedTuple):
    """The median and the extremes of some values."""

    median: float
    low: float
    high: float

    def show(self, form: str = ".2f") -> str:
        """As ``1.20 (1.10–1.31)``; only the median if all are equal."""
        middle, low, high = (format(value, form) for value in self)
        return middle if low == high else f"{middle} ({low}–{high})"


def spread(values: Iterable[float]) -> Spread:
    """Median, least and greatest.

    Raises:
        ValueError: there are none.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("expected at least one value, received none")
    return Spread(statistics.median(ordered), ordered[0], ordered[-1])


def ratios(runs: Sequence[Run], over: str, under: str) -> list[float]:
    """Wall time of one contestant over another's, in each round in which both succeeded."""
    seconds = {(run.contestant, run.round): run.wall_s for run in runs if run.exit_code == 0}
    rounds = sorted({round_ for name, round_ in seconds if name == over and (under, round_) in seconds})
    return [seconds[over, round_] / seconds[under, round_] for round_ in rounds]


def agreement(found: Mapping[str, float], reference: Mapping[str, float], at: Decision) -> float:
    """Share of the reference's images with the same decision; an image without a probability counts as different.

    Args:
        found: probability by image.
        reference: the same for every image.
        at: the operating point of both.
    """
    expected = label_codes(np.array(list(reference.values())), None, at)
    received = label_codes(np.array([found.get(name, np.nan) for name in reference]), None, at)
    there = np.array([name in found for name in reference])
    return float(np.mean(there & (expected == received)))


def split_time(
    wall_s: float, start_s: float, run_s: float, thread_seconds: Mapping[str, float], cores: int
) -> dict[str, float]:
    """Divide a run's wall time into parts that add up to it.

    Args:
        wall_s: wall time of the whole process.
        start_s: time from the start of the process to that of the run.
        run_s: time from the run's start to its end.
        thread_seconds: seconds of all threads, by stage; divided by the cores, they are a stage's part of the run.
        cores: how many threads worked concurrently.

    Returns:
        Seconds of ``start``, of each stage, of ``framework`` (everything else that the run did, such as listing and
        packing) and of ``exit``. Time in which threads waited for each other is counted in the stages, so ``framework``
        may be negative.
    """
    stages = {name: thread_seconds[name] / cores for name in STAGES if thread_seconds.get(name)}
    parts = {"start": start_s, **stages, "framework": run_s - sum(stages.values())}
    return {**parts, "exit": wall_s - start_s - run_s}


def table(runs: Sequence[Run], images: int, labels: Mapping[str, str]) -> str:
    """The contestants as a Markdown table, the fastest first and those that failed last."""
    rows = [
        "| | wall, s | images/s | × ours | CPU, s | peak MiB | images scored | decided alike |",
        "|---|---|---|---|---|---|---|---|",
    ]
    good = {name: [run for run in runs if run.contestant == name and run.exit_code == 0] for name in labels}
    for name in sorted(filter(good.get, good), key=lambda name: spread(run.wall_s for run in good[name]).median):
        rows.append(_row(labels[name], good[name], images, ratios(runs, name, OURS)))
    for name in labels:
        failed = sum(run.contestant == name and run.exit_code != 0 for run in runs)
        if failed:
            rows.append(f"| {labels[name]} | failed in {failed} of {failed + len(good[name])} runs | | | | | | |")
    return "\n".join(rows)


def _row(label: str, runs: Sequence[Run], images: int, over_ours: Sequence[float]) -> str:
    wall = spread(run.wall_s for run in runs)
    alike = [run.agree for run in runs if run.agree is not None]
    scored = sorted({run.scored for run in runs if run.scored is not None})
    cells = [
        label,
        wall.show(),
        f"{images / wall.median:,.0f}",
        spread(over_ours).show() if over_ours else "",
        spread(run.cpu_s for run in runs).show(".1f"),
        spread(run.peak_mib for run in runs).show(".0f"),
        "–".join(f"{count:,}" for count in dict.fromkeys((scored[0], scored[-1]))) if scored else "",
        f"{min(alike):.2%}" if alike else "",
    ]
    return f"| {' | '.join(cells)} |"


def split_table(runs: Sequence[Run], labels: Mapping[str, str]) -> str:
    """Medians of the parts of wall time, for contestants that report them; empty if none does."""
    told = {name: [run.split for run in runs if run.contestant == name and run.split] for name in labels}
    told = {name: splits for name, splits in told.items() if splits}
    if not told:
        return ""
    order = ("start", *STAGES, "framework", "exit", "loop")
    parts = [part for part in order if any(part in split for splits in told.values() for split in splits)]
    rows = [f"| | {' | '.join(parts)} |", "|---" * (len(parts) + 1) + "|"]
    for name, splits in told.items():
        cells = [
            f"{statistics.median(split.get(part, 0.0) for split in splits):.2f}" if part in splits[0] else ""
            for part in parts
        ]
        rows.append(f"| {labels[name]} | {' | '.join(cells)} |")
    return "\n".join(rows)


def sentences(runs: Sequence[Run], peers: Sequence[str], labels: Mapping[str, str]) -> list[str]:
    """The ratios that matter, one per line: stock Beam, the best other peer, the limit, the built-in model."""
    lines = []
    others = [name for name in peers if name != "beam" and ratios(runs, name, OURS)]
    best = min(others, key=lambda name: spread(ratios(runs, name, OURS)).median, default=None)
    pairs = [("beam", OURS), (best, OURS), (OURS, "bare_loop"), ("beam", "compact"), (best, "compact")]
    for over, under in pairs:
        values = ratios(runs, over, under) if over else []
        if over and values:
            lines.append(f"{labels[over]} / {labels[under]}: {spread(values).show()}")
    return lines


def to_record(run: Run, **key: Any) -> dict[str, Any]:
    """A run as a line of JSON; ``key`` says what it belongs to."""
    return {**key, **{name: dict(value) if name == "split" else value for name, value in vars(run).items()}}


def from_record(record: Mapping[str, Any]) -> Run:
    """The inverse of :func:`to_record`; other fields of the record are ignored."""
    return Run(**{name: record[name] for name in Run.__dataclass_fields__})
