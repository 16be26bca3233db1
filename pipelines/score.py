"""Score face images for masks.

    maskdet score --input photos/ --output tables/ [--model builtin] [--config configs/score.yaml]
                  [--set section.key=value …] [Beam options, such as --runner=FlinkRunner]

Reads images from folders, globs, list files or CSV/Parquet manifests, on any filesystem that Beam knows; writes
predictions, failures and compliance tables as Parquet, and a run manifest. A second run scores only what changed.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from maskdet import console, storage, summary
from maskdet.beam_options import parse_beam_options
from maskdet.config import ScoreSettings, load_yaml
from maskdet.dryrun import plan_shards
from maskdet.errors import recover_error
from maskdet.launch import Launch, check_run
from maskdet.progress import PROGRESS
from maskdet.runs import begin_run, claim_output, end_early, read_run
from maskdet.transforms import ScoreRun, ScoreShards, WriteCompliance

# Flags that are settings: flag → where its value goes, and what it means.
_SETTING_FLAGS = {
    "--input": ("input", "folders, globs, list files (.txt) or manifests (.csv, .parquet)"),
    "--output": ("output", "folder or prefix for the tables"),
    "--model": ("model.uri", "a model bundle, or 'builtin' (default)"),
    "--backend": ("model.backend", "litert (default) or tensorflow"),
    "--precision": ("model.precision", "int8 or float32 (default: int8 on litert, float32 on tensorflow)"),
    "--template": ("source.template", "path template, such as {site}/{captured_at:%%Y-%%m-%%d}/*.jpg"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("score", lambda: _score(sys.argv[1:] if argv is None else argv))


def build(launch: Launch) -> ScoreRun:
    """The pipeline of a checked run."""
    settings = launch.settings
    levels, rows = settings.compliance.all_levels, settings.tables.row_group_rows
    return ScoreRun(
        plan=launch.plan,
        tasks=launch.tasks,
        source=settings.source,
        rule=launch.options.rule,
        limit=launch.limit,
        score=ScoreShards(launch.job, settings.model.uri, launch.spec, launch.options),
        compliance=WriteCompliance(launch.plan.layout, levels, settings.compliance.confidence, rows),
    )


def _score(argv: Sequence[str]) -> int:
    arguments, rest = _parser().parse_known_args(argv)
    options = parse_beam_options(rest)
    FileSystems.set_options(options)
    launch = check_run(_settings(arguments), datetime.now(UTC))
    if arguments.dry_run:
        print(summary.describe_plan(launch.settings, *plan_shards(launch)))
        return 0
    layout = launch.plan.layout
    claim = functools.partial(claim_output, layout, launch.settings, overwrite=arguments.overwrite)
    storage.within_deadline(claim, layout.root)
    begin_run(launch.plan)
    _run(launch, options, quiet=arguments.quiet)
    run = read_run(layout, launch.plan.manifest.run_id)
    print(summary.describe_run(run, layout))
    if error := run.outcome():
        raise error
    return 0


def _run(launch: Launch, options: PipelineOptions, *, quiet: bool) -> None:
    """Run the pipeline; whatever ends it early is left in the run's manifest."""
    try:
        with console.show_progress(PROGRESS, quiet=quiet):
            pipeline = beam.Pipeline(options=options)
            pipeline | "Score" >> build(launch)
            pipeline.run().wait_until_finish()
    except BaseException as error:
        known = console.recover_interrupt(error) or recover_error(error) or error
        end_early(launch.plan, known, datetime.now(UTC))
        raise known from error


def _settings(arguments: argparse.Namespace) -> ScoreSettings:
    values = [(key, vars(arguments)[key]) for key, _ in _SETTING_FLAGS.values()]
    given = [f"{key}={json.dumps(value)}" for key, value in values if value is not None]  # JSON is YAML
    return load_yaml(ScoreSettings, arguments.config, [*given, *arguments.set])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maskdet score",
        description=__doc__,
        epilog=console.exit_code_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for flag, (key, text) in _SETTING_FLAGS.items():
        parser.add_argument(flag, dest=key, nargs="+" if flag == "--input" else None, help=text)
    parser.add_argument("--config", help="a YAML file of settings; see configs/score.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, over the config")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be scored, and the settings; then stop"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace tables of another input or layout")
    parser.add_argument("--quiet", action="store_true", help="log lines instead of a live progress line")
    return parser
