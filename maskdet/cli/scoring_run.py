"""The scoring run that `score` and `evaluate` share: its flags, its pipeline, and running it to its end."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from maskdet.beam import jobs, tuning
from maskdet.beam.options import RUNNER_CONFIG_HELP, parse_beam_options
from maskdet.beam.progress import PROGRESS
from maskdet.beam.transforms import JoinEarlier, ScoreRun, ScoreShards, WriteCompliance
from maskdet.cli import console, summary
from maskdet.errors import recover_error
from maskdet.scoring.setup import Launch
from maskdet.tables import lease
from maskdet.tables.layout import IMAGES
from maskdet.tables.runs import RunManifest, begin_run, claim_output, end_early, hold_output, read_run

# Flags that are settings: flag → where its value goes, and what it means.
_SETTING_FLAGS = {
    "--input": ("input", "folders, globs, list files (.txt) or manifests (.csv, .parquet)"),
    "--output": ("output", "folder or prefix for the tables"),
    "--model": ("model.uri", "a model bundle, or 'builtin' (default)"),
    "--backend": ("model.backend", "litert (default), tensorflow or onnx"),
    "--precision": ("model.precision", "int8 or float32 (default: int8 on litert, else float32)"),
    "--faces": ("faces.mode", "detect: find the faces; whole: each image is one face; auto (default): by the model"),
    "--template": ("source.template", "path template, such as {site}/{captured_at:%%Y-%%m-%%d}/*.jpg"),
}


def command_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags of every command that scores."""
    parser = argparse.ArgumentParser(
        prog=f"maskdet {command}",
        description=description,
        epilog=console.exit_code_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for flag, (key, text) in _SETTING_FLAGS.items():
        parser.add_argument(flag, dest=key, nargs="+" if flag == "--input" else None, help=text)
    parser.add_argument("--config", help=f"a YAML file of settings; see configs/{command}.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, over the config")
    parser.add_argument("--overwrite", action="store_true", help="replace tables of another input or layout")
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        nargs="?",
        const=math.inf,
        metavar="SECONDS",
        help="wait for another run that writes the output, for so long or until it ends; default: refuse to start",
    )
    parser.add_argument("--quiet", action="store_true", help="log lines instead of a live progress line")
    parser.add_argument("--json-logs", action="store_true", help="log lines as JSON, one more for each shard")
    parser.add_argument("--runner-config", help=RUNNER_CONFIG_HELP)
    return parser


def overrides(arguments: argparse.Namespace) -> list[str]:
    """The flags given, in the form of ``--set``, and what ``--set`` adds to them."""
    values = [(key, vars(arguments)[key]) for key, _ in _SETTING_FLAGS.values()]
    given = [f"{key}={json.dumps(value)}" for key, value in values if value is not None]  # JSON is YAML
    return [*given, *arguments.set]


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
        score=ScoreShards(
            launch.job,
            settings.model.uri,
            launch.spec,
            launch.options,
            launch.plan.manifest.run_id,
            settings.scoring.inference_threads,
        ),
        compliance=WriteCompliance(launch.plan.layout, levels, settings.compliance.confidence, rows),
        earlier=_earlier(launch),
    )


def _earlier(launch: Launch) -> JoinEarlier | None:
    if launch.base is None:
        return None
    shards = [(shard.slot, shard.sha256[IMAGES]) for shard in launch.base.shards]
    return JoinEarlier(launch.plan.layout, shards, launch.growth)


def beam_options(arguments: argparse.Namespace, rest: Sequence[str]) -> PipelineOptions:
    """Beam's options, in force for storage; and the kind of log lines asked for."""
    if arguments.json_logs:
        console.log_json()
    options = parse_beam_options(rest, arguments.runner_config)
    FileSystems.set_options(options)
    return options


def run_to_end(
    launch: Launch,
    options: PipelineOptions,
    *,
    overwrite: bool,
    quiet: bool,
    wait_s: float = 0.0,
    one_input: bool = False,
) -> RunManifest:
    """Claim the output, run the pipeline and read the manifest it left; what ends it early is in there too.

    Args:
        launch: the checked run.
        options: Beam's.
        overwrite: replace tables of another input or layout.
        quiet: log lines instead of a live progress line.
        wait_s: how long to wait for another run that writes the output, in seconds.
        one_input: refuse tables that hold images of other inputs.

    Raises:
        MaskdetError: the output cannot be claimed, or a worker met a caller's mistake.
        KeyboardInterrupt: the run was interrupted; says what is kept.
    """
    layout, run = launch.plan.layout, launch.plan.manifest
    jobs.check_reachable(options, [*(task.uri for task in launch.tasks), layout.root])
    jobs.name_job(options, run.run_id)
    holder = lease.Holder.here(run.run_id, run.started_at, ends_with_process=jobs.ends_with_client(options))
    hold_output(layout, holder, wait_s=wait_s)
    try:
        launch = launch.adding_to(*claim_output(launch.plan, overwrite=overwrite, one_input=one_input))
        begin_run(launch.plan)
    except BaseException:
        lease.release(layout, run.run_id)
        raise
    with lease.heartbeats(layout, run.run_id):
        _run_pipeline(launch, options, quiet=quiet)
    if not jobs.is_template_launch(options):
        lease.release(layout, run.run_id)  # with the last heartbeat, which may have come after the run's end
    return read_run(layout, run.run_id)


def _run_pipeline(launch: Launch, options: PipelineOptions, *, quiet: bool) -> None:
    """Run a begun run's pipeline to its end; what ends it early is left in the run's manifest."""
    layout, result = launch.plan.layout, None
    tuning.spend_less()
    try:
        with console.show_progress(PROGRESS, quiet=quiet):
            pipeline = beam.Pipeline(options=options)
            pipeline | "Score" >> build(launch)
            result = pipeline.run()
            jobs.wait_or_cancel(result, options)
    except BaseException as error:
        known = console.recover_interrupt(error) or recover_error(error) or error
        end_early(launch.plan, known, datetime.now(UTC))
        if isinstance(known, KeyboardInterrupt) or jobs.has_ended(result):
            lease.release(layout, launch.plan.manifest.run_id)
        if isinstance(known, KeyboardInterrupt):
            known = type(known)(summary.describe_kept(layout, launch.plan.manifest.run_id))
        raise known from error
