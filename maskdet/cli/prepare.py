"""Prepare labelled images for training, and find what would make its figures worthless.

    maskdet prepare --config my.yaml --output manifest/ [--set section.key=value …]
                    [Beam options, such as --runner=FlinkRunner]

Decodes every image as scoring does. Finds exact, near and mirrored duplicates within and across splits and classes.
Puts images that belong together into leakage groups, and cuts splits that never divide a group. Flags duplicates with
opposite labels. Writes the training manifest (images.parquet), failures.parquet, duplicates.parquet, report.json and
summary.txt. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from maskdet import storage
from maskdet.beam import jobs
from maskdet.beam.options import RUNNER_CONFIG_HELP, parse_beam_options
from maskdet.beam.preparation import Prepare
from maskdet.beam.progress import PROGRESS
from maskdet.cli import console
from maskdet.config import load_yaml
from maskdet.errors import recover_error
from maskdet.preparation import writing
from maskdet.preparation.launch import check_preparation
from maskdet.preparation.report import describe_report
from maskdet.preparation.settings import PrepareSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("prepare", lambda: _prepare(sys.argv[1:] if argv is None else argv))


def _prepare(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    options = parse_beam_options(rest, arguments.runner_config, parser.flags)
    FileSystems.set_options(options)
    settings, tasks = check_preparation(_settings(arguments))
    storage.within_deadline(functools.partial(writing.begin, settings), settings.output)
    started_s = time.monotonic()
    jobs.name_job(options, f"prepare-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    try:
        with console.show_progress(PROGRESS, quiet=arguments.quiet):
            pipeline = beam.Pipeline(options=options)
            pipeline | "Prepare" >> Prepare(settings, tasks)
            jobs.wait_or_cancel(pipeline.run(), options)
    except BaseException as error:
        raise (jobs.recover_interrupt(error) or recover_error(error) or error) from error
    report = writing.read_report(settings.output)
    print(describe_report(report))
    print(f"  time        {time.monotonic() - started_s:.1f} s\n  tables      {settings.output}")
    if failure := report.outcome():
        raise failure
    return 0


def _settings(arguments: argparse.Namespace) -> PrepareSettings:
    given = [f"output={json.dumps(arguments.output)}"] if arguments.output is not None else []  # JSON is YAML
    return load_yaml(PrepareSettings, arguments.config, [*given, *arguments.set])


def _parser() -> console.Parser:
    parser = console.Parser("prepare", __doc__)
    parser.add_argument("--config", help="settings with the sources: a YAML file, or a name such as prepare")
    parser.add_argument("--output", help="folder or prefix for the tables")
    console.add_set_flag(parser)
    parser.add_argument("--quiet", action="store_true", help="log a line now and then instead of showing live progress")
    parser.add_argument("--runner-config", help=RUNNER_CONFIG_HELP)
    return parser
