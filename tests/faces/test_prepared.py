"""Interpreters prepared for canvas sizes stay within their memory limit, however many sizes there are."""

import ctypes

import numpy as np
import pytest

from maskdet.faces.bundle import open_detector
from maskdet.faces.network import Network
from maskdet.faces.prepared import PREPARED_BYTES, PreparedSizes

MIB = 2**20


class Interpreter:
    """Holds the memory of the largest size it ever had, less half of what it has shrunk by, as LiteRT's do."""

    def __init__(self):
        self.size, self.largest = None, 0

    def prepare(self, height, width):
        self.size = (height, width)
        self.largest = max(self.largest, height * width)

    @property
    def held(self):
        """As measured: 1.8 MB, and 65 bytes a pixel."""
        height, width = self.size
        return 1.8e6 + 65 * (height * width + self.largest) / 2


@pytest.fixture
def made():
    return []


@pytest.fixture
def sizes(made):
    def make():
        made.append(Interpreter())
        return made[-1]

    return PreparedSizes(make, Interpreter.prepare)


def kept(sizes):
    return {id(one): one for one in (found.interpreter for found in sizes._kept.values())}.values()


def test_a_size_keeps_its_interpreter(sizes, made):
    first = sizes.of(320, 320)
    assert first.size == (320, 320)
    sizes.of(320, 240)
    assert sizes.of(320, 320) is first
    assert len(made) == 2


def test_large_and_small_sizes_in_turn_hold_no_more_than_they_may(sizes):
    random = np.random.default_rng(7)
    for _ in range(2000):
        side = int(random.choice([32, 64, 128, 320, 640]))
        sizes.of(side, 32 * int(random.integers(1, 21)))
        assert sum(one.held for one in kept(sizes)) <= PREPARED_BYTES


def test_the_latest_sizes_stay(sizes, made):
    every_day = sizes.of(640, 480)
    for step in range(1, 60):
        sizes.of(32 * step, 320)
        assert sizes.of(640, 480) is every_day
    assert len(made) > 3


def test_one_that_was_of_nearly_the_size_is_resized(sizes, made):
    sizes.of(1200, 1200)
    count = len(made)
    assert sizes.of(1220, 1200) is made[0]
    assert len(made) == count


def test_one_that_was_much_larger_is_not_kept_for_a_small_size(sizes, made):
    large = sizes.of(1700, 1400)
    assert sizes.of(64, 64) is not large
    assert large not in kept(sizes)


def test_a_canvas_beyond_the_bound_is_alone(sizes):
    sizes.of(64, 64)
    assert sizes.of(2000, 2000).size == (2000, 2000)
    assert len(kept(sizes)) == 1


def test_one_that_cannot_be_prepared_is_not_kept(made):
    def prepare(interpreter, height, width):
        raise RuntimeError("no memory")

    sizes = PreparedSizes(Interpreter, prepare)
    with pytest.raises(RuntimeError, match="no memory"):
        sizes.of(64, 64)
    assert not kept(sizes)


def in_use():
    """Bytes that malloc has allocated, by its own statistics."""
    fields = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]
    account = type("mallinfo2", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in fields]})
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        pytest.skip("needs glibc 2.33, whose malloc tells what it has given out")
    library.mallinfo2.restype = account
    told = library.mallinfo2()
    return told.uordblks + told.hblkhd


def test_the_built_in_detector_holds_what_is_counted():
    network, random = Network(open_detector()), np.random.default_rng(3)
    before = in_use()
    for side in (640, 512, 448, 640, 576):  # large first: a past defect resized these to small ones for good
        network.run(np.zeros((side, 640, 3), np.uint8))
    for _ in range(120):
        height, width = (32 * int(number) for number in random.integers(1, 9, 2))
        network.run(np.zeros((height, width, 3), np.uint8))
    assert in_use() - before < PREPARED_BYTES + 10 * MIB
