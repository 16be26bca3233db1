"""YuNet, the detector of OpenCV's `FaceDetectorYN`, on photographs shrunk to a given longer side, and the classifier.

YuNet's file is not in the package: MASKDET_PEERS names the folder of yunet_n_640.onnx.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.peers.photograph_loop import Find, main

FILE = "yunet_n_640.onnx"


def make(longer_side: float, score: float) -> Find:
    """The function that finds faces."""
    path = Path(os.environ.get("MASKDET_PEERS", "../shared/peers")) / FILE
    detector = cv2.FaceDetectorYN.create(str(path), "", (320, 320), score_threshold=score)

    def find(pixels: Any) -> tuple[Any, Any]:
        height, width = pixels.shape[:2]
        scale = min(1.0, longer_side / max(height, width))
        if scale < 1:
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        detector.setInputSize((pixels.shape[1], pixels.shape[0]))
        found = detector.detect(pixels)[1]
        if found is None:
            return np.empty((0, 4), np.float32), np.empty(0, np.float32)
        corners = found[:, :2] / scale
        return np.concatenate([corners, corners + found[:, 2:4] / scale], axis=1), found[:, 14]

    return find


if __name__ == "__main__":
    main(__doc__, make, {"longer-side": 640, "score": 0.6})
