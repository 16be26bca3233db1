"""A checked run as a Beam pipeline, from claiming its output to the record that it leaves."""

from __future__ import annotations

import contextlib
import dataclasses
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from maskdet.beam import jobs, tuning
from maskdet.beam.compliance import WriteCompliance
from maskdet.beam.tracks import TrackVideos
from maskdet.beam.transforms import JoinEarlier, ScoreRun, ScoreShards
from maskdet.errors import recover_error
from maskdet.inputs.spool import spooling
from maskdet.scoring.setup import Launch
from maskdet.tables import lease
from maskdet.tables.corrections import read_corrections
from maskdet.tables.layout import IMAGES
from maskdet.tables.levels import LevelWriter
from maskdet.tables.runs import (
    RunRecord,
    begin_run,
    claim_output,
    end_early,
    hold_output,
    noting_early_end,
    read_run,
)


def build(launch: Launch) -> ScoreRun:
    """The pipeline of a checked run."""
    settings = launch.settings
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
            launch.plan.record.run_id,
            settings.scoring.inference_threads,
        ),
        compliance=WriteCompliance(
            LevelWriter(
                launch.plan.layout,
                settings.compliance.all_levels,
                launch.rates,
                settings.tables.row_group_rows,
                settings.compliance.time_zone,
                settings.privacy,
            )
        ),
        earlier=_earlier(launch),
        videos=settings.video,
        tracks=_tracks(launch),
        pseudonyms=launch.pseudonyms,
    )


def _earlier(launch: Launch) -> JoinEarlier | None:
    if launch.base is None:
        return None
    shards = [(shard.slot, shard.sha256[IMAGES]) for shard in launch.base.shards]
    return JoinEarlier(launch.plan.layout, shards, launch.growth, sum(shard.images for shard in launch.base.shards))


def _tracks(launch: Launch) -> TrackVideos | None:
    """What makes tracks, where there may be videos in the input or in the output."""
    earlier = launch.base is not None and any(shard.segments is not None for shard in launch.base.shards)
    return TrackVideos(launch.tracks) if launch.settings.video.mode == "score" or earlier else None


def run_to_end(
    launch: Launch,
    options: PipelineOptions,
    *,
    overwrite: bool = False,
    wait_s: float = 0.0,
    shown: AbstractContextManager[None] | None = None,
    one_input: bool = False,
) -> RunRecord:
    """Claim the output, run the pipeline and read the record that it left, which also says what ended it early.

    Args:
        launch: the checked run.
        options: Beam's.
        overwrite: replace tables of another input or layout.
        wait_s: how long to wait for another run that writes the output, in seconds.
        shown: shows the progress while the pipeline runs.
        one_input: refuse tables that hold images of other inputs.

    Returns:
        The run's record, whose :meth:`~maskdet.tables.run_records.RunRecord.outcome` says whether it succeeded. The
        record of a job that was only written to a file, as for a Flex Template, says that it is running.

    Raises:
        MaskdetError: the output cannot be claimed, or a worker met a caller's mistake.
        KeyboardInterrupt: the run was interrupted, with the output and the run's id as ``args``.
    """
    layout, run = launch.plan.layout, launch.plan.record
    jobs.check_reachable(options, [*(task.uri for task in launch.tasks), layout.root])
    jobs.name_job(options, run.run_id)
    run = run.model_copy(update={"runner": jobs.describe_runner(options)})
    launch = dataclasses.replace(launch, plan=dataclasses.replace(launch.plan, record=run))
    holder = lease.Holder.here(run.run_id, run.started_at, ends_with_process=jobs.ends_with_client(options))
    hold_output(layout, holder, wait_s=wait_s)
    try:
        claimed = claim_output(launch.plan, overwrite=overwrite, one_input=one_input)
        launch = launch.adding_to(*claimed, read_corrections(layout))
    except BaseException:
        lease.release(layout, run.run_id)
        raise
    with noting_early_end(launch.plan, datetime.now(UTC)):
        begin_run(launch.plan)
    with lease.heartbeats(layout, run.run_id):
        _run_pipeline(launch, options, shown or contextlib.nullcontext())
    if not jobs.is_template_launch(options):
        lease.release(layout, run.run_id)  # with the last heartbeat, which may have come after the run's end
    return read_run(layout, run.run_id)


def _run_pipeline(launch: Launch, options: PipelineOptions, shown: AbstractContextManager[None]) -> None:
    """Run the pipeline of a run that has begun to its end; the run's record says what ended it early."""
    layout, run_id, result = launch.plan.layout, launch.plan.record.run_id, None
    tuning.spend_less()
    try:
        with shown, spooling() if jobs.is_one_process(options) else contextlib.nullcontext():
            pipeline = beam.Pipeline(options=options)
            pipeline | "Score" >> build(launch)
            result = pipeline.run()
            jobs.wait_or_cancel(result, options)
    except BaseException as error:
        interrupt = jobs.recover_interrupt(error)
        known = interrupt or recover_error(error) or error
        if interrupt is not None and result is None:
            jobs.cancel(None, options)  # while it was being submitted
        ended = interrupt is not None or jobs.has_ended(result)
        end_early(launch.plan, known, datetime.now(UTC), releases=ended)
        if interrupt is not None:
            known = type(interrupt)(layout.root, run_id)
        raise known from error
