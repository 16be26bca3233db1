"""Score face images for masks.

    maskdet score --input photos/ --output tables/ [--model builtin] [--config configs/score.yaml]
                  [--set section.key=value …] [Beam options, such as --runner=FlinkRunner]

Reads images from folders, globs, list files or CSV/Parquet manifests, on any filesystem that Beam knows; writes
predictions, failures and compliance tables as Parquet, and a run manifest. A second run over the same output scores
only what is missing or changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from maskdet import console, summary
from maskdet.beam_options import parse_beam_options
from maskdet.config import ScoreSettings, load_yaml
from maskdet.dryrun import plan_shards
from maskdet.errors import recover_error
from maskdet.launch import Launch, check_run
from maskdet.progress import PROGRESS
from maskdet.runs import begin_run, claim_output, read_run, write_manifest
from maskdet.transforms import ScoreRun, ScoreShards, WriteCompliance


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
    claim_output(launch.plan.layout, launch.settings, overwrite=arguments.overwrite)
    begin_run(launch.plan)
    _run(launch, options, quiet=arguments.quiet)
    run = read_run(launch.plan.layout, launch.plan.manifest.run_id)
    print(summary.describe_run(run, launch.plan.layout))
    error = run.outcome()
    if error is not None:
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
        known = recover_error(error)
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        reason = str(known or f"{type(error).__name__}: {error}")[:2000]
        ended = launch.plan.manifest.model_copy(
            update={"status": status, "reason": reason, "finished_at": datetime.now(UTC)}
        )
        write_manifest(launch.plan.layout, ended)
        if known is not None:
            raise known from error
        raise


def _settings(arguments: argparse.Namespace) -> ScoreSettings:
    flags = {
        "input": arguments.input,
        "output": arguments.output,
        "model.uri": arguments.model,
        "model.backend": arguments.backend,
        "model.precision": arguments.precision,
        "source.template": arguments.template,
    }
    given = [f"{key}={value!r}" for key, value in flags.items() if value is not None]
    return load_yaml(ScoreSettings, arguments.config, [*given, *arguments.set])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maskdet score",
        description=__doc__,
        epilog=console.exit_code_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--input", nargs="+", help="folders, globs, list files (.txt) or manifests (.csv, .parquet)")
    parser.add_argument("--output", help="folder or prefix for the tables")
    parser.add_argument("--model", help="a model bundle, or 'builtin' (default)")
    parser.add_argument("--backend", choices=("litert", "tensorflow"), help="what runs the model (default: litert)")
    parser.add_argument(
        "--precision", choices=("int8", "float32"), help="default: int8 on litert, float32 on tensorflow"
    )
    parser.add_argument("--template", help="path template, such as {site}/{captured_at:%%Y-%%m-%%d}/*.jpg")
    parser.add_argument("--config", help="a YAML file of settings; see configs/score.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, over the config")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be scored, and the settings, then stop"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace tables of another input or layout")
    parser.add_argument("--quiet", action="store_true", help="log lines instead of a live progress line")
    return parser
