"""The faster codecs give Pillow's pixels, leave unusual files to Pillow, and treat damaged files as Pillow does."""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from importlib import metadata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from maskdet.errors import ConfigError, ImageFault
from maskdet.images import codecs
from maskdet.images.codecs import (
    PILLOW,
    RESIZE_TOLERANCE,
    codecs_identity,
    decode_jpeg,
    is_plain_png,
    load_codecs,
    resolve_codecs,
)
from maskdet.images.preprocessing import ImageLimits, open_upright, prepare_image

FAST = load_codecs("fast")
HAS_WUFFS = importlib.util.find_spec("pywuffs") is not None
LIMITS = ImageLimits(min_side_px=1)
ORIENTATION = 0x0112


def picture(height=60, width=90, seed=0):
    """Noise over a ramp, so that PNG's filters and JPEG's blocks both have something to do."""
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([x * 2, y * 3, x + y], -1)
    return ((ramp + np.random.default_rng(seed).integers(0, 60, ramp.shape)) % 256).astype(np.uint8)


def encode(pixels, file_format, mode=None, **options):
    stream = io.BytesIO()
    image = Image.fromarray(pixels) if mode is None else Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    image.save(stream, file_format, **options)
    return stream.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def xmp(orientation):
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{orientation}"/>')
    return text


def with_chunk(data, name, body, before=b"IDAT"):
    place = data.index(before) - 4
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data[:place] + chunk + data[place:]


RGB = picture()
PNG = encode(RGB, "PNG")
JPEG = encode(RGB, "JPEG", quality=90)
PLAIN = {
    "png": PNG,
    "png, fast": encode(RGB, "PNG", compress_level=1),
    "png, gamma": with_chunk(PNG, b"gAMA", struct.pack(">I", 45455)),
    "jpeg": JPEG,
    "jpeg 4:2:0": encode(RGB, "JPEG", quality=70, subsampling=2),
    "jpeg 4:2:2": encode(RGB, "JPEG", quality=70, subsampling=1),
    "jpeg 4:4:4": encode(RGB, "JPEG", quality=95, subsampling=0),
    "jpeg, grey": encode(RGB[..., 0], "JPEG"),
    "progressive": encode(RGB, "JPEG", quality=80, progressive=True),
    **{f"jpeg turned {turn}": encode(RGB, "JPEG", exif=exif(turn)) for turn in range(1, 9)},
}
NOT_PLAIN = {
    "png, transparent colour": with_chunk(PNG, b"tRNS", struct.pack(">HHH", *(int(v) for v in RGB[0, 0]))),
    "png, turned": encode(RGB, "PNG", exif=exif(6)),
    "png, turned by XMP": encode(RGB, "PNG", pnginfo=xmp(8)),
    "png, XMP at the end": with_chunk(PNG, b"tEXt", b"Comment\0none", before=b"IEND"),
    "png, grey": encode(RGB[..., 0], "PNG"),
    "png, alpha": encode(np.dstack([RGB, RGB[..., :1]]), "PNG"),
    "png, something after its end": PNG + b"x",
    "jpeg, CMYK": encode(np.dstack([RGB, RGB[..., :1]]), "JPEG", mode="CMYK"),
    "bmp": encode(RGB, "BMP"),
    "webp": encode(RGB, "WEBP", lossless=True),
}


def decoded(data, who, **options):
    """The upright pixels and size, or the fault's code and message."""
    try:
        image, size = open_upright(data, LIMITS, codecs=who, **options)
    except ImageFault as fault:
        return fault.code, fault.message
    return np.asarray(image).tobytes(), image.size, size


def takes(data):
    if FAST.plain_size(data) is not None:
        return FAST.decode_plain(data)
    return decode_jpeg(Image.open(io.BytesIO(data)), data) if data[:2] == b"\xff\xd8" else None


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_are_taken_and_give_the_same_pixels(name):
    assert (takes(PLAIN[name]) is not None) == (HAS_WUFFS or not name.startswith("png"))
    assert decoded(PLAIN[name], FAST) == decoded(PLAIN[name], PILLOW)
    by_pillow_alone = ImageOps.exif_transpose(Image.open(io.BytesIO(PLAIN[name]))).convert("RGB")
    assert decoded(PLAIN[name], FAST)[0] == by_pillow_alone.tobytes()


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_other_files_are_left_to_pillow(name):
    assert takes(NOT_PLAIN[name]) is None
    assert decoded(NOT_PLAIN[name], FAST) == decoded(NOT_PLAIN[name], PILLOW)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("at_least", "scale"), [((8, 8), 8), ((30, 30), 4), ((60, 60), 2), ((190, 190), 1)])
def test_jpegs_are_reduced_as_pillow_reduces_them(at_least, scale, orientation):
    data = encode(picture(401, 485), "JPEG", exif=exif(orientation))
    image, size = open_upright(data, LIMITS, at_least, codecs=FAST)
    stored = (-(-485 // scale), -(-401 // scale))
    assert image.size == (stored if orientation == 1 else stored[::-1])
    alone = Image.open(io.BytesIO(data))
    alone.draft(None, tuple(2 * side for side in (at_least if orientation == 1 else at_least[::-1])))
    assert np.asarray(image).tobytes() == ImageOps.exif_transpose(alone).tobytes()
    assert size == ((485, 401) if orientation == 1 else (401, 485))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["png", "jpeg", "jpeg 4:2:0", "progressive", "jpeg turned 6"]), st.data())
def test_damaged_files_end_as_with_pillow(name, data):
    whole = PLAIN[name]
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert decoded(bytes(damaged), FAST) == decoded(bytes(damaged), PILLOW)


def test_a_png_is_plain_only_as_a_whole():
    assert is_plain_png(PNG)
    assert not any(is_plain_png(PNG[:length]) for length in range(len(PNG)))
    assert not is_plain_png(with_chunk(PNG, b"acTL", bytes(8)))


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(*[st.integers(1, 90)] * 4),
    st.sampled_from(["bilinear", "box", "bicubic"]),
    st.sampled_from(["noise", "stripes", "ramp"]),
    st.integers(0, 9),
)
def test_resizing_is_within_the_stated_tolerance(size, resize_filter, kind, seed):
    height, width, rows, columns = size
    generator = np.random.default_rng(seed)
    pixels = {
        "noise": generator.integers(0, 256, (height, width, 3), np.uint8),
        "stripes": (generator.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8),
        "ramp": picture(height, width, seed),
    }[kind]
    expected = np.asarray(Image.fromarray(pixels).resize((columns, rows), codecs._PILLOW_FILTERS[resize_filter]))
    for who, tolerance in ((PILLOW, 0), (FAST, RESIZE_TOLERANCE if resize_filter == "bilinear" else 0)):
        for source in (pixels, Image.fromarray(pixels)):
            received = who.resize(source, columns, rows, resize_filter)
            assert received.shape == (rows, columns, 3)
            assert np.abs(received.astype(int) - expected).max() <= tolerance


@settings(max_examples=40, deadline=None)
@given(sizes=st.tuples(*[st.integers(1, 90)] * 4), seed=st.integers(0, 9))
def test_a_picture_of_pillow_s_is_resized_as_its_pixels_are(sizes, seed):
    height, width, down, across = sizes
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    for who in (PILLOW, FAST):
        resized = (who.resize(picture, across, down, "bilinear") for picture in (pixels, Image.fromarray(pixels)))
        np.testing.assert_array_equal(*resized)


@pytest.mark.parametrize("name", [*PLAIN, *NOT_PLAIN])
def test_prepared_images_differ_by_rounding_alone(name):
    data = {**PLAIN, **NOT_PLAIN}[name]
    ours, pillow = (prepare_image(data, 32, 24, LIMITS, codecs=who) for who in (FAST, PILLOW))
    assert ours[1:] == pillow[1:]
    assert np.abs(ours.pixels.astype(int) - pillow.pixels).max() <= RESIZE_TOLERANCE


class TestNames:
    def test_auto_means_fast_where_it_is_installed(self):
        assert [resolve_codecs(name) for name in ("auto", "fast", "pillow")] == ["fast", "fast", "pillow"]

    @pytest.fixture
    def without(self, monkeypatch):
        """Imitates a machine that lacks a package."""
        version = metadata.version

        def hide(absent):
            def found(package):
                if package == absent:
                    raise metadata.PackageNotFoundError(package)
                return version(package)

            monkeypatch.setattr(codecs.metadata, "version", found)

        return hide

    def test_without_wuffs_pillow_decodes_pngs_to_the_same_and_the_identity_says_so(self, without):
        expected = prepare_image(PNG, 20, 20, LIMITS, codecs=FAST).pixels
        without("pywuffs")
        assert resolve_codecs("auto") == "fast"
        found = load_codecs("fast")
        assert found.plain_size(PNG) is None
        assert np.array_equal(prepare_image(PNG, 20, 20, LIMITS, codecs=found).pixels, expected)
        assert "pywuffs" not in codecs_identity("fast")
        assert "cykooz-resizer" in codecs_identity("fast")

    def test_without_the_resizer_auto_means_pillow_and_fast_is_refused(self, without):
        absent = "cykooz-resizer"
        without(absent)
        assert resolve_codecs("auto") == "pillow"
        with pytest.raises(ConfigError, match=rf"received 'no {absent}'.*pip install 'maskdet\[fast\]'"):
            load_codecs("fast")
        with pytest.raises(ConfigError, match=f"received 'no {absent}'"):
            codecs_identity("fast")

    def test_identities_name_every_library_and_version(self):
        names = ("pillow", "simplejpeg", "pillow-heif")
        assert codecs_identity("pillow") == ", ".join(f"{name} {metadata.version(name)}" for name in names)
        for package in ("pillow", *(["pywuffs"] if HAS_WUFFS else []), "simplejpeg", "cykooz-resizer"):
            assert f"{package} {metadata.version(package)}" in codecs_identity("fast")
