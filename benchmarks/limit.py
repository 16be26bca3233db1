"""Measure how close scoring comes to its limit on this machine.

    make bench
    .venv/bin/python -m benchmarks.limit --input ../shared/data/k12/Test --model models/reference_cnn --repeat 10

The peer is a bare loop of read, decode, resize and inference over the same files, with one thread per core and nothing
else: no Beam, no shards, no hashing, no tables. Both run as whole processes, in turn; the loop is also timed without
its start-up (imports and model), so that the ratio shows what scoring adds to the work. Without photographs a demo tree
is drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.bare:
        _bare_loop(image_files(arguments.input, arguments.repeat), arguments.model, arguments.precision)
        return
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.input or demo_tree(Path(scratch) / "demo")
        folder = linked(image_files(source, arguments.repeat), Path(scratch) / "images")
        shared = ["--input", str(folder), "--model", arguments.model, "--precision", arguments.precision]
        bare = [sys.executable, "-m", "benchmarks.limit", "--bare", *shared]
        rounds = [_round(bare, shared, Path(scratch) / f"tables-{i}") for i in range(arguments.rounds + 1)]
    _report(rounds[1:])  # the first round warms the file cache


def _round(bare: list[str], shared: list[str], output: Path) -> dict[str, float]:
    started = time.perf_counter()
    printed = subprocess.run(bare, check=True, capture_output=True, text=True).stdout
    limit_s = time.perf_counter() - started
    loop = json.loads(printed.splitlines()[-1])
    command = [
        sys.executable,
        "-m",
        "maskdet.cli.main",
        "score",
        "--output",
        str(output),
        "--quiet",
        "--faces",
        "whole",
        *shared,
    ]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return {"score_s": time.perf_counter() - started, "limit_s": limit_s, **loop}


def _bare_loop(files: list[Path], model_uri: str, precision: str) -> None:
    """Read, decode, resize and infer; prints seconds and images as JSON."""
    import numpy as np

    from maskdet.cores import available_cores
    from maskdet.images.codecs import load_codecs, resolve_codecs
    from maskdet.images.preprocessing import prepare_image
    from maskdet.model.backends import RuntimeSpec, load_model
    from maskdet.scoring.scorer import BLOCKS_A_PART

    cores = available_cores()
    model = load_model(model_uri, RuntimeSpec(precision=precision, threads=cores))  # type: ignore[arg-type]
    height, width = model.manifest.input.height, model.manifest.input.width
    codecs = load_codecs(resolve_codecs("auto"))

    def work(part: list[Path]) -> None:
        blocks = np.empty((BLOCKS_A_PART * model.block_images, height, width, 3), np.uint8)
        for start in range(0, len(part), len(blocks)):
            chunk = part[start : start + len(blocks)]
            for i, path in enumerate(chunk):
                blocks[i] = prepare_image(path.read_bytes(), height, width, codecs=codecs).pixels
            model.predict(blocks[: len(chunk)])

    started = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(work, [files[i::cores] for i in range(cores)]))
    print(json.dumps({"loop_s": time.perf_counter() - started, "images": len(files)}))


def _report(rounds: list[dict[str, float]]) -> None:
    images = rounds[0]["images"]
    ratios = [one["score_s"] / one["limit_s"] for one in rounds]
    print(f"{images:.0f} images, {len(rounds)} interleaved rounds; median (min to max)")
    for name, label in (("score_s", "maskdet score"), ("limit_s", "bare loop"), ("loop_s", "bare loop, no start-up")):
        values = [one[name] for one in rounds]
        spread = f"{min(values):.2f} to {max(values):.2f}"
        rate = images / statistics.median(values)
        print(f"  {label:<24} {statistics.median(values):6.2f} s ({spread}), {rate:,.0f} images/s")
    added = statistics.median(one["score_s"] - one["limit_s"] for one in rounds)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"  score / bare loop        {statistics.median(ratios):6.2f}   ({spread}); {added:+.2f} s")


def image_files(folder: str | Path, repeat: int) -> list[Path]:
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        sys.exit(f"--input: expected a folder with images, received {folder}")
    return found * repeat


def linked(files: list[Path], folder: Path) -> Path:
    """A folder with links to the files, repeats included, each under a name of its own."""
    folder.mkdir()
    for i, path in enumerate(files):
        os.symlink(path.resolve(), folder / f"{i:07d}{path.suffix}")
    return folder


def demo_tree(folder: Path) -> Path:
    from maskdet.demo.faces import write_demo_tree

    tree = write_demo_tree(folder)
    for file in tree.files:
        if file.failure is not None:
            (folder / file.path).unlink()
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", help="a folder of images (default: a demo tree)")
    parser.add_argument("--repeat", type=int, default=1, help="score every image this many times")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--precision", default="int8", choices=("int8", "float32"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
