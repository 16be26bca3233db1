"""Counts the multiply-adds of a run of ours: those of the detector's network on every canvas, and the classifier's.

The canvases are those that the detector gives to its network, the multiply-adds those of the convolutions and products
in the network's file. For a fully convolutional network they are proportional to the canvas's area.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.models import BUILTIN

MOST_PHOTOGRAPHS = 100


class Counted(NamedTuple):
    """Average multiply-adds per image."""

    detector: float
    classifier: float
    photographs: int
    """How many photographs were counted."""

    @property
    def an_image(self) -> float:
        """Those of both networks together."""
        return self.detector + self.classifier


def of_photographs(paths: Sequence[Path]) -> Counted:
    """Count what a sample of the photographs needs; the sample is taken evenly from all."""
    from maskdet.faces.bundle import open_detector
    from maskdet.faces.detector import load_detector
    from maskdet.images.preprocessing import ImageLimits, open_upright

    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, MOST_PHOTOGRAPHS).astype(int))]
    detector = load_detector()
    areas = _recorded(detector)
    faces = 0
    for path in chosen:
        image, _ = open_upright(path.read_bytes(), ImageLimits())
        faces += len(detector.detect(image).boxes)
    adds, area = _of_network(open_detector().network)
    a_face, _ = _of_network(BUILTIN / "model.tflite")
    return Counted(adds / area * sum(areas) / len(chosen), a_face * faces / len(chosen), len(chosen))


def _recorded(detector: Any) -> list[int]:
    """A list that will grow by the area, in pixels, of each canvas that the detector's network is given."""
    areas: list[int] = []
    network = detector._network
    run = network.run

    def recording(canvas: Any) -> Any:
        areas.append(canvas.shape[0] * canvas.shape[1])
        return run(canvas)

    network.run = recording
    return areas


def _of_network(path: Path) -> tuple[int, int]:
    """Multiply-adds of a LiteRT file for a picture of the size in the file, and that picture's area in pixels."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    shapes = {one["index"]: [int(size) for size in one["shape"]] for one in interpreter.get_tensor_details()}
    adds = sum(_of_operation(one, shapes) for one in interpreter._get_ops_details())
    return adds, int(given["shape"][1] * given["shape"][2])


def _of_operation(operation: dict[str, Any], shapes: dict[int, list[int]]) -> int:
    """Multiply-adds of one operation, from the shapes of its weights and its output."""
    name, inputs, outputs = operation["op_name"], operation["inputs"], operation["outputs"]
    given = shapes[int(outputs[0])]
    if name == "CONV_2D":  # weights: outputs, height, width, inputs
        return int(np.prod(given) * np.prod(shapes[int(inputs[1])][1:]))
    if name == "DEPTHWISE_CONV_2D":  # weights: 1, height, width, channels
        return int(np.prod(given) * np.prod(shapes[int(inputs[1])][1:3]))
    if name == "TRANSPOSE_CONV":  # each input pixel is multiplied by every weight
        taken = shapes[int(inputs[2])]
        return int(np.prod(taken[:3]) * np.prod(shapes[int(inputs[1])]))
    if name == "FULLY_CONNECTED":
        return int(np.prod(given[:-1]) * np.prod(shapes[int(inputs[1])]))
    return 0
