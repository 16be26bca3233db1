"""Score a film in a plain loop: OpenCV reads every frame, YuNet finds faces in some, and the classifier labels them.

YuNet's file is not in the package: MASKDET_PEERS names the folder of yunet_n_640.onnx. There is one process, and one
thread for everything. As with `maskdet score`, the first frame of each part of a second is looked at. The others have
to be decoded on the way to the next, but are not converted to pixels (`grab` without `retrieve`). Prints one line of
JSON: frames looked at, faces, and seconds of wall time and CPU time without start-up.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cv2

from benchmarks.peers import photograph_loop, yunet_loop


def look(film: Path, rate: float, find: photograph_loop.Find) -> tuple[int, list[dict[str, Any]]]:
    """The number of frames looked at, and a row for each face.

    Args:
        film: the film to read.
        rate: frames per second to look at.
        find: finds the faces of a frame.
    """
    capture = cv2.VideoCapture(str(film), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    rows: list[dict[str, Any]] = []
    frames, last = 0, -1
    while capture.grab():
        time_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
        # Times are floating point: without the half millisecond, a frame at k / rate could fall into the part before.
        cell = int((time_ms + 0.5) / 1000 * rate)
        if cell == last:
            continue
        last, frames = cell, frames + 1
        _, pixels = capture.retrieve()
        rows += ({"time_ms": time_ms, **row} for row in photograph_loop.look(str(film), pixels, find))
    return frames, rows


def main() -> None:
    """Score a film."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--input", "--model"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--rate", type=float, default=2.0, help="frames per second to look at")
    given = parser.parse_args()
    find = yunet_loop.make(640, 0.6)
    photograph_loop.set_up(given.model)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    frames, rows = look(given.input, given.rate, find)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    labels = [row["label"] for row in rows]
    said = {"frames": frames, "faces": len(rows), "wall_s": wall_s, "cpu_s": cpu_s}
    print(json.dumps({**said, "labels": {name: labels.count(name) for name in sorted(set(labels))}}))


if __name__ == "__main__":
    main()
