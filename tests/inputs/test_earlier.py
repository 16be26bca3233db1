"""Listed images compared with those of earlier runs: which are added, changed, gone, or outside the run's input."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdet.inputs.columns import columns_of, rows_of
from maskdet.inputs.earlier import (
    ABSENT,
    ADDED,
    CHANGED,
    DISPLACED,
    GONE,
    LOST,
    OUTSIDE,
    REMOVED,
    UNCHANGED,
    Coverage,
    Growth,
)
from maskdet.inputs.listing import ListTask
from maskdet.inputs.references import ImageRef
from maskdet.inputs.videos import SEGMENTS
from maskdet.video.sampling import Segment, unreadable


def listed(uri, version="1", **changes):
    return ImageRef(uri, 10, version, ("a",))._replace(**changes)


def earlier(uri, version="1", **changes):
    return listed(uri, version, earlier="site-a/shard-all", gone=True)._replace(**changes)


def resolve(refs, on_gone="keep", **coverage):
    images, counts = Growth(Coverage(**coverage), on_gone).resolve(columns_of(refs))
    return {ref.uri: ref for ref in map(ImageRef._make, rows_of(images))}, dict(counts)


def test_a_new_image_has_no_earlier_rows():
    images, counts = resolve([listed("/in/a")])
    assert images == {"/in/a": listed("/in/a")}
    assert counts == {ADDED: 1}


def test_an_unchanged_image_knows_where_its_rows_are():
    for refs in ([listed("/in/a"), earlier("/in/a")], [earlier("/in/a"), listed("/in/a")]):
        images, counts = resolve(refs)
        assert images == {"/in/a": listed("/in/a", earlier="site-a/shard-all")}
        assert counts == {UNCHANGED: 1}


@pytest.mark.parametrize(
    "change",
    [
        {"version": "2"},
        {"size_bytes": 11},
        {"keys": ("b",)},
        {"captured_at_ms": 5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_differs_makes_an_image_a_changed_one(change):
    now = listed("/in/a")._replace(**change)
    images, counts = resolve([now, earlier("/in/a")])
    # A worker that does not find the image when it reads it knows from `replaces` where its rows are.
    assert images == {"/in/a": now._replace(replaces="site-a/shard-all")}
    assert counts == {CHANGED: 1}


MISFIT = ("path_mismatch", "x")


@pytest.mark.parametrize("code", ["path_mismatch", "bad_manifest_row"])
def test_an_unchanged_image_whose_path_or_row_no_longer_fits_stays_as_it_was(code):
    now = listed("/in/a", keys=(None,), captured_at_ms=7, problem=(code, "x"))
    images, counts = resolve([now, earlier("/in/a")])
    slot = "site-a/shard-all"
    assert images == {"/in/a": listed("/in/a", earlier=slot, replaces=slot)}  # its keys are those of before
    assert counts == {DISPLACED: 1}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"version": "2", "problem": MISFIT}, "its file changed"),
        ({"version": "", "problem": MISFIT}, "whether its file changed is not known"),
        ({"problem": ("not_a_file", "x")}, "a FIFO is in its place"),
        ({"problem": ("not_allowed", "x")}, "it may not be read"),
    ],
)
def test_other_images_with_a_problem_become_failures(change, what):
    now = listed("/in/a", **change)
    assert resolve([now, earlier("/in/a")]) == ({"/in/a": now}, {LOST: 1}), what


def test_an_image_that_had_no_rows_has_none_to_keep():
    now = listed("/in/a", problem=MISFIT)
    failed = earlier("/in/a", problem=("path_mismatch", "y"))
    assert resolve([now, failed]) == ({"/in/a": now}, {CHANGED: 1})


@pytest.mark.parametrize(
    ("coverage", "on_gone", "change", "stays"),
    [
        ({"everything": True}, "keep", GONE, True),
        ({"everything": True}, "remove", REMOVED, False),
        ({"folders": ("/in",)}, "remove", REMOVED, False),
        ({"folders": ("/in/deeper",)}, "remove", OUTSIDE, True),
        ({"folders": ("/i",)}, "remove", OUTSIDE, True),  # no folder of the image, though its name begins so
        ({"globs": ("/in/*.jpg",)}, "remove", REMOVED, False),
        ({"globs": ("/in/*.png",)}, "remove", OUTSIDE, True),
        ({"globs": ("/**/a.jpg",)}, "keep", GONE, True),
        ({}, "remove", OUTSIDE, True),
    ],
)
def test_an_image_that_is_not_listed_stays_unless_it_is_covered_and_the_tables_mirror_the_input(
    coverage, on_gone, change, stays
):
    images, counts = resolve([earlier("/in/a.jpg")], on_gone, **coverage)
    assert images == ({"/in/a.jpg": earlier("/in/a.jpg")} if stays else {})
    assert counts == {change: 1}


def test_a_run_covers_all_where_all_came_from_its_own_inputs():
    tasks = [ListTask("folder", "/in", root="/in"), ListTask("glob", "/x/*"), ListTask("image_list", "/m.csv")]
    inputs = ("/in", "/x/*", "/m.csv")
    assert Coverage.of(tasks, inputs, ("/m.csv",)) == Coverage(True, ("/in",), ("/x/*",))
    assert Coverage.of(tasks, inputs, ("/m.csv", "/other")) == Coverage(False, ("/in",), ("/x/*",))


def missing(uri, **changes):
    """A list's entry for an image that is missing."""
    return listed(uri, version="", size_bytes=-1, absent=True, **changes)


@pytest.mark.parametrize(
    "now",
    [
        missing("/in/a"),
        missing("/in/a", keys=("b",)),
        missing("/in/a", problem=("path_mismatch", "x")),
        listed("/in/a", version="2", problem=("not_found", "the link leads nowhere")),
    ],
    ids=["named by a list", "with other keys", "by a path that no longer fits", "a link without its target"],
)
def test_an_image_that_is_listed_and_not_there_stays_as_it_was(now):
    images, counts = resolve([now, earlier("/in/a")])
    assert images == {"/in/a": listed("/in/a", earlier="site-a/shard-all", absent=True)}
    assert images["/in/a"].is_lost
    assert counts == {ABSENT: 1}


def test_an_image_that_is_not_there_is_to_be_read_where_the_tables_mirror_the_input():
    images, counts = resolve([missing("/in/a"), earlier("/in/a")], on_gone="remove")
    assert images == {"/in/a": missing("/in/a")}
    assert not images["/in/a"].is_lost
    assert counts == {REMOVED: 1}


def test_an_image_that_never_was_there_is_looked_for_again():
    images, counts = resolve([missing("/in/a"), missing("/in/b"), earlier("/in/b", version="", size_bytes=-1)])
    assert not any(image.is_lost for image in images.values())
    assert counts == {ADDED: 1, UNCHANGED: 1}


def test_a_video_that_is_listed_and_not_there_keeps_its_segments():
    grid = {"rate": (2, 1), "frames": "grid", "duration_us": 4_000_000, "decoder": "d"}
    parts = [Segment(start_us=start, end_us=start + 2_000_000, **grid) for start in (0, 2_000_000)]
    now = listed("/in/a.mp4", version="", problem=("not_found", "x"), segment=unreadable())
    before = [earlier("/in/a.mp4", segment=part) for part in parts]
    images, counts = Growth(Coverage()).resolve(columns_of([now, *before]))
    assert list(map(ImageRef._make, rows_of(images))) == [one._replace(gone=False, absent=True) for one in before]
    assert counts == {ABSENT: 1, SEGMENTS: 1}  # one more than was listed


@pytest.mark.parametrize(("on_gone", "change"), [("keep", ABSENT), ("remove", REMOVED)])
def test_a_video_that_is_not_there_any_more_counts_as_one(on_gone, change):
    """In a mirror of the input, its segments are not just cut otherwise: their rows go."""
    grid = {"rate": (2, 1), "frames": "grid", "duration_us": 4_000_000, "decoder": "d"}
    parts = [Segment(start_us=start, end_us=start + 2_000_000, **grid) for start in (0, 2_000_000)]
    now = listed("/in/a.mp4", version="", problem=("not_found", "x"), segment=unreadable())
    _, counts = resolve([now, *(earlier("/in/a.mp4", segment=part) for part in parts)], on_gone)
    assert {name: count for name, count in counts.items() if name != SEGMENTS} == {change: 1}


NAMES = st.sampled_from([f"/in/{letter}.jpg" for letter in "abcdefgh"])
STATES = st.builds(
    ImageRef,
    uri=NAMES,
    size_bytes=st.integers(-1, 1),
    version=st.sampled_from(["", "1", "2"]),
    keys=st.sampled_from([("a", None), ("a", "b"), (None, "")]),
    captured_at_ms=st.sampled_from([None, 0, 1]),
    problem=st.sampled_from([None, None, MISFIT, ("bad_manifest_row", "y"), ("not_allowed", "z")]),
    earlier=st.just(""),
    gone=st.just(False),
    segment=st.none(),
    location=st.none(),
    absent=st.just(False),
)
ONCE = st.lists(STATES, max_size=8, unique_by=lambda ref: ref.uri)


@given(now=ONCE, before=ONCE, on_gone=st.sampled_from(["keep", "remove"]), globs=st.sampled_from([(), ("/in/[a-d]*",)]))
def test_images_are_joined_as_one_after_the_other_is(now, before, on_gone, globs):
    slots = [ref._replace(earlier="slot", gone=True) for ref in before]
    images, counts = resolve([*now, *slots], on_gone, everything=not globs, globs=globs)
    known, expected, changes = {ref.uri: ref for ref in before}, {}, Counter()
    for ref in now:
        old = known.pop(ref.uri, None)
        if old is None:
            expected[ref.uri], change = ref, ADDED
        elif old == ref:
            expected[ref.uri], change = ref._replace(earlier="slot"), UNCHANGED
        elif ref.problem is None or old.problem is not None:
            to_read = ref.problem is None and old.problem is None and old.version
            expected[ref.uri], change = ref._replace(replaces="slot" if to_read else ""), CHANGED
        elif ref.version and ref.version == old.version and ref.problem[0] != "not_allowed":
            expected[ref.uri], change = old._replace(earlier="slot", replaces="slot"), DISPLACED
        else:
            expected[ref.uri], change = ref, LOST
        changes[change] += 1
    for uri, old in known.items():
        is_covered = not globs or uri < "/in/e"
        change = OUTSIDE if not is_covered else REMOVED if on_gone == "remove" else GONE
        changes[change] += 1
        if change != REMOVED:
            expected[uri] = old._replace(earlier="slot", gone=True)
    assert images == expected
    assert counts == changes
