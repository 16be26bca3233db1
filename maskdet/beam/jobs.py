"""A run as a job of its runner: its name, what it can reach, and Ctrl-C."""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Iterable

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.runner import PipelineResult, PipelineState

from maskdet import storage
from maskdet.errors import ConfigError, Terminated

_LOGGER = logging.getLogger(__name__)
_FLINK_TIMEOUT_S = 10.0
_IN_PROCESS = frozenset({"FnApiRunner", "DirectRunner", "BundleBasedDirectRunner"})
_FLINK_ENDED = frozenset({"FINISHED", "FAILED", "CANCELED"})


def check_reachable(options: PipelineOptions, uris: Iterable[str]) -> None:
    """Refuse paths on this machine where Dataflow's workers would look for them on theirs.

    Raises:
        ConfigError: names the first such path.
    """
    if options.view_as(StandardOptions).runner != "DataflowRunner":
        return
    for uri in uris:
        if storage.is_local(uri):
            raise ConfigError("--runner", "locations that Dataflow's workers can reach", uri, "Use gs:// locations.")


def name_job(options: PipelineOptions, run_id: str) -> None:
    """Name the runner's job after the run, unless the caller named it; cancelling on Flink needs the name."""
    cloud = options.view_as(GoogleCloudOptions)
    if cloud.job_name is None:
        # Dataflow takes lower case letters, digits and hyphens.
        cloud.job_name = f"maskdet-{run_id.lower().replace('.', '-')}"


def recover_interrupt(error: BaseException) -> KeyboardInterrupt | None:
    """The Ctrl-C or SIGTERM that a runner made an error of its own of, if that is what it was."""
    if isinstance(error, Terminated) or str(error).startswith("maskdet.errors.Terminated"):
        return Terminated()
    interrupted = isinstance(error, KeyboardInterrupt) or str(error).startswith("KeyboardInterrupt")
    return KeyboardInterrupt() if interrupted else None


def is_template_launch(options: PipelineOptions) -> bool:
    """Whether running the pipeline only writes its job to a file, as the launcher of a Flex Template asks."""
    return options.view_as(GoogleCloudOptions).template_location is not None


def ends_with_client(options: PipelineOptions) -> bool:
    """Whether a job cannot outlive the process that starts it, because that process does the work."""
    return options.view_as(StandardOptions).runner in _IN_PROCESS


def has_ended(result: PipelineResult | None) -> bool:
    """Whether a job that went wrong is over, and not only lost from sight."""
    return result is None or bool(PipelineState.is_terminal(result.state))


def wait_or_cancel(result: PipelineResult, options: PipelineOptions) -> None:
    """Wait for a job to end; Ctrl-C cancels it on its runner, which would otherwise go on without its client.

    Args:
        result: the running job.
        options: with which it was started.

    Raises:
        KeyboardInterrupt: the wait was interrupted; the job is cancelled, or a warning says that it may go on.
    """
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        _LOGGER.warning("interrupted: cancelling the job on its runner; interrupt again to leave it running")
        try:
            result.cancel()
            _cancel_on_flink(options)
        except Exception as error:
            problem = " ".join(str(error).split()) or type(error).__name__
            _LOGGER.warning("the job could not be cancelled and may go on; cancel it on its runner: %s", problem)
        raise


def _cancel_on_flink(options: PipelineOptions) -> None:
    """Cancel the job by Flink's REST API, where the options say what Flink runs it.

    Beam's job server, asked to cancel a batch job, stops waiting for it and leaves it running.
    """
    master = str(options.view_as(FlinkRunnerOptions).flink_master)
    if master.startswith("["):
        return
    url = (master if "://" in master else f"http://{master}").rstrip("/")
    name = options.view_as(GoogleCloudOptions).job_name
    with urllib.request.urlopen(f"{url}/jobs/overview", timeout=_FLINK_TIMEOUT_S) as answer:
        jobs = json.load(answer)["jobs"]
    found = [job["jid"] for job in jobs if job["name"] == name and job["state"] not in _FLINK_ENDED]
    if len(found) > 1:
        raise LookupError(f"{len(found)} jobs on {url} are named {name!r}")
    for job in found:
        request = urllib.request.Request(f"{url}/jobs/{job}?mode=cancel", method="PATCH")
        urllib.request.urlopen(request, timeout=_FLINK_TIMEOUT_S).close()
