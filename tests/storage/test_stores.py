"""Remote storage: any of Beam's filesystems, the errors it raises, retries, cached clients and deadlines."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.localfilesystem import LocalFileSystem
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given
from hypothesis import strategies as st

from maskdet import storage
from maskdet.errors import AccessDeniedError, NotFoundError, StorageError
from maskdet.storage import faults
from maskdet.storage.stores import KeptClient, ObjectStream

FIRST_BACKOFF_S = 0.2


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would be waited before each retry; nothing really waits."""
    waited: list[float] = []
    monkeypatch.setattr(faults, "sleep", waited.append)
    return waited


class HttpError(Exception):
    """What a store's client library raises."""

    def __init__(self, code: int) -> None:
        super().__init__(f"HTTP {code}")
        self.code = code


class ShelfFileSystem(LocalFileSystem):
    """An object store in memory; objects whose names contain ``deny`` or ``broken`` answer with that fault."""

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
    with pytest.raises(StorageError, match="the store answered 500") as raised:
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


def test_a_listing_of_a_store_need_not_be_read_to_its_end(shelf: dict[str, bytes]) -> None:
    shelf.update({"shelf://b/1": b"", "shelf://b/2": b""})
    listing = storage.list_folder("shelf://b")
    next(listing)
    listing.close()


class Botocore(Exception):
    """The form of botocore's errors."""

    def __init__(self, status: int, code: str = "") -> None:
        super().__init__(f"{status} {code}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (HttpError(408), True),
        (HttpError(429), True),
        (HttpError(500), True),
        (HttpError(503), True),
        (Botocore(503, "SlowDown"), True),
        (Botocore(400, "RequestTimeout"), True),
        (ConnectionResetError(104, "reset"), True),
        (TimeoutError("slow"), True),
        (BeamIOError("wrapped", {"a": HttpError(503)}), True),
        (HttpError(400), False),
        (HttpError(401), False),
        (HttpError(403), False),
        (HttpError(404), False),
        (Botocore(400, "InvalidRequest"), False),
        (PermissionError(13, "no"), False),
        (FileNotFoundError(2, "no"), False),
        (ValueError("no bucket"), False),
        (AccessDeniedError("no credentials"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, transient: bool) -> None:
    assert faults.is_transient(error) is transient


@pytest.mark.parametrize("failures", [0, 1, 5])
def test_a_request_is_made_until_it_succeeds_with_growing_waits(failures: int, waits: list[float]) -> None:
    answers: list[Exception | int] = [*([HttpError(503)] * failures), 42]

    def request() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert faults.persist(request) == 42
    assert len(waits) == failures
    assert all(0.5 <= wait / (FIRST_BACKOFF_S * 2**i) <= 1.5 for i, wait in enumerate(waits))


@pytest.mark.parametrize(("code", "tries"), [(503, 6), (403, 1)])
def test_a_request_that_never_succeeds_is_given_up(code: int, tries: int, waits: list[float]) -> None:
    asked = []

    def request() -> None:
        asked.append(1)
        raise HttpError(code)

    with pytest.raises(HttpError):
        faults.persist(request)
    assert (len(asked), len(waits)) == (tries, tries - 1)
    with faults.one_try(), pytest.raises(HttpError):
        faults.persist(request)
    assert len(asked) == tries + 1


def test_an_error_says_the_same_each_time() -> None:
    with pytest.raises(StorageError) as raised, faults.translated("gs://b/a", "read"):
        raise ConnectionError(f"{object()}: refused")
    assert str(raised.value) == "cannot read gs://b/a: ConnectionError: <object object>: refused"


def test_a_client_is_kept_until_the_options_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    kept = KeptClient(lambda options: (object(), options), shared=True)
    first = kept.get()
    assert kept.get() is first
    options = PipelineOptions(["--s3_region_name=a"])
    FileSystems.set_options(options)
    assert kept.get() is not first
    assert kept.get()[1] is options


@pytest.mark.parametrize("shared", [True, False])
def test_threads_share_a_client_only_where_they_may(shared: bool) -> None:
    kept = KeptClient(lambda options: object(), shared=shared)
    found: list[object] = [kept.get()]
    thread = threading.Thread(target=lambda: found.append(kept.get()))
    thread.start()
    thread.join()
    assert (found[0] is found[1]) is shared


def test_a_forked_process_makes_its_own_client() -> None:
    script = (
        "import os\n"
        "from maskdet.storage.stores import KeptClient\n"
        "kept = KeptClient(lambda options: os.getpid(), shared=True)\n"
        "kept.get()\n"
        "kept._lock.acquire()\n"  # as another thread might hold it
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if kept.get() == os.getpid() else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert ended.stdout == "0\n"


@given(content=st.binary(max_size=200), data=st.data())
def test_a_stream_of_ranges_reads_and_seeks_as_a_file(content: bytes, data: st.DataObject) -> None:
    stream = ObjectStream(len(content), lambda start, end: content[start:end])
    plain = io.BytesIO(content)
    for _ in range(data.draw(st.integers(0, 6))):
        if data.draw(st.booleans()):
            size = data.draw(st.integers(-1, 250))
            assert stream.read(size) == plain.read(size)
        else:
            offset, whence = data.draw(st.integers(0, 250)), data.draw(st.sampled_from([0, 1]))
            assert stream.seek(offset, whence) == plain.seek(offset, whence)
        assert stream.tell() == plain.tell()
    assert stream.seek(0, io.SEEK_END) == len(content)


def test_a_piece_that_fails_in_passing_is_asked_for_again() -> None:
    answers: list[Exception | bytes] = [HttpError(503), b"ab", HttpError(500), b"c"]

    def read_range(start: int, end: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with ObjectStream.buffered(3, read_range) as stream:
        assert stream.read() == b"abc"


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
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=50, check=True
    )
    assert "gs://b: expected an answer within 0.05 s, received 'none'. Check the network" in ended.stdout
    assert time.monotonic() - started < 45
