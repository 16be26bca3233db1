"""A store's faults are counted, tried again, or refused; nothing is lost, and nothing is written twice."""

import itertools
import re

import pytest
from fault_proxy import Fault
from store_servers import accounted

from maskdet import storage
from maskdet.errors import AccessDeniedError, StorageError
from maskdet.storage import stores
from maskdet.tables.layout import FAILURES, PREDICTIONS

# Google's client leaves a connection to the collector when an answer is an error or its thread ends.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")

LENIENT = ("--set", "failure_budget.max_ratio=1")
TABLES = ("predictions/", "failures/", "no_face/", "compliance/")


@pytest.fixture(scope="module")
def images(demo):
    return sorted(file.path for file in demo.tree.files if file.path.startswith("demo-south/"))


@pytest.fixture
def sound_run(store, score):
    """Score the sound images, and say what its tables hold, byte for byte, once a module."""

    def run(*flags):
        return score(store.tables, store.sound, flags=(*store.flags, *flags))

    return run


@pytest.fixture(scope="module")
def faultless():
    """The tables of a run without faults, by the kind of store."""
    return {}


def tables(store):
    return {key: data for key, data in store.contents().items() if key.startswith(TABLES)}


@pytest.fixture
def expected(store, sound_run, faultless):
    """The tables that the images give on a good day."""
    if store.server.scheme not in faultless:
        assert sound_run().code == 0
        faultless[store.server.scheme] = tables(store)
        for key in store.server.keys(store.bucket):
            store.server.delete(store.bucket, key)
        store.proxy.clear()
    return faultless[store.server.scheme]


def test_images_that_cannot_be_read_are_failures_with_their_codes_and_a_second_run_heals(
    store, sound_run, expected, images, monkeypatch, tmp_path
):
    monkeypatch.setattr(stores, "READ_TIMEOUT_S", 0.5)
    faults = {
        "access_denied": [Fault(403), Fault(401)],
        "read_error": [Fault(429), Fault(500), Fault(503), Fault(answer_share=0.5), Fault(answer_share=0.0)],
    }
    planned = [(code, fault) for code, several in faults.items() for fault in several]
    codes = {}
    for image, (code, fault) in zip(images, planned, strict=False):
        store.proxy.plan(store.server.read, image, fault)
        codes[f"{store.sound}/{image}"] = code
    passing = [Fault(503), Fault(429), Fault(answer_share=0.7), Fault(answer_share=0.5, stall_s=1.0), Fault(lost=True)]
    for image, fault in zip(images[len(planned) :], passing, strict=False):
        store.proxy.plan(store.server.read, image, fault, times=2)
    run = store.download(sound_run(*LENIENT), tmp_path / "first")
    assert run.code == 0
    assert accounted(run)
    assert run.run.images.listed == len(images)
    failures = run.table(FAILURES).to_pylist()
    assert {row["image_uri"]: row["code"] for row in failures} == codes
    tries = {"access_denied": 1, "read_error": 4}
    assert all(row["attempts"] == tries[row["code"]] and row["stage"] == "fetch" for row in failures)
    for image, (code, _) in zip(images, planned, strict=False):
        assert len(store.proxy.requests(store.server.read, image)) == tries[code]
    store.proxy.clear()
    assert sound_run().code == 0
    assert tables(store) == expected


def test_an_image_that_vanishes_after_it_is_listed_is_not_found_and_keeps_its_row(store, score, demo, images, tmp_path):
    for path in images:
        store.server.put(store.bucket, f"photos/{path}", (demo.folder / path).read_bytes())
    gone = f"photos/{images[3]}"
    store.proxy.plan(store.server.read, gone, Fault(first=lambda: store.server.delete(store.bucket, gone)), times=1)
    first = score(store.tables, store.uri("photos"), flags=(*store.flags, *LENIENT))
    first = store.download(first, tmp_path / "first")
    assert (first.code, accounted(first)) == (0, True)
    assert [(row["image_uri"], row["code"]) for row in first.table(FAILURES).to_pylist()] == [
        (store.uri(gone), "not_found")
    ]
    second = store.download(score(store.tables, store.uri("photos"), flags=store.flags), tmp_path / "second")
    assert (second.code, accounted(second), second.run.images.listed) == (0, True, len(images) - 1)
    assert second.run.changes["gone"] == 1
    assert second.table(FAILURES).to_pylist() == first.table(FAILURES).to_pylist()  # it was listed once: it keeps a row
    assert second.table(PREDICTIONS).num_rows == len(images) - 1


def test_a_storm_over_every_request_delays_a_run_and_changes_nothing(store, sound_run, expected, tmp_path):
    # Each request of the run, of whatever kind, fails twice in different ways before it succeeds.
    store.proxy.plan("(GET|HEAD|PUT|POST|DELETE)", "", Fault(503), times=1, each=True)
    store.proxy.plan("(GET|HEAD|PUT|DELETE)", "", Fault(429), times=1, each=True)
    run = store.download(sound_run(), tmp_path)
    assert (run.code, accounted(run)) == (0, True)
    assert tables(store) == expected
    assert run.table(FAILURES).num_rows == 0
    assert sum(found.fault is not None for found in store.proxy.requests()) > 50


def test_an_upload_whose_answer_is_lost_is_written_again_with_the_same_bytes(store, sound_run, expected):
    store.proxy.plan(store.server.write, "tables/", Fault(lost=True), times=1, each=True)
    assert sound_run().code == 0
    assert tables(store) == expected


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault(500), "answered 500"), (Fault(403), "access denied"), (Fault(upload_share=0.5), "")]
)
def test_tables_that_cannot_be_written_end_the_run_and_the_next_one_completes_it(
    store, sound_run, expected, capfd, fault, error
):
    store.proxy.plan(store.server.write, "tables/predictions/", fault)
    assert sound_run().code == 5
    shown = capfd.readouterr().err
    assert "cannot write" in shown
    assert error in shown
    kept = store.contents()
    assert "_SUCCESS" not in kept
    assert not any(key.startswith("predictions/") for key in kept)
    store.proxy.clear()
    assert sound_run().code == 0
    assert tables(store) == expected
    assert "_SUCCESS" in store.contents()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("size", [2_000, 9 * 1024 * 1024])
def test_an_interrupted_upload_leaves_the_old_object_or_none(store, share, size):
    store.server.put(store.bucket, "atomic/old", b"old content")
    store.proxy.plan("(PUT|POST)", "atomic/", Fault(upload_share=share))
    store.proxy.plan("PUT", "/upload/", Fault(upload_share=share))  # Google's larger uploads
    for key in ("old", "new"):
        with pytest.raises(StorageError), storage.one_try():
            storage.write_bytes(store.uri(f"atomic/{key}"), b"x" * size)
    assert store.contents("atomic") == {"old": b"old content"}


def test_a_listing_that_breaks_on_a_later_page_ends_the_run_and_removes_nothing(store, sound_run, monkeypatch, capfd):
    assert sound_run().code == 0
    before = tables(store)
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "5")
    store.proxy.plan("GET", "continuation-token|pageToken" if store.server.scheme == "s3" else "prefix=", Fault(404))
    # An answer of "not found" does not end a listing, except where the bucket does not exist.
    if store.server.scheme == "s3":
        assert sound_run().code == 5
        assert "cannot list" in capfd.readouterr().err
    else:
        assert sound_run().code == 3
    assert tables(store) == before


def test_a_slow_store_delays_a_run_and_changes_nothing(store, sound_run, expected, images):
    store.proxy.plan(store.server.read, "demo-south", Fault(delay_s=0.1))
    assert sound_run().code == 0
    assert tables(store) == expected
    reads = [found.at_s for found in store.proxy.requests("GET", "\\.(jpg|png|webp)")]
    # Images are read side by side: one after the other, 16 reads would take 1.6 s.
    assert len(reads) >= len(images)


def test_waits_between_tries_grow(store, monkeypatch):
    monkeypatch.setattr("maskdet.storage.faults._FIRST_BACKOFF_S", 0.05)
    store.server.put(store.bucket, "busy", b"content")
    store.proxy.plan("GET", "busy", Fault(503), times=4)
    assert storage.read_bytes(store.uri("busy")) == b"content"
    times = [found.at_s for found in store.proxy.requests("GET", "busy")]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(waits) == 4
    assert all(wait >= 0.5 * 0.05 * 2**i for i, wait in enumerate(waits))


@pytest.mark.parametrize("action", [storage.read_bytes, storage.stat, lambda uri: list(storage.list_folder(uri))])
def test_a_refusal_is_not_tried_again(store, action):
    store.proxy.plan("(GET|HEAD)", store.bucket, Fault(403))
    with pytest.raises(AccessDeniedError):
        action(store.uri("a"))
    # Google's client also asks for the bucket's metadata, in a thread of its own.
    assert len([found for found in store.proxy.requests() if not re.match("/storage/v1/b/[^/]*[?]", found.target)]) == 1
