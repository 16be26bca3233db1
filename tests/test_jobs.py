"""A run as a job of its runner."""

from __future__ import annotations

import logging
import re

import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions

from maskdet.beam_options import parse_beam_options
from maskdet.errors import ConfigError
from maskdet.jobs import check_reachable, is_template_launch, name_job, wait_or_cancel


class Job:
    """A job that is interrupted while its client waits for it."""

    def __init__(self, cancelling: Exception | None = None, waiting: BaseException | None = None) -> None:
        self.cancelled = 0
        self._cancelling, self._waiting = cancelling, waiting

    def wait_until_finish(self) -> None:
        if self._waiting:
            raise self._waiting

    def cancel(self) -> None:
        self.cancelled += 1
        if self._cancelling:
            raise self._cancelling


def test_a_job_that_ends_is_not_cancelled():
    job = Job()
    wait_or_cancel(job)
    assert job.cancelled == 0


def test_an_interrupt_cancels_the_job(caplog):
    job = Job(waiting=KeyboardInterrupt())
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        wait_or_cancel(job)
    assert job.cancelled == 1
    assert "cancelling the job" in caplog.text


def test_a_job_that_cannot_be_cancelled_may_go_on_which_is_said(caplog):
    job = Job(ConnectionError("no route to\nthe cluster"), KeyboardInterrupt())
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        wait_or_cancel(job)
    assert "may go on" in caplog.text
    assert "no route to the cluster" in caplog.text


def test_a_job_that_fails_is_over_already():
    job = Job(waiting=RuntimeError("failed"))
    with pytest.raises(RuntimeError):
        wait_or_cancel(job)
    assert job.cancelled == 0


def test_a_job_is_named_after_its_run_as_dataflow_takes_names():
    options = parse_beam_options([])
    name_job(options, "20260105T081500.123456Z-3f2a9c")
    name = options.view_as(GoogleCloudOptions).job_name
    assert name == "maskdet-20260105t081500-123456z-3f2a9c"
    assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name)


def test_a_name_that_was_given_is_kept():
    options = parse_beam_options(["--job_name=nightly"])
    name_job(options, "20260105T081500.123456Z-3f2a9c")
    assert options.view_as(GoogleCloudOptions).job_name == "nightly"


def test_local_paths_are_refused_on_dataflow_alone():
    uris = ["gs://bucket/photos", "/photos"]
    check_reachable(parse_beam_options([]), uris)
    dataflow = parse_beam_options(["--runner=DataflowRunner"])
    check_reachable(dataflow, uris[:1])
    with pytest.raises(ConfigError, match="'/photos'"):
        check_reachable(dataflow, uris)


def test_a_template_location_makes_a_launch_of_a_template():
    assert not is_template_launch(parse_beam_options([]))
    assert is_template_launch(parse_beam_options(["--template_location=gs://bucket/job"]))
