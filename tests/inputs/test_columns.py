"""References survive the way to columns and back, whatever is in them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdet.inputs import columns
from maskdet.inputs.references import ImageRef, RefBatch, Shard
from maskdet.video.sampling import Segment

MICROSECONDS = st.integers(-1, 2**50)
SEGMENTS = st.builds(
    Segment,
    MICROSECONDS,
    MICROSECONDS,
    st.text(max_size=4),
    st.tuples(st.integers(0, 2**40), st.integers(1, 9)),
    MICROSECONDS,
    st.text(max_size=4),
)
TEXTS = st.text(max_size=6)
REFS = st.lists(
    st.builds(
        ImageRef,
        uri=TEXTS,
        size_bytes=st.integers(-1, 2**60),
        version=TEXTS,
        keys=st.lists(st.none() | TEXTS, max_size=3).map(tuple),
        captured_at_ms=st.none() | st.integers(-(2**50), 2**50),
        problem=st.none() | st.tuples(TEXTS, TEXTS),
        earlier=TEXTS,
        gone=st.booleans(),
        segment=st.none() | SEGMENTS,
        location=st.none() | TEXTS,
    ),
    max_size=12,
)


@given(REFS)
def test_columns_and_back_are_the_same_references(refs: list[ImageRef]) -> None:
    found = columns.decode(columns.encode(columns.columns_of(refs)))
    assert [ImageRef._make(row) for row in columns.rows_of(found)] == refs
    assert columns.identities(found) == [ref.identity for ref in refs]
    assert columns.names_of(found) == [ref.name for ref in refs]
    assert columns.has_segments(found) == any(ref.segment is not None for ref in refs)


@given(REFS, st.integers(0, 12), st.integers(0, 12))
def test_a_part_of_columns_is_that_part_of_the_references(refs: list[ImageRef], start: int, count: int) -> None:
    part = columns.columns_of(refs).slice(min(start, len(refs)), count)
    expected = refs[start : start + count]
    for found in (part, columns.decode(columns.encode(part)), columns.joined([part])):
        assert [ImageRef._make(row) for row in columns.rows_of(found)] == expected
        assert columns.keys_of(found) == [ref.keys for ref in expected]


@given(REFS, REFS)
def test_parts_are_joined_in_their_order(some: list[ImageRef], others: list[ImageRef]) -> None:
    found = columns.joined([columns.columns_of(some), columns.columns_of(others)])
    assert [ImageRef._make(row) for row in columns.rows_of(found)] == some + others


@given(REFS)
def test_batches_and_shards_are_the_same_of_columns_as_of_references(refs: list[ImageRef]) -> None:
    found = columns.columns_of(refs)
    assert RefBatch.of_columns(found, {"x": 2}) == RefBatch(tuple(refs), {"x": 2})
    assert Shard.of_columns("slot", "id", ("a",), found) == Shard("slot", "id", ("a",), tuple(refs))
    for batch in (RefBatch(tuple(refs), {"x": 2}), RefBatch.of_columns(found, {"x": 2})):
        assert (batch.images, batch.listed) == (len(refs), len(refs) + 2)
    shard = Shard("slot", "id", (), tuple(refs))
    assert shard.listed == sum(not ref.gone for ref in refs)
    assert shard.size_bytes == sum(ref.size_bytes for ref in refs if ref.size_bytes > 0)


def test_digests_are_sha256_the_highest_bits_first() -> None:
    found = columns.digests(["", "/ä"])
    for words, name in zip(found.tolist(), ("", "/ä"), strict=True):
        whole = sum(word << 64 * (3 - place) for place, word in enumerate(words))
        assert f"{whole:064x}" == hashlib.sha256(name.encode()).hexdigest()
    assert columns.digests([]).shape == (0, 4)


@pytest.mark.parametrize("numbers", [[], [7], [3, 1, 3, 1, 0, 3], [5, 5, 5]])
def test_rows_by_number_keep_their_order(numbers: list[int]) -> None:
    refs = [ImageRef(f"/{place}", place, "") for place in range(len(numbers))]
    found = columns.by_number(columns.columns_of(refs), np.array(numbers, np.int64))
    expected = {number: [f"/{place}" for place, one in enumerate(numbers) if one == number] for number in numbers}
    assert [(number, rows["uri"].to_pylist()) for number, rows in found] == sorted(expected.items())
