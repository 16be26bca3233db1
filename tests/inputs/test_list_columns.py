"""Rows of Parquet image lists give the same references read many at once as read one by one."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskdet.config import SourceSettings
from maskdet.inputs import image_lists, listing
from maskdet.inputs.list_columns import ListRule, columns_of_batch
from maskdet.inputs.listing import ListTask
from maskdet.inputs.references import ImageRef

UTC = datetime.UTC
NOON = datetime.datetime(2026, 3, 2, 12, 0, 0, 1999)
SETTINGS = {
    "keys": ["site"],
    "captured_at_column": "taken",
    "version_column": "version",
    "size_column": "bytes",
    "timezone": "Asia/Kolkata",
    "allowed": ["/in", "gs://bucket"],
}
WHOLE = {
    "uri": ["/in/a.jpg", "/in/b c.jpg", "/in/ä/…", "/in/.hidden/a"],
    "site": ["north", "", None, "su\u0308d"],
    "taken": pa.array([NOON, None, NOON, NOON], pa.timestamp("us", tz="UTC")),
    "version": ["1", "2", "", None],
    "bytes": pa.array([10, None, 30, 40], pa.int64()),
}


def read(folder: Path, changes: Mapping[str, Any], **settings: Any) -> tuple[list[ImageRef], list[ImageRef], bool]:
    """References as listed, as read row by row, and whether listing read no row by itself."""
    file = folder / "list.parquet"
    pq.write_table(pa.table({**WHOLE, **changes}), file, row_group_size=3)
    source = SourceSettings.model_validate({**SETTINGS, **settings})
    task, videos = ListTask("image_list", str(file)), frozenset({"mp4"})
    listed = [ref for batch in listing.list_images(task, source, videos) for ref in batch.refs]
    places = listing._allowed_places(task, source)
    rows = image_lists.read_rows(str(file), -1, source)
    one_by_one = [listing._ref_of_row(row, source, places, videos) for row in rows]
    rule = ListRule(source, image_lists.base_of(str(file)), places, videos)
    parts = [columns_of_batch(batch, rule) for batch in image_lists.read_batches(str(file), -1, source)]
    return listed, one_by_one, all(part is not None for part in parts)


MS = 1_772_452_800_001  # 2026-03-02 12:00:00.001999 in UTC, rounded down


def test_a_batch_of_plain_rows_says_what_its_columns_hold(tmp_path: Path) -> None:
    listed, one_by_one, at_once = read(tmp_path, {})
    assert at_once
    assert (
        listed
        == one_by_one
        == [
            ImageRef("/in/a.jpg", 10, "manifest:1", ("north",), MS),
            ImageRef("/in/b c.jpg", -1, "manifest:2", (None,), None),
            ImageRef("/in/ä/…", -1, "", (None,), MS),  # without a version, no size is believed
            ImageRef("/in/.hidden/a", -1, "", ("s\u00fcd",), MS),
        ]
    )


PLAIN = {
    "objects of a store": {"uri": ["gs://bucket/a", "gs://bucket/./b", "gs://bucket//c", "gs://bucket/d/"]},
    "relative names": {"uri": ["a.jpg", "b/c.jpg", "d e.jpg", "f…g"]},
    "local times": {"taken": pa.array([NOON, None, NOON, NOON], pa.timestamp("ns"))},
    "finer times": {"taken": pa.array([-1, None, 1_999_999, 2_000_001], pa.timestamp("ns", tz="America/New_York"))},
    "days": {"taken": [datetime.date(2026, 3, 2)] * 4},
    "written times": {"taken": ["2026-03-02T12:00:00", "", "2026-03-02 12:00+02:00", None]},
    "numbers for keys": {"site": pa.array([7, None, 0, -3], pa.int16())},
    "numbers with gaps": {"site": [7.0, float("nan"), None, 2.5], "bytes": [10.0, None, float("nan"), 4.0]},
    "truths for keys": {"site": [True, False, None, True]},
    "categories": {"site": pa.array(["a", None, "b", "a"]).dictionary_encode()},
    "bytes for keys": {"site": [b"a", b"\xff", None, b""]},
    "numbers for versions": {"version": pa.array([1, 0, None, 3])},
    "decimal numbers": {"site": [decimal.Decimal("1.50"), None, decimal.Decimal("2"), None]},
    "sizes that are written": {"bytes": ["10", "", None, "-7"]},
}


@pytest.mark.parametrize("changes", PLAIN.values(), ids=PLAIN.keys())
def test_plain_batches_of_every_kind_are_read_at_once(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    listed, one_by_one, at_once = read(tmp_path, changes)
    assert at_once
    assert listed == one_by_one
    assert len(listed) == 4


CLOSER = {
    "a row without a URI": {"uri": ["/in/a", None, "/in/b", "/in/c"]},
    "an empty URI": {"uri": ["/in/a", "", "/in/b", "/in/c"]},
    "URIs of two kinds": {"uri": ["/in/a", "gs://bucket/b", "c", "/in/d"]},
    "a URI of a file": {"uri": ["file:///in/a", "FILE:///in/b", "file:///in/c", "file:///in/d"]},
    "a path that is not plain": {"uri": ["/in/../in/a", "/in/./b", "/in//c", "/in/d/"]},
    "a path that ends a line": {"uri": ["/in/a/\n", "/in/b\n", "/in/c", "/in/\x00d"]},
    "a home folder": {"uri": ["~/a", "~b/c", "/~/d", "/in/~e"]},
    "Windows' paths": {"uri": ["a\\b.jpg", "C:\\a.jpg", "C:/b.jpg", "\\\\host\\c.jpg"]},
    "an image that is not allowed": {"uri": ["/in/a", "/out/b", "/inside/c", "/in/d"]},
    "a video": {"uri": ["/in/a.MP4", "/in/b.mp4", "/in/c.mp4.jpg", "/in/mp4"]},
    "a time that is none": {"taken": ["today", "1772452800", None, "2026-02-30"]},
    "a time before all zones' years": {"taken": pa.array([-62_135_596_800, None, 0, 1], pa.timestamp("s", tz="UTC"))},
    "a size that is none": {"bytes": ["10", "10 kB", None, "7"]},
    "names as bytes": {"uri": [b"/in/a", b"/in/b", b"/in/\xff", b"/in/d"]},
}


@pytest.mark.parametrize("changes", CLOSER.values(), ids=CLOSER.keys())
def test_what_needs_a_closer_look_is_read_row_by_row(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    listed, one_by_one, at_once = read(tmp_path, changes)
    assert listed == one_by_one
    assert len(listed) == 4
    assert not at_once


def test_rows_of_later_batches_are_named_by_their_row_group(tmp_path: Path) -> None:
    listed, _, _ = read(tmp_path, {"uri": ["/in/a", "", "/in/b", None]})
    file = tmp_path / "list.parquet"
    assert [ref.uri for ref in listed] == ["/in/a", f"{file}#part=0&row=2", "/in/b", f"{file}#part=1&row=1"]


def test_a_column_that_folders_spell_is_a_key(tmp_path: Path) -> None:
    part = tmp_path / "site=north%20west" / "part-0.parquet"
    part.parent.mkdir()
    pq.write_table(pa.table({name: values for name, values in WHOLE.items() if name != "site"}), part)
    source = SourceSettings.model_validate(SETTINGS)
    task = ListTask("image_list", str(part), root=f"{tmp_path}/")
    [batch] = listing.list_images(task, source)
    assert [ref.keys for ref in batch.refs] == [("north west",)] * 4


def test_many_rows_are_handed_out_in_batches(tmp_path: Path) -> None:
    count = 2 * listing.BATCH_IMAGES + 1
    file = tmp_path / "list.parquet"
    pq.write_table(pa.table({"uri": [f"/in/{number}" for number in range(count)]}), file)
    source = SourceSettings(allowed=("/in",))
    batches = list(listing.list_images(ListTask("image_list", str(file)), source))
    assert max(batch.images for batch in batches) <= listing.BATCH_IMAGES
    assert [ref.uri for batch in batches for ref in batch.refs] == [f"/in/{number}" for number in range(count)]
    assert np.all([ref.keys == () for batch in batches for ref in batch.refs])
