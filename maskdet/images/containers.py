"""The format of a file by its first bytes, and headers that no decoder should get.

Pillow reads headers in Python, byte by byte, block by block or tag by tag, and keeps what it reads: a few megabytes
made for the purpose keep it busy for minutes or take all memory. What is refused here goes beyond any file that a
camera, a phone or an editor writes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from maskdet.errors import FailureCode, ImageFault

# Signatures of formats with decoders, and of others that are only named, so that a failure says what was found.
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"),
}
_OTHERS = (
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"version https://git-lfs", "a Git LFS pointer"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip"),
    (b"\0\x05\x16\x07", "a macOS companion file (AppleDouble)"),
)

_MOST_EXTENSION_BYTES = 1024 * 1024  # of a GIF, before its first picture
_MOST_TAGS = 4096
_MOST_VALUES = 100_000  # tiles or strips: 64 million pixels in tiles of 26 x 26
_TIFF_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_BMP_RUN_LENGTHS = (1, 2)
_MOST_RUN_LENGTH_PIXELS = 4_000_000  # Pillow decodes them in Python, in about 1 s

_LONGEST_SIGNATURE = 32


def kind_of(data: bytes) -> str | None:
    """The format of a file by its first bytes, as its decoder is registered; ``None`` for all others."""
    head = data[:_LONGEST_SIGNATURE]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[place : place + 4] for place in range(16, len(head) - 3, 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
    return next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None)


def name_of_other(data: bytes) -> str | None:
    """What a file that is not a supported image seems to be; ``None`` if that is unknown."""
    head = data[:_LONGEST_SIGNATURE]
    if (name := next((name for signature, name in _OTHERS if head.startswith(signature)), None)) is not None:
        return name
    text = data[:256].lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    return "SVG" if text.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:1024].lower() else None


def check_header(data: bytes, kind: str) -> None:
    """Refuse a file whose header would cost a decoder more time or memory than any picture is worth.

    JPEGs and PNGs are checked in :mod:`maskdet.images.jpeg` and :mod:`maskdet.images.png`.

    Raises:
        ImageFault: it is one.
    """
    check = _CHECKS.get(kind)
    if check is not None:
        check(data)


def is_bounded_exif(data: bytes) -> bool:
    """Whether an EXIF block, once its tags are read, is no larger than the block itself allows."""
    try:
        _check_tiff(data.removeprefix(b"Exif\0\0"))
    except ImageFault:
        return False
    return True


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP's canvas, which its decoder allocates before it reports them."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _check_gif(data: bytes) -> None:
    place = 13 + _colours(data[10:11])
    limit = place + _MOST_EXTENSION_BYTES
    while place < min(len(data), limit) and data[place] not in b",;":  # a picture, the end
        if data[place] == ord("!"):  # an extension: blocks, each after its length, up to an empty one
            place += 2
            while place < min(len(data), limit) and data[place]:
                place += 1 + data[place]
        place += 1
    if place >= limit:
        raise ImageFault(FailureCode.CORRUPT_IMAGE, f"more than {_MOST_EXTENSION_BYTES} bytes before the first picture")


def _colours(flags: bytes) -> int:
    """Bytes of a GIF's table of colours."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _check_tiff(data: bytes) -> None:
    """Entries of the first directory, the only one that is read."""
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    offset_format, count_format, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    try:
        (offset,) = struct.unpack_from(order + offset_format, data, 8 if big else 4)
        (tags,) = struct.unpack_from(order + count_format, data, offset)
    except (struct.error, OverflowError):
        return  # the decoder says what is missing
    size = values = 0
    for number in range(min(tags, _MOST_TAGS + 1)):
        place = offset + struct.calcsize(count_format) + number * entry
        if place + entry > len(data):
            break
        kind, count = struct.unpack_from(f"{order}H{offset_format}", data, place + 2)
        each = _TIFF_TYPE_BYTES[kind] if kind < len(_TIFF_TYPE_BYTES) else 0
        size += each * count if each * count <= len(data) else 0  # what is beyond the end is not read
        values += count if each > 1 and each * count <= len(data) else 0
    if tags > _MOST_TAGS or values > _MOST_VALUES or size > 2 * len(data) + 4096:
        raise ImageFault(
            FailureCode.CORRUPT_IMAGE,
            f"a directory of more than {_MOST_TAGS} tags, {_MOST_VALUES} values or twice the file's size",
        )


def _check_bmp(data: bytes) -> None:
    if len(data) < 34 or int.from_bytes(data[14:18], "little") < 40:
        return
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    large = abs(width * height) > _MOST_RUN_LENGTH_PIXELS or len(data) > _MOST_RUN_LENGTH_PIXELS
    if compression in _BMP_RUN_LENGTHS and large:
        raise ImageFault(
            FailureCode.UNSUPPORTED_FORMAT,
            f"a run-length encoded BMP of more than {_MOST_RUN_LENGTH_PIXELS} pixels or bytes",
        )


_CHECKS: dict[str, Callable[[bytes], None]] = {"GIF": _check_gif, "TIFF": _check_tiff, "BMP": _check_bmp}
