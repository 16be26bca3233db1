"""A run as a job of its runner: its name, what it can reach, and Ctrl-C."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineResult

from maskdet import storage
from maskdet.errors import ConfigError

_LOGGER = logging.getLogger(__name__)


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
    """Name the runner's job after the run, unless the caller named it."""
    cloud = options.view_as(GoogleCloudOptions)
    if cloud.job_name is None:
        # Dataflow takes lower case letters, digits and hyphens.
        cloud.job_name = f"maskdet-{run_id.lower().replace('.', '-')}"


def is_template_launch(options: PipelineOptions) -> bool:
    """Whether running the pipeline only writes its job to a file, as the launcher of a Flex Template asks."""
    return options.view_as(GoogleCloudOptions).template_location is not None


def wait_or_cancel(result: PipelineResult) -> None:
    """Wait for a job to end; Ctrl-C cancels it on its runner, which would otherwise go on without its client.

    Raises:
        KeyboardInterrupt: the wait was interrupted; the job is cancelled, or a warning says that it may go on.
    """
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        _LOGGER.warning("interrupted: cancelling the job on its runner; interrupt again to leave it running")
        try:
            result.cancel()
        except Exception as error:
            problem = " ".join(str(error).split()) or type(error).__name__
            _LOGGER.warning("the job could not be cancelled and may go on; cancel it on its runner: %s", problem)
        raise
