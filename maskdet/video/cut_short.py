"""Tell a truncated container from a file that is not one: the former can be copied again, or waited for.

MP4 and MOV are a sequence of boxes: a length, a type, content. The box ``moov`` says where the pictures are. Many
writers put it last, so a file that is cut, or still being written, cannot be opened at all.
"""

from __future__ import annotations

import os
from typing import BinaryIO

_MOST_BOXES = 10_000
_FIRST = (b"ftyp", b"wide", b"mdat", b"moov", b"skip", b"free")
"""What an MP4 or MOV begins with."""
_INDEX = b"moov"


def is_cut_short(stream: BinaryIO) -> bool:
    """Whether a file that cannot be opened is an MP4 or MOV that lacks its end.

    Args:
        stream: the file, which can seek; it is read a few bytes at a time.
    """
    size, at = stream.seek(0, os.SEEK_END), 0
    for number in range(_MOST_BOXES):
        if at == size and number:
            return True  # whole boxes, none of which is the index
        stream.seek(at)
        head = stream.read(16)
        kind = head[4:8]
        if number == 0 and kind not in _FIRST:
            return False
        if len(head) < 8:
            return True
        length = int.from_bytes(head[:4])
        if length == 1:
            length = int.from_bytes(head[8:16])
        end = size if length == 0 else at + length
        if kind == _INDEX or 0 < length < 8:
            return end > size
        if end > size:
            return True
        at = end
    return False
