"""A film that is cut short is distinguished from a file that is not a film."""

from __future__ import annotations

import io
import struct

import pytest

from maskdet.errors import FailureCode, ImageFault
from maskdet.video.cut_short import is_cut_short
from maskdet.video.reading import open_video
from tests.video.clips import film, numbered


def box(kind, content=b"", length=None):
    return struct.pack(">I", 8 + len(content) if length is None else length) + kind + content


HEAD = box(b"ftyp", b"isom\0\0\2\0isomiso2")
LARGE = struct.pack(">I4sQ", 1, b"mdat", 16 + 64)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HEAD + box(b"mdat", bytes(64)), True),
        (HEAD + box(b"mdat", bytes(64), length=1000), True),
        (HEAD + box(b"mdat", bytes(64), length=0), True),
        (HEAD + LARGE + bytes(64), True),
        (HEAD + LARGE + bytes(10), True),
        (HEAD[:20], True),
        (HEAD + box(b"moov", bytes(64), length=1000) + bytes(10), True),
        (HEAD + LARGE + bytes(64) + box(b"moov", bytes(64)), False),
        (HEAD + box(b"moov", bytes(64)) + box(b"mdat", bytes(9)), False),
        (b"no video\n" * 100, False),
        (bytes(4096), False),
        (b"", False),
        (b"RIFF\0\0\0\0AVI LIST", False),
    ],
)
def test_what_lacks_its_index_is_cut_short(data, expected):
    assert is_cut_short(io.BytesIO(data)) is expected


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
@pytest.mark.parametrize("as_stream", [False, True])
def test_half_a_film_is_said_to_be_cut_short(tmp_path, name, as_stream):
    path = film(tmp_path / name, [numbered(number) for number in range(50)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = io.BytesIO(path.read_bytes()) if as_stream else str(path)
    with pytest.raises(ImageFault, match="cut short, or still being written") as caught, open_video(source):
        pass
    assert caught.value.code is FailureCode.TRUNCATED_VIDEO


def test_a_text_called_a_film_is_none(tmp_path):
    (tmp_path / "a.mp4").write_text("no video\n" * 100)
    with pytest.raises(ImageFault) as caught, open_video(str(tmp_path / "a.mp4")):
        pass
    assert caught.value.code is FailureCode.NOT_A_VIDEO
