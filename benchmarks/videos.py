"""Measure what a video costs: CPU time of each stage, hours of video per core-hour, and memory by length.

    python -m benchmarks.videos [--film recording.mp4] [--seconds 30] [--memory] [--peer]

Without a film, one is made: 720p, 25 frames per second, photographed faces (``$MASKDET_DATA``) that cross a blurred
photograph. Times are CPU times of one thread, the least of three rounds, so that a busy machine does not affect them.
With ``--memory``, one and seven hours of a small film are scored, each in a process of its own, and the peak resident
memory of each is printed. With ``--peer``, our worker's code (:class:`maskdet.scoring.scorer.Scorer`) is compared with
a plain loop of OpenCV, YuNet and the same classifier in ONNX Runtime (benchmarks/peers/film_loop.py; YuNet's file is
looked for in $MASKDET_PEERS): one thread each, in turn, start-up not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.contestants import PEER_PYTHON, ROOT
from benchmarks.datasets import data_folder
from benchmarks.models import peer_bundle
from benchmarks.photographs import YUNET_FILE

SIZE = (1280, 720)
FACE_PX = 90
RATE = 25
GOP = 250
SAMPLED = 2.0
OURS = "maskdet"


def make_film(path: Path, seconds: float, options: dict[str, str] | None = None) -> None:
    """Make a film of faces that cross a place.

    Args:
        path: the file.
        seconds: how long it is.
        options: the encoder's; default: those of a recording.
    """
    from tests.video.clips import Actor, film, play

    data = data_folder()
    place = Image.open(sorted((data / "scenes/images").iterdir())[3]).convert("RGB").resize((40, 22)).resize(SIZE)
    chosen = (("WithMask", 3), ("WithoutMask", 5), ("WithMask", 40), ("WithoutMask", 9))
    paths = [sorted((data / "k12/Test" / name).iterdir())[number] for name, number in chosen]
    faces = [np.asarray(Image.open(face).convert("RGB").resize((FACE_PX, FACE_PX))) for face in paths]
    actors = []
    for number in range(int(seconds * 2 / 3)):
        leftwards = number % 2 == 0
        start = (SIZE[0] + 20.0 if leftwards else -20.0, 80.0 + 60 * (number % 10))
        span = (number * 1.5, number * 1.5 + 9)
        actors.append(Actor(faces[number % 4], start, (-150.0 if leftwards else 150.0, 0.0), span))
    film(path, play(actors, np.asarray(place), seconds, RATE), gop=GOP, options=options or {"preset": "veryfast"})


def stages(path: str) -> dict[str, float]:
    """CPU seconds that each stage takes per second of video."""
    from maskdet.config import ScoreSettings
    from maskdet.faces.extraction import StageClock
    from maskdet.scoring.predicting import load_parts
    from maskdet.video.frames import SampledFrame, read_segment
    from maskdet.video.pictures import upright_rgb
    from maskdet.video.reading import open_video, read_info
    from maskdet.video.sampling import Grid, cut

    model, _, viewer = load_parts(ScoreSettings.model_validate({"faces": {"mode": "detect"}}))

    def decoded() -> list[SampledFrame]:
        with open_video(path) as video:
            [segment] = cut(read_info(video).duration_us, Grid.of(SAMPLED), "sampled", 10**15)
            return [event for event in read_segment(video, segment) if isinstance(event, SampledFrame)]

    frames = decoded()
    pictures = [upright_rgb(frame, None) for frame in frames]
    views = [viewer.of_picture(picture, StageClock()) for picture in pictures]
    crops = [face.pixels for view in views for face in view.faces]
    seconds = len(frames) / SAMPLED
    return {
        "decode": _least(decoded) / seconds,
        "to RGB": _least(lambda: [upright_rgb(frame, None) for frame in frames]) / seconds,
        "detect": _least(lambda: [viewer.of_picture(picture, StageClock()) for picture in pictures]) / seconds,
        "classify": _least(lambda: model.predict(np.stack(crops)) if crops else None) / seconds,
    }


def _least(action: Callable[[], Any]) -> float:
    times = []
    for _ in range(3):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return min(times)


def _small(frames: int) -> Iterator[np.ndarray]:
    from tests.video.clips import numbered

    return (numbered(number % 250) for number in range(frames))


def resident_mb(hours: int) -> float:
    """Peak resident memory, in MB, of a process that scores ``hours`` of a small film."""
    from tests.video.clips import film

    with tempfile.TemporaryDirectory() as folder:
        path = film(Path(folder, "small.mp4"), _small(hours * 3600), rate=1, gop=60, options={"preset": "ultrafast"})
        command = [sys.executable, "-m", "benchmarks.videos", "--score", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def score_small(path: str) -> None:
    """Score a film shard by shard, as a worker does, and print the peak resident memory in MB."""
    from maskdet.config import PackingSettings, ScoreSettings
    from maskdet.inputs.columns import columns_of
    from maskdet.inputs.references import ImageRef, RefBatch
    from maskdet.inputs.sharding import KeyRule, Size, cut_shards
    from maskdet.inputs.videos import cut_videos, resolve_mode
    from maskdet.scoring.scorer import ScoreOptions, Scorer
    from maskdet.testing import brightness_model
    from maskdet.video.sampling import UNCUT

    rule, limits = KeyRule((), ()), PackingSettings()
    refs, _ = cut_videos(RefBatch((ImageRef(path, 1, "v", segment=UNCUT),)), resolve_mode(ScoreSettings().video), rule)
    scorer = Scorer(brightness_model(), ScoreOptions(rule, threads=1))
    for shard in cut_shards(columns_of(refs), rule, Size(limits.max_images, limits.max_bytes)):
        scorer.score_shard(shard)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def score_film(path: str, detail: str) -> None:
    """Score a film on one thread, as a worker does, and print what :mod:`benchmarks.peers.film_loop` prints."""
    from maskdet.config import ScoreSettings
    from maskdet.inputs.references import ImageRef, RefBatch, Shard
    from maskdet.inputs.sharding import KeyRule
    from maskdet.inputs.videos import cut_videos, resolve_mode
    from maskdet.scoring.predicting import load_parts
    from maskdet.scoring.scorer import Scorer
    from maskdet.video.sampling import UNCUT

    faces = {"mode": "detect", "detail": detail}
    settings = ScoreSettings.model_validate({"faces": faces, "scoring": {"threads": 1}})
    model, options, viewer = load_parts(settings)
    scorer = Scorer(model, options, viewer)
    batch = RefBatch((ImageRef(path, 1, "v", segment=UNCUT),))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    refs, _ = cut_videos(batch, resolve_mode(settings.video), KeyRule((), ()))
    found = scorer.score_shard(Shard("film", "", (), tuple(refs)))
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    labels = found.predictions["label"].to_pylist()
    frames = len(set(found.predictions["frame_time_us"].to_pylist())) + found.no_face.num_rows
    said = {"frames": frames, "faces": len(labels), "wall_s": wall_s, "cpu_s": cpu_s}
    print(json.dumps({**said, "labels": {name: labels.count(name) for name in sorted(set(labels))}}))


def compare(path: str, rounds: int, work: Path) -> str:
    """Score a film with ours and with a plain loop, in turn; the results as a Markdown table."""
    peers = Path(os.environ.get("MASKDET_PEERS", "../shared/peers")).absolute()
    if not (peers / YUNET_FILE).is_file():
        sys.exit(f"--peer: no {peers / YUNET_FILE}; set MASKDET_PEERS to the folder of YuNet's file")
    film, bundle = str(Path(path).absolute()), str(peer_bundle("builtin", work))
    loop = [str(PEER_PYTHON), "-m", "benchmarks.peers.film_loop", "--input", film, "--model", bundle]
    commands = {
        OURS: [sys.executable, "-m", "benchmarks.videos", "--ours", film],
        f"{OURS}, faces.detail=fast": [sys.executable, "-m", "benchmarks.videos", "--ours", film, "--detail", "fast"],
        "OpenCV + YuNet + ONNX Runtime": [*loop, "--rate", str(SAMPLED)],
    }
    one = {"PYTHONPATH": str(ROOT), "MASKDET_PEERS": str(peers), "OMP_NUM_THREADS": "1"}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            done = subprocess.run(command, env=os.environ | one, cwd=ROOT, check=True, capture_output=True, text=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    lines = ["| | frames | CPU, ms/frame | frames/CPU second | frames/s | faces | labels |", "|---" * 7 + "|"]
    for name, some in runs.items():
        cpu_s, wall_s = (min(run[key] for run in some) for key in ("cpu_s", "wall_s"))
        frames, labels = some[0]["frames"], ", ".join(f"{label} {n}" for label, n in some[0]["labels"].items())
        speeds = f"{1000 * cpu_s / frames:.1f} | {frames / cpu_s:.1f} | {frames / wall_s:.1f}"
        lines.append(f"| {name} | {frames} | {speeds} | {some[0]['faces']} | {labels} |")
    for name in list(runs)[1:]:
        ratios = [one["cpu_s"] / ours["cpu_s"] for ours, one in zip(runs[OURS], runs[name], strict=True)]
        lines.append(f"- CPU time of {name} / {OURS}, by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    return "\n".join([*lines, f"- load average at the end: {os.getloadavg()[0]:.1f}"])


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--film")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peer", action="store_true", help="compare with a plain loop, too")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the comparison")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="folder for the peer's model")
    parser.add_argument("--score", help=argparse.SUPPRESS)
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    parser.add_argument("--detail", default="balanced", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        score_film(arguments.ours, arguments.detail)
        return 0
    if arguments.score:
        score_small(arguments.score)
        return 0
    if arguments.memory:
        for hours in (1, 7):
            print(f"{hours} hours: at most {resident_mb(hours):.0f} MB resident")
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.film or str(Path(folder, "made.mp4"))
        if not arguments.film:
            make_film(Path(path), arguments.seconds)
        if arguments.peer:
            print(compare(path, arguments.rounds, arguments.work.absolute()))
            return 0
        found = stages(path)
    for stage, spent in found.items():
        print(f"{stage:<9} {spent * 1000:6.1f} ms of CPU time per second of video")
    total = sum(found.values())
    hours = f"an hour of video takes {total * 60:.1f} minutes of one core; {1 / total:.1f} hours per core-hour"
    print(f"together  {total * 1000:6.1f} ms: {hours}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
