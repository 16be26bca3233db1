"""JPEG files: bounded before they are decoded, and checked for damage.

Decoders fill missing parts of a JPEG with grey and only warn, if that: a file that was cut off in an upload and closed
by a repair tool decodes without an error, and a grey lower half of a face looks like a mask. Here a file is intact when
every block of every scan is there:

- libjpeg-turbo, which decodes them, warns of nothing but harmless oddities (see :func:`damage`);
- its scans bring every coefficient of every component to full precision;
- its data have no stretch of zeros where zeros cannot be part of a picture.

A missing end marker alone loses nothing; it is restored before decoding.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import simplejpeg

from maskdet.errors import FailureCode, ImageFault

SIGNATURE = b"\xff\xd8\xff"
END = b"\xff\xd9"

# Real files have tens of segments; those with depth maps or panoramas in XMP have a few megabytes of them.
_MOST_SEGMENTS = 4096
_MOST_HEADER_BYTES = 16 * 1024 * 1024
_MOST_FILL_BYTES = 4096
# Encoders write about ten scans; each costs a pass over the whole picture.
_MOST_SCANS = 64

_SOF_SEQUENTIAL = (0xC0, 0xC1)
_SOF_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_SOF = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_SOS, _DHT, _EOI = 0xDA, 0xC4, 0xD9
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a segment
# Fill bytes, markers without a segment, the end, and frames in which a scan is not the whole picture.
_UNUSUAL = frozenset((0x00, 0xFF, _EOI, *_BARE, *(_SOF - {0xC0, 0xC1})))
_USUAL_SEGMENTS = 100
_FILL = re.compile(rb"\xff+")
# A marker within a scan's data: an 0xFF that is neither stuffed nor a restart.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")

# 512 zero bits are three blocks whose 63 coefficients are all alike: in a picture there are none, save where the code
# of zeros means "rest of the block is zero" (in files with tables of their own and a flat area).
_ZEROS = bytes(64)
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_BUFFER_BYTES = 9  # 64 bits, and the byte that they begin in
_HARMLESS = ("Unknown Adobe color transform code", "unknown JFIF revision number", "Invalid SOS parameters")


class JpegFile(NamedTuple):
    """A JPEG whose header is bounded."""

    data: bytes
    """The file's bytes, with an end marker."""
    scan: int
    """Where the data of the first scan begin; 0 if there is none."""
    problem: str | None
    """Why the picture cannot be intact, as far as the markers show."""


class _Segment(NamedTuple):
    marker: int
    start: int
    """Where its content begins."""
    end: int


def inspect(data: bytes) -> JpegFile:
    """Walk through a JPEG's markers.

    Raises:
        ImageFault: there are more data before the picture, or more scans, than any file needs.
    """
    if (scan := _scan_of_usual(data)) > 0:
        return JpegFile(data, scan, None)
    header = _segments(data, len(SIGNATURE) - 1)
    if not header or header[-1].marker != _SOS:
        return JpegFile(data, 0, None)  # the decoder says what it lacks
    scan = header[-1].end
    end = len(data) - 2 if data[-2:] == END else data.find(END, scan)
    if end < 0:
        data, end = data + END, len(data)
    frame = next((segment for segment in header if segment.marker in _SOF), None)
    if frame is None or frame.end - frame.start < 6:
        return JpegFile(data, scan, None)
    components = data[frame.start + 5]
    if frame.marker in _SOF_SEQUENTIAL and data[header[-1].start] == components:
        zeros = data.find(_ZEROS, scan, end)
        cut = zeros >= 0 and zeros < data.find(END, scan) and not _zeros_are_picture(data, header)
        return JpegFile(data, scan, "a stretch of its data is zeros" if cut else None)
    return JpegFile(data, scan, _missing_scans(data, header, frame))


def _scan_of_usual(data: bytes) -> int:
    """Where the data of the scan begin in a typical file; 0 for all others.

    Such a file has segments in a row, one scan of all components, no long zeros and the end marker. The long way would
    find no problem in it, either, but take as long as Pillow for its header.
    """
    place, components = 2, 0
    end = len(data) - 2
    for _ in range(_USUAL_SEGMENTS):
        if place + 5 > end or data[place] != 0xFF:
            return 0
        marker = data[place + 1]
        following = place + 2 + (data[place + 2] << 8 | data[place + 3])
        if marker == _SOS:
            usual = data[place + 4] == components and data.endswith(END) and data.find(_ZEROS, place, end) < 0
            return following if usual else 0
        if marker in _UNUSUAL:
            return 0
        if marker in _SOF_SEQUENTIAL:
            components = data[place + 9] if place + 9 < end else 0
        place = following
    return 0


def damage(data: bytes, colorspace: str) -> str | None:
    """What libjpeg-turbo finds missing or broken in a file.

    Harmless are: metadata of unknown versions, scan parameters that sequential files may leave at zero, and padding
    before the end marker (equal bytes, none of which was taken for picture).

    Args:
        data: the file's bytes, with an end marker.
        colorspace: ``"GRAY"``, or ``"CMYK"`` for files of four components.

    Returns:
        Its message; ``None`` if the file is intact, or of a kind that it does not decode.
    """
    warning = _complaint(data, colorspace, strict=True)
    if warning is not None and any(text in warning for text in _HARMLESS):
        data = _with_usual_parameters(data)
        warning = _complaint(data, colorspace, strict=True)
    if warning is None or _complaint(data, colorspace, strict=False) is not None:
        return None  # intact, or not of its kind: its decoder says what is wrong
    extraneous = _EXTRANEOUS.search(warning)
    return None if extraneous and _is_padding(data, int(extraneous[1])) else warning


def _complaint(data: bytes, colorspace: str, *, strict: bool) -> str | None:
    """What libjpeg-turbo says first; decodes at an eighth of the size, which reads all of the data."""
    try:
        simplejpeg.decode_jpeg(data, colorspace, min_height=1, min_width=1, strict=strict)
    except ValueError as error:
        return str(error)
    return None


def _is_padding(data: bytes, count: int) -> bool:
    """Whether so many bytes before the end marker are equal, and no more before them than a decoder has in hand."""
    end = data.find(END, inspect(data).scan)
    padding = data[end - count : end]
    run = len(data[:end]) - len(data[:end].rstrip(padding[:1]))
    return len(set(padding)) == 1 and run <= count + _BUFFER_BYTES


def _segments(data: bytes, place: int) -> list[_Segment]:
    """Segments from a position on, up to the start of a scan, the end of the picture or anything but a segment."""
    found: list[_Segment] = []
    filled, first = 0, place
    while fill := _FILL.match(data, place):
        filled += fill.end() - place - 1
        if len(found) > _MOST_SEGMENTS or filled > _MOST_FILL_BYTES or place - first > _MOST_HEADER_BYTES:
            raise ImageFault(
                FailureCode.CORRUPT_IMAGE,
                f"more before the picture than {_MOST_SEGMENTS} segments, {_MOST_HEADER_BYTES} bytes or "
                f"{_MOST_FILL_BYTES} fill bytes",
            )
        if fill.end() == len(data):
            break
        marker, place = data[fill.end()], fill.end() + 1
        if marker in _BARE:
            found.append(_Segment(marker, place, place))
            continue
        length = int.from_bytes(data[place : place + 2], "big") if marker != _EOI else 0
        found.append(_Segment(marker, min(place + 2, len(data)), place + length))
        place += length
        if marker in (_SOS, _EOI) or length < 2:
            break
    return found


def _missing_scans(data: bytes, header: list[_Segment], frame: _Segment) -> str | None:
    """Whether a file with several scans leaves a coefficient unsent or unrefined.

    Raises:
        ImageFault: there are too many scans.
    """
    if frame.marker not in (*_SOF_SEQUENTIAL, *_SOF_PROGRESSIVE):
        return None
    progressive = frame.marker in _SOF_PROGRESSIVE
    identifiers = [data[place] for place in range(frame.start + 6, frame.end - 2, 3)]
    missing = {identifier: set(range(64)) for identifier in identifiers}
    segment: _Segment | None = header[-1]
    scans = 0
    while segment is not None and segment.marker == _SOS:
        scans += 1
        if scans > _MOST_SCANS:
            raise ImageFault(FailureCode.CORRUPT_IMAGE, f"more than {_MOST_SCANS} scans")
        _take_scan(data[segment.start : segment.end], missing, progressive=progressive)
        marker = _MARKER.search(data, segment.end)
        following = _segments(data, marker.start()) if marker else []
        segment = following[-1] if following else None
    lacking = sum(bool(coefficients) for coefficients in missing.values())
    return f"scans are missing: {lacking} of {len(missing)} components are incomplete" if lacking else None


def _take_scan(header: bytes, missing: dict[int, set[int]], *, progressive: bool) -> None:
    """Note the coefficients that a scan brings to full precision."""
    count = header[0] if header else 0
    if len(header) < 1 + 2 * count + 3:
        return
    first, last, approximation = header[1 + 2 * count : 4 + 2 * count]
    sent = range(first, min(last, 63) + 1) if progressive else range(64)
    if progressive and approximation & 0x0F:
        return
    for place in range(1, 1 + 2 * count, 2):
        missing.get(header[place], set()).difference_update(sent)


def _zeros_are_picture(data: bytes, header: list[_Segment]) -> bool:
    """Whether a table's shortest code, all zeros, ends a block: then zeros are a flat area."""
    symbols = []
    for segment in header:
        place = segment.start
        while segment.marker == _DHT and place + 17 < segment.end <= len(data):
            if data[place] >> 4:  # of coefficients other than the mean
                symbols.append(data[place + 17])
            place += 17 + sum(data[place + 1 : place + 17])
    return 0 in symbols[:1] or not symbols


def _with_usual_parameters(data: bytes) -> bytes:
    """The same picture without the oddities of which libjpeg warns before it reaches the data."""
    patched = bytearray(data)
    for marker, start, end in _segments(data, len(SIGNATURE) - 1):
        content = data[start:end]
        if marker == _SOS and content:
            patched[start + 1 + 2 * content[0] : end] = b"\x00\x3f\x00"
        elif marker == 0xE0 and content[:5] == b"JFIF\0":
            patched[start + 5] = 1
        elif marker == 0xEE and content[:5] == b"Adobe" and len(content) >= 12:
            patched[start + 11] = min(patched[start + 11], 1)
    return bytes(patched)
