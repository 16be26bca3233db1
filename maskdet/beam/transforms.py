"""The PTransforms of a scoring run: thin dataclasses that map the library's functions over Beam's collections.

Elements are few and large: batches of references, shards, reports. They are annotated as ``Any``, because Beam would
look for a row schema in their named tuples, which are simply pickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import AsDict, AsIter, AsList, PCollection, TaggedOutput
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.shared import Shared

from maskdet import storage
from maskdet.beam.compliance import WriteCompliance
from maskdet.beam.packing import KeyByUri, PackShards
from maskdet.beam.progress import PROGRESS
from maskdet.beam.telemetry import ShardTelemetry
from maskdet.beam.tracks import TrackVideos
from maskdet.beam.videos import BATCHES, COUNTS, CutVideos
from maskdet.config import SourceSettings
from maskdet.cores import available_cores
from maskdet.errors import MaskdetError
from maskdet.inputs import columns, listing, sharding, videos
from maskdet.inputs.earlier import Growth
from maskdet.inputs.listing import ListTask
from maskdet.inputs.pseudonyms import Pseudonyms, without_names
from maskdet.inputs.references import RefBatch, Shard
from maskdet.inputs.sharding import URI_GROUPS, KeyRule, Size
from maskdet.memory import GivingBack
from maskdet.model.backends import RuntimeSpec, load_model
from maskdet.scoring.scorer import ScoreOptions, Scorer, load_viewer
from maskdet.sections import VideoSettings
from maskdet.tables.layout import Layout
from maskdet.tables.lease import heartbeats
from maskdet.tables.receipts import ShardJob, ShardReport
from maskdet.tables.reuse import read_columns
from maskdet.tables.runs import LISTED, LevelTotal, RunPlan, RunRecord, finish_run
from maskdet.tables.status import PlannedShard, write_plan
from maskdet.tables.tracks import TrackFiles, TracksTotal

_COUNTS = "counts"
_SHARDS_IN_HAND = 2
_SHARDS_READ = 16
# Images per group when listed images are joined with earlier ones. With many partitions each group is later cut into
# as many small batches, which cost more than the images in them, so groups are few and large.
_GROUP_IMAGES = 25_000


@dataclass
class ListImages(beam.PTransform):  # type: ignore[misc]
    """``None`` root → :class:`RefBatch`: every image of the input; workers share the listing."""

    tasks: Sequence[ListTask]
    source: SourceSettings
    output: str = ""
    """The run's output, in which no image may lie."""
    videos: frozenset[str] = frozenset()
    """Extensions of videos."""
    pseudonyms: Pseudonyms | None = None
    """Replaces the images' names, if they are to be hidden."""

    def expand(self, root: Any) -> PCollection[Any]:
        """Apply the transform."""
        return (
            root
            | "CreateTasks" >> beam.Create(list(self.tasks))
            | "SplitTasks" >> beam.FlatMap(_split_task, self.pseudonyms is not None).with_output_types(Any)
            | "SpreadTasks" >> beam.Reshuffle()
            | "ListTasks"
            >> beam.FlatMap(_list_task, self.source, self.output, self.videos, self.pseudonyms).with_output_types(Any)
        )


@dataclass
class LookUpImages(beam.PTransform):  # type: ignore[misc]
    """:class:`RefBatch` → (:class:`RefBatch` with sizes and versions, counts of duplicates dropped)."""

    def expand(self, batches: PCollection[Any]) -> Any:
        """Apply the transform."""
        return (
            batches
            | "KeyByUri" >> beam.ParDo(KeyByUri()).with_output_types(tuple[int, Any])
            | "GroupByUri" >> beam.GroupByKey()
            | "LookUpGroups" >> beam.FlatMap(_look_up).with_outputs(_COUNTS, main="batches")
        )


@dataclass
class JoinEarlier(beam.PTransform):  # type: ignore[misc]
    """:class:`RefBatch` → (:class:`RefBatch` with images of earlier runs, counts of changes).

    Attributes:
        layout: the output.
        shards: slot of each shard of earlier runs, and SHA-256 of its images table.
        growth: how the run adds to them.
        images: approximate number of images.
    """

    layout: Layout
    shards: Sequence[tuple[str, str]]
    growth: Growth
    images: int

    def expand(self, batches: PCollection[Any]) -> Any:
        """Apply the transform."""
        earlier = (
            batches.pipeline
            | "CreateShards" >> beam.Create(_pieces(self.shards))
            | "SpreadShards" >> beam.Reshuffle()
            | "ReadImages" >> beam.Map(_read_earlier, self.layout).with_output_types(Any)
        )
        return (
            (batches, earlier)
            | "FlattenBatches" >> beam.Flatten()
            | "KeyByUri" >> beam.ParDo(KeyByUri(self._groups)).with_output_types(tuple[int, Any])
            | "GroupByUri" >> beam.GroupByKey()
            | "JoinGroups" >> beam.FlatMap(_join_earlier, self.growth).with_outputs(_COUNTS, main="batches")
        )

    @property
    def _groups(self) -> int:
        return max(1, min(URI_GROUPS, self.images // _GROUP_IMAGES))


@dataclass
class PlanShards(beam.PTransform):  # type: ignore[misc]
    """:class:`Shard` → the same :class:`Shard`, spread over workers once a list of them all is in the output.

    So ``maskdet status`` knows how many there are before the first is scored.
    """

    plan: RunPlan

    def expand(self, shards: PCollection[Any]) -> PCollection[Any]:
        """Apply the transform."""
        planned = shards | "DescribeShards" >> beam.Map(PlannedShard.of).with_output_types(Any)
        written = (
            shards.pipeline
            | "CreateOne" >> beam.Create([None])
            | "WritePlan" >> beam.Map(_write_plan, self.plan, AsList(planned)).with_output_types(Any)
        )
        return (
            shards
            | "SpreadShards" >> beam.Reshuffle()
            | "AwaitPlan" >> beam.Map(lambda shard, _: shard, AsIter(written)).with_output_types(Any)
        )


@dataclass
class ScoreShards(beam.PTransform):  # type: ignore[misc]
    """:class:`Shard` → :class:`ShardReport`: tables and receipt of each shard written, or kept from an earlier run."""

    job: ShardJob
    model_uri: str
    spec: RuntimeSpec
    options: ScoreOptions
    run_id: str = ""
    """Names the run in the workers' logs."""
    inference_threads: int | None = None
    """Default: one per core of the worker, which the submitting machine cannot know."""

    def load(self) -> Scorer:
        """Load model and detector; each worker does so once."""
        spec = dataclasses.replace(self.spec, threads=self.inference_threads or available_cores())
        model, options = load_model(self.model_uri, spec), self.options
        return Scorer(model, options, load_viewer(model, options, spec.threads))

    def expand(self, shards: PCollection[Any]) -> PCollection[Any]:
        """Apply the transform."""
        return shards | "ScoreShard" >> beam.ParDo(_ScoreShard(self)).with_output_types(Any)


@dataclass
class FinishRun(beam.PTransform):  # type: ignore[misc]
    """``None`` root → :class:`RunRecord`, once listing, shards and compliance tables are complete.

    A step of the pipeline rather than of the client, so that a run ends properly even if its client is gone.
    """

    plan: RunPlan
    counts: PCollection[Any]
    changes: PCollection[Any]
    reports: PCollection[Any]
    levels: PCollection[Any]
    tracks: Mapping[str, PCollection[Any]] | None = None
    """``files``: files of tracks; ``rates``: files of their rates."""

    def expand(self, root: Any) -> PCollection[Any]:
        """Apply the transform."""
        bare = self.reports | "DropGroups" >> beam.Map(_without_groups).with_output_types(Any)
        tracks = {name: AsDict(files) for name, files in (self.tracks or {}).items()}
        return (
            root
            | "CreateOne" >> beam.Create([None])
            | "FinishRun"
            >> beam.Map(
                _finish,
                self.plan,
                AsIter(self.counts),
                AsIter(self.changes),
                AsList(bare),
                AsDict(self.levels),
                **tracks,
            ).with_output_types(Any)
        )


@dataclass
class ScoreRun(beam.PTransform):  # type: ignore[misc]
    """``None`` root → the final :class:`RunRecord`: a whole run.

    Attributes:
        plan: from the run's start.
        tasks: the listing to do.
        source: how paths and image lists are read.
        rule: the run's keys.
        limit: largest size of a shard.
        score: the scoring transform.
        compliance: the compliance transform.
        earlier: joins images of earlier runs, if the output holds any.
        videos: which files are videos, and how they are cut; ``None``: no file is a video.
        tracks: makes tracks from the rows of videos; ``None``: there are none.
        pseudonyms: replaces names of images, if they are to be hidden.
    """

    plan: RunPlan
    tasks: Sequence[ListTask]
    source: SourceSettings
    rule: KeyRule
    limit: Size
    score: ScoreShards
    compliance: WriteCompliance
    earlier: JoinEarlier | None = None
    videos: VideoSettings | None = None
    tracks: TrackVideos | None = None
    pseudonyms: Pseudonyms | None = None

    def expand(self, root: Any) -> PCollection[Any]:
        """Apply the transform."""
        extensions = videos.video_extensions(self.videos, self.source.extensions)
        batches = root | "ListImages" >> ListImages(
            self.tasks, self.source, self.plan.layout.root, extensions, self.pseudonyms
        )
        counts = [batches | "CountListed" >> beam.Map(_count_listed).with_output_types(Any)]
        if listing.may_repeat(self.tasks):
            looked_up = batches | "LookUpImages" >> LookUpImages()
            batches = looked_up["batches"]
            counts.append(looked_up[_COUNTS])
        if self.videos is not None and extensions:
            cut = batches | "CutVideos" >> CutVideos(self.videos, self.rule, self.score.options.limits.isolated_s)
            batches = cut[BATCHES]
            counts.append(cut[COUNTS])
        changes = root | "NoChanges" >> beam.Create([])
        if self.earlier is not None:
            joined = batches | "JoinEarlier" >> self.earlier
            batches = joined["batches"]
            changes = joined[_COUNTS] | "MergeChanges" >> beam.CombineGlobally(listing.merge_counts)
        shards = batches | "PackShards" >> PackShards(self.rule, self.limit) | "PlanShards" >> PlanShards(self.plan)
        reports = shards | "ScoreShards" >> self.score
        levels = reports | "WriteCompliance" >> self.compliance
        merged = (
            counts | "FlattenCounts" >> beam.Flatten() | "MergeCounts" >> beam.CombineGlobally(listing.merge_counts)
        )
        tracks = None if self.tracks is None else reports | "TrackVideos" >> self.tracks
        return root | "FinishRun" >> FinishRun(self.plan, merged, changes, reports, levels, tracks)


class _ScoreShard(beam.DoFn):  # type: ignore[misc]
    """Keeps or scores shards. Each process loads the model once, for the first shard that needs it.

    Two shards of a Beam bundle are processed at once and share the scorer's threads: while one is written, the other is
    scored.
    """

    def __init__(self, transform: ScoreShards) -> None:
        self._transform = transform
        self._shared = Shared()
        self._scorer: Scorer | None = None
        self._telemetry = ShardTelemetry(transform.run_id)

    def setup(self) -> None:
        """Start the threads that process shards."""
        self._pool = ThreadPoolExecutor(_SHARDS_IN_HAND, thread_name_prefix="shard")
        self._give_back = GivingBack()
        # The client may be gone while a cluster works on.
        self._signs_of_life = contextlib.ExitStack()
        step = self._transform
        if step.run_id:
            self._signs_of_life.enter_context(heartbeats(step.job.layout, step.run_id))

    def start_bundle(self) -> None:
        """Begin with no shard in hand, however the previous bundle ended."""
        self._in_hand: deque[Future[tuple[ShardReport, float]]] = deque()

    def process(self, shard: Shard) -> Iterator[ShardReport]:
        """One shard → one report, which may come with a later shard or at the end of the bundle."""
        self._in_hand.append(self._pool.submit(self._finish, shard))
        if len(self._in_hand) == _SHARDS_IN_HAND:
            yield self._next_report()

    def finish_bundle(self) -> Iterator[Any]:
        """Reports of the shards still in hand."""
        while self._in_hand:
            yield GlobalWindows.windowed_value(self._next_report())

    def teardown(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False)
        self._signs_of_life.close()

    def _finish(self, shard: Shard) -> tuple[ShardReport, float]:
        """A shard's report, and how long it took, in seconds."""
        started = time.perf_counter()
        report = self._transform.job.finish(shard, lambda todo: self._load().score_shard(todo, self._went_on))
        return report, time.perf_counter() - started

    def _went_on(self, images: int) -> None:
        """Count a finished part of a shard, and give the memory of its images back."""
        PROGRESS.add_done(images)
        self._give_back()

    def _next_report(self) -> ShardReport:
        report, seconds = self._in_hand.popleft().result()
        listed = report.receipt.images - report.carried.images
        PROGRESS.add_done(listed - report.images_read, kept=True)
        PROGRESS.add_failed(sum(report.receipt.failed.values()) - sum(report.carried.failed.values()))
        self._telemetry.record(report, seconds)  # here, because Beam's metrics work only in the bundle's own thread
        return report

    def _load(self) -> Scorer:
        if self._scorer is None:
            step = self._transform
            self._scorer = self._shared.acquire(step.load, tag=(step.model_uri, step.job.fingerprint))
        return self._scorer


def _split_task(task: ListTask, are_hidden: bool) -> list[ListTask]:
    if are_hidden:
        storage.withhold_names()
    return listing.split_task(task)


def _list_task(
    task: ListTask, source: SourceSettings, output: str, videos: frozenset[str], pseudonyms: Pseudonyms | None
) -> Iterator[RefBatch]:
    for batch in _listed(task, source, output, videos, pseudonyms):
        PROGRESS.add_listed(batch.images)
        yield batch


def _listed(
    task: ListTask, source: SourceSettings, output: str, videos: frozenset[str], pseudonyms: Pseudonyms | None
) -> Iterator[RefBatch]:
    try:
        for batch in listing.list_images(task, source, videos):
            listing.refuse_images_in(output, batch)
            yield batch if pseudonyms is None else pseudonyms.hide(batch)
    except MaskdetError as error:
        if pseudonyms is None:
            raise
        raise without_names(error) from None


def _count_listed(batch: RefBatch) -> dict[str, int]:
    return {LISTED: batch.listed, **batch.skipped}


def _look_up(group: tuple[int, Iterable[RefBatch]]) -> Iterator[Any]:
    found, duplicates = sharding.drop_repeated(columns.joined(part.columns for part in group[1]))
    if duplicates:
        yield TaggedOutput(_COUNTS, {listing.DUPLICATE: duplicates})
    yield from _batches(listing.with_versions(found))


def _batches(found: pa.RecordBatch) -> Iterator[RefBatch]:
    for start in range(0, found.num_rows, _GROUP_IMAGES):
        yield RefBatch.of_columns(found.slice(start, _GROUP_IMAGES))


def _pieces(shards: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], ...]]:
    """Shards in groups that are read together: few elements for the runner, yet enough to share among workers."""
    return [tuple(shards[start : start + _SHARDS_READ]) for start in range(0, len(shards), _SHARDS_READ)]


def _read_earlier(shards: Sequence[tuple[str, str]], layout: Layout) -> RefBatch:
    # Images of several small shards in one batch, because each batch is cut into as many parts as there are groups.
    return RefBatch.of_columns(columns.joined(read_columns(layout, shards)))


def _join_earlier(group: tuple[int, Iterable[RefBatch]], growth: Growth) -> Iterator[Any]:
    found, changes = growth.resolve(columns.joined(part.columns for part in group[1]))
    yield TaggedOutput(_COUNTS, dict(changes))
    yield from _batches(found)


def _write_plan(_: None, plan: RunPlan, shards: Sequence[PlannedShard]) -> None:
    write_plan(plan.layout, plan.record.run_id, shards)


def _without_groups(report: ShardReport) -> ShardReport:
    return dataclasses.replace(report, groups={})


def _finish(
    _: None,
    plan: RunPlan,
    counts: Iterable[dict[str, int]],
    changes: Iterable[dict[str, int]],
    reports: Sequence[ShardReport],
    levels: Mapping[str, LevelTotal],
    files: Mapping[str, str] | None = None,
    rates: Mapping[str, TracksTotal] | None = None,
) -> RunRecord:
    with heartbeats(plan.layout, plan.record.run_id):
        listed, changed = listing.merge_counts(counts), listing.merge_counts(changes)
        tracks = TrackFiles(files or {}, rates or {})
        return finish_run(plan, listed, changed, reports, levels, datetime.now(UTC), tracks)
