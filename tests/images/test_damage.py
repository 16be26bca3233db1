"""Every codec finds the damage that memory cards, uploads and repair tools leave; whole files pass."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from maskdet.errors import FailureCode, ImageFault
from maskdet.images import jpeg, png
from maskdet.images.codecs import PILLOW, load_codecs
from maskdet.images.preprocessing import ImageLimits, decode_upright

FAST = load_codecs("fast")
END = b"\xff\xd9"


def picture(height=160, width=200, seed=0):
    """A ramp under noise, so that no block is flat."""
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([x, y, x + y], -1)
    return ((ramp + np.random.default_rng(seed).integers(0, 60, ramp.shape)) % 256).astype(np.uint8)


def encode(pixels, file_format, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def outcome(data, **limits):
    """What both codecs return for a file: pixels and whether it is damaged, or the fault's code and message."""
    found = []
    for codecs in (FAST, PILLOW):
        try:
            upright = decode_upright(data, ImageLimits(min_side_px=1, **limits), codecs=codecs)
            found.append((np.asarray(upright.picture).tobytes(), upright.damaged))
        except ImageFault as fault:
            found.append((fault.code, fault.message))
    assert found[0] == found[1]
    return found[0]


def is_whole(data):
    return outcome(data)[1] is False


def damage_of(data):
    code, message = outcome(data)
    assert code is FailureCode.CORRUPT_IMAGE, message
    return message


RGB = picture()
KINDS = {
    "4:2:0": encode(RGB, "JPEG", quality=90),
    "4:4:4": encode(RGB, "JPEG", quality=93, subsampling=0),
    "progressive": encode(RGB, "JPEG", quality=85, progressive=True),
    "tables of its own": encode(RGB, "JPEG", quality=85, optimize=True),
    "restarts": encode(RGB, "JPEG", quality=85, restart_marker_rows=1),
    "grey": encode(RGB[..., 0], "JPEG", quality=90),
    "CMYK": encode(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=90),
}
JPEG = KINDS["4:2:0"]


def scan_of(data):
    return data.rindex(b"\xff\xda") + 2 + int.from_bytes(data[data.rindex(b"\xff\xda") + 2 :][:2], "big")


class TestJpeg:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
    def test_a_file_cut_short_is_damaged_however_it_was_closed(self, kind, share):
        data = KINDS[kind]
        start = jpeg.inspect(data).scan
        cut = start + int((len(data) - start) * share)
        for closed in (
            data[:cut],
            data[:cut] + END,
            data[:cut] + bytes(len(data) - cut),
            data[:cut] + bytes(len(data) - cut - 2) + END,
        ):
            assert damage_of(closed).startswith("damaged JPEG: ")

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_whole_picture_passes_with_whatever_follows_it(self, kind):
        data = KINDS[kind]
        pixels = outcome(data)
        assert pixels[1] is False
        for whole in (data[:-2], data + data, data + bytes(5000), data + b"a camera's own data", data[:-2] + END + END):
            assert outcome(whole) == pixels

    def test_a_hole_in_the_middle_is_damage(self):
        middle = len(JPEG) // 2
        assert "zeros" in damage_of(JPEG[:middle] + bytes(400) + JPEG[middle + 400 :])
        assert "damaged JPEG" in damage_of(JPEG[:middle] + JPEG[middle + 400 :])

    @pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\xaa"])
    def test_padding_before_the_end_marker_is_none(self, filler):
        assert outcome(JPEG[:-2] + filler * 40 + END) == outcome(JPEG)

    def test_left_over_data_are_damage_since_they_belong_somewhere(self):
        start, end = scan_of(JPEG), len(JPEG) - 2
        block = JPEG[end - 60 : end - 20].replace(b"\xff", b"\x01")
        assert start < end - 60
        assert "extraneous" in damage_of(JPEG[:-2] + block + END)

    def test_a_flat_area_in_tables_of_its_own_may_be_coded_as_zeros(self):
        flat = np.full((1024, 1024), 200, np.uint8)
        flat[:16, :16] = picture(16, 16)[..., 0]
        data = encode(flat, "JPEG", quality=90, optimize=True)
        assert bytes(64) in data[scan_of(data) :]
        assert is_whole(data)

    def test_scans_that_never_came_are_missed(self):
        data = KINDS["progressive"]
        starts = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
        assert len(starts) >= 3
        segment = data.rindex(b"\xff\xc4", 0, starts[1])  # the tables of the second scan
        assert "scans are missing: 3 of 3" in damage_of(data[:segment] + END)
        assert "scans are missing" in damage_of(data[: starts[-1]] + END)

    def test_metadata_of_unknown_versions_are_not_damage_and_hide_none(self):
        odd = JPEG.replace(b"JFIF\0\x01", b"JFIF\0\x07", 1)
        assert odd != JPEG
        assert is_whole(odd)
        assert "premature end" in damage_of(odd[: len(odd) * 2 // 3] + END)

    def test_scan_parameters_that_sequential_files_leave_at_zero_are_none_either(self):
        place = JPEG.index(b"\xff\xda") + 2 + 2 + 1 + 6
        assert JPEG[place : place + 3] == b"\x00\x3f\x00"
        assert is_whole(JPEG[:place] + b"\0\0\0" + JPEG[place + 3 :])

    def test_reduced_decoding_finds_the_same_damage(self):
        cut = JPEG[: len(JPEG) * 3 // 5] + END
        with pytest.raises(ImageFault, match="premature end"):
            decode_upright(cut, ImageLimits(), (8, 8))

    def test_what_is_left_is_kept_if_asked_for_and_marked(self):
        cut = JPEG[: len(JPEG) * 3 // 5] + END
        pixels, damaged = outcome(cut, keep_damaged=True)
        assert damaged is True
        whole = np.frombuffer(outcome(JPEG)[0], np.uint8).reshape(RGB.shape)
        left = np.frombuffer(pixels, np.uint8).reshape(RGB.shape)
        assert np.array_equal(left[:64], whole[:64])
        assert outcome(JPEG, keep_damaged=True) == outcome(JPEG)


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def a_png(colour, rows, *chunks, size=64, depth=8, interlaced=0):
    header = struct.pack(">IIBBBBB", size, size, depth, colour, 0, 0, interlaced)
    return png.SIGNATURE + b"".join(
        [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


PNGS = {
    "RGB": encode(RGB, "PNG"),
    "RGBA": encode(Image.fromarray(RGB).convert("RGBA"), "PNG"),
    "grey": encode(RGB[..., 0], "PNG"),
    "palette": encode(Image.fromarray(RGB).convert("P"), "PNG"),
}


class TestPng:
    @pytest.mark.parametrize("kind", PNGS)
    def test_whatever_may_follow_the_pixels_may_be_missing(self, kind):
        pixels = outcome(PNGS[kind])
        for whole in (PNGS[kind][:-12], PNGS[kind][:-5], PNGS[kind] + bytes(100)):
            assert outcome(whole) == pixels

    @pytest.mark.parametrize("kind", PNGS)
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
    def test_a_flipped_byte_a_cut_and_a_hole_are_damage(self, kind, share):
        data = PNGS[kind]
        start = data.index(b"IDAT") + 4
        place = start + int((len(data) - 20 - start) * share)
        flipped = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        hole = data[:place] + bytes(10) + data[place + 10 :]
        for damaged in (flipped, hole, data[:place], data[:place] + chunk(b"IEND", b"")):
            assert damage_of(damaged).startswith("damaged PNG: ")

    @pytest.mark.parametrize("interlaced", [0, 1])
    @pytest.mark.parametrize("colour", [0, 2])
    def test_pixels_that_end_early_under_right_checksums_are_damage(self, colour, interlaced):
        samples = 1 if colour == 0 else 3
        row = b"\0" + bytes(range(64)) * samples
        rows = _passes(samples) if interlaced else row * 64
        assert is_whole(a_png(colour, rows, interlaced=interlaced))
        short = rows[: -len(row) * 20] if not interlaced else rows[: -32 * (1 + 64 * samples)]
        assert "pixels end early" in damage_of(a_png(colour, short, interlaced=interlaced))

    def test_a_picture_that_ends_in_black_is_whole(self):
        assert is_whole(a_png(0, (b"\0" + b"\x80" * 64) * 32 + bytes(65) * 32))

    def test_palettes_that_break_their_rules_are_damage(self):
        rows = b"".join(b"\0" + bytes(64) for _ in range(64))
        colours = chunk(b"PLTE", bytes(range(3 * 4)))
        assert is_whole(a_png(3, rows, colours))
        assert "palette that is missing" in damage_of(a_png(3, rows))
        assert "4 colours, its transparency 200" in damage_of(a_png(3, rows, colours, chunk(b"tRNS", bytes(200))))
        beyond = rows[:-1] + b"\x04"
        assert "colour 4 of a palette of 4" in damage_of(a_png(3, beyond, colours))

    @pytest.mark.parametrize("kind", PNGS)
    def test_what_is_left_is_kept_if_asked_for_and_marked(self, kind):
        data = PNGS[kind]
        whole = np.frombuffer(outcome(data)[0], np.uint8).reshape(RGB.shape)
        for damaged in (data[: len(data) // 2], data[: len(data) // 2] + chunk(b"IEND", b"")):
            pixels, marked = outcome(damaged, keep_damaged=True)
            left = np.frombuffer(pixels, np.uint8).reshape(RGB.shape)
            assert marked is True
            assert np.array_equal(left[:60], whole[:60])
            assert not np.array_equal(left, whole)
        assert outcome(data, keep_damaged=True) == outcome(data)

    def test_nothing_left_is_nothing_kept(self):
        code, _ = outcome(PNGS["RGB"][: PNGS["RGB"].index(b"IDAT") + 4], keep_damaged=True)
        assert code is FailureCode.CORRUPT_IMAGE


def _passes(samples):
    """Raw rows of an interlaced picture of 64 x 64 pixels of one colour."""
    sizes = [(8, 8), (8, 8), (16, 8), (16, 16), (32, 16), (32, 32), (64, 32)]
    return b"".join((b"\0" + b"\x70" * (columns * samples)) * rows for columns, rows in sizes)


def tiff(compression):
    return encode(RGB, "TIFF", compression=compression)


class TestTiff:
    @pytest.mark.parametrize("compression", ["raw", "jpeg", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
    def test_a_whole_file_passes(self, compression):
        assert is_whole(tiff(compression))

    @pytest.mark.parametrize("compression", ["jpeg", "tiff_adobe_deflate", "packbits"])
    def test_a_strip_of_which_a_part_is_zeros_is_damage(self, compression):
        data = tiff(compression)
        tags = Image.open(io.BytesIO(data)).tag_v2
        start, length = tags[273][0], tags[279][0]
        middle = start + length // 2
        damaged = data[:middle] + bytes(length // 2) + data[middle + length // 2 :]
        assert damage_of(damaged).startswith("damaged TIFF: strip 0")

    def test_a_jpeg_strip_smaller_than_its_place_is_damage(self):
        data = tiff("jpeg")
        place = data.index(b"\xff\xc0\x00\x11\x08") + 5
        short = data[:place] + struct.pack(">H", 8) + data[place + 2 :]
        assert damage_of(short).startswith("damaged TIFF: strip 0")

    def test_fax_codes_whose_decoder_leaves_rows_unset_are_refused(self):
        page = encode(Image.fromarray(RGB).convert("1"), "TIFF", compression="group4")
        assert outcome(page) == (FailureCode.UNSUPPORTED_FORMAT, "a TIFF of compression 4")
