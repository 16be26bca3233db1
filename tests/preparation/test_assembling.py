import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdet.errors import SourceError
from maskdet.preparation import hashing
from maskdet.preparation.assembling import assemble
from maskdet.preparation.records import failures_schema, measured_schema
from maskdet.preparation.settings import LabelledSource, PrepareSettings

SOURCE = LabelledSource(input=("x",), label="mask", group_manifest="groups.csv")
SETTINGS = PrepareSettings(sources={"a": SOURCE, "b": SOURCE.model_copy(update={"group_manifest": "others.csv"})})


def picture(seed):
    coarse = np.random.default_rng(seed).integers(8, 248, (8, 8, 3)).repeat(4, axis=0).repeat(4, axis=1)
    return coarse.astype(np.uint8)


def row(number, content, **changes):
    """An image; equal contents are equal files, and contents 10 apart show the same picture."""
    pixels = picture(content % 10)
    return {
        **{"source": "a", "image_uri": f"/{number:03d}.png", "label": "mask", "official_split": None},
        **{"content_sha256": f"{content:064x}", "phash": hashing.perceptual_hash(pixels)},
        **{"thumbnail": hashing.thumbnail(pixels).tobytes(), "width_px": 32, "height_px": 32, "size_bytes": 9},
        **{"format": "PNG", "jpeg_quality": None, "given_group": None, "name_group": None},
        **changes,
    }


def assembled(rows, cuts=1, failures=()):
    batches = [pa.Table.from_pylist(rows[i::cuts], schema=measured_schema()) for i in range(cuts)]
    failed = [pa.Table.from_pylist(list(failures), schema=failures_schema())]
    return assemble(batches, failed, len(rows) + len(failures), {}, SETTINGS)


def groups(rows):
    return assembled(rows).images["group_id"].to_pylist()


ROWS = st.lists(
    st.builds(
        row,
        st.integers(0, 999),
        st.integers(0, 29),
        source=st.sampled_from("ab"),
        official_split=st.sampled_from([None, "train", "test"]),
        given_group=st.sampled_from([None, None, "1", "2"]),
        name_group=st.sampled_from([None, None, "1"]),
    ),
    max_size=14,
    unique_by=lambda image: image["image_uri"],
)


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 99), cuts=st.integers(1, 4))
def test_tables_do_not_hang_on_order_or_batches(rows, seed, cuts):
    shuffled = random.Random(seed).sample(rows, len(rows))
    first, second = assembled(rows), assembled(shuffled, cuts)
    assert first.images.equals(second.images)
    assert first.duplicates.equals(second.duplicates)


@settings(max_examples=50, deadline=None)
@given(rows=ROWS)
def test_what_belongs_together_is_in_one_split(rows):
    images = assembled(rows).images.to_pylist()
    by_uri = {image["image_uri"]: image for image in images}
    for one in rows:
        for other in rows:
            joined = (
                one["content_sha256"] == other["content_sha256"]
                or one["phash"] == other["phash"]
                or any(
                    one[name] and one[name] == other[name] and one["source"] == other["source"]
                    for name in ("given_group", "name_group")
                )
            )
            if joined:
                assert by_uri[one["image_uri"]]["split"] == by_uri[other["image_uri"]]["split"]
                assert by_uri[one["image_uri"]]["group_id"] == by_uri[other["image_uri"]]["group_id"]


def test_groups_given_hold_within_one_manifest():
    same = [row(i, i, given_group="7") for i in range(3)]
    assert len(set(groups(same))) == 1
    assert len(set(groups([same[0], {**same[1], "source": "b"}]))) == 2


def test_a_doubt_spreads_to_copies_but_not_to_the_group():
    rows = [row(0, 1, given_group="g"), row(1, 1), row(2, 11, label="no_mask"), row(3, 2, given_group="g")]
    assert assembled(rows).images["suspicious"].to_pylist() == [True, True, True, False]


def test_a_near_duplicate_is_counted_by_contents():
    images = assembled([row(0, 1), row(1, 1), row(2, 11), row(3, 21), row(4, 2)]).images
    assert images["near_duplicates"].to_pylist() == [2, 2, 2, 2, 0]
    assert images["duplicate_of"].to_pylist() == [None, "/000.png", None, None, None]


def test_a_black_image_in_every_group_joins_none():
    black = {"thumbnail": bytes(256), "phash": 0}
    rows = [row(i, 0 if i % 2 else i + 1, given_group=str(i // 2), **(black if i % 2 else {})) for i in range(6)]
    found = assembled(rows)
    assert len(set(found.images["group_id"].to_pylist())) == 3
    assert found.images["flat"].to_pylist() == [False, True] * 3
    assert found.duplicates["kind"].to_pylist() == ["exact", "exact"]


def test_only_official_training_images_make_a_leak():
    def leaks(*splits):
        rows = [row(i, 1, official_split=split) for i, split in enumerate(splits)]
        return assembled(rows).images["official_leak"].to_pylist()

    assert leaks("train", "test", None, "validation") == [False, True, False, True]
    assert leaks("test", "validation", None) == [False] * 3


def test_a_file_listed_twice_counts_once_and_has_one_label():
    found = assembled([row(0, 1), row(0, 1, source="b"), row(1, 2)])
    assert found.images["source"].to_pylist() == ["a", "a"]
    assert found.skipped == {"duplicate": 1}
    with pytest.raises(SourceError, match="one label a file"):
        assembled([row(0, 1), row(0, 1, source="b", label="no_mask")])


def test_no_image_at_all_gives_empty_tables():
    found = assembled([])
    assert found.images.num_rows == found.duplicates.num_rows == found.failures.num_rows == 0
