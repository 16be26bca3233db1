"""maskdet: distributed batch scoring of face images for masks, and compliance tables from the result.

The public API is here: :func:`score`, :func:`evaluate`, :func:`open_model` and :func:`find_faces`. They are imported
when they are first used, so that ``import maskdet`` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskdet.api import ScoreResult, evaluate, find_faces, open_model, score
    from maskdet.errors import ImageFault, MaskdetError
    from maskdet.scoring.predicting import Face, FaceModel, FacePrediction, ImagePrediction

__version__ = "0.2.0"

__all__ = [
    "Face",
    "FaceModel",
    "FacePrediction",
    "ImageFault",
    "ImagePrediction",
    "MaskdetError",
    "ScoreResult",
    "__version__",
    "evaluate",
    "find_faces",
    "open_model",
    "score",
]

_ERRORS = ("ImageFault", "MaskdetError")


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("maskdet.errors" if name in _ERRORS else "maskdet.api"), name)
    raise AttributeError(f"module 'maskdet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
