"""What folders contain besides photographs: nothing disappears silently, and nothing ends a run."""

from __future__ import annotations

import io
import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskdet import storage
from maskdet.config import DEFAULT_EXCLUDES, SourceSettings
from maskdet.errors import AccessDeniedError
from maskdet.inputs import listing
from maskdet.inputs.folders import Exclusion
from maskdet.inputs.listing import check_input, input_tasks, list_images, split_task
from maskdet.templates import PathTemplate

PLAIN = SourceSettings()


def picture(file_format="PNG"):
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(stream, file_format)
    return stream.getvalue()


def fill(root: Path, *names: str, data: bytes = b"x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def listed(uri, source=PLAIN):
    """References by path below the input, and what was skipped; the same in parts and as a whole."""
    [task] = input_tasks([str(uri)], source)
    check_input(task, source)
    whole = list(list_images(task, source))
    parts = [batch for part in split_task(task) for batch in list_images(part, source)]
    outcomes = []
    for batches in (whole, parts):
        refs = {os.path.relpath(ref.uri, uri): ref for batch in batches for ref in batch.refs}
        skipped = listing.merge_counts(dict(batch.skipped) for batch in batches)
        assert sum(batch.listed for batch in batches) == len(refs) + sum(skipped.values())
        outcomes.append((refs, skipped))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def test_links_to_files_are_scored_and_those_that_lead_nowhere_are_failures(tmp_path: Path) -> None:
    fill(tmp_path, "photos/real.jpg", "store/target.jpg", "photos/folder.jpg/in.jpg")
    photos = tmp_path / "photos"
    (photos / "link.jpg").symlink_to("../store/target.jpg")
    for number in range(3):
        (photos / f"annex{number}.jpg").symlink_to(f"../.git/annex/objects/{number}")
    (photos / "loop.jpg").symlink_to("loop.jpg")
    (photos / "notes.txt").symlink_to("nowhere")
    (photos / "nameless").symlink_to("nowhere")
    (photos / "itself").symlink_to(".")
    (photos / "elsewhere").symlink_to("../store")
    refs, skipped = listed(photos)
    problems = {name: ref.problem[0] for name, ref in refs.items() if ref.problem}
    assert problems == dict.fromkeys(["annex0.jpg", "annex1.jpg", "annex2.jpg", "loop.jpg", "nameless"], "not_found")
    assert sorted(set(refs) - set(problems)) == ["folder.jpg/in.jpg", "link.jpg", "real.jpg"]
    assert skipped == {"link to a folder": 2, "extension .txt": 1}


def test_a_folder_of_links_that_lead_nowhere_is_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("nowhere")
    refs, _ = listed(tmp_path)
    assert list(refs) == ["a.jpg"]


def test_fifos_and_sockets_are_failures_by_name_or_skipped_by_extension(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe.log")
    os.mkfifo(tmp_path / "pipe")
    refs, skipped = listed(tmp_path)
    assert {name: ref.problem and ref.problem[0] for name, ref in refs.items()} == {
        "a.jpg": None,
        "pipe.jpg": "not_a_file",
        "pipe": "not_a_file",
    }
    assert skipped == {"extension .log": 1}


def test_a_folder_that_cannot_be_read_is_one_failure_and_its_siblings_are_listed(tmp_path, monkeypatch) -> None:
    fill(tmp_path, "a/1.jpg", "b/2.jpg", "lost+found/3.jpg")
    entries = storage.entries

    def closed(folder):
        if folder.endswith(("/b", "/lost+found")):
            raise AccessDeniedError(f"cannot list {folder}")
        return entries(folder)

    monkeypatch.setattr(storage, "entries", closed)
    [task] = input_tasks([str(tmp_path)], PLAIN)
    check_input(task, PLAIN)
    for tasks in ([task], split_task(task)):
        batches = [batch for part in tasks for batch in list_images(part, PLAIN)]
        refs = sorted(ref for batch in batches for ref in batch.refs)
        assert [(os.path.relpath(ref.uri, tmp_path), ref.problem) for ref in refs] == [
            ("a/1.jpg", None),
            ("b", ("access_denied", "the folder cannot be read")),
        ]
        assert listing.merge_counts(dict(batch.skipped) for batch in batches) == {"excluded lost+found": 1}


def test_an_input_that_cannot_be_read_ends_the_run(tmp_path, monkeypatch) -> None:
    def closed(folder):
        raise AccessDeniedError(f"cannot list {folder}")

    monkeypatch.setattr(storage, "entries", closed)
    [task] = input_tasks([str(tmp_path)], PLAIN)
    with pytest.raises(AccessDeniedError):
        check_input(task, PLAIN)


SIDECARS = {
    "@eaDir/IMG_1.jpg/SYNOPHOTO_THUMB_XL.jpg": "@eaDir",
    "2026/@eaDir/IMG_2.jpg/SYNOPHOTO_THUMB_M.jpg": "@eaDir",
    ".thumbnails/1.png": ".*",
    ".Trash-1000/files/old.jpg": ".*",
    "2026/.ipynb_checkpoints/IMG_2-checkpoint.jpg": ".*",
    "._IMG_1.jpg": ".*",
    ".DS_Store": ".*",
    "__MACOSX/2026/._IMG_2.jpg": "__MACOSX",
    "#recycle/gone.jpg": "#recycle",
    "$RECYCLE.BIN/gone.jpg": "$RECYCLE.BIN",
    "lost+found/#123.jpg": "lost+found",
}


class TestExclusion:
    def test_what_programs_put_beside_photographs_is_left_out_and_counted_by_rule(self, tmp_path: Path) -> None:
        fill(tmp_path, "IMG_1.jpg", "2026/IMG_2.jpg", *SIDECARS)
        refs, skipped = listed(tmp_path)
        assert sorted(refs) == ["2026/IMG_2.jpg", "IMG_1.jpg"]
        assert skipped == {f"excluded {rule}": count for rule, count in Counter(SIDECARS.values()).items()}

    def test_globs_leave_out_the_same_unless_they_name_it(self, tmp_path: Path) -> None:
        fill(tmp_path, "IMG_1.jpg", "2026/IMG_2.jpg", *SIDECARS)
        refs, skipped = listed(f"{tmp_path}/**/*.jpg")
        assert sorted(os.path.basename(name) for name in refs) == ["IMG_1.jpg", "IMG_2.jpg"]
        assert sum(skipped.values()) == sum(name.endswith(".jpg") for name in SIDECARS)
        assert len(listed(f"{tmp_path}/.thumbnails/*.png")[0]) == 1
        assert len(listed(f"{tmp_path}/*/@eaDir/**.jpg")[0]) == 1
        assert len(listed(f"{tmp_path}/._IMG_1.jpg")[0]) == 1

    def test_an_input_inside_a_hidden_folder_was_named(self, tmp_path: Path) -> None:
        fill(tmp_path, ".cache/photos/1.jpg", ".cache/photos/.old/2.jpg")
        refs, skipped = listed(tmp_path / ".cache" / "photos")
        assert (list(refs), skipped) == (["1.jpg"], {"excluded .*": 1})

    def test_settings_replace_the_rules(self, tmp_path: Path) -> None:
        fill(tmp_path, "1.jpg", ".hidden.jpg", "old/2.jpg", "a/old/3.jpg", "a/thumb_4.jpg")
        source = SourceSettings(exclude=("old/*", "thumb_*"))
        refs, skipped = listed(tmp_path, source)
        assert sorted(refs) == [".hidden.jpg", "1.jpg", "a/old/3.jpg"]
        assert skipped == {"excluded old/*": 1, "excluded thumb_*": 1}
        assert len(listed(tmp_path, SourceSettings(exclude=()))[0]) == 5

    @pytest.mark.parametrize(
        ("pattern", "path", "matches"),
        [
            (".*", "a/.b/c.jpg", True),
            (".*", "a/b.c/d.jpg", False),
            ("@eaDir", "a/@EADIR/c.jpg", True),
            ("@eaDir", "a/@eaDirs/c.jpg", False),
            ("thumb?", "thumb1", True),
            ("thumb?", "thumb/1", False),
            ("a/*", "a/b", True),
            ("a/*", "b/a/b", False),
            ("a/**/c", "a/b/b/c/d.jpg", True),
            ("a.c", "abc", False),
        ],
    )
    def test_patterns_are_of_names_or_of_paths(self, pattern: str, path: str, matches: bool) -> None:
        assert Exclusion([pattern]).reason(path) == (f"excluded {pattern}" if matches else "")

    def test_the_defaults_are_listed_by_the_settings(self) -> None:
        assert SourceSettings().exclude == DEFAULT_EXCLUDES
        assert {".*", "@eaDir", "__MACOSX"} <= set(DEFAULT_EXCLUDES)


class TestKinds:
    def test_extensions_of_phones_and_of_old_programs_are_images(self, tmp_path: Path) -> None:
        names = ["a.jfif", "b.jpe", "c.MPO", "d.HEIC", "e.avif", "f.JPG", "g.dib"]
        fill(tmp_path, *names)
        assert sorted(listed(tmp_path)[0]) == names

    def test_a_file_without_an_extension_is_an_image_if_it_begins_as_one(self, tmp_path: Path) -> None:
        fill(tmp_path, "sha256/0a1b", data=picture())
        fill(tmp_path, "sha256/2c3d", data=picture("JPEG"))
        fill(tmp_path, "README", "sha256/empty", data=b"")
        refs, skipped = listed(tmp_path)
        assert sorted(refs) == ["sha256/0a1b", "sha256/2c3d"]
        assert skipped == {"no extension, not an image": 2}

    def test_skipped_kinds_are_named_and_their_number_is_bounded(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.jpg", "b.mp4", "c.MP4", "d.CR2", *[f"log.{number}" for number in range(30)], "e.unheard_of")
        refs, skipped = listed(tmp_path)
        assert list(refs) == ["a.jpg"]
        assert skipped == {"extension .mp4": 2, "extension .cr2": 1, "another extension": 31}


def test_names_in_both_forms_of_unicode_are_one_group(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Köln-Süd") for form in ("NFC", "NFD"))
    assert composed != decomposed
    fill(tmp_path, f"{composed}/1.jpg", f"{decomposed}/2.jpg")
    refs, _ = listed(tmp_path, SourceSettings(template="{site}/*.jpg"))
    assert {ref.keys for ref in refs.values()} == {(composed,)}
    assert {os.path.exists(ref.uri) for ref in refs.values()} == {True}


@pytest.mark.parametrize(
    ("template", "path", "matches"),
    [
        ("{site}/*.jpg", "a/1.JPG", True),
        ("{site}/*.JPG", "a/1.jpg", True),
        ("{site}/*.jpg", "a/1.jpeg", False),
        ("{site}/*.jpg", "a/1.jpg.bak", False),
        ("{site}/IMG*.jpg", "a/img1.jpg", False),
        ("Süd/{site}.png", unicodedata.normalize("NFD", "Süd/a.PNG"), True),
    ],
)
def test_an_extension_in_a_template_matches_in_any_case(template: str, path: str, matches: bool) -> None:
    assert (PathTemplate(template).match(path) is not None) == matches
