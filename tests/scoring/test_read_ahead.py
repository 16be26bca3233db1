"""Images in a store are read by many threads at a time, as far ahead as the options allow."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskdet.errors import NotFoundError
from maskdet.inputs.columns import columns_of
from maskdet.inputs.references import ImageRef
from maskdet.inputs.sharding import KeyRule, Size, cut_shards
from maskdet.model.backends import Model
from maskdet.scoring.scorer import ScoreOptions, Scorer
from maskdet.testing import HeldBackend, brightness_model, solid_image

RULE = KeyRule(key_names=(), partition_by=())
WHOLE = solid_image(200, 24)
REFS = tuple(ImageRef(f"gs://bucket/{i:03d}", 100, "1") for i in range(200))
[SHARD] = cut_shards(columns_of(REFS), RULE, Size(10**9, 10**15))


def scorer(model, read, **options):
    return Scorer(model, ScoreOptions(RULE, **options), read=read)


def score(read, **options):
    return scorer(brightness_model(block_images=4), read, **options).score_shard(SHARD)


def test_as_many_reads_are_under_way_as_there_are_readers():
    together = threading.Barrier(24)  # breaks unless 24 reads meet

    def read(uri):
        if int(uri[-3:]) < 192:
            together.wait(20)
        return WHOLE

    assert score(read, threads=1, fetch_threads=24).predictions.num_rows == 200


def test_no_more_is_read_ahead_than_stated():
    held, reads = HeldBackend(), Counter()

    def read(uri):
        reads[uri] += 1
        return WHOLE

    model = Model(brightness_model().manifest, held, 4)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(scorer(model, read, threads=2, fetch_threads=6).score_shard, SHARD)
        time.sleep(0.3)
        assert len(reads) == 12  # READ_AHEAD * 6 readers, in blocks of 4
        held.go.set()
        assert done.result().predictions.num_rows == 200


def test_the_first_error_of_the_program_ends_the_shard_and_drops_the_rest():
    reads = Counter()

    def read(uri):
        reads[uri] += 1
        if uri.endswith("005"):
            raise AssertionError("a defect")
        return WHOLE

    with pytest.raises(AssertionError, match="a defect"):
        score(read, threads=1, fetch_threads=2)
    assert len(reads) < 20


@pytest.mark.parametrize("fetch_threads", [1, 7, 64])
def test_rows_are_those_of_local_files(fetch_threads):
    values = {ref.uri: int(ref.uri[-3:]) for ref in REFS}

    def read(uri):
        time.sleep(0.0001 * (values[uri] % 5))
        if values[uri] % 50 == 7:
            raise NotFoundError("gone")
        return solid_image(values[uri])

    predictions = score(read, threads=3, fetch_threads=fetch_threads).predictions
    rows = {row["image_uri"]: row for row in predictions.to_pylist()}
    assert set(rows) == {uri for uri, value in values.items() if value % 50 != 7}
    for uri, row in rows.items():
        assert row["probability_mask"] == pytest.approx(values[uri] / 255, abs=1e-6)
        assert row["content_sha256"] == hashlib.sha256(solid_image(values[uri])).hexdigest()
