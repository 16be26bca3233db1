"""A run as a job of its runner: its name, what it can reach, and Ctrl-C."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.runner import PipelineResult, PipelineState

from maskdet import storage
from maskdet.beam import flink_jobs
from maskdet.errors import ConfigError, Terminated

_LOGGER = logging.getLogger(__name__)
_IN_PROCESS = frozenset({"FnApiRunner", "DirectRunner", "BundleBasedDirectRunner"})


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


def describe_runner(options: PipelineOptions) -> dict[str, str]:
    """What a run's record says about its runner: its name, the job's name, and where to ask Flink about it."""
    runner, job = options.view_as(StandardOptions).runner, options.view_as(GoogleCloudOptions).job_name
    master = str(options.view_as(FlinkRunnerOptions).flink_master)
    known = {"name": str(runner), "job": str(job)}
    return known if flink_jobs.url_of(master) is None else {**known, "flink_master": master}


def recover_interrupt(error: BaseException) -> KeyboardInterrupt | None:
    """The Ctrl-C or SIGTERM that a runner turned into an error of its own, if that is what happened."""
    if isinstance(error, Terminated) or str(error).startswith("maskdet.errors.Terminated"):
        return Terminated()
    interrupted = isinstance(error, KeyboardInterrupt) or str(error).startswith("KeyboardInterrupt")
    return KeyboardInterrupt() if interrupted else None


def is_template_launch(options: PipelineOptions) -> bool:
    """Whether running the pipeline only writes its job to a file, as for the launcher of a Flex Template."""
    return options.view_as(GoogleCloudOptions).template_location is not None


def ends_with_client(options: PipelineOptions) -> bool:
    """Whether a job cannot outlive the process that starts it, because that process does the work."""
    return options.view_as(StandardOptions).runner in _IN_PROCESS


def is_one_process(options: PipelineOptions) -> bool:
    """Whether the process that starts a job does all of its work, in its own memory."""
    return ends_with_client(options) and options.view_as(DirectOptions).direct_running_mode != "multi_processing"


def has_ended(result: PipelineResult | None) -> bool:
    """Whether a job that went wrong is over, rather than merely out of sight."""
    return result is None or bool(PipelineState.is_terminal(result.state))


def wait_or_cancel(result: PipelineResult, options: PipelineOptions) -> None:
    """Wait for a job to end; Ctrl-C cancels it on its runner, which would otherwise continue without its client.

    Args:
        result: the running job.
        options: with which it was started.

    Raises:
        KeyboardInterrupt: the wait was interrupted; the job is cancelled, or a warning says that it may continue.
    """
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        _LOGGER.warning("interrupted: cancelling the job on its runner; interrupt again to leave it running")
        cancel(result, options)
        raise


def cancel(result: PipelineResult | None, options: PipelineOptions) -> None:
    """Cancel a job on its runner; a warning says where it may go on.

    On Flink, it is found by its name: Beam's job server may leave it running, and Ctrl-C may come before there is a
    result.

    Args:
        result: the running job; ``None`` if it was just being submitted.
        options: with which it was started.
    """
    try:
        try:
            described = describe_runner(options)
            if "flink_master" in described:
                flink_jobs.cancel_job(described["flink_master"], described["job"])
        finally:
            if result is not None:
                result.cancel()
    except Exception as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        _LOGGER.warning("the job could not be cancelled and may go on; cancel it on its runner: %s", problem)
