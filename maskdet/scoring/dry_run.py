"""What a run would do: listing and packing in this process, scoring nothing."""

from __future__ import annotations

from collections.abc import Mapping

from maskdet.inputs import columns, listing, sharding, videos
from maskdet.inputs.references import RefBatch, Shard
from maskdet.scoring.setup import Launch
from maskdet.tables.layout import IMAGES
from maskdet.tables.reuse import read_columns


def plan_shards(launch: Launch) -> tuple[list[Shard], int, int, Mapping[str, int]]:
    """List and pack a run's input.

    Returns:
        The shards, how many of them are finished already, files listed, and files skipped by reason.

    Raises:
        SourceError: as :func:`maskdet.inputs.listing.list_images`.
        StorageError: the input or output cannot be read.
    """
    source, rule = launch.settings.source, launch.options.rule
    extensions = videos.video_extensions(launch.settings.video, source.extensions)
    batches = [batch for task in launch.tasks for batch in listing.list_images(task, source, extensions)]
    if launch.pseudonyms is not None:
        batches = [launch.pseudonyms.hide(batch) for batch in batches]
    found, duplicates = sharding.drop_repeated(columns.joined(batch.columns for batch in batches))
    looked_up = RefBatch.of_columns(listing.with_versions(found))
    refs, _ = videos.cut_videos(looked_up, launch.settings.video, rule, launch.options.limits.isolated_s)
    found = columns.columns_of(refs)
    if launch.base is not None:
        shards_before = [(shard.slot, shard.sha256[IMAGES]) for shard in launch.base.shards]
        before = read_columns(launch.plan.layout, shards_before)
        found, _ = launch.growth.resolve(columns.joined([found, *before]))
    partitions = {rule.folder(partition): rows for partition, rows in sharding.by_partition(found, rule)}
    shards = [
        shard for folder in sorted(partitions) for shard in sharding.cut_shards(partitions[folder], rule, launch.limit)
    ]
    finished = sum(launch.job.is_finished(shard) for shard in shards)
    skipped = listing.merge_counts([*(dict(batch.skipped) for batch in batches), {listing.DUPLICATE: duplicates}])
    return (
        shards,
        finished,
        sum(batch.listed for batch in batches),
        {name: count for name, count in skipped.items() if count},
    )
