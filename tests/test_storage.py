"""Storage: names, listing, atomic writes and the errors of every filesystem, local and remote."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from maskdet import storage
from maskdet.errors import AccessDeniedError, NotFoundError, StorageError

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


class HttpError(Exception):
    """What a store's client library raises."""

    def __init__(self, code: int) -> None:
        super().__init__(f"HTTP {code}")
        self.code = code


class ShelfFileSystem(LocalFileSystem):
    """An object store in memory; objects whose names hold ``deny`` or ``broken`` answer with that fault."""

    objects: ClassVar[dict[str, bytes]] = {}

    @classmethod
    def scheme(cls) -> str:
        return "shelf"

    def has_dirs(self) -> bool:
        return False

    def metadata(self, path: str) -> FileMetadata:
        self._fault(path)
        if path not in self.objects:
            raise BeamIOError("metadata failed", {path: HttpError(404)})
        return FileMetadata(path, len(self.objects[path]), 7.25)

    def _fault(self, path: str) -> None:
        for word, code in (("deny", 403), ("broken", 500)):
            if word in path:
                raise BeamIOError("failed", {path: HttpError(code)})

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        self._fault(dir_or_prefix)
        for path, data in list(self.objects.items()):
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(data), 7.25)

    def create(self, path: str, mime_type: str = "", compression_type: str = "") -> io.BytesIO:
        self._fault(path)
        objects = self.objects

        class Upload(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    objects[path] = self.getvalue()
                super().close()

        return Upload()

    def open(self, path: str, mime_type: str = "", compression_type: str = "") -> io.BytesIO:
        self._fault(path)
        if path not in self.objects:
            raise BeamIOError("open failed", {path: BeamIOError("inner", {path: HttpError(404)})})
        return io.BytesIO(self.objects[path])

    def exists(self, path: str) -> bool:
        self._fault(path)
        return path in self.objects

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            self._fault(path)
            if path not in self.objects:
                raise BeamIOError("delete failed", {path: FileNotFoundError(2, "none", path)})
            del self.objects[path]


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    objects: dict[str, bytes] = {}
    monkeypatch.setattr(ShelfFileSystem, "objects", objects)
    return objects


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


READS: list[Callable[[str], object]] = [
    storage.read_bytes,
    storage.stat,
    lambda uri: storage.open_binary(uri).__enter__(),
]


@pytest.mark.parametrize("read", READS)
def test_a_missing_file_is_not_found_on_any_store(
    tmp_path: Path, shelf: dict[str, bytes], read: Callable[[str], object]
) -> None:
    for uri in (str(tmp_path / "none"), f"file://{tmp_path}/none", "shelf://bucket/none"):
        with pytest.raises(NotFoundError) as raised:
            read(uri)
        assert uri in str(raised.value)


def test_a_folder_where_a_file_is_expected_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read") as raised:
        storage.read_bytes(str(tmp_path))
    assert not isinstance(raised.value, NotFoundError)


def test_a_file_where_a_folder_is_expected_is_a_storage_error(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    with pytest.raises(StorageError):
        storage.write_bytes(str(tmp_path / "a" / "b"), b"")
    with pytest.raises(StorageError):
        storage.read_bytes(str(tmp_path / "a" / "b"))
    assert not storage.exists(str(tmp_path / "a" / "b"))


@pytest.mark.parametrize("number", [1, 13, 30])
def test_a_refusal_by_the_system_is_access_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(self: Path) -> bytes:
        raise OSError(number, "refused")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(AccessDeniedError, match="Check the credentials"):
        storage.read_bytes(str(tmp_path / "a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_without_permission_is_access_denied(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    (tmp_path / "a").chmod(0)
    with pytest.raises(AccessDeniedError):
        storage.read_bytes(str(tmp_path / "a"))


ACTIONS: list[Callable[[str], object]] = [
    *READS,
    storage.exists,
    lambda uri: storage.write_bytes(uri, b""),
    lambda uri: list(storage.list_folder(uri)),
    lambda uri: list(storage.list_matching(uri)),
    lambda uri: storage.delete([uri]),
]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_store_that_forbids_is_access_denied(shelf: dict[str, bytes], action: Callable[[str], object]) -> None:
    with pytest.raises(AccessDeniedError):
        action("shelf://bucket/deny")


@pytest.mark.parametrize("action", ACTIONS)
def test_a_store_that_fails_is_a_storage_error_that_says_how(
    shelf: dict[str, bytes], action: Callable[[str], object]
) -> None:
    with pytest.raises(StorageError, match="HttpError: HTTP 500") as raised:
        action("shelf://bucket/broken")
    assert type(raised.value) is StorageError


@pytest.mark.parametrize("action", ACTIONS)
def test_an_unknown_scheme_is_refused_with_those_that_are_known(action: Callable[[str], object]) -> None:
    with pytest.raises(StorageError, match=r"received 'htp'\. Use a local path, gs://") as raised:
        action("htp://host/x")
    assert raised.value.exit_code == 5


def test_an_object_store_is_written_read_listed_and_deleted(shelf: dict[str, bytes]) -> None:
    storage.write_bytes("shelf://b/p/a b[1].jpg", b"one")
    storage.write_bytes("shelf://b/p/deep/2.jpg", b"three")
    storage.write_bytes("shelf://b/pq/3.jpg", b"")
    assert storage.read_bytes("shelf://b/p/a b[1].jpg") == b"one"
    assert storage.exists("shelf://b/p/deep/2.jpg")
    assert not storage.exists("shelf://b/p/deep")
    assert {(file.uri, file.size_bytes) for file in storage.list_folder("shelf://b/p/")} == {
        ("shelf://b/p/a b[1].jpg", 3),
        ("shelf://b/p/deep/2.jpg", 5),
    }
    assert [file.uri for file in storage.list_matching("shelf://b/*/3.jpg")] == ["shelf://b/pq/3.jpg"]
    assert [file.uri for file in storage.list_matching("shelf://b/pq/3.jpg")] == ["shelf://b/pq/3.jpg"]
    assert storage.stat("shelf://b/pq/3.jpg").version == "0-7.250000"
    storage.delete(["shelf://b/pq/3.jpg", "shelf://b/pq/3.jpg"])
    assert set(shelf) == {"shelf://b/p/a b[1].jpg", "shelf://b/p/deep/2.jpg"}


def test_objects_that_stand_for_folders_are_not_files(shelf: dict[str, bytes]) -> None:
    shelf.update({"shelf://b/p/": b"", "shelf://b/p/site/": b"", "shelf://b/p/site/1.jpg": b"x"})
    assert [file.uri for file in storage.list_folder("shelf://b/p")] == ["shelf://b/p/site/1.jpg"]
    assert [file.uri for file in storage.list_matching("shelf://b/**")] == ["shelf://b/p/site/1.jpg"]


def test_a_listing_that_is_not_read_to_its_end_is_no_error(tmp_path: Path, shelf: dict[str, bytes]) -> None:
    fill(tmp_path, "1", "2")
    shelf.update({"shelf://b/1": b"", "shelf://b/2": b""})
    for folder in (str(tmp_path), "shelf://b"):
        listing = storage.list_folder(folder)
        next(listing)
        listing.close()


def test_only_folders_without_files_are_removed(tmp_path: Path) -> None:
    fill(tmp_path, "a/1", "b/keep/2")
    (tmp_path / "a" / "x" / "y").mkdir(parents=True)
    (tmp_path / "b" / "empty").mkdir()
    (tmp_path / "c").mkdir()
    storage.remove_empty_folders([str(tmp_path / name) for name in ("a", "b", "c", "none")])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        *("a", "a/1", "b", "b/keep", "b/keep/2")
    ]


def test_an_answer_within_the_deadline_is_passed_on() -> None:
    assert storage.within_deadline(lambda: 42, "gs://b") == 42


@pytest.mark.parametrize("error", [NotFoundError("none"), ValueError("x"), TimeoutError("the call's own")])
def test_a_calls_own_error_is_passed_on(error: Exception) -> None:
    def action() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        storage.within_deadline(action, "gs://b")
    assert raised.value is error


def test_a_store_that_does_not_answer_is_given_up_on_and_does_not_hold_up_the_end() -> None:
    script = (
        "import time\n"
        "from maskdet import storage\n"
        "from maskdet.errors import StorageError\n"
        "try:\n"
        "    storage.within_deadline(lambda: time.sleep(60), 'gs://b', deadline_s=0.05)\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    started = time.monotonic()
    root = Path(__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=50, check=True
    )
    assert "gs://b: expected an answer within 0.05 s, received 'none'. Check the network" in ended.stdout
    assert time.monotonic() - started < 45
