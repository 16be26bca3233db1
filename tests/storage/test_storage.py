"""Local storage: names, listing, atomic writes and errors."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdet import storage
from maskdet.errors import AccessDeniedError, NotAFileError, StorageError, TooLargeError
from maskdet.storage import local

ODD_NAMES = [
    "a b.jpg",
    "straße 日本.jpg",
    "[1].jpg",
    "100%.jpg",
    "a%20b.jpg",
    "#1.jpg",
    "what?.jpg",
    "site=a.jpg",
    "*.jpg",
    "new\nline.jpg",
    "~a.jpg",
    "-a.jpg",
    "a:b.jpg",
    r"back\slash.jpg",
    "'quoted'.jpg",
]


def fill(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def found(files: Iterator[storage.StoredFile], root: Path) -> list[str]:
    return sorted(os.path.relpath(file.uri, root) for file in files)


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("/a/b", True),
        ("a/b", True),
        ("~/a", True),
        ("file:///a", True),
        ("FILE:///a", True),
        ("C:/a", True),
        ("a:b/c", True),
        ("gs://b/x", False),
        ("s3://b", False),
        ("http://h/x", False),
    ],
)
def test_a_path_is_local_unless_it_has_another_scheme(uri: str, local: bool) -> None:
    assert storage.is_local(uri) is local


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b/", "/a/b"),
        ("/a/./c/../b", "/a/b"),
        ("/", "/"),
        ("file:///a/b/", "/a/b"),
        ("FILE:///a/b", "/a/b"),
        ("file://localhost/a/b", "/a/b"),
        ("file:///a%20b/100%25", "/a b/100%"),
        ("/a%20b", "/a%20b"),
        ("gs://b/p/", "gs://b/p"),
        ("gs://b/p//", "gs://b/p"),
        ("gs://b//x%20y", "gs://b//x%20y"),
    ],
)
def test_one_place_has_one_name(uri: str, expected: str) -> None:
    assert storage.normalize(uri) == expected
    assert storage.normalize(storage.normalize(uri)) == expected


def test_relative_and_home_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert storage.normalize("a/../b") == str(tmp_path / "b")
    assert storage.normalize("~/b") == str(tmp_path / "home" / "b")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_of_any_name_is_written_listed_found_and_deleted(tmp_path: Path, name: str) -> None:
    uri = storage.join(str(tmp_path), "deep er", name)
    storage.write_bytes(uri, b"new")
    assert (tmp_path / "deep er" / name).read_bytes() == b"new"
    assert storage.exists(uri)
    assert storage.read_bytes(uri) == b"new"
    with storage.open_binary(uri) as stream:
        assert stream.read() == b"new"
    [listed] = storage.list_folder(str(tmp_path))
    assert listed == storage.stat(uri)
    assert (listed.uri, listed.size_bytes) == (uri, 3)
    assert list(storage.list_matching(uri)) == [listed]
    storage.delete([uri, uri])
    assert not storage.exists(uri)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_uri_made_by_the_standard_library_names_its_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert storage.read_bytes((tmp_path / name).as_uri()) == b"x"


def test_a_changed_file_has_another_version(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    first = storage.stat(str(path)).version
    os.utime(path, ns=(2, 2))
    assert storage.stat(str(path)).version != first
    path.write_bytes(b"longer")
    os.utime(path, ns=(1, 1))
    assert storage.stat(str(path)).version != first


@given(contents=st.lists(st.binary(max_size=50), min_size=1, max_size=4))
def test_the_last_content_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("write")
    for content in contents:
        storage.write_bytes(str(folder / "a"), content)
        assert storage.read_bytes(str(folder / "a")) == content
    assert os.listdir(folder) == ["a"]


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    write = Path.write_bytes

    def fail(self: Path, *arguments: Any) -> None:
        write(self, b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(StorageError, match="No space left"):
        storage.write_bytes(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_an_interrupted_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def interrupt(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.write_bytes(str(tmp_path / "a"), b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_a_folder_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    fill(tmp_path, "a/x")
    with pytest.raises(StorageError, match="cannot write"):
        storage.write_bytes(str(tmp_path / "a"), b"new")
    assert found(storage.list_folder(str(tmp_path)), tmp_path) == ["a/x"]


def test_a_folder_is_listed_at_any_depth_and_by_itself(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "a/2.jpg", "a/b/3.jpg", "[c]/4.jpg")
    for name in (str(tmp_path), f"{tmp_path}/", tmp_path.as_uri(), f"{tmp_path}/a/.."):
        assert found(storage.list_folder(name), tmp_path) == ["1.jpg", "[c]/4.jpg", "a/2.jpg", "a/b/3.jpg"]
    assert found(storage.list_files(str(tmp_path)), tmp_path) == ["1.jpg"]


def test_a_folder_that_does_not_exist_holds_no_files(tmp_path: Path) -> None:
    assert list(storage.list_folder(str(tmp_path / "none"))) == []


def test_links_to_files_are_files_and_links_to_nowhere_or_round_in_circles_are_none(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "link.jpg").symlink_to("1.jpg")
    (tmp_path / "a" / "dangling.jpg").symlink_to("none.jpg")
    (tmp_path / "a" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "a" / "through.jpg").symlink_to("1.jpg/none")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    assert found(storage.list_folder(str(tmp_path)), tmp_path) == ["a/1.jpg", "a/link.jpg"]


def test_a_folder_named_by_a_link_is_listed(tmp_path: Path) -> None:
    fill(tmp_path, "real/1.jpg")
    (tmp_path / "link").symlink_to("real")
    assert found(storage.list_folder(str(tmp_path / "link")), tmp_path) == ["link/1.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["1.jpg", "2.jpg"]),
        ("?.jpg", ["1.jpg", "2.jpg"]),
        ("[!1].jpg", ["2.jpg"]),
        ("[1-2].png", ["1.png"]),
        ("*/*.jpg", ["a/3.jpg", "b c/5.jpg"]),
        ("**.jpg", ["1.jpg", "2.jpg", "a/3.jpg", "a/b/4.jpg", "b c/5.jpg"]),
        ("a/**", ["a/3.jpg", "a/b/4.jpg"]),
        ("b c/*", ["b c/5.jpg"]),
        ("1.jpg", ["1.jpg"]),
        ("*.gif", []),
        ("none/*.jpg", []),
        ("none.jpg", []),
    ],
)
def test_globs_match_within_and_across_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, expected: list[str]
) -> None:
    fill(tmp_path, "1.jpg", "2.jpg", "1.png", "a/3.jpg", "a/b/4.jpg", "b c/5.jpg", "1xjpg")
    monkeypatch.chdir(tmp_path)
    for written in (f"{tmp_path}/{pattern}", pattern, f"file://{tmp_path}/{pattern}"):
        assert found(storage.list_matching(written), tmp_path) == expected


def test_a_file_whose_name_looks_like_a_glob_is_meant_before_the_pattern(tmp_path: Path) -> None:
    fill(tmp_path, "a[1].jpg", "a1.jpg")
    assert found(storage.list_matching(str(tmp_path / "a[1].jpg")), tmp_path) == ["a[1].jpg"]
    (tmp_path / "a[1].jpg").unlink()
    assert found(storage.list_matching(str(tmp_path / "a[1].jpg")), tmp_path) == ["a1.jpg"]


def test_a_folder_where_a_file_is_expected_is_a_storage_error(tmp_path: Path) -> None:
    for read in (storage.read_bytes, lambda uri: storage.open_binary(uri).__enter__()):
        with pytest.raises(NotAFileError, match="expected a file, received 'a folder'"):
            read(str(tmp_path))


@pytest.mark.timeout(20)
def test_what_has_no_end_or_waits_for_a_writer_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # a socket's path may not be long
        listener.bind("socket")
        kinds = {"/dev/zero": "a device", str(tmp_path / "fifo"): "a FIFO", str(tmp_path / "socket"): "a socket"}

        def refuse(*arguments: object) -> int:
            raise AssertionError("opened")

        monkeypatch.setattr(os, "open", refuse)
        for uri, kind in kinds.items():
            with pytest.raises(NotAFileError, match=f"expected a file, received '{kind}'"):
                storage.read_bytes(uri)


def test_a_read_stops_at_its_limit_whatever_size_was_told(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    size = (tmp_path / "a").stat().st_size
    assert len(storage.read_bytes(str(tmp_path / "a"), limit=size)) == size
    with pytest.raises(TooLargeError, match=f"at most {size - 1} bytes, received {size}"):
        storage.read_bytes(str(tmp_path / "a"), limit=size - 1)


def test_entries_of_a_folder_are_told_apart(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b/c.jpg")
    (tmp_path / "to_file").symlink_to("a.jpg")
    (tmp_path / "to_folder").symlink_to("b")
    (tmp_path / "to_nothing").symlink_to("../.git/annex/objects/x")
    (tmp_path / "to_itself").symlink_to("to_itself")
    (tmp_path / "through_a_file").symlink_to("a.jpg/x")
    os.mkfifo(tmp_path / "fifo")
    kinds = {os.path.basename(entry.file.uri): entry.kind for entry in storage.entries(str(tmp_path))}
    assert kinds == {
        "a.jpg": "file",
        "b": "folder",
        "to_file": "file",
        "to_folder": "link",
        "to_nothing": "dangling",
        "to_itself": "dangling",
        "through_a_file": "dangling",
        "fifo": "special",
    }


def test_a_file_where_a_folder_is_expected_is_a_storage_error(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    with pytest.raises(StorageError):
        storage.write_bytes(str(tmp_path / "a" / "b"), b"")
    with pytest.raises(StorageError):
        storage.read_bytes(str(tmp_path / "a" / "b"))
    assert not storage.exists(str(tmp_path / "a" / "b"))


@pytest.mark.parametrize("told_bytes", [0, 4, 10, 17])
@pytest.mark.parametrize("piece_bytes", [3, 100])
def test_a_file_is_read_to_its_end_whatever_size_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_bytes: int, piece_bytes: int
) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    read = os.read
    monkeypatch.setattr(local.os, "fstat", lambda descriptor: SimpleNamespace(st_size=told_bytes))
    monkeypatch.setattr(local.os, "read", lambda descriptor, size: read(descriptor, min(size, piece_bytes)))
    assert storage.read_bytes(str(tmp_path / "a")) == b"0123456789"


@pytest.mark.parametrize("number", [1, 13, 30])
def test_a_refusal_by_the_system_is_access_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(path: str, *arguments: object, **options: object) -> None:
        raise OSError(number, "refused")

    fill(tmp_path, "a")
    monkeypatch.setattr(local.os, "open", refuse)
    with pytest.raises(AccessDeniedError, match="Check the credentials"):
        storage.read_bytes(str(tmp_path / "a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_without_permission_is_access_denied(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    (tmp_path / "a").chmod(0)
    with pytest.raises(AccessDeniedError):
        storage.read_bytes(str(tmp_path / "a"))


def test_only_folders_without_files_are_removed(tmp_path: Path) -> None:
    fill(tmp_path, "a/1", "b/keep/2")
    (tmp_path / "a" / "x" / "y").mkdir(parents=True)
    (tmp_path / "b" / "empty").mkdir()
    (tmp_path / "c").mkdir()
    storage.remove_empty_folders([str(tmp_path / name) for name in ("a", "b", "c", "none")])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        *("a", "a/1", "b", "b/keep", "b/keep/2")
    ]


def test_a_listing_that_is_not_read_to_its_end_is_no_error(tmp_path: Path) -> None:
    fill(tmp_path, "1", "2")
    listing = storage.list_folder(str(tmp_path))
    next(listing)
    listing.close()


def test_a_file_is_written_only_over_what_was_expected(tmp_path: Path) -> None:
    uri = str(tmp_path / "deep" / "file")
    assert not storage.write_if(uri, b"old", b"new")
    assert not storage.exists(uri)
    assert storage.write_if(uri, None, b"one")
    assert not storage.write_if(uri, None, b"two")
    assert not storage.write_if(uri, b"other", b"two")
    assert storage.write_if(uri, b"one", b"two")
    assert storage.read_bytes(uri) == b"two"


def test_of_many_writers_who_expect_the_same_one_wins(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    for expected in (None, b"x"):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda number: storage.write_if(uri, expected, b"%d" % number), range(8)))  # noqa: B023
        assert sum(won) == 1
        assert storage.read_bytes(uri) == b"%d" % won.index(True)
        storage.write_bytes(uri, b"x")


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_replaces_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no hard links here")))
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(b"new")
    for _ in range(2):
        storage.link_or_copy(str(source), str(target))
        assert target.read_bytes() == b"new"
        assert storage.is_same_file(str(source), str(target)) == links
        assert [path.name for path in target.parent.iterdir()] == ["target"]
    storage.write_bytes(str(source), b"newer")  # which replaces the file, not its content
    assert target.read_bytes() == b"new"
    source.unlink()
    with pytest.raises(StorageError):
        storage.link_or_copy(str(source), str(target))
    assert target.read_bytes() == b"new"
