"""The command, on a small collection in which every duplicate, leak, wrong label and broken file is known."""

import csv
import hashlib
import json
import shutil

import pyarrow.parquet as pq
import pytest

from maskdet.preparation.manifest import read_split
from maskdet.preparation.records import duplicates_schema, failures_schema, images_schema
from maskdet.testing import solid_image

KEPT = 29
FAILED = {"corrupt_image": 1, "empty_file": 1, "not_an_image": 1, "path_mismatch": 1}


@pytest.fixture
def output(tmp_path, prepare, source):
    folder = tmp_path / "manifest"
    assert prepare(folder, {"faces": source()}) == 0
    return folder


def rows(folder, name="images"):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def by_name(folder):
    return {row["image_uri"].rsplit("/", 1)[-1]: row for row in rows(folder)}


def pairs(folder):
    names = [
        {row["image_uri"].rsplit("/", 1)[-1], row["other_image_uri"].rsplit("/", 1)[-1]}
        for row in rows(folder, "duplicates")
    ]
    return {frozenset(pair): row["kind"] for pair, row in zip(names, rows(folder, "duplicates"), strict=True)}


def report(folder):
    return json.loads((folder / "report.json").read_text())


def test_every_planted_duplicate_is_found_and_no_other(output):
    assert pairs(output) == {
        frozenset({"face00.png", "face00_copy.png"}): "exact",
        frozenset({"face02.png", "small_of_02.jpg"}): "near",
        frozenset({"face03.png", "flip_of_03.png"}): "mirrored",
        frozenset({"face04.png", "wrong_04.png"}): "exact",
        frozenset({"face05.png", "wrong_05.jpg"}): "near",
    }


def test_duplicates_share_a_group_and_a_split_and_nothing_else_does(output):
    images = by_name(output)
    for pair in pairs(output):
        assert len({(images[name]["group_id"], images[name]["split"]) for name in pair}) == 1
    assert len({row["group_id"] for row in images.values()}) == KEPT - len(pairs(output))
    digests = {row["content_sha256"] for row in images.values()}
    assert {row["group_id"] for row in images.values()} <= digests


def test_duplicates_with_opposite_labels_are_flagged_and_kept(output):
    flagged = {name for name, row in by_name(output).items() if row["suspicious"]}
    assert flagged == {"face04.png", "wrong_04.png", "face05.png", "wrong_05.jpg"}


def test_official_test_images_with_a_sibling_in_train_are_leaks(output):
    assert {name for name, row in by_name(output).items() if row["official_leak"]} == {
        "small_of_02.jpg",
        "flip_of_03.png",
    }
    assert report(output)["official_leaks_by_content"] == {"test": 2}


def test_copies_name_the_first_of_their_bytes(output):
    copies = {
        name: row["duplicate_of"].rsplit("/", 1)[-1] for name, row in by_name(output).items() if row["duplicate_of"]
    }
    assert copies == {"face00_copy.png": "face00.png", "wrong_04.png": "face04.png"}


def test_rows_say_what_the_files_are(output, planted):
    row = by_name(output)["small_of_02.jpg"]
    data = (planted / "Test/bare/small_of_02.jpg").read_bytes()
    assert row["content_sha256"] == hashlib.sha256(data).hexdigest()
    assert (row["width_px"], row["height_px"], row["size_bytes"]) == (80, 80, len(data))
    assert (row["format"], row["jpeg_quality"]) == ("JPEG", 70)
    assert (row["source"], row["label"], row["official_split"]) == ("faces", "no_mask", "test")
    assert by_name(output)["face00.png"]["jpeg_quality"] is None


def test_everything_is_accounted_for(output):
    assert report(output)["images"] == {"listed": 34, "kept": KEPT, "failed": 4, "skipped": 1}
    assert report(output)["failed_by_code"] == FAILED
    assert report(output)["skipped_by_reason"] == {"extension .md": 1}
    assert len(rows(output)) == KEPT
    assert sorted(row["code"] for row in rows(output, "failures")) == sorted(FAILED)
    assert sum(row["images"] for row in report(output)["counts"]) == KEPT


def test_tables_have_the_schemas_that_describe_them(output):
    for name, schema in (
        ("images", images_schema()),
        ("failures", failures_schema()),
        ("duplicates", duplicates_schema()),
    ):
        found = pq.read_schema(output / f"{name}.parquet")
        assert found.equals(schema)
        assert all(field.metadata[b"description"] for field in found)
    metadata = pq.ParquetFile(output / "images.parquet").metadata
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_rows_are_in_order(output):
    uris = [row["image_uri"] for row in rows(output)]
    assert uris == sorted(uris)


def test_success_names_the_manifest(output):
    digest = hashlib.sha256((output / "images.parquet").read_bytes()).hexdigest()
    assert (output / "_SUCCESS").read_text().strip() == digest


def test_the_same_input_gives_the_same_bytes(output, tmp_path, prepare, source, monkeypatch):
    monkeypatch.setattr("maskdet.beam.preparation._BATCH_IMAGES", 3)
    again = tmp_path / "again"
    assert prepare(again, {"faces": source()}) == 0
    for name in ("images.parquet", "failures.parquet", "duplicates.parquet", "report.json", "summary.txt", "_SUCCESS"):
        assert (again / name).read_bytes() == (output / name).read_bytes(), name


def test_groups_of_a_manifest_and_of_names_join_images(tmp_path, prepare, source):
    with (tmp_path / "groups.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows(
            [["path", "source_group"], ["Test/masked/face17.png", "007"], ["Train/masked/face07.png", "007"]]
        )
        writer.writerow(["Train/masked/face09.png", "7"])
    folder = tmp_path / "manifest"
    given = source(group_manifest=str(tmp_path / "groups.csv"), group_pattern=r"^face(1)[01]")
    assert prepare(folder, {"faces": given}) == 0
    images = by_name(folder)
    assert images["face17.png"]["group_id"] == images["face07.png"]["group_id"]
    assert images["face09.png"]["group_id"] != images["face07.png"]["group_id"]
    assert images["face10.png"]["group_id"] == images["face11.png"]["group_id"]
    assert images["face17.png"]["official_leak"]
    assert report(folder)["official_leaks_by_content"] == {"test": 2}
    assert report(folder)["given_groups"]["faces"] == 5


def test_labels_and_splits_of_a_manifest_are_read(tmp_path, prepare, planted):
    with (tmp_path / "list.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["uri", "kind", "part"])
        writer.writerow([planted / "Train/bare/face00.png", "0", "train"])
        writer.writerow([planted / "Train/masked/face01.png", "mask", ""])
        writer.writerow([planted / "Train/masked/face03.png", "masked?", "train"])
        writer.writerow([planted / "Train/bare/face99.png", "0", "train"])
    given = {
        "input": str(tmp_path / "list.csv"),
        "label_column": "kind",
        "labels": {"0": "no_mask"},
        "split_column": "part",
    }
    folder = tmp_path / "manifest"
    assert prepare(folder, {"listed": given}, failure_budget={"max_images": 2, "max_ratio": 1.0}) == 0
    found = {name: (row["label"], row["official_split"]) for name, row in by_name(folder).items()}
    assert found == {"face00.png": ("no_mask", "train"), "face01.png": ("mask", None)}
    assert {row["code"] for row in rows(folder, "failures")} == {"bad_manifest_row", "not_found"}


def test_an_image_of_two_sources_counts_once(tmp_path, prepare, source, planted):
    folder = tmp_path / "manifest"
    part = {"input": str(planted / "Test" / "bare"), "label": "no_mask", "split": "test"}
    assert prepare(folder, {"faces": source(), "again": part}) == 0
    assert report(folder)["images"] == {"listed": 39, "kept": KEPT, "failed": 4, "skipped": 6}
    assert report(folder)["skipped_by_reason"] == {"duplicate": 5, "extension .md": 1}


def test_a_table_that_has_no_rows_any_more_is_removed(tmp_path, prepare, source, planted):
    folder = tmp_path / "manifest"
    assert prepare(folder, {"faces": source()}) == 0
    part = {"input": str(planted / "Test" / "masked"), "label": "mask"}
    assert prepare(folder, {"faces": part}) == 0
    assert not (folder / "failures.parquet").exists() and not (folder / "duplicates.parquet").exists()


BARE = {"label": "no_mask"}


@pytest.mark.parametrize(
    ("sources", "code", "parts"),
    [
        ({}, 2, ["sources", "at least one"]),
        ({"a": {"input": "NOWHERE", **BARE}}, 3, ["sources.a.input", "NOWHERE"]),
        ({"a": {"input": "EMPTY", **BARE}}, 3, ["sources.a.input", "a folder with files"]),
        ({"a": {"input": "", **BARE}}, 2, ["sources.a.input", "at least one"]),
        ({"a": {"input": "PLANTED"}}, 2, ["either label"]),
        ({"a": {"input": "PLANTED", "label": "maybe"}}, 2, ["sources.a.label", "'maybe'"]),
        ({"a": {"input": "PLANTED", **BARE, "group_pattern": "x"}}, 2, ["group_pattern", "one group"]),
        ({"a": {"input": "PLANTED", **BARE, "group_manifest": "NOWHERE"}}, 5, ["NOWHERE", "nothing exists"]),
        ({"a": {"input": "PLANTED", "label_column": "kind"}}, 2, ["label_column", "a manifest"]),
        (
            {"a": {"input": "PLANTED", "labels": {"masked": "mask"}, "split": "test", "splits": {"x": "test"}}},
            2,
            ["split"],
        ),
    ],
)
def test_a_wrong_source_is_refused_at_launch(tmp_path, prepare, planted, capfd, sources, code, parts):
    (tmp_path / "empty").mkdir()
    places = {"NOWHERE": str(tmp_path / "NOWHERE"), "EMPTY": str(tmp_path / "empty"), "PLANTED": str(planted)}
    text = json.dumps(sources)
    for name, place in places.items():
        text = text.replace(f'"{name}"', json.dumps(place))
    assert prepare(tmp_path / "manifest", json.loads(text)) == code
    message = capfd.readouterr().err
    assert all(part in message for part in parts), message
    assert "Traceback" not in message
    assert not (tmp_path / "manifest").exists()


def test_both_labels_for_one_file_are_refused(tmp_path, prepare, source, planted, capfd):
    wrong = {"input": str(planted / "Test" / "bare"), "label": "mask"}
    assert prepare(tmp_path / "manifest", {"faces": source(), "wrong": wrong}) == 3
    assert "one label a file" in capfd.readouterr().err
    assert not (tmp_path / "manifest" / "_SUCCESS").exists()


def test_too_many_failures_end_without_success(tmp_path, prepare, source):
    folder = tmp_path / "manifest"
    assert prepare(folder, {"faces": source()}, failure_budget={"max_ratio": 0.01}) == 6
    assert len(rows(folder)) == KEPT
    assert report(folder)["status"] == "over_budget"
    assert not (folder / "_SUCCESS").exists()


def test_no_usable_image_is_an_empty_input(tmp_path, prepare, planted):
    folder = tmp_path / "broken"
    folder.mkdir()
    shutil.copy(planted / "Train/bare/empty.png", folder)
    assert prepare(tmp_path / "manifest", {"broken": {"input": str(folder), **BARE}}) == 3
    assert report(tmp_path / "manifest")["status"] == "empty"
    assert not (tmp_path / "manifest" / "images.parquet").exists()


def test_an_output_with_scores_is_refused(tmp_path, prepare, source):
    (tmp_path / "_runs").mkdir()
    (tmp_path / "_runs" / "r.json").write_text("{}")
    assert prepare(tmp_path, {"faces": source()}) == 8
    (tmp_path / "file").write_text("")
    assert prepare(tmp_path / "file", {"faces": source()}) == 8


def test_the_summary_says_what_was_found(output):
    text = (output / "summary.txt").read_text()
    for part in (
        "34 listed = 29 kept + 4 failed + 1 skipped",
        "1 corrupt_image",
        "2 exact pairs",
        "faces/mask: 1 of 5 official test images have a sibling in official train",
        "suspicious  2 faces/mask, 2 faces/no_mask",
    ):
        assert part in text


def test_names_group_within_their_source_only(tmp_path, prepare, planted):
    folder = tmp_path / "manifest"
    common = {"label": "mask", "group_pattern": "^(face)"}
    train = {**common, "input": str(planted / "Train/masked"), "split": "train"}
    assert prepare(folder, {"a": train, "b": {**common, "input": str(planted / "Test/masked"), "split": "test"}}) == 0
    groups = {(row["source"], row["group_id"]) for row in rows(folder) if row["image_uri"].split("/")[-1] < "flip"}
    assert len(groups) == 2


def test_flat_images_are_flagged_and_can_be_left_out(tmp_path, prepare, source):
    photos = tmp_path / "photos"
    photos.mkdir()
    for value in (0, 200):
        (photos / f"{value}.png").write_bytes(solid_image(value))
    folder = tmp_path / "manifest"
    sources = {"faces": source(), "flat": {"input": str(photos), "label": "mask"}}
    assert prepare(folder, sources, splits={"train": 1.0, "validation": 0.0, "test": 0.0}) == 0
    assert {name for name, row in by_name(folder).items() if row["flat"]} == {"0.png", "200.png"}
    assert report(folder)["flat"] == [{"source": "flat", "label": "mask", "images": 2}]
    assert len(read_split(str(folder / "images.parquet"), "train")) == KEPT + 2
    assert len(read_split(str(folder / "images.parquet"), "train", drop_flat=True)) == KEPT
