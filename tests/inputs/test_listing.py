"""Sources: which files an input names, with which keys, and which inputs are refused."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskdet import storage
from maskdet.config import SourceSettings
from maskdet.errors import ConfigError, SourceError, StorageError
from maskdet.inputs import listing
from maskdet.inputs.columns import columns_of, rows_of
from maskdet.inputs.listing import ListTask, check_input, input_tasks, list_images, split_task
from maskdet.inputs.references import ImageRef, RefBatch

PLAIN = SourceSettings()
TREE = SourceSettings(template="{site}/{captured_at:%Y-%m-%d}/*.jpg")


def fill(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def listed(inputs: list[str], source: SourceSettings = PLAIN) -> list[ImageRef]:
    """All references, listed as the pipeline does: in parts."""
    parts = [part for task in input_tasks(inputs, source) for part in split_task(task)]
    return sorted(ref for part in parts for batch in list_images(part, source) for ref in batch.refs)


def names(refs: list[ImageRef], root: Path) -> list[str]:
    return [os.path.relpath(ref.uri, root) for ref in refs]


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("images", "folder"),
        ("images/", "folder"),
        ("none", "glob"),
        ("none/", "folder"),
        ("images/*.jpg", "glob"),
        ("images/1.jpg", "glob"),
        ("m.csv", "image_list"),
        ("M.CSV", "image_list"),
        ("m.parquet", "image_list"),
        ("all.txt", "list"),
        ("all.lst", "list"),
        ("gs://b", "folder"),
        ("gs://photos.example.com", "folder"),
        ("gs://photos.example.com/", "folder"),
        ("gs://b/p", "folder"),
        ("gs://b/v1.2/", "folder"),
        ("gs://b/1.jpg", "glob"),
        ("gs://b/p/*", "glob"),
        ("gs://b/p/**/*.jpg", "glob"),
        ("gs://b/m.csv", "image_list"),
    ],
)
def test_the_kind_of_an_input_follows_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, kind: str
) -> None:
    fill(tmp_path, "images/1.jpg")
    monkeypatch.chdir(tmp_path)
    [task] = input_tasks([uri], PLAIN)
    assert task.kind == kind


def test_the_kind_in_the_settings_beats_the_name(tmp_path: Path) -> None:
    [task] = input_tasks([str(tmp_path / "list.csv")], SourceSettings(kind="list"))
    assert task == ListTask("list", str(tmp_path / "list.csv"))


@pytest.mark.parametrize("inputs", [[], [""], ["  "], ["images", ""]])
def test_no_input_and_an_empty_name_are_refused(inputs: list[str]) -> None:
    with pytest.raises(ConfigError, match="Name at least one"):
        input_tasks(inputs, PLAIN)


def test_a_glob_of_manifests_is_one_task_each(tmp_path: Path) -> None:
    fill(tmp_path, "b.csv", "a.csv", "c.txt")
    assert [task.uri for task in input_tasks([f"{tmp_path}/*.csv"], PLAIN)] == [
        f"{tmp_path}/a.csv",
        f"{tmp_path}/b.csv",
    ]
    [missing] = input_tasks([f"{tmp_path}/*.parquet"], PLAIN)
    with pytest.raises(SourceError, match="Nothing exists there"):
        check_input(missing, PLAIN)


@pytest.mark.parametrize(
    "name", ["none", "none/", "none/*.jpg", "none.jpg", "none.csv", "none.txt", "empty", "empty/*"]
)
def test_an_input_that_is_missing_or_empty_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    [task] = input_tasks([f"{tmp_path}/{name}"], PLAIN)
    with pytest.raises(SourceError, match="check the path"):
        check_input(task, PLAIN)


@pytest.mark.parametrize("name", ["a", "a/*", "a/1.jpg", "m.csv", "all.txt", "x[1].jpg"])
def test_an_input_that_holds_something_passes(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "a/1.jpg", "all.txt", "x[1].jpg")
    (tmp_path / "m.csv").write_text("uri\na/1.jpg\n")
    [task] = input_tasks([f"{tmp_path}/{name}"], PLAIN)
    check_input(task, PLAIN)


def test_a_manifest_that_lacks_a_column_is_refused_at_launch(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri\n/a.jpg\n")
    [task] = input_tasks([str(tmp_path / "m.csv")], PLAIN)
    with pytest.raises(SourceError, match=r"a column 'site' \(source.keys\)"):
        check_input(task, SourceSettings(keys=("site",)))


def test_an_input_of_an_unknown_scheme_is_refused() -> None:
    [task] = input_tasks(["htp://host/images"], PLAIN)
    with pytest.raises(StorageError, match="a scheme with a filesystem installed"):
        check_input(task, PLAIN)


@pytest.mark.parametrize(
    "written", ["{root}/in", "{root}/in/", "{root}/./in//", "file://{root}/in", "in", "../{name}/in"]
)
def test_a_folder_gives_the_same_references_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    fill(tmp_path, "in/a/2026-01-31/1.jpg", "in/b c/2026-01-31/é [2].jpg")
    monkeypatch.chdir(tmp_path)
    refs = listed([written.format(root=tmp_path, name=tmp_path.name)], TREE)
    assert names(refs, tmp_path / "in") == ["a/2026-01-31/1.jpg", "b c/2026-01-31/é [2].jpg"]
    assert [(ref.keys, ref.captured_at_ms, ref.problem) for ref in refs] == [
        (("a",), 1_769_817_600_000, None),
        (("b c",), 1_769_817_600_000, None),
    ]
    assert [ref.version for ref in refs] == [storage.stat(ref.uri).version for ref in refs]


def test_parts_of_a_folder_list_what_the_whole_lists(tmp_path: Path) -> None:
    fill(tmp_path, "0.jpg", "a/1.jpg", "a/b/2.jpg", "c/3.PNG", "c/notes.txt", "d/.hidden", "JPG")
    (tmp_path / "c" / "link.jpg").symlink_to(tmp_path / "0.jpg")
    (tmp_path / "c" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "up").symlink_to(tmp_path)
    [task] = input_tasks([str(tmp_path)], PLAIN)
    whole = list(list_images(task, PLAIN))
    parts = [batch for part in split_task(task) for batch in list_images(part, PLAIN)]
    assert len(split_task(task)) == 4
    expected = ["0.jpg", "a/1.jpg", "a/b/2.jpg", "c/3.PNG", "c/link.jpg", "c/loop.jpg"]
    skipped = {"extension .txt": 1, "excluded .*": 1, "no extension, not an image": 1, "link to a folder": 1}
    for batches in (whole, parts):
        assert names(sorted(ref for batch in batches for ref in batch.refs), tmp_path) == expected
        assert listing.merge_counts(dict(batch.skipped) for batch in batches) == skipped
        assert sum(batch.listed for batch in batches) == 10


@pytest.mark.parametrize("extensions", [("png",), (".PNG",), ("Png", "gif")])
def test_extensions_are_compared_without_case_or_dot(tmp_path: Path, extensions: tuple[str, ...]) -> None:
    fill(tmp_path, "1.png", "2.PNG", "3.jpg", "png", "4.png.bak")
    assert names(listed([str(tmp_path)], SourceSettings(extensions=extensions)), tmp_path) == ["1.png", "2.PNG"]


def test_a_glob_names_its_files_whatever_their_extension(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg", "a/2.jpeg_", "b/3")
    assert names(listed([f"{tmp_path}/*/*"]), tmp_path) == ["a/1.jpg", "a/2.jpeg_", "b/3"]


def test_a_glob_is_held_against_the_template_by_its_tail(tmp_path: Path) -> None:
    fill(tmp_path, "deep/a/2026-01-31/1.jpg")
    [ref] = listed([f"{tmp_path}/**.jpg"], TREE)
    assert (ref.keys, ref.captured_at_ms) == (("a",), 1_769_817_600_000)


def test_a_path_that_does_not_fit_becomes_a_row_that_says_so(tmp_path: Path) -> None:
    fill(tmp_path, "a/2026-01-31/1.jpg", "a/2026-02-30/2.jpg", "3.jpg")
    refs = listed([str(tmp_path)], TREE)
    assert [(ref.keys, ref.captured_at_ms) for ref in refs] == [
        ((None,), None),
        (("a",), 1_769_817_600_000),
        ((None,), None),
    ]
    assert [ref.problem and ref.problem[0] for ref in refs] == ["path_mismatch", None, "path_mismatch"]
    assert refs[0].problem is not None
    assert refs[0].problem[1] == "'3.jpg' does not fit source.template '{site}/{captured_at:%Y-%m-%d}/*.jpg'"


def test_a_path_that_does_not_fit_ends_the_run_if_so_configured(tmp_path: Path) -> None:
    fill(tmp_path, "3.jpg")
    source = SourceSettings(template=TREE.template, on_mismatch="refuse_run")
    with pytest.raises(SourceError, match=r"every path to fit .* received '3\.jpg'"):
        listed([str(tmp_path)], source)


def test_a_folder_at_the_root_of_the_tree_is_told_from_its_siblings(tmp_path: Path) -> None:
    fill(tmp_path, "in/a/1.jpg", "in2/b/1.jpg")
    assert [ref.keys for ref in listed([str(tmp_path / "in")], SourceSettings(template="{site}/*"))] == [("a",)]


def test_a_name_that_is_not_utf8_becomes_a_row_that_can_be_written(tmp_path: Path) -> None:
    fill(tmp_path, "good/1.jpg")
    for path in (b"caf\xe9.jpg", b"s\xff/2.jpg"):
        full = os.path.join(os.fsencode(tmp_path), path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        Path(os.fsdecode(full)).write_bytes(b"x")
    bad, good, also_bad = listed([str(tmp_path)], SourceSettings(template="{site}/*"))
    assert bad.uri == rf"{tmp_path}/caf\xe9.jpg"
    assert also_bad.uri == rf"{tmp_path}/s\xff/2.jpg"
    assert {ref.problem for ref in (bad, also_bad)} == {("path_mismatch", "the path is not UTF-8; rename the file")}
    assert (good.problem, good.keys) == (None, ("good",))
    assert pa.array([bad.uri, also_bad.uri]).type == pa.string()


def test_a_template_gives_keys_before_those_of_a_manifest(tmp_path: Path) -> None:
    content = "uri,shift,taken\na/1.jpg,early,\nb/2.jpg,,2026-01-31T00:00:01Z\nc.gif,late,\n,none,\n"
    (tmp_path / "m.csv").write_text(content)
    source = SourceSettings(template="{site}/*.jpg", keys=("shift",), captured_at_column="taken")
    refs = {os.path.basename(ref.uri): ref for ref in listed([str(tmp_path / "m.csv")], source)}
    assert refs["1.jpg"].keys == ("a", "early")
    assert refs["2.jpg"].keys == ("b", None)
    assert refs["2.jpg"].captured_at_ms == 1_769_817_601_000
    assert refs["c.gif"].keys == (None, "late")
    assert (refs["c.gif"].problem or ("",))[0] == "path_mismatch"
    assert refs["m.csv#part=0&row=4"].keys == (None, "none")


def test_a_manifests_time_beats_that_of_the_path(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,taken\n2026-01-31/1.jpg,\n2026-01-31/2.jpg,1970-01-01T00:00:00Z\n")
    source = SourceSettings(template="{captured_at:%Y-%m-%d}/*", captured_at_column="taken")
    refs = listed([str(tmp_path / "m.csv")], source)
    assert [ref.captured_at_ms for ref in refs] == [1_769_817_600_000, 0]


def test_every_key_is_open_without_a_template(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg")
    (tmp_path / "all.txt").write_text("1.jpg\n")
    for uri in (str(tmp_path), str(tmp_path / "all.txt")):
        assert [ref.keys for ref in listed([uri], SourceSettings(keys=("a", "b")))] == [(None, None)]


def test_a_parquet_manifest_is_cut_by_row_groups_whatever_the_case_of_its_name(tmp_path: Path) -> None:
    table = pa.table({"uri": [f"/{i}.jpg" for i in range(5)]})
    pq.write_table(table, tmp_path / "m.PARQUET", row_group_size=2)
    [task] = input_tasks([str(tmp_path / "m.PARQUET")], PLAIN)
    assert [part.part for part in split_task(task)] == [0, 1, 2]
    assert [ref.uri for ref in listed([task.uri])] == [f"/{i}.jpg" for i in range(5)]


@pytest.mark.parametrize("kind", ["glob", "list", "files"])
def test_other_tasks_are_not_cut(tmp_path: Path, kind: Any) -> None:
    task = ListTask(kind, str(tmp_path))
    assert split_task(task) == [task]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (4, [4]), (5, [5]), (11, [5, 5, 1])])
def test_batches_are_bounded_and_lose_nothing(monkeypatch: pytest.MonkeyPatch, count: int, sizes: list[int]) -> None:
    monkeypatch.setattr(listing, "BATCH_IMAGES", 5)
    refs = [ImageRef(str(i), 0, "") for i in range(count)]
    batches = list(listing.batched(iter(refs), RefBatch))
    assert [len(batch.refs) for batch in batches] == sizes
    assert [ref for batch in batches for ref in batch.refs] == refs


def test_listing_does_not_run_ahead_of_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "BATCH_IMAGES", 2)

    def endless() -> Iterator[ImageRef]:
        while True:
            yield ImageRef("/a", 0, "")

    assert len(next(listing.batched(endless(), RefBatch)).refs) == 2


def test_versions_are_asked_for_where_they_are_not_known(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.jpg")
    known = ImageRef(str(tmp_path / "1.jpg"), 7, "believed")
    unknown = ImageRef(str(tmp_path / "2.jpg"), -1, "")
    missing = ImageRef(str(tmp_path / "none.jpg"), -1, "")
    broken = ImageRef(str(tmp_path / "2.jpg"), -1, "", problem=("bad_manifest_row", "x"))
    nul = ImageRef("/a\0b.jpg", -1, "")
    found = listing.with_versions(columns_of([known, unknown, missing, broken, nul]))
    refs = list(map(ImageRef._make, rows_of(found)))
    stat = os.stat(tmp_path / "2.jpg")
    assert refs == [
        known,
        unknown._replace(size_bytes=5, version=f"5-{stat.st_mtime_ns}"),
        missing._replace(absent=True),
        broken,
        nul,
    ]


def test_counts_are_added_up_by_name() -> None:
    assert listing.merge_counts([{"a": 1}, {}, {"a": 2, "b": 3}]) == {"a": 3, "b": 3}
    assert listing.merge_counts([]) == {}


class TestAllowedPlaces:
    """Which places a list may name: its own folder, and those that settings add."""

    def refs(self, folder: Path, lines: list[str], **settings: Any) -> dict[str, str | None]:
        (folder / "all.txt").write_text("\n".join(["inside.jpg", *lines]))
        found = listed([str(folder / "all.txt")], SourceSettings(**settings))
        return {ref.uri: ref.problem and ref.problem[0] for ref in found}

    @pytest.mark.parametrize(
        "outside",
        [
            "file:///etc/passwd",
            "/etc/hostname",
            "../up.jpg",
            "x/../../up.jpg",
            "gs://other/a.jpg",
            "~/a.jpg",
            "/dev/zero",
        ],
    )
    def test_a_list_names_nothing_outside_its_folder(self, tmp_path: Path, outside: str) -> None:
        (tmp_path / "lists").mkdir()
        found = self.refs(tmp_path / "lists", [outside, f"{tmp_path}/lists/../lists/b.jpg"])
        assert found.pop(f"{tmp_path}/lists/inside.jpg") is None
        assert found.pop(f"{tmp_path}/lists/b.jpg") is None
        assert list(found.values()) == ["not_allowed"]

    def test_a_folder_that_begins_alike_is_another(self, tmp_path: Path) -> None:
        (tmp_path / "lists").mkdir()
        found = self.refs(tmp_path / "lists", [f"{tmp_path}/lists2/a.jpg"])
        assert found[f"{tmp_path}/lists2/a.jpg"] == "not_allowed"

    @pytest.mark.parametrize(
        "allowed", [("gs://photos/day",), ("gs://photos/day/",), ("*",), ("/elsewhere", "gs://photos")]
    )
    def test_settings_allow_more(self, tmp_path: Path, allowed: tuple[str, ...]) -> None:
        found = self.refs(tmp_path, ["gs://photos/day/a.jpg"], allowed=allowed)
        assert found["gs://photos/day/a.jpg"] is None

    def test_a_list_of_which_nothing_is_allowed_is_refused_at_launch(self, tmp_path: Path) -> None:
        (tmp_path / "all.txt").write_text("/photos/a.jpg\n/photos/b.jpg\n")
        [task] = input_tasks([str(tmp_path / "all.txt")], PLAIN)
        with pytest.raises(SourceError, match=r"received '/photos/a\.jpg'.*source\.allowed=\[\"/photos\"\]"):
            check_input(task, PLAIN)
        check_input(task, SourceSettings(allowed=("/photos",)))

    def test_keys_in_both_forms_of_unicode_are_one(self, tmp_path: Path) -> None:
        for name, form in (("a.csv", "NFC"), ("b.csv", "NFD")):
            text = unicodedata.normalize(form, f"uri,site\n{name}.jpg,Köln\n")
            (tmp_path / name).write_text(text, encoding="utf-8")
        source = SourceSettings(keys=("site",))
        assert {ref.keys for ref in listed([f"{tmp_path}/*.csv"], source)} == {("Köln",)}


def test_the_earlier_name_of_an_image_list_still_serves():
    assert SourceSettings(kind="manifest") == SourceSettings(kind="image_list")
