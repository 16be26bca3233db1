"""How images are read: limits, retries, and how many at the same time."""

import pytest

from maskdet import storage
from maskdet.errors import AccessDeniedError, ImageFault, NotAFileError, NotFoundError, StorageError, TooLargeError
from maskdet.inputs.references import ImageRef
from maskdet.scoring import fetching
from maskdet.scoring.fetching import Fetcher, fetching_threads, reading_threads
from maskdet.testing import FaultyReader

REF = ImageRef("a.jpg", 100, "v1")


def fetcher(errors, **changes):
    waits = []
    read = FaultyReader({"a.jpg": errors}, read=lambda uri: b"content")
    return Fetcher(max_bytes=100, read=read, sleep=waits.append, **changes), read, waits


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_a_store_that_fails_in_passing_is_asked_again(failures):
    reader, read, waits = fetcher([StorageError("busy")] * failures)
    assert reader.fetch(REF) == b"content"
    assert read.tries["a.jpg"] == failures + 1
    # A fifth of a second, doubled each time, spread by half either way.
    assert len(waits) == failures
    assert all(0.5 <= wait / (0.2 * 2**i) <= 1.5 for i, wait in enumerate(waits))


@pytest.mark.parametrize(
    ("error", "code", "tries"),
    [
        (NotFoundError("gone"), "not_found", 1),
        (AccessDeniedError("closed"), "access_denied", 1),
        (NotAFileError("/dev/zero", "a file", "a device"), "not_a_file", 1),
        (TooLargeError("a.jpg", "at most 100 bytes", 101), "too_many_bytes", 1),
        (StorageError("busy"), "read_error", 2),
    ],
)
def test_what_cannot_be_read_is_a_fault_of_the_image(error, code, tries):
    reader, read, _ = fetcher([error] * 5, attempts=2)
    with pytest.raises(ImageFault) as raised:
        reader.fetch(REF)
    assert (raised.value.code.value, raised.value.attempts, read.tries["a.jpg"]) == (code, tries, tries)


def test_an_image_listed_as_too_large_is_not_read():
    reader, read, _ = fetcher([])
    with pytest.raises(ImageFault, match="101 bytes, more than imaging"):
        reader.fetch(REF._replace(size_bytes=101))
    assert not read.tries


@pytest.mark.parametrize(("local", "expected"), [(True, 3), (False, 12)])
def test_images_over_a_network_get_four_threads_a_core(monkeypatch, local, expected):
    monkeypatch.setattr(fetching, "available_cores", lambda: 3)
    assert reading_threads(local=local) == expected


def test_reads_that_others_decode_get_64_threads_a_core(monkeypatch):
    monkeypatch.setattr(fetching, "available_cores", lambda: 3)
    assert fetching_threads() == 192


def test_a_size_that_a_manifest_claims_is_not_believed(tmp_path):
    (tmp_path / "small.jpg").write_bytes(b"x" * 50)
    (tmp_path / "large.jpg").write_bytes(b"x" * 101)
    reader = Fetcher(max_bytes=100)
    assert len(reader.fetch(ImageRef(str(tmp_path / "small.jpg"), 10**12, "manifest:1"))) == 50
    with pytest.raises(ImageFault, match="101 bytes, more than") as raised:
        reader.fetch(ImageRef(str(tmp_path / "large.jpg"), 5, "manifest:1"))
    assert raised.value.code == "too_many_bytes"


def test_of_an_object_whose_size_is_claimed_the_store_is_asked_before_it_is_read(monkeypatch):
    def refuse(uri, limit=None):
        raise AssertionError("read")

    monkeypatch.setattr(storage, "stat", lambda uri: storage.StoredFile(uri, 101, "v"))
    monkeypatch.setattr(storage, "read_bytes", refuse)
    with pytest.raises(ImageFault, match="101 bytes"):
        Fetcher(max_bytes=100).fetch(ImageRef("gs://bucket/a.jpg", 5, "manifest:1"))
