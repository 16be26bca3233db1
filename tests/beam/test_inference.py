"""The handler in a pipeline of Beam's RunInference: predictions as without Beam, and faults that do not raise."""

from __future__ import annotations

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.testing.util import assert_that

from maskdet.api import open_model
from maskdet.beam.inference import MaskModelHandler
from maskdet.demo.drawing import draw_face
from maskdet.errors import ConfigError, ModelError

WHOLE = {"faces": {"mode": "whole"}}


def test_a_pipeline_predicts_what_a_model_at_hand_predicts():
    faces = [np.asarray(draw_face(np.random.default_rng(seed), 128, masked=seed % 2 == 0)) for seed in range(6)]
    images = {f"face-{number}": face for number, face in enumerate(faces)} | {"broken": b"no image"}
    model = open_model("builtin", faces="whole")
    expected, model_id = dict(zip(images, model.predict(list(images.values())), strict=True)), model.manifest.model_id

    def check(results):
        found = {key: result.inference for key, result in results}
        assert found.keys() == expected.keys()
        for key, prediction in found.items():
            assert prediction.labels == expected[key].labels
            for one, other in zip(prediction.faces, expected[key].faces, strict=True):
                assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert found["broken"].fault.code.value == "not_an_image"
        assert {result.model_id for _, result in results} == {model_id}

    with beam.Pipeline("DirectRunner") as pipeline:
        handler = MaskModelHandler(settings=WHOLE, min_batch_size=2, max_batch_size=4)
        found = pipeline | beam.Create(list(images.items())) | RunInference(KeyedModelHandler(handler))
        assert_that(found, check)


def test_another_bundle_may_take_its_place(tmp_path):
    handler = MaskModelHandler(settings=WHOLE)
    handler.update_model_path(None)
    handler.update_model_path(str(tmp_path / "none"))
    with pytest.raises(ModelError):
        handler.load_model()


def test_a_wrong_setting_is_told_where_the_pipeline_is_built():
    with pytest.raises(ConfigError, match="mode"):
        MaskModelHandler(settings={"faces": {"mode": "all"}})
