"""Packing and look-up in a pipeline give the same as the pure functions, however the input is batched."""

import random
from collections import Counter

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that

from maskdet.beam.transforms import LookUpImages, PackShards
from maskdet.inputs import sharding
from maskdet.inputs.columns import columns_of
from maskdet.inputs.references import ImageRef, RefBatch
from maskdet.inputs.sharding import KeyRule, Size
from maskdet.testing import solid_image

RULE = KeyRule(key_names=("site",), partition_by=("site",))


def refs_of(images, sites, seed=0):
    rng = random.Random(seed)
    return [
        ImageRef(f"/photos/{number:05d}.jpg", rng.randrange(1, 9000), "v1", keys=(f"site-{rng.randrange(sites)}",))
        for number in range(images)
    ]


def batched(refs, size, seed):
    shuffled = random.Random(seed).sample(refs, len(refs))
    return [RefBatch(tuple(shuffled[start : start + size])) for start in range(0, len(refs), size)]


def packed_apart(refs, limit):
    """Each partition packed on its own by the pure function."""
    partitions = {}
    for ref in refs:
        partitions.setdefault(ref.keys, []).append(ref)
    return {
        shard.slot: shard
        for part in partitions.values()
        for shard in sharding.cut_shards(columns_of(part), RULE, limit)
    }


@pytest.mark.parametrize("limit", [Size(1000, 10**9), Size(40, 10**9), Size(1000, 60_000), Size(1, 10**9)])
@pytest.mark.parametrize("batch_images", [7, 5000])
def test_a_pipeline_packs_as_the_pure_function_does(limit, batch_images):
    refs = refs_of(images=900, sites=3)
    expected = packed_apart(refs, limit)

    def same(shards):
        assert len(shards) == len(expected)
        assert {shard.slot: shard for shard in shards} == expected

    with beam.Pipeline("FnApiRunner") as pipeline:
        batches = pipeline | beam.Create(batched(refs, batch_images, seed=batch_images))
        assert_that(batches | PackShards(RULE, limit), same)


def test_images_that_meet_from_several_batches_are_kept_once_and_counted(tmp_path):
    paths = [tmp_path / f"{value}.png" for value in range(6)]
    for value, path in enumerate(paths):
        path.write_bytes(solid_image(value))
    refs = [ImageRef(str(path), -1, "", keys=("a",)) for path in paths]
    gone = ImageRef(str(tmp_path / "gone.png"), -1, "", keys=("a",))
    batches = [RefBatch((*refs, gone)), RefBatch(tuple(refs[:2])), RefBatch((refs[0],))]

    def once(found):
        by_uri = {ref.uri: ref for batch in found for ref in batch.refs}
        assert Counter(ref.uri for batch in found for ref in batch.refs) == Counter(ref.uri for ref in (*refs, gone))
        assert [by_uri[str(path)].size_bytes for path in paths] == [path.stat().st_size for path in paths]
        assert (by_uri[gone.uri].size_bytes, by_uri[gone.uri].version) == (-1, "")

    def three(counts):
        assert sum(count["duplicate"] for count in counts) == 3

    with beam.Pipeline("FnApiRunner") as pipeline:
        looked_up = pipeline | beam.Create(batches) | LookUpImages()
        assert_that(looked_up["batches"], once, label="batches")
        assert_that(looked_up["counts"], three, label="counts")
