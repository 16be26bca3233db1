"""The type of a file by its first bytes; and headers made to keep a decoder busy, which every codec refuses at once."""

from __future__ import annotations

import io
import struct
import sys
import time
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from maskdet.errors import FailureCode, ImageFault
from maskdet.images import containers, preprocessing
from maskdet.images.codecs import PILLOW, load_codecs
from maskdet.images.preprocessing import ImageLimits, prepare_image

CODECS = {"fast": load_codecs("fast"), "pillow": PILLOW}
MEGABYTES = 60_000_000


def encode(pixels, file_format, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, file_format, **options)
    return stream.getvalue()


SMOOTH = np.broadcast_to(np.linspace(0, 255, 64)[None, :, None], (48, 64, 3)).astype(np.uint8)
JPEG, PNG, GIF = (encode(SMOOTH, name) for name in ("JPEG", "PNG", "GIF"))


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def tiff_of(entries, order="<"):
    """A TIFF header and one directory of ``(tag, type, count, value)``."""
    packed = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack(f"{order}IH", 8, len(entries)) + packed + bytes(4)


def progressive_bomb():
    """A picture of 60 megapixels in 1,000 scans of the same few bytes."""
    data = encode(np.zeros((8, 8), np.uint8), "JPEG", progressive=True)
    frame = data.index(b"\xff\xc2") + 5
    scan = data.index(b"\xff\xda")
    end = data.index(b"\xff", scan + 2 + 8)
    sized = data[:frame] + struct.pack(">HH", 7000, 8500) + data[frame + 4 :]
    return sized[:scan] + sized[scan:end] * 1000 + b"\xff\xd9"


def wide(width, height):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(width + 1) * height, 1))


BUSY = {
    "fill bytes": lambda: b"\xff\xd8" + b"\xff" * MEGABYTES,
    "empty segments": lambda: b"\xff\xd8" + b"\xff\xe1\0\2" * (MEGABYTES // 4),
    "large segments": lambda: b"\xff\xd8" + segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 900 + JPEG[2:],
    "scans": progressive_bomb,
    "empty chunks": lambda: PNG[:33] + chunk(b"tEXt", b"") * (MEGABYTES // 12) + PNG[33:],
    "empty pixel chunks": lambda: PNG[:33] + chunk(b"IDAT", b"") * (MEGABYTES // 12) + PNG[33:],
    "GIF comments": lambda: GIF[:-1][: 13 + 3 * 256] + b"!\xfe" + (b"\xff" + bytes(255)) * 200_000 + b"\0" + GIF[781:],
    "GIF rubbish": lambda: GIF[: 13 + 3 * 256] + b"x" * MEGABYTES,
    "TIFF tags": lambda: tiff_of([(1000 + i, 7, 20_000_000, 8) for i in range(3000)]) + bytes(20_000_000),
    "TIFF strips": lambda: tiff_of([(273, 4, 10_000_000, 8), (279, 4, 10_000_000, 8)]) + bytes(40_000_000),
    "BMP run lengths": lambda: (
        b"BM" + bytes(12) + struct.pack("<IiiHHI20x", 40, 8_000, 8_000, 1, 8, 1) + b"\xff\0" * 9_000_000
    ),
}


@pytest.mark.parametrize("codecs", CODECS)
@pytest.mark.parametrize("name", BUSY)
def test_a_header_made_to_keep_a_decoder_busy_is_refused_within_a_second(name, codecs):
    data = BUSY[name]()
    began = time.process_time()
    with pytest.raises(ImageFault) as fault:
        prepare_image(data, 32, 32, ImageLimits(), codecs=CODECS[codecs])
    assert time.process_time() - began < 1
    assert fault.value.code in (FailureCode.CORRUPT_IMAGE, FailureCode.UNSUPPORTED_FORMAT)


def test_a_side_no_camera_has_is_refused_though_its_pixels_are_few():
    with pytest.raises(ImageFault, match=r"8000000 x 8 pixels, a side over imaging.max_side_px = 65535"):
        prepare_image(wide(8_000_000, 8), 32, 32)
    assert prepare_image(wide(65_535, 8), 32, 32).width_px == 65_535


def test_an_exif_block_that_would_grow_when_read_counts_as_upright():
    tags = [(0x0112, 3, 1, 6), *((0xA000 + i, 7, 60_000, 8) for i in range(4000))]
    block = b"Exif\0\0" + tiff_of(sorted(tags))
    block += bytes(65_000 - len(block)) if len(block) < 65_000 else b""
    assert not containers.is_bounded_exif(block)
    turned = b"Exif\0\0" + tiff_of([(0x0112, 3, 1, 6)])
    assert containers.is_bounded_exif(turned)
    assert prepare_image(JPEG[:2] + segment(0xE1, turned) + JPEG[2:], 8, 8).width_px == 48
    assert prepare_image(PNG[:33] + chunk(b"eXIf", block[6:]) + PNG[33:], 8, 8).width_px == 64


@pytest.mark.parametrize("file_format", ["AVIF", "HEIF"])
class TestOtherFormats:
    def make(self, file_format, orientation=None):
        if file_format == "AVIF":
            return encode(SMOOTH, "AVIF", quality=95)
        pillow_heif.register_heif_opener()
        return encode(SMOOTH, "HEIF", quality=95)

    def test_they_are_read_where_they_can_be(self, file_format):
        data = self.make(file_format)
        assert containers.kind_of(data) == file_format
        image = prepare_image(data, 48, 64)
        assert (image.width_px, image.height_px) == (64, 48)
        assert np.abs(image.pixels.astype(int) - SMOOTH).max() < 12

    def test_cut_short_they_are_damaged(self, file_format):
        data = self.make(file_format)
        with pytest.raises(ImageFault) as fault:
            prepare_image(data[: len(data) - 40], 48, 64)
        assert fault.value.code is FailureCode.CORRUPT_IMAGE

    def test_the_failure_names_what_to_install_where_they_cannot(self, file_format, monkeypatch):
        data = self.make(file_format)
        monkeypatch.setattr(preprocessing, f"_reads_{file_format.lower()}", lambda: False)
        with pytest.raises(ImageFault) as fault:
            prepare_image(data, 48, 64)
        needed = {"HEIF": r"maskdet[heif]", "AVIF": "pillow>=11.3"}[file_format]
        assert fault.value.code is FailureCode.UNSUPPORTED_FORMAT
        assert fault.value.message == f"{file_format}, which is read where {needed} is installed"


def test_heif_is_read_only_where_its_package_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    preprocessing._reads_heif.cache_clear()
    assert not preprocessing._reads_heif()
    monkeypatch.undo()
    preprocessing._reads_heif.cache_clear()
    assert preprocessing._reads_heif()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "a Git LFS pointer"),
        (b"%PDF-1.7", "PDF"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "a macOS companion file (AppleDouble)"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    ],
)
def test_what_is_no_image_is_named_where_it_can_be_told(data, name):
    with pytest.raises(ImageFault, match="no BMP, GIF, JPEG, PNG, TIFF, WEBP header; it seems to be ") as fault:
        prepare_image(data, 8, 8)
    assert fault.value.code is FailureCode.NOT_AN_IMAGE
    assert fault.value.message.endswith(name)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": Image.Exif()}])
def test_the_size_of_a_webp_is_read_before_its_decoder_allocates_it(options):
    assert containers.webp_size(encode(SMOOTH, "WEBP", **options)) == (64, 48)
    assert containers.webp_size(encode(np.dstack([SMOOTH, SMOOTH[..., :1]]), "WEBP")) == (64, 48)
