"""The loop that peers for photographs share: one process per core reads, finds faces, crops and classifies.

Peers differ in the function that finds faces. Every process uses one thread for everything, which is the fastest way to
work through a whole folder image by image. Boxes are edges in pixels of the upright photograph.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

CORES = len(os.sched_getaffinity(0))
AROUND = 1.3
"""Side of the square that is classified, relative to the longer side of the box."""

Find = Callable[[Any], tuple[Any, Any]]
"""From pixels, uint8 BGR ``(height, width, 3)``, to boxes ``(faces, 4)`` and scores ``(faces,)``."""

_worker: dict[str, Any] = {}


def main(description: str | None, make: Callable[..., Find], options: dict[str, float]) -> None:
    """Score a folder.

    Args:
        description: description of the peer.
        make: makes the function that finds faces from the options, by name; called once in each process.
        options: flag, without the leading dashes → default.
    """
    parser = argparse.ArgumentParser(description=description)
    for name in ("--input", "--model", "--output"):
        parser.add_argument(name, type=Path, required=True)
    for name, value in options.items():
        parser.add_argument(f"--{name}", type=float, default=value)
    given = parser.parse_args()
    files = sorted(str(path) for path in given.input.iterdir())
    chosen = {name: getattr(given, name.replace("-", "_")) for name in options}
    context = multiprocessing.get_context("spawn")
    with context.Pool(CORES, _set_up, (make, chosen, given.model)) as pool:
        rows = [row for found in pool.imap_unordered(_score, files, chunksize=4) for row in found]
    pq.write_table(pa.Table.from_pylist(rows), given.output, compression="zstd")


def set_up(bundle: Path) -> None:
    """Load the classifier into this process.

    Args:
        bundle: folder with ``model.onnx`` and ``manifest.json``.
    """
    cv2.setNumThreads(1)
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"), session_options, ["CPUExecutionProvider"])
    manifest = json.loads((bundle / "manifest.json").read_text())
    size, decision = manifest["input"], manifest["decision"]
    _worker.update(
        session=session, name=session.get_inputs()[0].name, size=(size["width"], size["height"]), decision=decision
    )


def look(uri: str, pixels: Any, find: Find) -> list[dict[str, Any]]:
    """A row for each face in a picture; the classifier has to be loaded.

    Args:
        uri: the URI for the rows.
        pixels: uint8 BGR ``(height, width, 3)``, upright.
        find: finds faces.
    """
    boxes, scores = find(pixels)
    if not len(boxes):
        return []
    crops = np.stack([_crop(pixels, box) for box in boxes])
    probabilities = _worker["session"].run(None, {_worker["name"]: crops})[0].reshape(len(crops), -1).tolist()
    return [
        {
            "image_uri": uri,
            "face_left_px": float(left),
            "face_top_px": float(top),
            "face_width_px": float(right - left),
            "face_height_px": float(bottom - top),
            "face_score": float(score),
            "label": _label(classes),
        }
        for (left, top, right, bottom), score, classes in zip(boxes, scores, probabilities, strict=True)
    ]


def _set_up(make: Callable[..., Find], options: dict[str, float], bundle: Path) -> None:
    set_up(bundle)
    _worker["find"] = make(**{name.replace("-", "_"): value for name, value in options.items()})


def _score(path: str) -> list[dict[str, Any]]:
    return look(path, cv2.imread(path, cv2.IMREAD_COLOR), _worker["find"])  # upright, since OpenCV applies EXIF


def _crop(pixels: Any, box: Any) -> Any:
    """The square around a face, RGB, black beyond the photograph's edge."""
    left, top, right, bottom = (float(edge) for edge in box)
    side = max(right - left, bottom - top) * AROUND
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    width, height = _worker["size"]
    place = np.array([[width / side, 0, -x * width / side], [0, height / side, -y * height / side]])
    if side > 2 * width:  # shrink by area: interpolation would ignore most of the pixels
        inside = pixels[max(int(y), 0) : max(int(y + side), 1), max(int(x), 0) : max(int(x + side), 1)]
        edges = [max(-int(y), 0), max(int(y + side) - pixels.shape[0], 0)]
        edges += [max(-int(x), 0), max(int(x + side) - pixels.shape[1], 0)]
        square = cv2.copyMakeBorder(inside, *edges, cv2.BORDER_CONSTANT)
        return cv2.cvtColor(cv2.resize(square, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
    return cv2.cvtColor(cv2.warpAffine(pixels, place, (width, height)), cv2.COLOR_BGR2RGB)


def _label(classes: list[float]) -> str:
    """The label by the manifest's thresholds, from p(mask) or from p(mask), p(incorrect) and p(no_mask)."""
    decision, worn = _worker["decision"], sum(classes[:2])
    wrongly = len(classes) > 1 and classes[1] >= decision["incorrect_from"] * worn
    bare = max(1 - worn, 0.0)
    enough = decision["mask_from"] * (worn + (decision.get("incorrect_odds") or 1.0) * bare)
    if wrongly and decision["mask_from"] <= worn < enough:
        wrongly, worn = False, classes[0] / max(classes[0] + bare, 1e-12)
    if worn < decision["mask_from"]:
        return "no_mask" if worn < decision["no_mask_below"] else "uncertain"
    return "incorrect" if wrongly else "mask"
