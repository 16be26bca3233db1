"""What is in the temporary file takes no memory, and is read back unchanged."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator

import pytest

from maskdet.inputs import spool
from maskdet.inputs.references import ImageRef, RefBatch, Shard
from maskdet.inputs.spool import spooling


def refs(count: int) -> tuple[ImageRef, ...]:
    return tuple(ImageRef(f"/in/{number}.jpg", number, "v", ("a",)) for number in range(count))


@pytest.mark.parametrize("count", [100, 1_000, 20_000])
def test_an_element_is_small_however_many_images_it_has(count: int) -> None:
    for element in (RefBatch(refs(count), {"hidden": 1}), Shard("slot", "id", ("a",), refs(count))):
        with spooling():
            packed = pickle.dumps(element)
            passed_on = pickle.dumps(pickle.loads(packed))
            received = pickle.loads(passed_on)
            assert received == element
        assert max(len(packed), len(passed_on)) < 150


def test_few_references_stay_in_their_element() -> None:
    batch = RefBatch(refs(1))
    with spooling():
        packed = pickle.dumps(batch)
    assert pickle.loads(packed) == batch


def test_without_a_file_elements_hold_their_references() -> None:
    with spooling():
        pickle.dumps(RefBatch(refs(100)))
    assert pickle.loads(pickle.dumps(RefBatch(refs(100)))) == RefBatch(refs(100))


@pytest.mark.parametrize("fault", ["full", "short"])
def test_what_the_disk_does_not_take_stays_in_memory(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    first, second, third = (RefBatch(refs(count)) for count in (100, 101, 102))
    write = os.pwrite

    def broken(descriptor: int, data: bytes, offset: int) -> int:
        if fault == "full":
            raise OSError("no space left")
        return write(descriptor, data[:10], offset)

    with spooling():
        packed = [pickle.dumps(first)]
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", broken)
            packed.append(pickle.dumps(second))
        packed.append(pickle.dumps(third))
        assert [pickle.loads(one) for one in packed] == [first, second, third]
    assert [len(one) < 150 for one in packed] == [True, False, True]


def test_without_a_folder_for_it_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> None:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", none)
    with spooling():
        assert pickle.loads(pickle.dumps(RefBatch(refs(100)))) == RefBatch(refs(100))


def test_pipelines_side_by_side_share_the_file_until_the_last_has_ended() -> None:
    batches = [RefBatch(refs(100 + number)) for number in range(40)]

    def pipeline(packed: list[bytes]) -> Iterator[None]:
        with spooling():
            packed.extend(map(pickle.dumps, batches))
            yield
            assert [pickle.loads(one) for one in packed] == batches
            yield

    first, second = pipeline([]), pipeline([])
    next(first), next(second), next(first), next(first, None), next(second)
    assert next(second, None) is None


def test_threads_write_beside_each_other() -> None:
    batches = [[RefBatch(refs(100 + 50 * thread + number)) for number in range(30)] for thread in range(4)]
    packed: list[list[bytes]] = [[] for _ in batches]
    with spooling():
        threads = [
            threading.Thread(target=lambda some=some, into=into: into.extend(map(pickle.dumps, some)))
            for some, into in zip(batches, packed, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [[pickle.loads(one) for one in some] for some in packed] == batches
