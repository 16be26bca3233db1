"""A run as a job of its runner."""

from __future__ import annotations

import json
import logging
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions

from maskdet.beam.flink_jobs import describe_job
from maskdet.beam.jobs import (
    cancel,
    check_reachable,
    describe_runner,
    is_one_process,
    is_template_launch,
    name_job,
    wait_or_cancel,
)
from maskdet.beam.options import parse_beam_options
from maskdet.errors import ConfigError


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
    wait_or_cancel(job, parse_beam_options([]))
    assert job.cancelled == 0


def test_an_interrupt_cancels_the_job(caplog):
    job = Job(waiting=KeyboardInterrupt())
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        wait_or_cancel(job, parse_beam_options([]))
    assert job.cancelled == 1
    assert "cancelling the job" in caplog.text


def test_a_job_that_cannot_be_cancelled_may_go_on_which_is_said(caplog):
    job = Job(ConnectionError("no route to\nthe cluster"), KeyboardInterrupt())
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        wait_or_cancel(job, parse_beam_options([]))
    assert "may go on" in caplog.text
    assert "no route to the cluster" in caplog.text


def test_a_job_that_fails_is_over_already():
    job = Job(waiting=RuntimeError("failed"))
    with pytest.raises(RuntimeError):
        wait_or_cancel(job, parse_beam_options([]))
    assert job.cancelled == 0


class FlinkApi(BaseHTTPRequestHandler):
    """Flink's REST API, as far as it is needed."""

    jobs: ClassVar = []
    steps: ClassVar = {}
    cancelled: ClassVar = []

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        found = {"jobs": self.jobs} if self.path == "/jobs/overview" else {"vertices": self.steps[self.path]}
        self.answer(200, json.dumps(found).encode())

    def do_PATCH(self) -> None:
        self.cancelled.append(self.path)
        self.answer(202, b"{}")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def flink_api():
    FlinkApi.jobs, FlinkApi.cancelled = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), FlinkApi) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield FlinkApi, f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def interrupt_on(master: str) -> None:
    options = parse_beam_options([f"--flink_master={master}", "--job_name=mine"])
    with pytest.raises(KeyboardInterrupt):
        wait_or_cancel(Job(waiting=KeyboardInterrupt()), options)


def test_on_flink_the_one_job_of_its_name_that_goes_on_is_cancelled(flink_api):
    api, master = flink_api
    api.jobs = [
        {"jid": "0a", "name": "mine", "state": "FINISHED"},
        {"jid": "0b", "name": "mine", "state": "RESTARTING"},
        {"jid": "0c", "name": "other", "state": "RUNNING"},
    ]
    interrupt_on(master)
    assert api.cancelled == ["/jobs/0b?mode=cancel"]


RUNNING = {"jid": "0a", "name": "mine", "state": "RUNNING"}


def test_on_flink_a_job_is_cancelled_where_its_job_server_does_not_answer(flink_api, caplog):
    api, master = flink_api
    api.jobs = [RUNNING]
    options = parse_beam_options([f"--flink_master={master}", "--job_name=mine"])
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        wait_or_cancel(Job(ConnectionError("no job server"), KeyboardInterrupt()), options)
    assert api.cancelled == ["/jobs/0a?mode=cancel"]
    assert "no job server" in caplog.text


def test_on_flink_a_job_that_was_just_submitted_is_cancelled_by_its_name(flink_api):
    api, master = flink_api
    api.jobs = [RUNNING]
    cancel(None, parse_beam_options([f"--flink_master={master}", "--job_name=mine"]))
    assert api.cancelled == ["/jobs/0a?mode=cancel"]


def test_on_flink_jobs_that_cannot_be_told_apart_may_go_on_which_is_said(flink_api, caplog):
    api, master = flink_api
    api.jobs = [{"jid": jid, "name": "mine", "state": "RUNNING"} for jid in ("0a", "0b")]
    interrupt_on(f"http://{master}/")
    assert api.cancelled == []
    assert "may go on" in caplog.text
    assert "2 jobs" in caplog.text


def job_of(steps, api, state="RUNNING"):
    api.jobs = [{"jid": "0b", "name": "mine", "state": state, "start-time": 5}]
    api.steps = {"/jobs/0b": [{"name": name, "status": status} for name, status in steps]}


def test_what_a_job_on_flink_is_doing_is_told_from_the_first_second(flink_api):
    api, master = flink_api
    assert describe_job(master, "mine").endswith("has no such job yet: it is being handed over, which takes some 20 s")
    chained = (
        "CHAIN MapPartition (MapPartition at [4]Score/ListImages/{SplitTasks, ListTasks}) -> FlatMap (ExtractOutput)"
    )
    job_of([("DataSource (Impulse)", "FINISHED"), (chained, "RUNNING"), ("MapPartition (x)", "CREATED")], api)
    said = describe_job(f"http://{master}", "mine")
    assert said == "running on Flink: 1 of 3 steps finished, now ListImages, SplitTasks, ListTasks"
    job_of([("a", "SCHEDULED"), ("b", "CREATED")], api)
    assert describe_job(master, "mine") == "running on Flink: 0 of 2 steps finished, none running: it waits for slots"


def test_a_flink_that_does_not_answer_is_no_reason_to_fail(flink_api):
    api, master = flink_api
    api.jobs = [{"name": "mine"}]
    assert describe_job(master, "mine").startswith(f"Flink at {master} does not answer: ")
    assert describe_job("[local]", "mine") == "Flink at [local] cannot be asked"
    assert describe_job("127.0.0.1:9", "mine").startswith("Flink at 127.0.0.1:9 does not answer: ")


@pytest.mark.parametrize(
    ("flags", "is_one"),
    [
        (["--runner=FnApiRunner"], True),
        (["--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=multi_threading"], True),
        (["--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"], False),
        (["--runner=FlinkRunner"], False),
        (["--runner=PortableRunner", "--job_endpoint=localhost:8099"], False),
    ],
)
def test_one_process_does_all_work_where_its_runner_is_in_memory(flags, is_one):
    assert is_one_process(parse_beam_options(flags)) is is_one


def test_a_record_says_where_its_job_is():
    options = parse_beam_options(["--flink_master=host:8081", "--job_name=mine", "--runner=PortableRunner"])
    assert describe_runner(options) == {"name": "PortableRunner", "job": "mine", "flink_master": "host:8081"}
    assert "flink_master" not in describe_runner(parse_beam_options(["--job_name=mine"]))


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
