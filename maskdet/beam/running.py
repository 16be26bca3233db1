"""A checked run as a Beam pipeline, from claiming its output to the record that it leaves."""

from __future__ import annotations

import contextlib
import functools
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from maskdet import storage
from maskdet.beam import jobs, tuning
from maskdet.beam.transforms import ScoreRun, ScoreShards, WriteCompliance
from maskdet.errors import RunInterrupted, recover_error
from maskdet.scoring.setup import Launch
from maskdet.tables.runs import RunManifest, begin_run, claim_output, end_early, read_run


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
    )


def run_to_end(
    launch: Launch,
    options: PipelineOptions,
    *,
    overwrite: bool = False,
    shown: AbstractContextManager[None] | None = None,
) -> RunManifest:
    """Claim the output, run the pipeline and read the record it left; what ends it early is in there too.

    Args:
        launch: the checked run.
        options: Beam's.
        overwrite: replace tables of another input or layout.
        shown: shows the progress while the pipeline runs.

    Returns:
        The run's record. A run that did not succeed is told by its :meth:`~maskdet.tables.runs.RunManifest.outcome`;
        one that a template launch only wrote down is still ``running``.

    Raises:
        MaskdetError: the output cannot be claimed, or a worker met a caller's mistake.
        RunInterrupted: Ctrl-C.
    """
    layout, run_id = launch.plan.layout, launch.plan.manifest.run_id
    jobs.check_reachable(options, [*(task.uri for task in launch.tasks), layout.root])
    jobs.name_job(options, run_id)
    claim = functools.partial(claim_output, layout, launch.settings, overwrite=overwrite)
    storage.within_deadline(claim, layout.root)
    begin_run(launch.plan)
    tuning.spend_less()
    try:
        with shown or contextlib.nullcontext():
            pipeline = beam.Pipeline(options=options)
            pipeline | "Score" >> build(launch)
            jobs.wait_or_cancel(pipeline.run(), options)
    except BaseException as error:
        interrupted = RunInterrupted(layout.root, run_id) if jobs.is_interrupt(error) else None
        known = interrupted or recover_error(error) or error
        end_early(launch.plan, known, datetime.now(UTC))
        raise known from error
    return read_run(layout, run_id)
