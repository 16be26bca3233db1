"""References reach a shard in few, large batches, however small the batches were in which they were listed."""

from __future__ import annotations

import hashlib

import pytest

from maskdet.beam import packing
from maskdet.beam.packing import KeyByUri
from maskdet.inputs import spool
from maskdet.inputs.references import ImageRef, RefBatch
from maskdet.inputs.spool import Spooled

URIS = [f"/in/{number}.jpg" for number in range(3000)]


def collected(batch_images):
    """What one bundle gives: (key, URIs) of each batch."""
    step = KeyByUri()
    step.start_bundle()
    refs = [ImageRef(uri, 1, "v") for uri in URIS]
    batches = [RefBatch(tuple(refs[start : start + batch_images])) for start in range(0, len(refs), batch_images)]
    found = [one for batch in batches for one in step.process(batch)]
    found += [one.value for one in step.finish_bundle()]
    return [(key, [ref.uri for ref in batch.refs]) for key, batch in found]


@pytest.mark.parametrize("batch_images", [1, 7, 5000])
def test_references_meet_by_the_first_byte_of_their_hash_in_one_batch_each(batch_images):
    found = collected(batch_images)
    assert sorted(uri for _, uris in found for uri in uris) == sorted(URIS)
    assert len(found) == len(dict(found)) <= 256
    for key, uris in found:
        assert {hashlib.sha256(uri.encode()).digest()[0] for uri in uris} == {key}


def test_fewer_groups_are_of_neighbours():
    step = KeyByUri(3)
    step.start_bundle()
    list(step.process(RefBatch(tuple(ImageRef(uri, 1, "v") for uri in URIS))))
    for key, refs in ((one.value[0], one.value[1].refs) for one in step.finish_bundle()):
        first = [hashlib.sha256(ref.uri.encode()).digest()[0] for ref in refs]
        assert {byte * 3 // 256 for byte in first} == {key}


def test_no_more_are_held_than_may_be(monkeypatch):
    monkeypatch.setattr(packing, "_COLLECTED_IMAGES", 1000)
    found = collected(100)
    assert sorted(uri for _, uris in found for uri in uris) == sorted(URIS)
    assert len(found) > 2 * len({key for key, _ in found})  # handed out three times


def test_a_run_in_one_process_keeps_references_in_its_file(score, tmp_path, monkeypatch):
    put, kinds = spool.put, []

    def watched(data):
        placed = put(data)
        kinds.append((len(data) >= 256, type(placed)))
        return placed

    monkeypatch.setattr(spool, "put", watched)
    (tmp_path / "list.csv").write_text("uri\n" + "".join(f"{number}.jpg\n" for number in range(2000)))
    flags = ("--set", "failure_budget.max_ratio=1")
    assert score(tmp_path / "tables", tmp_path / "list.csv", flags=flags, template=None).code == 0
    # Listed, looked up and packed: large in each step, and nowhere in memory.
    assert sum(is_large for is_large, _ in kinds) >= 3
    assert {kind for is_large, kind in kinds if is_large} == {Spooled}
