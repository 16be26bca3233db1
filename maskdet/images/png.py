"""PNG files: bounded before they are decoded, and checked for damage.

Pillow does not check the checksums of pixels and takes a stream that ends early for a picture whose rest is black. A
file is intact when its checksums are right, its pixels are all there, and its palette has every colour that they use.
Chunks after the pixels may be missing: they are not part of the picture.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from maskdet.errors import FailureCode, ImageFault

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Encoders that cut pixels into the smallest pieces seen, 4 KiB, need 16,384 for the largest file that is read.
MOST_CHUNKS = 65_536
_CHUNK = struct.Struct(">I4s")
_HEADER = struct.Struct(">IIBBBBB")
_CHECKED = frozenset((b"IHDR", b"PLTE", b"IDAT", b"tRNS"))
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3
_LAST_FILTER = 4
_PIECE_BYTES = 256
# First column and row, and steps across and down, of the seven passes of an interlaced file.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class PngFile(NamedTuple):
    """What the chunks of a PNG say."""

    header: tuple[int, ...]
    """Width, height, bit depth, colour type, compression, filter, interlacing; zeros if there is no such chunk."""
    palette: int
    """Colours of its palette."""
    pixels: tuple[slice, ...]
    """Where its compressed pixels are."""
    problem: str | None
    """Why the picture cannot be intact, as far as the chunks show."""

    @property
    def interlaced(self) -> bool:
        """Whether the rows come in seven passes."""
        return self.header[6] == 1

    def raw_bytes(self) -> int:
        """Bytes of the pixels once decompressed, with the filter's byte of each row."""
        return sum(rows * row_bytes for rows, row_bytes in self._passes())

    def with_known_filters(self, pixels: bytes) -> bytes:
        """Decompressed pixels in which rows with an invalid filter have none."""
        known, place = bytearray(pixels), 0
        for rows, row_bytes in self._passes():
            for row in range(place, place + rows * row_bytes, row_bytes):
                known[row] = known[row] if known[row] <= _LAST_FILTER else 0
            place += rows * row_bytes
        return bytes(known)

    def _passes(self) -> Iterator[tuple[int, int]]:
        """Rows, and bytes of each, of the passes that have any."""
        width, height, depth, colour, *_ = self.header
        bits = depth * _SAMPLES.get(colour, 0)
        for left, top, across, down in _PASSES if self.interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-(width - left) // across), -(-(height - top) // down)
            if columns > 0 and rows > 0:
                yield rows, 1 + (columns * bits + 7) // 8


def inspect(data: bytes) -> PngFile:
    """Walk through a PNG's chunks up to the end of its pixels, and compare their checksums.

    Raises:
        ImageFault: there are more chunks than any file needs.
    """
    header, palette, transparency, problem = (0,) * 7, 0, 0, None
    pixels: list[slice] = []
    for name, start, end in _chunks(data):
        if name in _CHECKED and problem is None:
            problem = _chunk_problem(data, name, start, end)
        if name == b"IHDR" and end - start == _HEADER.size:
            header = _HEADER.unpack_from(data, start)
        elif name == b"PLTE":
            palette = (end - start) // 3
        elif name == b"tRNS":
            transparency = end - start
        elif name == b"IDAT":
            pixels.append(slice(start, end))
    if header[3] == _PALETTE and problem is None:
        if not 0 < palette <= 256:
            problem = "its pixels name colours of a palette that is missing"
        elif transparency > palette:
            problem = f"its palette has {palette} colours, its transparency {transparency}"
    return PngFile(header, palette, tuple(pixels), problem)


def has_all_pixels(data: bytes, file: PngFile) -> bool:
    """Whether decompression yields every row; takes about half as long as decoding."""
    wanted = file.raw_bytes()
    stream = zlib.decompressobj()
    try:
        for place in file.pixels:
            piece = data[place]
            while piece and wanted > 0:
                wanted -= len(stream.decompress(piece, 1 << 20))
                piece = stream.unconsumed_tail
        return wanted <= len(stream.flush() if wanted > 0 else b"")
    except zlib.error:
        return False


def repaired(data: bytes, file: PngFile) -> bytes | None:
    """A file of the rest: pixels up to the damage, black (or the first colour) from there on.

    Returns:
        A PNG; ``None`` if nothing is left that could be shown.
    """
    wanted = file.raw_bytes()
    if not wanted or (file.header[3] == _PALETTE and not file.palette):
        return None
    compressed = b"".join(data[place] for place in file.pixels)
    stream, rows, left = zlib.decompressobj(), [], wanted
    with contextlib.suppress(zlib.error):
        for start in range(0, len(compressed), _PIECE_BYTES):  # small, since a piece with an error yields nothing
            piece = compressed[start : start + _PIECE_BYTES]
            while piece and left > 0:
                rows.append(stream.decompress(piece, 1 << 16)[:left])
                left -= len(rows[-1])
                piece = stream.unconsumed_tail
    if left == wanted:
        return None
    pixels = zlib.compress(file.with_known_filters(b"".join(rows) + bytes(left)), 1)
    others = [(name, data[start:end]) for name, start, end in _chunks(data) if name in (b"PLTE", b"tRNS")]
    chunks = [(b"IHDR", _HEADER.pack(*file.header)), *others, (b"IDAT", pixels), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk's content, up to the last one of pixels; the last may be cut short."""
    place, last, number = len(SIGNATURE), len(data), 0
    seen_pixels = False
    while place + 8 <= last:
        number += 1
        if number > MOST_CHUNKS:
            raise ImageFault(FailureCode.CORRUPT_IMAGE, f"more than {MOST_CHUNKS} chunks")
        length, name = _CHUNK.unpack_from(data, place)
        if seen_pixels and name != b"IDAT":
            return
        seen_pixels = name == b"IDAT"
        yield name, place + 8, min(place + 8 + length, last)
        place += 12 + length


def _chunk_problem(data: bytes, name: bytes, start: int, end: int) -> str | None:
    declared = int.from_bytes(data[start - 8 : start - 4], "big")
    if declared != end - start or end + 4 > len(data):
        return f"its {name.decode('ascii')} data are cut short"
    if zlib.crc32(data[start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
        return f"the checksum of its {name.decode('ascii')} data does not hold"
    return None


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
