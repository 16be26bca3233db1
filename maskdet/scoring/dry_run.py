"""What a run would do: listing and packing in this process, scoring nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from maskdet.inputs import listing, sharding, videos
from maskdet.inputs.references import RefBatch, Shard
from maskdet.scoring.setup import Launch
from maskdet.tables.layout import IMAGES
from maskdet.tables.reuse import read_refs


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
    refs, duplicates = sharding.drop_duplicates(ref for batch in batches for ref in batch.refs)
    refs, _ = videos.cut_videos(
        RefBatch(tuple(listing.add_versions(refs))), launch.settings.video, rule, launch.options.limits.isolated_s
    )
    if launch.base is not None:
        shards_before = [(shard.slot, shard.sha256[IMAGES]) for shard in launch.base.shards]
        refs, _ = launch.growth.resolve(itertools.chain(refs, read_refs(launch.plan.layout, shards_before)))
    partitions = sharding.by_folder(refs, rule)
    shards = [shard for folder in sorted(partitions) for shard in sharding.pack(partitions[folder], rule, launch.limit)]
    finished = sum(launch.job.is_finished(shard) for shard in shards)
    skipped = listing.merge_counts([*(dict(batch.skipped) for batch in batches), {listing.DUPLICATE: duplicates}])
    return (
        shards,
        finished,
        sum(batch.listed for batch in batches),
        {name: count for name, count in skipped.items() if count},
    )
