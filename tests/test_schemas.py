"""Schemas of the tables, references, shards and the paths of partitions."""

from __future__ import annotations

import hashlib
import pickle
from urllib.parse import unquote

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdet.inputs.references import HIVE_NULL, ImageRef, RefBatch, Shard, partition_path
from maskdet.schemas import (
    RESERVED_NAMES,
    compliance_schema,
    failures_schema,
    predictions_schema,
    track_rates_schema,
    tracks_schema,
)
from maskdet.tables.results import StageSeconds

SCHEMAS = {
    "predictions": predictions_schema,
    "failures": failures_schema,
    "compliance": compliance_schema,
    "tracks": tracks_schema,
    "track_rates": track_rates_schema,
}


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("keys", [(), ("site", "camera")])
def test_every_column_is_described_and_named_once(name, keys):
    schema = SCHEMAS[name](keys)
    assert len(set(schema.names)) == len(schema.names)
    assert set(keys) < set(schema.names)
    for field in schema:
        assert len(field.metadata[b"description"].decode()) > 10
        assert field.metadata[b"description"] != field.name.encode()
    version = b"3" if name == "compliance" else b"2"
    assert schema.metadata == {b"maskdet.table": name.encode(), b"maskdet.schema_version": version}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_key_cannot_take_the_name_of_a_column(name):
    assert set(SCHEMAS[name]().names) <= RESERVED_NAMES


def test_pixels_and_scores_say_their_unit():
    for field in [*predictions_schema(), *compliance_schema()]:
        if field.name.endswith("_px"):
            assert "in pixels" in field.metadata[b"description"].decode()
        if field.name == "captured_at":
            assert field.type == pa.timestamp("ms", tz="UTC")


def test_only_what_may_be_unknown_is_nullable():
    nullable = {field.name for field in predictions_schema(["site"]) if field.nullable}
    boxes = {"face_left_px", "face_top_px", "face_width_px", "face_height_px", "face_score", "probability_incorrect"}
    assert nullable == {"captured_at", "site", "damaged", "frame_time_us", *boxes}
    assert {field.name for field in failures_schema() if field.nullable} == {
        *("captured_at", "frame_time_us", "frame_end_us", "frames")
    }


def test_compliance_keys_have_types_that_sort():
    schema = compliance_schema(["site", "date", "hour"])
    assert [schema.field(name).type for name in ("site", "date", "hour")] == [pa.string(), pa.date32(), pa.int32()]


@pytest.mark.parametrize(
    ("values", "path"),
    [
        (["a", "2026-01-05"], "site=a/date=2026-01-05"),
        (["a b", None], f"site=a b/date={HIVE_NULL}"),
        (["x=y/../z", "100%"], "site=x%3Dy%2F..%2Fz/date=100%25"),
        (["é", ""], "site=é/date="),
        (["北京\u200b\u202e", "नई\u3000"], "site=北京%E2%80%8B%E2%80%AE/date=नई%E3%80%80"),
        (["*?[1]", 'a\\b:"c'], "site=%2A%3F%5B1%5D/date=a%5Cb%3A%22c"),
    ],
)
def test_partition_folders_are_percent_encoded(values, path):
    assert partition_path(["site", "date"], values) == path


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=3))
def test_a_partition_never_leaves_its_folder_and_can_be_read_back(values):
    names = ["a", "b", "c"][: len(values)]
    segments = partition_path(names, values).split("/")
    for segment, value in zip(segments, values, strict=True):
        assert len(segment.encode()) <= 255
        read = unquote(segment.split("=", 1)[1])
        assert read == value or (len(segment.encode()) > 225 and _is_cut(read, value))
    assert [segment.split("=", 1)[0] for segment in segments] == names


def _is_cut(read, value):
    return (
        read[-17] == "~"
        and read[-16:] == hashlib.sha256(value.encode()).hexdigest()[:16]
        and value.startswith(read[:-17])
    )


def test_long_values_keep_their_beginning_and_stay_apart():
    values = ["больница " * 30 + end for end in ("1", "2")]
    first, second = (partition_path(["site"], [value]) for value in values)
    assert first != second
    assert first.startswith("site=больница больница")
    assert 230 < len(first.encode()) <= 255


def test_no_partition_keys_have_no_folder():
    assert partition_path([], []) == ""


def test_values_and_names_must_match():
    with pytest.raises(ValueError, match="zip"):
        partition_path(["site"], [])


def test_listed_images_are_those_to_score_and_those_skipped():
    ref = ImageRef("/a", 5, "1")
    assert RefBatch((ref, ref), {"extension": 3, "hidden": 1}).listed == 6
    assert RefBatch(()).listed == 0


def test_a_shard_s_size_leaves_out_what_is_unknown():
    refs = (ImageRef("/a", 5, "1"), ImageRef("/b", -1, ""), ImageRef("/c", 7, "1"))
    assert Shard("slot", "id", (), refs).size_bytes == 12


def test_seconds_add_up_stage_by_stage():
    total = StageSeconds(1, 2, 3, 4, 5) + StageSeconds(0.5, 0.25, 0.125, 0, 1)
    assert total == StageSeconds(1.5, 2.25, 3.125, 4, 6)


def test_references_and_shards_survive_pickling():
    shard = Shard("slot", "id", ("a", None), (ImageRef("/a", 5, "1", ("x",), 17, ("path_mismatch", "no")),))
    assert pickle.loads(pickle.dumps(shard)) == shard


REFS = st.lists(
    st.builds(
        ImageRef,
        st.text(max_size=20),
        st.integers(-1, 2**40),
        st.text(max_size=8),
        st.lists(st.none() | st.text(max_size=4), max_size=3).map(tuple),
        st.none() | st.integers(-(2**50), 2**50),
        st.none() | st.tuples(st.text(max_size=4), st.text(max_size=4)),
    ),
    max_size=20,
).map(tuple)


@given(REFS, st.dictionaries(st.text(max_size=4), st.integers(0, 9), max_size=2))
def test_batches_and_shards_travel_unchanged(refs, skipped):
    for element in (RefBatch(refs, skipped), Shard("site=a/shard-01", "id", ("a", None), refs)):
        received = pickle.loads(pickle.dumps(element))
        assert received == element
        assert all(type(ref) is ImageRef and type(ref.keys) is tuple for ref in received.refs)


def test_an_element_that_is_only_passed_on_is_not_unpacked():
    refs = (ImageRef("gs://bucket/a.jpg", 1, "v"), ImageRef("gs://bucket/b.jpg", 2, "w"))
    for element in (RefBatch(refs, {"extension": 3}), Shard("shard-all", "id", (), refs)):
        passed_on = pickle.loads(pickle.dumps(element))
        sent_again = pickle.dumps(passed_on)
        assert "refs" not in vars(passed_on)
        assert pickle.loads(sent_again).refs == refs == passed_on.refs
        with pytest.raises(AttributeError, match="other"):
            passed_on.other  # noqa: B018


def test_references_that_are_alike_travel_in_little_room():
    refs = tuple(
        ImageRef(f"gs://bucket/site/camera/{i:08d}.jpg", 20_000, "20000-1764115200000000") for i in range(1000)
    )
    assert len(pickle.dumps(Shard("shard-all", "id", (), refs))) < 1000 * 30
