"""What workers report on their shards, as Beam's metrics and as lines of JSON; both agree with the run record."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from datetime import UTC, datetime

import apache_beam as beam
import pytest
from apache_beam.metrics import MetricsFilter

from maskdet.beam.options import parse_beam_options
from maskdet.beam.running import build
from maskdet.beam.telemetry import NAMESPACE
from maskdet.cli import console
from maskdet.config import ScoreSettings
from maskdet.demo.faces import DEMO_TEMPLATE
from maskdet.scoring.setup import check_run
from maskdet.tables.lease import Holder
from maskdet.tables.results import StageSeconds
from maskdet.tables.runs import begin_run, claim_output, hold_output, read_run

STAGES = [field.name for field in fields(StageSeconds)]


def run_pipeline(photos, output):
    """A run's metrics, its manifest, and the lines of its shards."""
    settings = ScoreSettings(
        input=(str(photos),),
        output=str(output),
        source={"template": DEMO_TEMPLATE},
        faces={"mode": "whole"},
        packing={"max_images": 10},
        failure_budget={"max_ratio": 0.5},
    )
    launch = check_run(settings, datetime.now(UTC))
    hold_output(launch.plan.layout, Holder.here(launch.plan.record.run_id, datetime.now(UTC), ends_with_process=True))
    launch = launch.adding_to(*claim_output(launch.plan, overwrite=False))
    begin_run(launch.plan)
    pipeline = beam.Pipeline(options=parse_beam_options([]))
    pipeline | "Score" >> build(launch)
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    counters = {metric.key.metric.name: metric.committed for metric in found["counters"]}
    distributions = {metric.key.metric.name: metric.committed for metric in found["distributions"]}
    return counters, distributions, read_run(launch.plan.layout)


@pytest.fixture(scope="module")
def runs(demo, tmp_path_factory):
    """The metrics, manifests and log lines of a run, and of a second one over the same output."""
    output, lines = tmp_path_factory.mktemp("telemetry") / "tables", []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(json.loads(record.getMessage()))
    logger = logging.getLogger("maskdet.shards")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        return [run_pipeline(demo.folder, output) for _ in range(2)], lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_counters_are_those_of_the_manifest(runs):
    counters, _, run = runs[0][0]
    assert counters["images_scored"] == run.images.scored
    assert counters["images_failed"] == run.images.failed
    by_code = {name: value for name, value in counters.items() if name.startswith("images_failed_")}
    assert by_code == {f"images_failed_{code}": count for code, count in run.failed_by_code.items()}
    assert counters["bytes_scored"] == run.size_bytes
    assert counters["shards_scored"] == run.shards["scored"] == run.shards["total"]
    assert "shards_kept" not in counters


def test_distributions_have_a_value_a_shard_and_agree_with_the_manifest(runs):
    _, distributions, run = runs[0][0]
    assert set(distributions) == {f"{name}_ms" for name in ("shard", *STAGES)}
    assert {value.count for value in distributions.values()} == {run.shards["total"]}
    for stage in STAGES:
        found, noted = distributions[f"{stage}_ms"], run.shard_seconds[stage]
        assert (found.min / 1000, found.max / 1000) == pytest.approx((noted["min"], noted["max"]), abs=0.002)
        assert noted["min"] <= noted["median"] <= noted["p95"] <= noted["max"]
        assert found.sum / 1000 == pytest.approx(run.thread_seconds[stage], abs=0.001 * run.shards["total"])


def test_a_second_run_counts_what_it_kept_and_nothing_as_its_own_work(runs):
    counters, distributions, run = runs[0][1]
    assert counters == {"shards_kept": run.shards["total"], "images_kept": run.images.scored + run.images.failed}
    assert distributions == {}
    assert run.shard_seconds == {}


def test_each_shard_of_each_run_has_a_line_with_its_ids(runs):
    (first, second), lines = runs
    run_ids = [first[2].run_id, second[2].run_id]
    assert {(line["run"], line["event"]) for line in lines} == {
        (run_ids[0], "shard_scored"),
        (run_ids[1], "shard_kept"),
    }
    scored = [line for line in lines if line["run"] == run_ids[0]]
    assert len({line["shard"] for line in scored}) == first[2].shards["total"]
    assert sum(sum(line["failed"].values()) for line in scored) == first[2].images.failed
    assert all(line["seconds"] > 0 and len(line["shard_id"]) == 64 for line in scored)


class TestConsole:
    @pytest.fixture(autouse=True)
    def _logging_as_it_was(self):
        root, own = logging.getLogger(), logging.getLogger("maskdet")
        before = list(root.handlers), root.level, own.level
        yield
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        own.setLevel(before[2])

    def test_lines_of_shards_stay_off_the_terminal(self, capsys):
        logging.getLogger().handlers[:] = []  # pytest's own
        console.set_up_logging()
        logging.getLogger("maskdet.shards").info('{"event": "shard_scored"}')
        logging.getLogger("maskdet").info("worth saying")
        assert capsys.readouterr().err.count("\n") == 1

    def test_json_logs_hold_them_and_every_line_is_an_object(self, capsys):
        logging.getLogger().handlers[:] = []  # pytest's own
        console.set_up_logging()
        console.log_json()
        logging.getLogger("maskdet.shards").info('{"event": "shard_scored", "run": "r", "shard": "s"}')
        logging.getLogger("maskdet").warning("%d of %d", 3, 4)
        try:
            raise ValueError("no")
        except ValueError:
            logging.getLogger("other").exception("broken")
        shard, plain, broken = (json.loads(line) for line in capsys.readouterr().err.splitlines())
        assert (shard["event"], shard["run"], shard["shard"], shard["level"]) == ("shard_scored", "r", "s", "INFO")
        assert (plain["message"], plain["logger"]) == ("3 of 4", "maskdet")
        assert "ValueError: no" in broken["traceback"]
        assert datetime.fromisoformat(shard["time"]).tzinfo is not None
