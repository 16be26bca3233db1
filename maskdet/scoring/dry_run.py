"""What a run would do: listing, joining and packing in this process, scoring nothing."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from maskdet.inputs import columns, listing, sharding, videos
from maskdet.inputs.references import ImageRef, RefBatch, Shard
from maskdet.scoring.setup import Launch
from maskdet.tables.layout import IMAGES
from maskdet.tables.reconciliation import judge_removals
from maskdet.tables.reuse import read_columns


@dataclass(frozen=True)
class DryRun:
    """What a run would do.

    Attributes:
        shards: all of the data set, with the images of earlier runs that stay in it.
        finished: how many of them are finished already.
        new: images and segments of videos that the run would score, and those that cannot be read, for which it would
            write new failure rows.
        listed: images that its input lists, including files that are skipped.
        videos: videos that its input lists.
        skipped: files that are skipped, by reason.
        changes: images and videos by how they changed, as in the run's record; empty where there are no tables yet.
        refusal: why the run would leave the tables as they are; empty if it would not.
    """

    shards: tuple[Shard, ...]
    finished: int
    new: tuple[ImageRef, ...]
    listed: int
    videos: int
    skipped: Mapping[str, int]
    changes: Mapping[str, int]
    refusal: str = ""

    @functools.cached_property
    def to_score(self) -> tuple[ImageRef, ...]:
        """Images and segments that it would score."""
        return tuple(ref for ref in self.new if ref.problem is None)

    @functools.cached_property
    def unreadable(self) -> tuple[ImageRef, ...]:
        """Images and videos that it lists, but that cannot be read, now or in earlier runs."""
        return tuple(ref for shard in self.shards for ref in shard.refs if ref.problem is not None and not ref.gone)

    @functools.cached_property
    def kept(self) -> int:
        """Images that it lists and that need not be read, since earlier runs left their rows."""
        read = sum(ref.segment is None for ref in (*self.to_score, *self.unreadable))
        return self.listed - sum(self.skipped.values()) - read


def plan_run(launch: Launch) -> DryRun:
    """List and pack a run's input as the run would, and look up what earlier runs left of it.

    Raises:
        ConfigError: an image lies in the output.
        SourceError: as :func:`maskdet.inputs.listing.list_images`.
        OutputError: rows of earlier runs are missing that the run would need.
        StorageError: the input or output cannot be read.
    """
    rule = launch.options.rule
    batches = _listed(launch)
    found, duplicates = sharding.drop_repeated(columns.joined(batch.columns for batch in batches))
    looked_up = RefBatch.of_columns(listing.with_versions(found))
    refs, cut = videos.cut_videos(looked_up, launch.settings.video, rule, launch.options.limits.isolated_s)
    found = columns.columns_of(refs)
    changes: Mapping[str, int] = {}
    if launch.base is not None:
        shards_before = [(shard.slot, shard.sha256[IMAGES]) for shard in launch.base.shards]
        before = read_columns(launch.plan.layout, shards_before)
        found, joined = launch.growth.resolve(columns.joined([found, *before]))
        changes = {name: count for name, count in joined.items() if count and name != videos.SEGMENTS}
    shards = _packed(found, launch)
    unfinished = [shard for shard in shards if not launch.job.is_finished(shard)]
    skipped = listing.merge_counts([*(dict(batch.skipped) for batch in batches), {listing.DUPLICATE: duplicates}])
    refused = judge_removals(launch.plan.max_gone_ratio, changes)
    return DryRun(
        shards=tuple(shards),
        finished=len(shards) - len(unfinished),
        new=tuple(ref for shard in unfinished for ref in _new_in(shard, launch)),
        listed=sum(batch.listed for batch in batches) - cut.get(videos.VIDEOS, 0),
        videos=cut.get(videos.VIDEOS, 0),
        skipped={name: count for name, count in skipped.items() if count},
        changes=changes,
        refusal=refused[1] if refused else "",
    )


def _listed(launch: Launch) -> list[RefBatch]:
    source = launch.settings.source
    extensions = videos.video_extensions(launch.settings.video, source.extensions)
    batches = [batch for task in launch.tasks for batch in listing.list_images(task, source, extensions)]
    for batch in batches:
        listing.refuse_images_in(launch.plan.layout.root, batch)
    return batches if launch.pseudonyms is None else [launch.pseudonyms.hide(batch) for batch in batches]


def _packed(found: pa.RecordBatch, launch: Launch) -> list[Shard]:
    rule = launch.options.rule
    partitions = {rule.folder(partition): rows for partition, rows in sharding.by_partition(found, rule)}
    return [
        shard for folder in sorted(partitions) for shard in sharding.cut_shards(partitions[folder], rule, launch.limit)
    ]


def _new_in(shard: Shard, launch: Launch) -> list[ImageRef]:
    known = launch.job.known_of(shard).endings
    return [ref for ref in shard.refs if ref.name not in known]
