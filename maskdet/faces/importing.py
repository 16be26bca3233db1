"""From a user's face detector to a bundle: CenterFace and YuNet as their authors publish them, in ONNX."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from maskdet import storage
from maskdet.errors import ModelError
from maskdet.faces.bundle import Architecture, DetectorManifest, ScoreRule
from maskdet.faces.decoding import CENTERFACE_OUTPUTS, YUNET_STRIDES_PX
from maskdet.faces.writing import write_bundle
from maskdet.model.bundle import file_sha256

_OUTPUTS: dict[Architecture, frozenset[str]] = {
    "centerface": frozenset(CENTERFACE_OUTPUTS),
    "yunet": frozenset(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in YUNET_STRIDES_PX),
}
_DRAFTS = {
    "centerface": DetectorManifest(
        name="centerface-onnx",
        architecture="centerface",
        runtime="onnx",
        description="CenterFace (Star-Clouds), float32.",
        licence="MIT",
        score_rule=ScoreRule(min_score=0.37, suggested=0.15, large_power=1.34, filling_power=1.66),
        training_data="WIDER FACE, by the authors of CenterFace",
        source_sha256="",
    ),
    "yunet": DetectorManifest(
        name="yunet-onnx",
        architecture="yunet",
        runtime="onnx",
        description="YuNet (libfacedetection), float32.",
        licence="Apache-2.0",
        channel_order="BGR",
        score_rule=ScoreRule(min_score=0.6, suggested=0.3),
        training_data="WIDER FACE, by the authors of YuNet",
        source_sha256="",
    ),
}
_LICENCE = """The network in this folder was imported from {name}.
Its authors publish it under the {licence} licence; keep their copyright notice with every copy that you pass on.
"""


def import_detector(file: Path, folder: Path) -> DetectorManifest:
    """Make a bundle of a detector's ONNX file.

    Args:
        file: CenterFace's or YuNet's, told by the names of its outputs.
        folder: to write the bundle to; absent, empty, or a bundle, which is replaced.

    Raises:
        ModelError: the file is neither, or the packages of the extra ``onnx`` are not installed.
        OutputError: the folder holds something that is no bundle.
    """
    network = _read(file)
    names = frozenset(output.name for output in network.graph.output)
    architecture = next((kind for kind, outputs in _OUTPUTS.items() if outputs == names), None)
    if architecture is None:
        expected = "the outputs of CenterFace (537 to 540) or of YuNet (cls_8, obj_8, bbox_8, kps_8 … kps_32)"
        remedy = "Only these two can be imported; maskdet.faces.decoding is where others would be decoded."
        raise ModelError(f"detector {file}", expected, ", ".join(sorted(names)), remedy)
    draft = _DRAFTS[architecture].model_copy(update={"source_sha256": file_sha256(file)})
    licence = _LICENCE.format(name=file.name, licence=draft.licence)
    return write_bundle(folder, _of_any_size(network), draft, licence)


def _read(file: Path) -> Any:
    try:
        onnx = importlib.import_module("onnx")
    except ImportError as error:
        remedy = "Run: pip install 'maskdet[onnx]'."
        raise ModelError("import of a detector", "the package onnx", "none installed", remedy) from error
    try:
        network = onnx.load(str(file))
    except FileNotFoundError as error:
        remedy = f"Nothing is there; {storage.did_you_mean(str(file))}"
        raise ModelError("detector", "an ONNX file", str(file), remedy) from error
    except Exception as error:  # onnx raises whatever its parser does
        problem = f"{type(error).__name__}: {error}"
        raise ModelError(f"detector {file}", "an ONNX file", problem, "Name the .onnx file of its authors.") from error
    return network


def _of_any_size(network: Any) -> bytes:
    """The file for one canvas of any height and width, whatever size it was exported for."""
    names = {tensor.name for tensor in network.graph.initializer}
    for tensor in network.graph.input:
        if tensor.name in names:
            continue
        batch, _, height, width = tensor.type.tensor_type.shape.dim
        batch.dim_value = 1
        height.dim_param, width.dim_param = "height", "width"
    for index, tensor in enumerate(network.graph.output):
        for axis, dimension in enumerate(tensor.type.tensor_type.shape.dim):
            dimension.dim_param = f"output_{index}_{axis}"
    del network.graph.value_info[:]
    file: bytes = network.SerializeToString()
    return file
