"""Compare the speed of `maskdet score` with what a user would write instead, on the same files with the same weights.

    make bench-peers                                                   # png, 10,000 images, 5 rounds
    make bench-peers BENCH='--data jpeg,wild,large --rounds 5 --output docs'
    .venv/bin/python -m benchmarks.compare_peers --images 500 --rounds 1 --only maskdet,tf_data

Contestants run as whole processes, in turn (A B C … A B C …), after a warm-up of each on a few images. Peers
(benchmarks/peers/) have an environment of their own, .venv-bench, which `make bench-peers` creates. Wall time is that
of the process, start-up included; CPU time and memory are those of the process tree. "× ours" is the median over rounds
of the ratio within a round. Decisions are compared with those of the float32 Keras model on images that Pillow decodes
at full size. `limit` is a loop of read, decode, resize and inference with the same model on all cores, nothing else.

Each run is written as a line of <work>/<data>-<images>/results.jsonl when it ends: --resume continues a comparison
that was killed, --report writes the page from the runs so far, --rounds 0 only prepares data and references. Without
photographs ($MASKDET_DATA) faces are drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import datasets
from benchmarks.comparison import Run, agreement, from_record, to_record
from benchmarks.contestants import LABELS, PEER_PYTHON, ROOT, Task, command, probabilities, split, writes_tables
from benchmarks.models import BUILTIN, peer_bundle
from benchmarks.process_tree import measure
from benchmarks.reporting import Section, write_report
from maskdet.labels import Decision

WARM_UP_IMAGES = 64
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "RAY_DEDUP_LOGS": "0", "DAFT_PROGRESS_BAR": "0", "DO_NOT_TRACK": "true"}


def main() -> None:
    arguments = _parser().parse_args()
    names = arguments.only.split(",") if arguments.only else list(LABELS)
    if unknown := sorted(set(names) - set(LABELS)):
        sys.exit(f"--only: expected names among {', '.join(LABELS)}, received {unknown}")
    sections = []
    for asked in arguments.data.split(","):
        if asked not in datasets.DESCRIPTIONS:
            sys.exit(f"--data: expected names among {', '.join(datasets.DESCRIPTIONS)}, received {asked!r}")
        comparison = _prepare(asked, arguments)
        if not arguments.report:
            comparison.compete(names, arguments.rounds, arguments.timeout_s)
        sections.append(comparison.section())
    if sections := [section for section in sections if section.runs]:
        print(write_report(sections, arguments.output, PEER_PYTHON))


@dataclass(frozen=True)
class Comparison:
    """The comparison on one data set.

    Attributes:
        data: the data set's name.
        images: how many are scored.
        task: what contestants are given.
        folder: folder for results, logs and what contestants write.
    """

    data: str
    images: int
    task: Task
    folder: Path

    @property
    def results(self) -> Path:
        """The file of results, one run per line."""
        return self.folder / "results.jsonl"

    def section(self) -> Section:
        """The data set's section of the page."""
        return Section(self.data, datasets.DESCRIPTIONS[self.data], self.images, tuple(self.runs()), self.task.cores)

    def runs(self) -> Iterator[Run]:
        """Every run so far."""
        if self.results.is_file():
            yield from map(from_record, map(json.loads, self.results.read_text().splitlines()))

    def compete(self, names: Sequence[str], rounds: int, timeout_s: float) -> None:
        """Do the runs that are still missing."""
        done = {(run.contestant, run.round) for run in self.runs()}
        left = [(name, round_) for round_ in range(1, rounds + 1) for name in names if (name, round_) not in done]
        for name in filter(writes_tables, names):
            self._reference(name)
        few = datasets.few(self.task.folder, WARM_UP_IMAGES, self.folder / "warm-up" / "images")
        print(f"{self.data}: {self.images:,} images, {datasets.warm(self.task.folder) / 1e6:,.0f} MB", flush=True)
        for name in dict.fromkeys(name for name, _ in left):
            self._once(name, 0, Task(few, self.task.model, self.task.bundle, self.task.cores), timeout_s)
        for name, round_ in left:
            run = self._once(name, round_, self.task, timeout_s)
            with self.results.open("a") as file:
                file.write(json.dumps(to_record(run, data=self.data, images=self.images)) + "\n")
            ended = (
                f"{run.wall_s:7.2f} s" if run.exit_code == 0 else f"failed ({run.exit_code}); see {self.folder}/logs"
            )
            alike = "" if run.agree is None else f", {run.agree:.2%} of decisions agree"
            print(f"  round {round_} {name:<16} {ended}, {run.peak_mib:,.0f} MiB{alike}", flush=True)

    def _once(self, name: str, round_: int, task: Task, timeout_s: float) -> Run:
        """Do one run; round 0 is the warm-up."""
        output = self.folder / "output"
        _remove(output)
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        printed = logs / f"{round_}-{name}.out"
        load = os.getloadavg()[0]
        cost = measure(
            command(name, task, output),
            stdout=printed,
            stderr=logs / f"{round_}-{name}.err",
            environment=_QUIET,
            timeout_s=timeout_s,
        )
        parts, scored, agree = {}, None, None
        if cost.exit_code == 0 and round_:
            parts = split(name, cost, task, output, printed.read_text())
            if writes_tables(name):
                found = probabilities(output)
                reference, at = self._reference(name)
                scored, agree = len(found), agreement(found, reference, at)
        _remove(output)
        return Run(name, round_, cost.exit_code, cost.wall_s, cost.cpu_s, cost.peak_mib, load, scored, agree, parts)

    def _reference(self, name: str) -> tuple[dict[str, float], Decision]:
        """The float32 probabilities for a contestant's weights, computed once, and the operating point."""
        bundle = BUILTIN if name == "compact" else self.task.bundle
        manifest = json.loads((bundle / "manifest.json").read_text())
        path = self.folder / f"reference-{manifest['fingerprint'][:12]}.parquet"
        if not path.is_file():
            task = Task(self.task.folder, "", bundle, self.task.cores)
            unfinished = path.with_suffix(".part")
            made = subprocess.run(
                command("float32_reference", task, unfinished), check=False, capture_output=True, cwd=ROOT
            )
            if made.returncode:
                sys.exit(f"float32_reference: {made.stderr.decode(errors='replace')[-2000:]}")
            unfinished.rename(path)
        return probabilities(path), Decision(**manifest["decision"])


def _prepare(asked: str, arguments: argparse.Namespace) -> Comparison:
    data = datasets.resolve(asked, arguments.input)
    images = arguments.images or datasets.DEFAULT_IMAGES[data]
    folder = arguments.work.absolute() / f"{data}-{images}"
    folder.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0))
    if arguments.report:
        return Comparison(data, images, Task(folder, arguments.model, folder, cores), folder)
    bundle = peer_bundle(arguments.model, arguments.work.absolute())
    source = datasets.build(data, images, arguments.input, arguments.work.absolute())
    comparison = Comparison(data, images, Task(source, arguments.model, bundle, cores), folder)
    if comparison.results.is_file() and not arguments.resume:
        comparison.results.rename(comparison.results.with_suffix(f".{time.time_ns()}.jsonl"))
    return comparison


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="png", help=f"data sets, separated by commas: {', '.join(datasets.DESCRIPTIONS)}"
    )
    parser.add_argument("--images", type=int, help="images per data set (default: 10,000; wild 2,897, large 300)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help=f"contestants, separated by commas: {', '.join(LABELS)}")
    parser.add_argument("--model", default="models/reference_cnn", help="bundle that ours and the peers score with")
    parser.add_argument("--input", type=Path, default=datasets.data_folder(), help="folder of real images")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="folder for data, results and logs")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench", help="folder for the page and plot")
    parser.add_argument("--resume", action="store_true", help="keep the recorded runs, and do those that are missing")
    parser.add_argument("--report", action="store_true", help="run nothing: write the page from the recorded runs")
    parser.add_argument("--timeout-s", type=float, default=1800.0, help="kill a contestant after so many seconds")
    return parser


if __name__ == "__main__":
    main()
