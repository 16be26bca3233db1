"""Show how far a scoring run has come, from its output alone.

    maskdet status tables/ [--run RUN_ID] [--metrics FILE.prom] [--push-gateway URL] [--runner-config YAML]
                           [Beam options, for stores that need them]

Works from any machine and for any runner, during a run and after it. Before a run has ended, the exit code is 9; then
it is the run's own (0 for success). A script can wait:

    until maskdet status tables/; [ $? != 9 ]; do sleep 60; done

``--metrics`` writes the same as metrics of Prometheus, for the textfile collector of its node exporter, and
``--push-gateway`` pushes them; both need the extra ``prometheus``.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from apache_beam.io.filesystems import FileSystems

from maskdet import storage
from maskdet.beam import flink_jobs
from maskdet.beam.options import RUNNER_CONFIG_HELP, parse_beam_options
from maskdet.cli import console, summary
from maskdet.errors import MaskdetError, StorageError
from maskdet.tables.layout import Layout
from maskdet.tables.runs import read_run
from maskdet.tables.status import RunStatus, read_status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("status", lambda: _status(sys.argv[1:] if argv is None else argv))


def _status(argv: Sequence[str]) -> int:
    parser = console.Parser("status", __doc__)
    parser.add_argument("output", help="the output of a scoring run")
    parser.add_argument("--run", help="id of the run (default: the latest)")
    parser.add_argument("--metrics", metavar="FILE", help="also write metrics of Prometheus into this file")
    parser.add_argument("--push-gateway", metavar="URL", help="also push metrics to this gateway of Prometheus")
    parser.add_argument("--runner-config", help=RUNNER_CONFIG_HELP)
    arguments, rest = parser.parse_known_args(argv)
    FileSystems.set_options(parse_beam_options(rest, arguments.runner_config, parser.flags))
    layout = Layout(storage.normalize(arguments.output))
    storage.within_deadline(lambda: read_run(layout, arguments.run), layout.root)
    status = read_status(layout, arguments.run)
    print(summary.describe_status(status, layout, datetime.now(UTC)), *summary.describe_delta(layout), sep="\n")
    runner = status.run.runner
    if status.run.status == "running" and "flink_master" in runner:
        print(f"  job       {runner['job']}: {flink_jobs.describe_job(runner['flink_master'], runner['job'])}")
    if arguments.metrics or arguments.push_gateway:
        _give_metrics(status, layout, arguments.metrics, arguments.push_gateway)
    return status.exit_code


def _give_metrics(status: RunStatus, layout: Layout, file: str | None, gateway: str | None) -> None:
    try:
        import prometheus_client
    except ImportError as error:
        remedy = "Install the extra: pip install 'maskdet[prometheus]'."
        raise MaskdetError("metrics", "the package prometheus_client", "none", remedy) from error
    from maskdet.tables.metrics import last_success, run_metrics

    registry = run_metrics(status, last_success(layout), layout)
    with _refused(file):
        if file:  # renamed into place, so that a collector never sees half of it
            prometheus_client.write_to_textfile(file, registry)
    with _refused(gateway):
        if gateway:
            prometheus_client.push_to_gateway(gateway, "maskdet", registry, {"output": layout.root}, timeout=30)


@contextlib.contextmanager
def _refused(where: str | None) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        # An error's own text would name the temporary file that is renamed into place.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        remedy = "Check the place; the run itself is untouched."
        raise StorageError(f"metrics for {where}", "a place that can be written", reason, remedy) from error


if __name__ == "__main__":
    sys.exit(main())
