"""What a worker loads suits the worker's machine, not the machine that submitted the run."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from maskdet.beam import transforms
from maskdet.beam.progress import PROGRESS
from maskdet.beam.running import build
from maskdet.config import ScoreSettings
from maskdet.scoring.setup import check_run
from maskdet.testing import brightness_model


@pytest.mark.parametrize(("setting", "threads"), [(None, 7), (3, 3)])
def test_a_model_runs_on_as_many_threads_as_the_worker_has_cores(demo, tmp_path, monkeypatch, setting, threads):
    settings = ScoreSettings(
        input=(str(demo.folder),),
        output=str(tmp_path / "tables"),
        faces={"mode": "whole"},
        scoring={"inference_threads": setting},
    )
    step = build(check_run(settings, datetime.now(UTC))).score
    specs = []
    monkeypatch.setattr(transforms, "available_cores", lambda: 7)
    monkeypatch.setattr(transforms, "load_model", lambda uri, spec: specs.append(spec) or brightness_model())
    step.load()
    assert [spec.threads for spec in specs] == [threads]


def test_memory_is_given_back_while_a_shard_is_scored(monkeypatch):
    given, parts = [], [32, 32, 7]

    class Scorer:
        def score_shard(self, shard, on_progress):
            for part in parts:
                on_progress(part)

    class Job:
        def finish(self, shard, score):
            score(shard)

    monkeypatch.setattr(transforms, "GivingBack", lambda: lambda: given.append(PROGRESS.state.done))
    step = transforms._ScoreShard(transforms.ScoreShards(Job(), "model", None, None))
    step.setup()
    step._scorer = Scorer()
    PROGRESS.reset()
    step._finish(None)
    step.teardown()
    PROGRESS.reset()
    assert given == [32, 64, 71]
