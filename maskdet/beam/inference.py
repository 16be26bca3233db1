"""A model in a user's own Beam pipeline: a ``ModelHandler`` for ``RunInference``.

    from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
    from maskdet.beam.inference import MaskModelHandler

    faces = keyed_images | RunInference(KeyedModelHandler(MaskModelHandler("models/mine")))

Images are decoded and limited as in a scoring run. A scoring run itself does not use it: its elements are shards, not
images, so that Beam costs nothing per image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from maskdet.config import ScoreSettings, load_settings
from maskdet.scoring.predicting import FaceModel, ImageLike, load_face_model


class MaskModelHandler(ModelHandler):  # type: ignore[misc]
    """Loads a bundle once per worker, and predicts images batch by batch.

    Elements are images as :meth:`maskdet.scoring.predicting.FaceModel.predict` takes them: paths or URIs, bytes of
    files, pixels. Results are Beam's ``PredictionResult`` with the image, an
    :class:`~maskdet.scoring.predicting.ImagePrediction`, and the model's id. An image that cannot be scored has a
    ``fault`` and raises nothing.

    Args:
        model: a bundle in any storage, or ``"builtin"``.
        settings: other settings of a run, section by section: ``{"faces": {"mode": "whole"}}``.
        min_batch_size: fewest images per call of the model, where there are enough.
        max_batch_size: most images per call.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(
        self,
        model: str = "builtin",
        settings: Mapping[str, Any] | None = None,
        *,
        min_batch_size: int = 8,
        max_batch_size: int = 64,
    ) -> None:
        super().__init__(min_batch_size=min_batch_size, max_batch_size=max_batch_size)
        self._settings = _with_model(load_settings(ScoreSettings, None, dict(settings or {})), model)

    def load_model(self) -> FaceModel:
        """Load the bundle.

        Raises:
            ModelError: it is missing, damaged, or does not reproduce its golden outputs.
        """
        return load_face_model(self._settings)

    def run_inference(
        self, batch: Sequence[ImageLike], model: FaceModel, inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        """Predict a batch of images, in order; there are no further arguments."""
        name = model.manifest.model_id
        predictions = model.predict(batch)
        return [PredictionResult(image, found, name) for image, found in zip(batch, predictions, strict=True)]

    def update_model_path(self, model_path: str | None = None) -> None:
        """Take another bundle, as ``RunInference`` asks for while a streaming pipeline runs."""
        if model_path is not None:
            self._settings = _with_model(self._settings, model_path)

    def get_metrics_namespace(self) -> str:
        """The prefix of Beam's metrics."""
        return "maskdet"


def _with_model(settings: ScoreSettings, uri: str) -> ScoreSettings:
    return settings.model_copy(update={"model": settings.model.model_copy(update={"uri": uri})})
