"""A bundle as a model of MLflow's flavour ``python_function``, through its loader module: nothing is pickled.

    mlflow.pyfunc.log_model(
        name="masks",
        loader_module="maskdet.scoring.pyfunc",
        data_path="models/mine",
        signature=ModelSignature(Schema([ColSpec("binary", "image")])),
        pip_requirements=["maskdet"],
    )

MLflow calls :func:`_load_pyfunc` with the bundle's copy, and ``predict`` with a table of image files' bytes. MLflow is
not imported here: the contract consists of these two names.
https://mlflow.org/docs/latest/python_api/mlflow.pyfunc.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskdet.config import ScoreSettings, load_settings
from maskdet.errors import ConfigError
from maskdet.scoring.predicting import FaceModel, FacePrediction, load_face_model

COLUMN = "image"
"""Column of the table with the images."""


class PyfuncModel:
    """What MLflow calls.

    Args:
        model: a loaded model.
    """

    def __init__(self, model: FaceModel) -> None:
        self._model = model

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Predict images.

        Args:
            model_input: a pandas data frame with the bytes of an image file in each row of the column ``image``. Paths
                are refused: a server must not read the files that a request names.
            params: there are none.

        Returns:
            A data frame with the same index, one row per image: ``faces`` (a list of labels with probabilities, boxes
            in pixels and scores), ``width_px``, ``height_px``, ``fault`` (why it could not be scored; else missing).

        Raises:
            ConfigError: the column is missing, or holds something other than bytes.
        """
        if COLUMN not in getattr(model_input, "columns", ()):
            received = list(getattr(model_input, "columns", [type(model_input).__name__]))
            raise ConfigError("pyfunc", f"a data frame with a column {COLUMN!r}", received, "Name it so.")
        images = list(model_input[COLUMN])
        for image in images:
            if not isinstance(image, bytes | bytearray):
                raise ConfigError("pyfunc", "bytes of image files", type(image).__name__, "Read the files first.")
        rows = [
            {
                "faces": [_as_json(face) for face in found.faces],
                "width_px": found.width_px,
                "height_px": found.height_px,
                "fault": None if found.fault is None else str(found.fault),
            }
            for found in self._model.predict(images)
        ]
        columns = ("faces", "width_px", "height_px", "fault")
        return type(model_input)({name: [row[name] for row in rows] for name in columns}, index=model_input.index)


def _as_json(face: FacePrediction) -> dict[str, Any]:
    box = None if face.box is None else {f"{side}_px": float(value) for side, value in face.box._asdict().items()}
    return {"label": face.label, "probabilities": face.probabilities, "box": box, "score": face.score}


def _load_pyfunc(path: str) -> PyfuncModel:
    """Load a bundle; MLflow looks for this name.

    Raises:
        ModelError: it is missing, damaged, or does not reproduce its golden outputs.
    """
    return PyfuncModel(load_face_model(load_settings(ScoreSettings, None, {"model": {"uri": path}})))
