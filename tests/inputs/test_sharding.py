"""Packing: every image once, limits kept, and shards that stay the same as the input grows."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdet.config import ScoreSettings, parse_settings
from maskdet.inputs import sharding
from maskdet.inputs.columns import columns_of, rows_of
from maskdet.inputs.references import HIVE_NULL, ImageRef, Shard, partition_path
from maskdet.inputs.sharding import KeyRule, Size, cut_shards, drop_duplicates, plan

RULE = KeyRule((), ())
UNBOUNDED = 2**60


def ref(name: object, size_bytes: int = 10, version: str = "v1") -> ImageRef:
    return ImageRef(f"/data/{name}.jpg", size_bytes, version)


REFS = st.lists(
    st.builds(ref, st.integers(0, 10_000), st.integers(-1, 100)), max_size=60, unique_by=lambda one: one.uri
)
LIMITS = st.builds(Size, st.integers(1, 20), st.integers(1, 400))


def bits_of(uri: str) -> str:
    return "".join(f"{byte:08b}" for byte in hashlib.sha256(uri.encode()).digest())


def naive_pack(refs: Sequence[ImageRef], limit: Size, prefix: str = "") -> list[tuple[str, set[str]]]:
    """Shards as (bits, URIs): the trie, straight from its description."""
    inside = [one for one in refs if bits_of(one.uri).startswith(prefix)]
    size_bytes = sum(one.size_bytes for one in inside if one.size_bytes > 0)
    if not inside:
        return []
    if len(inside) == 1 or (len(inside) <= limit.images and size_bytes <= limit.size_bytes):
        return [(prefix, {one.uri for one in inside})]
    return naive_pack(inside, limit, prefix + "0") + naive_pack(inside, limit, prefix + "1")


@given(refs=REFS, limit=LIMITS)
def test_packing_is_the_trie_of_hashes_cut_where_it_fits(refs: list[ImageRef], limit: Size) -> None:
    shards = cut_shards(columns_of(refs), RULE, limit)
    assert [(shard.slot, {one.uri for one in shard.refs}) for shard in shards] == [
        (f"shard-{bits or 'all'}", uris) for bits, uris in naive_pack(refs, limit)
    ]


@given(refs=REFS, limit=LIMITS)
def test_every_image_is_in_one_shard_and_limits_hold_save_for_single_images(refs: list[ImageRef], limit: Size) -> None:
    shards = cut_shards(columns_of(refs), RULE, limit)
    assert Counter(one for shard in shards for one in shard.refs) == Counter(refs)
    for shard in shards:
        assert shard.refs
        assert shard.size_bytes == sum(max(one.size_bytes, 0) for one in shard.refs)
        if len(shard.refs) > 1:
            assert len(shard.refs) <= limit.images
            assert shard.size_bytes <= limit.size_bytes
    assert len({shard.slot for shard in shards}) == len({shard.shard_id for shard in shards}) == len(shards)


@given(refs=REFS, limit=LIMITS, seed=st.integers())
def test_the_order_of_listing_does_not_matter(refs: list[ImageRef], limit: Size, seed: int) -> None:
    shuffled = random.Random(seed).sample(refs, len(refs))
    assert cut_shards(columns_of(shuffled), RULE, limit) == cut_shards(columns_of(refs), RULE, limit)


def histogram(refs: Sequence[ImageRef]) -> dict[int, Size]:
    """Images and bytes by the first twelve bits of the hash."""
    cells: dict[int, Size] = {}
    for one in refs:
        cell = int(bits_of(one.uri)[:12], 2)
        images, size_bytes = cells.get(cell, Size(0, 0))
        cells[cell] = Size(images + 1, size_bytes + max(one.size_bytes, 0))
    return cells


def check_plan(refs: Sequence[ImageRef], limit: Size) -> None:
    prefixes = plan(histogram(refs), limit)
    under: dict[str, list[ImageRef]] = {prefix: [] for prefix in prefixes}
    places = sharding.prefix_numbers(sharding.cells_of(columns_of(refs)), prefixes)
    for one, place in zip(refs, places.tolist(), strict=True):
        assert bits_of(one.uri).startswith(prefixes[place])
        under[prefixes[place]].append(one)
    parts = (cut_shards(columns_of(under[prefix]), RULE, limit, prefix) for prefix in prefixes)
    assert [shard for part in parts for shard in part] == cut_shards(columns_of(refs), RULE, limit)
    assert sum(2.0 ** -len(prefix) for prefix in prefixes) == 1


@given(refs=REFS, limit=LIMITS)
def test_packing_under_each_prefix_of_the_plan_gives_the_same_shards(refs: list[ImageRef], limit: Size) -> None:
    check_plan(refs, limit)


def test_the_plan_also_holds_where_images_meet_below_its_depth() -> None:
    # Some 5 images a cell, so that cells must be split further; in an eighth of the cells, which behave like all.
    refs = [one for one in map(ref, range(20_000)) if bits_of(one.uri).startswith("101")]
    assert 2_300 < len(refs) < 2_700
    check_plan(refs, Size(2, UNBOUNDED))


@given(refs=REFS, cuts=st.lists(st.integers(0, 60), max_size=3))
def test_histograms_of_parts_add_up_to_that_of_the_whole(refs: list[ImageRef], cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(refs)]
    parts = [histogram(refs[start:end]) for start, end in itertools.pairwise(edges)]
    assert sharding.merge_cells(parts) == histogram(refs)
    assert sharding.cells_of(columns_of(refs)).tolist() == [int(bits_of(one.uri)[:12], 2) for one in refs]


def test_nothing_packs_to_nothing() -> None:
    assert cut_shards(columns_of([]), RULE, Size(1, 1)) == []
    assert plan({}, Size(1, 1)) == ("",)


LIMIT = Size(500, UNBOUNDED)
MANY = [ref(i) for i in range(10_000)]


@pytest.fixture(scope="module")
def packed() -> set[tuple[str, str]]:
    return names(cut_shards(columns_of(MANY), RULE, LIMIT))


def names(shards: Sequence[Shard]) -> set[tuple[str, str]]:
    return {(shard.slot, shard.shard_id) for shard in shards}


@pytest.mark.parametrize("i", range(6))
def test_one_image_added_among_ten_thousand_touches_one_shard(packed: set[tuple[str, str]], i: int) -> None:
    grown = names(cut_shards(columns_of([*MANY, ref(f"new-{i}")]), RULE, LIMIT))
    assert len(packed - grown) <= 1
    assert len(grown - packed) in (1, 2)


@pytest.mark.parametrize("i", range(6))
def test_one_image_removed_among_ten_thousand_touches_two_shards_at_most(packed: set[tuple[str, str]], i: int) -> None:
    rest = names(cut_shards(columns_of([one for one in MANY if one != MANY[i * 1000]]), RULE, LIMIT))
    assert len(packed - rest) in (1, 2)
    assert len(rest - packed) <= 1


@pytest.mark.parametrize("i", range(6))
def test_one_image_replaced_among_ten_thousand_keeps_every_slot(packed: set[tuple[str, str]], i: int) -> None:
    changed = [one._replace(version="v2", size_bytes=11) if one == MANY[i * 1000] else one for one in MANY]
    after = names(cut_shards(columns_of(changed), RULE, LIMIT))
    assert len(packed - after) == len(after - packed) == 1
    assert {slot for slot, _ in after} == {slot for slot, _ in packed}


@settings(max_examples=30)
@given(refs=REFS.filter(lambda refs: len(refs) > 1), images=st.integers(1, 20), at=st.integers(0, 59))
def test_growth_by_one_touches_one_shard_whatever_the_size(refs: list[ImageRef], images: int, at: int) -> None:
    limit = Size(images, UNBOUNDED)
    removed = refs[at % len(refs)]
    before = names(cut_shards(columns_of([one for one in refs if one != removed]), RULE, limit))
    after = names(cut_shards(columns_of(refs), RULE, limit))
    assert len(before - after) <= 1
    assert len(after - before) in (1, 2)


@pytest.mark.parametrize(
    "changed",
    [
        ref(1)._replace(uri="/data/other.jpg"),
        ref(1)._replace(version="v2"),
        ref(1)._replace(size_bytes=11),
        ref(1)._replace(captured_at_ms=0),
        ref(1)._replace(keys=("a",)),
        ref(1)._replace(problem=("path_mismatch", "no")),
    ],
)
def test_an_id_changes_with_anything_in_its_content(changed: ImageRef) -> None:
    [before], [after] = (cut_shards(columns_of([one]), RULE, Size(9, 9)) for one in (ref(1), changed))
    assert before.shard_id != after.shard_id


def test_an_id_changes_with_the_rules_keys() -> None:
    one = ref(1)._replace(keys=("a",))
    ids = {
        cut_shards(columns_of([one]), rule, Size(9, 9))[0].shard_id
        for rule in (KeyRule(("x",), ()), KeyRule(("x",), ("x",)))
    }
    assert len(ids) == 2


def test_slots_lie_in_the_folder_of_their_partition() -> None:
    rule = KeyRule(("site",), ("site", "date"))
    refs = [ref(i)._replace(keys=("a/b",), captured_at_ms=0) for i in range(3)]
    shards = cut_shards(columns_of(refs), rule, Size(1, UNBOUNDED))
    assert {shard.partition for shard in shards} == {("a/b", "1970-01-01")}
    assert all(shard.slot.startswith("site-a%2Fb/date-1970-01-01/shard-") for shard in shards)


# Texts of eighteen characters are not cut, however they are written.
VALUES = st.one_of(st.none(), st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=18))


@given(values=st.lists(VALUES, max_size=4))
def test_partition_folders_are_read_back_by_percent_decoding(values: list[str | None]) -> None:
    columns = [f"key{i}" for i in range(len(values))]
    folders = partition_path(columns, values)
    parts = [folder.split("=", 1) for folder in folders.split("/")] if folders else []
    assert [name for name, _ in parts] == columns
    assert [None if value == HIVE_NULL else unquote(value) for _, value in parts] == values
    assert not set(folders) & set('\\:*?"<>|#\n\0')


DUPLICATED = st.lists(
    st.builds(
        ImageRef,
        st.sampled_from(["/a", "/b", "/c"]),
        st.sampled_from([-1, 0, 5]),
        st.sampled_from(["", "v"]),
        st.sampled_from([(None,), ("",), ("x",)]),
        st.sampled_from([None, 0, -5]),
        st.sampled_from([None, ("bad_manifest_row", "one"), ("bad_manifest_row", "two")]),
        segment=st.none(),
    ),
    max_size=12,
)


@given(refs=DUPLICATED, seed=st.integers())
def test_one_reference_a_uri_is_kept_whatever_the_order(refs: list[ImageRef], seed: int) -> None:
    kept, dropped = drop_duplicates(refs)
    assert [one.uri for one in kept] == sorted({one.uri for one in refs})
    assert set(kept) <= set(refs)
    assert dropped == len(refs) - len(kept)
    assert drop_duplicates(random.Random(seed).sample(refs, len(refs))) == (kept, dropped)
    assert drop_duplicates(kept) == (kept, 0)


@given(refs=DUPLICATED)
def test_columns_keep_the_same_one_of_each_uri(refs: list[ImageRef]) -> None:
    kept, dropped = sharding.drop_repeated(columns_of(refs))
    expected, count = drop_duplicates(refs)
    assert sorted(map(repr, map(ImageRef._make, rows_of(kept)))) == sorted(map(repr, expected))
    assert dropped == count


@given(
    time=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
)
def test_date_and_hour_are_those_of_the_rules_time_zone(time: datetime, zone: str) -> None:
    ms = (time - datetime(1970, 1, 1)) // timedelta(milliseconds=1)
    local = time.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
    rule = KeyRule((), ("date", "hour"), zone)
    assert rule.partition(ref(1)._replace(captured_at_ms=ms)) == (
        f"{local.year:04d}-{local.month:02d}-{local.day:02d}",
        f"{local.hour:02d}",
    )


# Clocks are set by an hour, by half of one, a minute after midnight, and by odd seconds.
ZONES = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Africa/Monrovia", "Europe/Amsterdam"]
CHANGES_MS = [
    int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)
    for moment in [(1937, 6, 30, 23, 40), (1972, 1, 7, 0, 44), (2006, 4, 2, 3, 31), (2026, 3, 29, 1), (2026, 4, 4, 15)]
]


@given(
    times=st.lists(
        st.none()
        | st.builds(int.__add__, st.sampled_from(CHANGES_MS), st.integers(-4_000_000, 4_000_000))
        | st.integers(-(2**45), 2**47),
        max_size=30,
    ),
    zone=st.sampled_from(ZONES),
    name=st.sampled_from(["date", "hour", "week", "month", "weekday"]),
)
def test_keys_of_many_times_are_those_of_each(times: list[int | None], zone: str, name: str) -> None:
    rule = KeyRule((), (name,), zone)
    codes, values = rule.derive_all(
        np.array([0 if time is None else time for time in times], np.int64),
        np.array([time is not None for time in times], bool),
        name,
    )
    assert [values[code] for code in codes.tolist()] == [rule.derive(time, name) for time in times]


@pytest.mark.parametrize(
    ("instant", "date", "hour"),
    [
        ("2026-03-29T00:59:59+00:00", "2026-03-29", "01"),
        ("2026-03-29T01:00:00+00:00", "2026-03-29", "03"),
        ("2026-10-25T00:30:00+00:00", "2026-10-25", "02"),
        ("2026-10-25T01:30:00+00:00", "2026-10-25", "02"),
        ("2026-12-31T23:00:00+00:00", "2027-01-01", "00"),
    ],
)
def test_hours_follow_summer_time(instant: str, date: str, hour: str) -> None:
    ms = round(datetime.fromisoformat(instant).timestamp() * 1000)
    rule = KeyRule((), (), "Europe/Berlin")
    assert (rule.derive(ms, "date"), rule.derive(ms, "hour")) == (date, hour)


def test_without_a_capture_time_there_is_no_date() -> None:
    rule = KeyRule(("site",), ("site", "date"))
    assert rule.partition(ref(1)._replace(keys=(None,))) == (None, None)
    assert rule.folder((None, None)) == f"site-{HIVE_NULL}/date-{HIVE_NULL}"


def test_the_rule_of_a_run_follows_its_settings() -> None:
    tree = {
        "source": {"template": "{site}/{camera}/*", "timezone": "Asia/Tokyo"},
        "tables": {"partition_by": ["camera"]},
    }
    rule = KeyRule.of(parse_settings(ScoreSettings, tree, "settings"))
    assert rule == KeyRule(("site", "camera"), ("camera",), "Asia/Tokyo")
    assert rule.value(ref(1)._replace(keys=("a", "b")), "camera") == "b"


def test_sizes_count_unknown_sizes_as_nothing() -> None:
    assert sharding.size_of(columns_of([ref(1, -1), ref(2, 7)])) == Size(2, 7)
    assert Size(1, 2).plus(Size(3, 4)) == Size(4, 6)
