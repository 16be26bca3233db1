"""TIFF files: check whether their strips and tiles are intact, which libtiff does not report.

For some compressions, libtiff reports damage as a warning that does not reach us, and leaves memory that it did not
decode unchanged: the same bytes then give one picture today and another tomorrow. So JPEG strips are decoded beforehand
by libjpeg-turbo, which does report damage; deflated and run-length encoded ones are unpacked; and fax codes, whose
decoder fills in nothing after an error, are refused: no photograph is stored that way.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import simplejpeg
from PIL import Image

from maskdet.errors import FailureCode, ImageFault
from maskdet.images import jpeg

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES = 256, 257, 258, 259, 277
_STRIP_OFFSETS, _ROWS_A_STRIP, _STRIP_BYTES = 273, 278, 279
_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _JPEG_TABLES = 284, 322, 323, 324, 325, 347

_JPEG, _DEFLATE, _RUN_LENGTHS = 7, (8, 32946), 32773
# Uncompressed, LZW, LZMA, ZSTD, WebP: libtiff decodes all of a strip or says that it could not.
_ALL_OR_NOTHING = (1, 5, 34925, 50000, 50001)


def check_strips(image: Image.Image, data: bytes) -> None:
    """Refuse a TIFF with a damaged strip or tile, as far as its compression shows.

    Args:
        image: the opened file; not loaded.
        data: the file's bytes.

    Raises:
        ImageFault: it is damaged, or compressed in a way that hides damage.
    """
    tags = _Tags(image)
    compression = tags.number(_COMPRESSION, 1)
    if compression == _JPEG:
        _check_jpeg_strips(tags, data)
    elif compression in _DEFLATE:
        _check_deflated_strips(tags, data)
    elif compression == _RUN_LENGTHS:
        _check_run_lengths(tags, data)
    elif compression not in _ALL_OR_NOTHING:
        raise ImageFault(FailureCode.UNSUPPORTED_FORMAT, f"a TIFF of compression {compression}")


class _Tags:
    """The first directory, as far as strips and tiles need it."""

    def __init__(self, image: Image.Image) -> None:
        self._tags: Any = getattr(image, "tag_v2", {})
        self.tiled = _TILE_OFFSETS in self._tags
        self.width, self.height = self.number(_WIDTH, 0), self.number(_HEIGHT, 0)
        rows = self.number(_TILE_HEIGHT if self.tiled else _ROWS_A_STRIP, self.height)
        self.rows = rows if self.tiled else min(rows, self.height)
        self.columns = self.number(_TILE_WIDTH, 0) if self.tiled else self.width
        self.planes = self.number(_SAMPLES, 1) if self.number(_PLANAR, 1) == 2 else 1
        if self.rows <= 0 or self.columns <= 0:
            raise ImageFault(FailureCode.CORRUPT_IMAGE, "damaged TIFF: strips or tiles without a size")

    def number(self, tag: int, default: int) -> int:
        """A tag's value, the first if there are several."""
        value = self._tags.get(tag, default)
        value = value[0] if isinstance(value, tuple) and value else value
        return int(value) if isinstance(value, int) else default

    def values(self, tag: int) -> Sequence[int]:
        """All values of a tag."""
        value = self._tags.get(tag, ())
        return value if isinstance(value, tuple) else (value,)

    @property
    def jpeg_tables(self) -> bytes:
        """What the JPEG strips have in common."""
        tables = self._tags.get(_JPEG_TABLES, b"")
        return tables if isinstance(tables, bytes) else b""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a strip or tile, once it is decompressed."""
        bits = [bits for bits in self.values(_BITS) if isinstance(bits, int)] or [1]
        samples = 1 if self.planes > 1 else self.number(_SAMPLES, 1)
        return (self.columns * bits[0] * samples + 7) // 8

    def strips(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """The compressed strips or tiles, and how many rows each has to yield."""
        offsets = self.values(_TILE_OFFSETS if self.tiled else _STRIP_OFFSETS)
        lengths = self.values(_TILE_BYTES if self.tiled else _STRIP_BYTES)
        if len(offsets) != len(lengths):
            raise ImageFault(FailureCode.CORRUPT_IMAGE, "damaged TIFF: not as many lengths as strips")
        down = -(-self.height // self.rows)
        for number, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
            if offset + length > len(data) or not length:
                raise ImageFault(FailureCode.CORRUPT_IMAGE, f"damaged TIFF: strip {number} is cut short")
            rows = self.rows if self.tiled else min(self.rows, self.height - (number % down) * self.rows)
            yield data[offset : offset + length], rows


def _check_jpeg_strips(tags: _Tags, data: bytes) -> None:
    for number, (strip, rows) in enumerate(tags.strips(data)):
        whole = tags.jpeg_tables[:-2] + strip[2:] if tags.jpeg_tables else strip
        try:
            file = jpeg.inspect(whole)
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(file.data, strict=False)
        except ValueError:
            raise ImageFault(FailureCode.CORRUPT_IMAGE, f"damaged TIFF: strip {number} is no JPEG") from None
        damage = file.problem or jpeg.damage(file.data, "CMYK" if colorspace in ("CMYK", "YCCK") else "GRAY")
        if damage is None and (height < rows or width < tags.columns):
            damage = f"it has {width} x {height} pixels, of {tags.columns} x {rows}"
        if damage is not None:
            raise ImageFault(FailureCode.CORRUPT_IMAGE, f"damaged TIFF: strip {number}: {damage}")


def _check_deflated_strips(tags: _Tags, data: bytes) -> None:
    for number, (strip, rows) in enumerate(tags.strips(data)):
        stream, found, piece = zlib.decompressobj(), 0, strip
        with contextlib.suppress(zlib.error):
            while piece and found <= tags.rows * tags.row_bytes:  # some writers fill up the last strip
                found += len(stream.decompress(piece, 1 << 20))
                piece = stream.unconsumed_tail
        if found < rows * tags.row_bytes or not stream.eof:  # at its end it has compared the checksum
            raise ImageFault(FailureCode.CORRUPT_IMAGE, f"damaged TIFF: strip {number} does not unpack")


def _check_run_lengths(tags: _Tags, data: bytes) -> None:
    for number, (strip, rows) in enumerate(tags.strips(data)):
        wanted = rows * tags.row_bytes
        place = found = 0
        while place < len(strip) and found < wanted:
            length = strip[place]
            if length < 128:  # that many bytes and one more follow
                found += length + 1
                place += length + 2
            else:  # one byte, repeated; 128 means nothing
                found += 257 - length if length > 128 else 0
                place += 2 if length > 128 else 1
        if found != wanted or place > len(strip):
            raise ImageFault(FailureCode.CORRUPT_IMAGE, f"damaged TIFF: strip {number} does not unpack")
