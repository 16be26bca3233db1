"""Free memory of the process is given back to the system from time to time."""

import ctypes
from pathlib import Path

import pytest

from maskdet.memory import EVERY_S, GivingBack, give_back

MIB = 2**20


def resident_mib():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc has to be told")
def test_what_lies_free_between_what_is_in_use_is_given_back():
    buffers = [bytearray(b"\1" * 50_000) for _ in range(3000)]  # 143 MiB; each buffer is too small for pages of its own
    in_use = resident_mib()
    kept = buffers[::40]
    del buffers
    give_back()
    assert resident_mib() < in_use - 100
    assert all(one.count(1) == 50_000 for one in kept)


def test_it_is_given_back_now_and_then():
    now, given = [100.0], []
    giving = GivingBack(lambda: now[0], lambda: given.append(now[0]))
    for step in range(4 * int(EVERY_S) + 1):
        now[0] = 100.0 + step / 2
        giving()
    assert given == [100.0 + EVERY_S, 100.0 + 2 * EVERY_S]
