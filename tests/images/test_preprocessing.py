"""Preprocessing: every documented rule against NumPy or hand algebra, and every kind of bad file."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskdet.errors import FailureCode, ImageFault
from maskdet.images.preprocessing import DRAFT_MARGIN, FORMATS, ImageLimits, open_upright, prepare_image
from maskdet.labels import class_columns, worn_probability
from maskdet.model.backends import RuntimeSpec, load_model

ANY_SIZE = ImageLimits(min_side_px=1)
ORIENTATION_TAG = 0x0112
# What a viewer shows for each value of the EXIF tag, given the stored rows and columns.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}
# Pillow warns of metadata that it skips: a worker prints that once, but a test would fail.
quietly = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def noise(height, width, channels=3, seed=0, dtype=np.uint8):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def smooth(height, width):
    """A picture without detail, so that filters agree; no two of its eight orientations are alike."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x // width, 255 * y // height, 255 * (x + 2 * y) // (width + 2 * height)], -1).astype(
        np.uint8
    )


def encode(pixels, file_format, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def decode(data, at_least=None):
    image, _ = open_upright(data, ANY_SIZE, at_least)
    assert image.mode == "RGB"
    return np.asarray(image)


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION_TAG] = orientation
    return tags


def png(width, height, depth, colour_type, rows, *chunks):
    """A PNG by hand, for features that the encoder does not write."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(width, height, bits, data, *, order="<", photometric=1, sample_format=1):
    """A grey TIFF by hand: one uncompressed strip."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height, 279: len(data)}
    tags |= {273: 8 + 2 + 12 * (len(tags) + 2) + 4, 339: sample_format}
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return magic + struct.pack(order + "IH", 8, len(tags)) + entries + b"\0\0\0\0" + data


def fault_of(data, limits=ANY_SIZE):
    with pytest.raises(ImageFault) as caught:
        prepare_image(data, 8, 8, limits)
    return caught.value.code, caught.value.message


def over_white(colour, alpha):
    """Compositing by the textbook: alpha from 0 to 255."""
    share = alpha[..., None].astype(float) / 255
    return colour * share + 255 * (1 - share)


class TestOrientation:
    @pytest.mark.parametrize("orientation", UPRIGHT)
    @pytest.mark.parametrize(
        ("file_format", "options"),
        [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("TIFF", {"compression": "tiff_lzw"})],
    )
    def test_lossless_formats_come_upright(self, orientation, file_format, options):
        stored = noise(12, 20)
        data = encode(stored, file_format, exif=exif(orientation), **options)
        expected = UPRIGHT[orientation](stored)
        assert np.array_equal(decode(data), expected)
        assert open_upright(data, ANY_SIZE)[1] == (expected.shape[1], expected.shape[0])

    @pytest.mark.parametrize("orientation", UPRIGHT)
    @pytest.mark.parametrize("at_least", [None, (24, 15)])
    def test_a_jpeg_comes_upright_with_and_without_draft(self, orientation, at_least):
        stored = smooth(120, 200)
        data = encode(stored, "JPEG", exif=exif(orientation), quality=95)
        swapped = orientation >= 5
        plain = encode(stored, "JPEG", quality=95)
        # The target is that of the upright image: where the stored one is turned, its rows and columns change places.
        expected = UPRIGHT[orientation](decode(plain, at_least[::-1] if at_least and swapped else at_least))
        assert np.array_equal(decode(data, at_least), expected)
        assert (expected.size < stored.size) == bool(at_least)

    @pytest.mark.parametrize("orientation", UPRIGHT)
    @pytest.mark.parametrize("jpeg_draft", [True, False])
    def test_the_size_reported_is_that_of_the_upright_original(self, orientation, jpeg_draft):
        data = encode(smooth(300, 500), "JPEG", exif=exif(orientation))
        image = prepare_image(data, 16, 24, jpeg_draft=jpeg_draft)
        assert (image.width_px, image.height_px) == ((300, 500) if orientation >= 5 else (500, 300))
        assert image.pixels.shape == (16, 24, 3)

    @quietly
    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_an_undefined_orientation_is_upright(self, value):
        stored = noise(12, 20)
        assert np.array_equal(decode(encode(stored, "PNG", exif=exif(value))), stored)

    @quietly
    @pytest.mark.parametrize(
        "block",
        [
            b"",
            b"Exif\0\0",
            b"Exif\0\0II*\0",
            b"Exif\0\0II*\0\xff\xff\xff\xff",
            b"Exif\0\0" + bytes(range(64)),
            b"not exif at all",
        ],
    )
    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
    def test_a_damaged_exif_block_costs_nothing_but_the_orientation(self, block, file_format):
        stored = smooth(24, 40)
        assert np.array_equal(decode(encode(stored, file_format, exif=block)), decode(encode(stored, file_format)))

    @quietly
    def test_an_exif_block_cut_anywhere_never_costs_the_picture(self):
        stored = noise(12, 20)
        whole = exif(6)
        whole[0x010F] = "a maker's name of some length"
        block = whole.tobytes()
        for length in range(len(block)):
            result = decode(encode(stored, "PNG", exif=block[:length]))
            assert any(np.array_equal(result, UPRIGHT[orientation](stored)) for orientation in (1, 6))


class TestColour:
    def test_a_palette_is_expanded(self):
        palette, indices = noise(1, 7)[0], noise(12, 20, 1) % 7
        image = Image.fromarray(indices)
        image.putpalette(palette.tobytes())
        assert image.mode == "P"
        for file_format in ("PNG", "GIF", "BMP", "TIFF"):
            assert np.array_equal(decode(encode(image, file_format)), palette[indices]), file_format

    def test_transparent_palette_entries_are_composited_over_white(self):
        palette, indices = noise(1, 4)[0], noise(12, 20, 1) % 4
        alpha = np.array([0, 51, 200, 255], np.uint8)
        image = Image.fromarray(indices)
        image.putpalette(palette.tobytes())
        expected = over_white(palette[indices], alpha[indices])
        np.testing.assert_allclose(decode(encode(image, "PNG", transparency=alpha.tobytes())), expected, atol=1)

    def test_the_transparent_entry_of_a_gif_is_white(self):
        palette, indices = noise(1, 4)[0], noise(12, 20, 1) % 4
        image = Image.fromarray(indices)
        image.putpalette(palette.tobytes())
        shown = palette.copy()
        shown[2] = 255
        assert np.array_equal(decode(encode(image, "GIF", transparency=2)), shown[indices])

    @pytest.mark.parametrize(
        ("file_format", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})]
    )
    def test_rgba_is_composited_over_white(self, file_format, options):
        pixels = noise(16, 16, 4)
        pixels[:4, :, 3], pixels[4:8, :, 3] = 0, 255
        result = decode(encode(pixels, file_format, **options))
        np.testing.assert_allclose(result, over_white(pixels[..., :3], pixels[..., 3]), atol=1)
        assert (result[:4] == 255).all()
        assert np.array_equal(result[4:8], pixels[4:8, :, :3])

    def test_grey_with_alpha_is_composited_over_white(self):
        grey, alpha = noise(16, 16, 1), noise(16, 16, 1, seed=1)
        image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
        expected = over_white(np.repeat(grey[..., None], 3, -1), alpha)
        np.testing.assert_allclose(decode(encode(image, "PNG")), expected, atol=1)

    def test_one_transparent_colour_is_white(self):
        pixels = noise(16, 16) // 64
        expected = pixels.copy()
        expected[(pixels == (1, 2, 3)).all(-1)] = 255
        assert (expected != pixels).any()
        assert np.array_equal(decode(encode(pixels, "PNG", transparency=(1, 2, 3))), expected)

    def test_one_transparent_grey_is_white(self):
        grey = noise(16, 16, 1) // 64
        expected = np.repeat(np.where(grey == 2, 255, grey)[..., None], 3, -1)
        assert np.array_equal(decode(encode(grey, "PNG", transparency=2)), expected)

    @pytest.mark.parametrize(
        ("file_format", "options"), [("PNG", {}), ("JPEG", {"quality": 95}), ("BMP", {}), ("TIFF", {}), ("GIF", {})]
    )
    def test_grey_is_repeated_over_the_channels(self, file_format, options):
        grey = smooth(24, 40)[..., 0]
        result = decode(encode(grey, file_format, **options))
        np.testing.assert_allclose(result, np.repeat(grey[..., None], 3, -1), atol=2 if file_format == "JPEG" else 0)

    @pytest.mark.parametrize(
        ("file_format", "options"), [("PNG", {}), ("BMP", {}), ("GIF", {}), ("TIFF", {"compression": "packbits"})]
    )
    def test_bilevel_becomes_black_and_white(self, file_format, options):
        ink = noise(16, 24, 1) > 99
        result = decode(encode(Image.fromarray(ink), file_format, **options))
        assert np.array_equal(result, np.repeat(np.where(ink, 255, 0)[..., None], 3, -1))

    @pytest.mark.parametrize(
        "make",
        [
            lambda g: encode(g, "PNG"),
            lambda g: encode(g, "TIFF"),
            lambda g: tiff(20, 12, 16, g.astype(">u2").tobytes(), order=">"),
        ],
    )
    def test_16_bit_grey_keeps_its_high_byte(self, make):
        grey = noise(12, 20, 1, dtype=np.uint16)
        grey[0, :4] = 0, 255, 256, 65535
        result = decode(make(grey))
        assert np.array_equal(result, np.repeat((grey // 256)[..., None], 3, -1))

    def test_a_transparent_16_bit_grey_is_white(self):
        samples = [0x1234, 0x1299, 0xFFFF, 0x0000]
        data = png(4, 1, 16, 0, b"\0" + struct.pack(">4H", *samples), (b"tRNS", struct.pack(">H", 0x1234)))
        assert decode(data)[0, :, 0].tolist() == [255, 0x12, 255, 0]

    def test_16_bit_colour_keeps_its_high_byte(self):
        pixels = noise(6, 5, 3, dtype=np.uint16)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
        assert np.array_equal(decode(png(5, 6, 16, 2, rows)), pixels // 256)

    def test_cmyk_is_converted_arithmetically(self):
        inks = noise(16, 16, 4)
        cmy, black = inks[..., :3].astype(float), inks[..., 3:].astype(float)
        result = decode(encode(Image.frombytes("CMYK", (16, 16), inks.tobytes()), "TIFF"))
        np.testing.assert_allclose(result, (255 - cmy) * (255 - black) / 255, atol=1)

    def test_a_cmyk_jpeg_is_not_shown_as_its_negative(self):
        inks = np.array([200, 40, 90, 30], float)
        data = encode(Image.new("CMYK", (16, 16), tuple(int(ink) for ink in inks)), "JPEG", quality=100)
        np.testing.assert_allclose(decode(data)[8, 8], (255 - inks[:3]) * (255 - inks[3]) / 255, atol=3)

    @pytest.mark.parametrize(("luma", "blue", "red"), [(128, 128, 128), (90, 160, 110), (180, 100, 150)])
    def test_a_jpeg_s_ycbcr_follows_bt_601(self, luma, blue, red):
        data = encode(Image.new("YCbCr", (16, 16), (luma, blue, red)), "JPEG", quality=100, subsampling=0)
        expected = [
            luma + 1.402 * (red - 128),
            luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
            luma + 1.772 * (blue - 128),
        ]
        np.testing.assert_allclose(decode(data)[8, 8], expected, atol=2)

    @pytest.mark.parametrize(
        ("file_format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})]
    )
    def test_the_first_frame_stands_for_all(self, file_format, options):
        frames = [Image.new("RGB", (16, 12), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
        data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(decode(data), np.full((12, 16, 3), (255, 0, 0)))

    def test_a_multi_picture_jpeg_gives_its_first_picture(self):
        frames = [Image.new("RGB", (32, 24), colour) for colour in ((200, 0, 0), (0, 200, 0))]
        data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
        np.testing.assert_allclose(decode(data, at_least=(3, 3)), np.full((6, 8, 3), (200, 0, 0)), atol=3)

    @pytest.mark.parametrize(
        "data",
        [
            encode(np.zeros((8, 8), np.float32), "TIFF"),
            encode(Image.new("LAB", (8, 8)), "TIFF"),
            encode(np.zeros((8, 8), np.int32), "TIFF"),
            tiff(8, 8, 12, bytes(96)),
            tiff(8, 8, 16, bytes(128), photometric=0),
            tiff(8, 8, 16, bytes(128), sample_format=2),
        ],
        ids=["float", "Lab", "32-bit", "12-bit", "white is zero", "signed"],
    )
    def test_samples_without_a_defined_range_are_refused(self, data):
        assert fault_of(data)[0] is FailureCode.UNSUPPORTED_MODE

    def test_8_bit_grey_with_white_as_zero_is_inverted(self):
        grey = noise(8, 8, 1)
        assert np.array_equal(decode(tiff(8, 8, 8, grey.tobytes(), photometric=0))[..., 0], 255 - grey)


def kernel(name, x):
    x = np.abs(x)
    if name == "box":
        return (x <= 0.5).astype(float)
    if name == "bilinear":
        return np.maximum(0, 1 - x)
    inner, outer = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def weights(name, before, after):
    """Antialiased resampling along one axis: the kernel, stretched by the factor when shrinking."""
    stretch = max(before / after, 1)
    centres = (np.arange(after) + 0.5) * before / after
    matrix = kernel(name, (np.arange(before)[None] + 0.5 - centres[:, None]) / stretch)
    return matrix / matrix.sum(axis=1, keepdims=True)


class TestSize:
    @pytest.mark.parametrize("name", ["bilinear", "box", "bicubic"])
    @pytest.mark.parametrize("size", [(10, 7), (40, 21), (60, 90)])
    def test_resizing_follows_the_filter_and_not_the_aspect_ratio(self, name, size):
        pixels = 64 + noise(40, 63) // 2  # bicubic's overshoots stay within 8 bits
        if name == "box":  # integer ratios, where no sample lies on the edge of a window
            pixels, size = noise(60, 90), {(10, 7): (10, 9), (40, 21): (20, 30), (60, 90): (120, 180)}[size]
        rows, columns = weights(name, pixels.shape[0], size[0]), weights(name, pixels.shape[1], size[1])
        expected = np.einsum("ij,jkc,lk->ilc", rows, pixels.astype(float), columns).clip(0, 255)
        result = prepare_image(encode(pixels, "PNG"), *size, resize_filter=name).pixels
        assert result.shape == (*size, 3)
        assert result.dtype == np.uint8
        # Between the two passes Pillow rounds to 8 bits.
        np.testing.assert_allclose(result, expected, atol=2)

    @pytest.mark.parametrize("size", [(16, 7), (32, 45), (64, 90)])  # no sample lies halfway between two pixels
    def test_nearest_takes_the_pixel_under_the_middle_of_each(self, size):
        pixels = noise(40, 63)
        rows, columns = (
            np.floor((np.arange(after) + 0.5) * before / after).astype(int)
            for after, before in zip(size, pixels.shape, strict=False)
        )
        found = prepare_image(encode(pixels, "PNG"), *size, resize_filter="nearest").pixels
        np.testing.assert_array_equal(found, pixels[rows][:, columns])

    def test_nearest_takes_pixels_of_the_whole_jpeg(self):
        data = encode(noise(300, 400), "JPEG", quality=95)
        whole = decode(data)
        found = prepare_image(data, 30, 40, resize_filter="nearest", jpeg_draft=True).pixels
        np.testing.assert_array_equal(found, whole[5::10, 5::10])

    @pytest.mark.parametrize(
        ("at_least", "decoded"),
        [
            ((128, 128), (640, 480)),  # 256 of 480 leave no half
            ((120, 120), (320, 240)),  # 240 = 480 / 2, just
            ((121, 120), (320, 240)),
            ((120, 121), (640, 480)),
            ((80, 60), (160, 120)),
            ((32, 32), (160, 120)),
            ((30, 30), (80, 60)),
            ((1, 1), (80, 60)),
            ((160, 10), (320, 240)),
            (None, (640, 480)),
        ],
    )
    def test_a_jpeg_is_decoded_as_small_as_twice_the_target_allows(self, at_least, decoded):
        image, upright = open_upright(encode(smooth(480, 640), "JPEG"), ImageLimits(), at_least)
        assert (image.size, upright) == (decoded, (640, 480))

    @settings(max_examples=60, deadline=None)
    @given(
        size=st.tuples(st.integers(8, 300), st.integers(8, 300)),
        target=st.tuples(st.integers(1, 60), st.integers(1, 60)),
        orientation=st.sampled_from(list(UPRIGHT)),
    )
    def test_draft_always_leaves_the_margin(self, size, target, orientation):
        image, upright = open_upright(encode(smooth(*size), "JPEG", exif=exif(orientation)), ImageLimits(), target)
        for have, original, wanted in zip(image.size, upright, target, strict=True):
            assert have >= min(original, DRAFT_MARGIN * wanted)

    def test_draft_changes_a_picture_by_little(self):
        data = encode(smooth(480, 640), "JPEG", quality=90)
        with_draft, without = (prepare_image(data, 32, 32, jpeg_draft=on).pixels.astype(int) for on in (True, False))
        assert np.abs(with_draft - without).max() <= 3

    @pytest.mark.parametrize("file_format", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
    def test_draft_concerns_jpegs_alone(self, file_format):
        image, _ = open_upright(encode(smooth(96, 128), file_format), ImageLimits(), at_least=(4, 4))
        assert image.size == (128, 96)


SAMPLES = {
    **{name: encode(noise(32, 40), name) for name in FORMATS},
    "progressive JPEG": encode(noise(32, 40), "JPEG", progressive=True),
    "palette PNG": encode(Image.fromarray(noise(32, 40)).quantize(16), "PNG", transparency=3),
    "16-bit PNG": encode(noise(32, 40, 1, dtype=np.uint16), "PNG"),
    "deflated TIFF": encode(noise(32, 40), "TIFF", compression="tiff_deflate"),
    "turned JPEG": encode(noise(32, 40), "JPEG", exif=exif(6)),
}
# An animation's header states the canvas: width and height less one, in three bytes each.
ANIMATED_WEBP = encode(noise(32, 40), "WEBP", save_all=True, append_images=[Image.new("RGB", (40, 32))])
CANVAS = bytes([39, 0, 0, 31, 0, 0])


class TestLimits:
    def test_bytes_up_to_the_limit_are_read(self):
        data = SAMPLES["PNG"]
        prepare_image(data, 8, 8, ImageLimits(max_bytes=len(data)))
        code, message = fault_of(data, ImageLimits(max_bytes=len(data) - 1))
        assert code is FailureCode.TOO_MANY_BYTES
        assert message == f"{len(data)} bytes, more than imaging.max_bytes = {len(data) - 1}"

    @pytest.mark.parametrize("name", SAMPLES)
    def test_pixels_up_to_the_limit_are_decoded(self, name):
        prepare_image(SAMPLES[name], 8, 8, ImageLimits(max_pixels=40 * 32))
        code, message = fault_of(SAMPLES[name], ImageLimits(max_pixels=40 * 32 - 1))
        assert code is FailureCode.TOO_MANY_PIXELS
        assert message == "40 x 32 = 1280 pixels, more than imaging.max_pixels = 1279"

    def test_a_side_may_be_as_short_as_the_limit(self):
        data = encode(noise(9, 40), "PNG")
        prepare_image(data, 8, 8, ImageLimits(min_side_px=9))
        code, message = fault_of(data, ImageLimits(min_side_px=10))
        assert code is FailureCode.TOO_FEW_PIXELS
        assert message == "40 x 9 pixels, a side under imaging.min_side_px = 10"

    @pytest.mark.parametrize(
        ("data", "pixels"),
        [
            (png(60_000, 60_000, 8, 2, b""), 60_000**2),
            (png(2**31 - 1, 2**31 - 1, 8, 6, b""), (2**31 - 1) ** 2),
            (tiff(100_000, 90_000, 8, b""), 9 * 10**9),
            (SAMPLES["JPEG"].replace(struct.pack(">HH", 32, 40), struct.pack(">HH", 65_000, 65_000), 1), 65_000**2),
            (SAMPLES["BMP"].replace(struct.pack("<ii", 40, 32), struct.pack("<ii", 90_000, 80_000), 1), 72 * 10**8),
            (SAMPLES["GIF"].replace(struct.pack("<HH", 40, 32), struct.pack("<HH", 65_535, 65_535)), 65_535**2),
            (ANIMATED_WEBP.replace(CANVAS, bytes([0xFE, 0x3F, 0] * 2)), 16_383**2),
        ],
        ids=["PNG", "largest PNG", "TIFF", "JPEG", "BMP", "GIF", "WebP"],
    )
    def test_a_bomb_is_refused_by_its_header_before_anything_is_decoded(self, data, pixels, monkeypatch):
        def refuse(self):
            raise AssertionError("decoding began")

        monkeypatch.setattr(type(Image.open(io.BytesIO(data))), "load", refuse)
        code, message = fault_of(data)
        assert code is FailureCode.TOO_MANY_PIXELS
        assert f"= {pixels} pixels" in message


class TestBadFiles:
    @pytest.mark.parametrize(
        ("data", "code", "text"),
        [
            (b"", FailureCode.EMPTY_FILE, "the file has no bytes"),
            (b"hello, I am a text file", FailureCode.NOT_AN_IMAGE, "no BMP, GIF, JPEG, PNG, TIFF, WEBP header"),
            (bytes(1000), FailureCode.NOT_AN_IMAGE, "header"),
            (b"\x89PNG\r\n\x1a\n", FailureCode.CORRUPT_IMAGE, "begins as PNG, but its header is incomplete"),
            (b"\xff\xd8\xff", FailureCode.CORRUPT_IMAGE, None),
            (SAMPLES["PNG"][:4], FailureCode.NOT_AN_IMAGE, "no BMP, GIF"),
            (png(16, 16, 8, 2, b"\0too short"), FailureCode.CORRUPT_IMAGE, "unreadable PNG data"),
            (png(16, 16, 8, 2, b"\xff" + bytes(48) * 16 + bytes(15)), FailureCode.CORRUPT_IMAGE, "unreadable PNG data"),
            (SAMPLES["PNG"].replace(b"IDAT", b"IDAX"), FailureCode.CORRUPT_IMAGE, None),
        ],
    )  # fmt: skip
    def test_each_fault_has_its_code_and_the_same_message_every_time(self, data, code, text):
        first, second = fault_of(data), fault_of(data)
        assert first == second
        assert first[0] is code
        assert " at 0x" not in first[1]
        assert text is None or text in first[1]

    @quietly
    @pytest.mark.parametrize("name", SAMPLES)
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    def test_a_truncated_file_is_corrupt_and_not_half_a_picture(self, name, share):
        data = SAMPLES[name][: int(len(SAMPLES[name]) * share)]
        code, message = fault_of(data)
        assert code is FailureCode.CORRUPT_IMAGE
        assert (code, message) == fault_of(data)

    @pytest.mark.parametrize(
        "file_format", ["EPS", "PPM", "ICO", "PCX", "TGA", "JPEG2000", "PDF", "ICNS", "DDS", "SGI"]
    )
    def test_other_formats_are_refused_though_pillow_could_read_them(self, file_format):
        Image.init()
        assert fault_of(encode(noise(32, 32), file_format))[0] is FailureCode.NOT_AN_IMAGE

    @quietly
    @settings(max_examples=300, deadline=None)
    @given(
        st.binary(max_size=200),
        st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1", b"II*\0", b"GIF89a", b"BM"]),
    )
    def test_random_bytes_raise_nothing_but_image_faults(self, data, magic):
        with pytest.raises(ImageFault):
            prepare_image(magic + data, 8, 8)

    @quietly
    @settings(max_examples=600, deadline=None)
    @given(st.data(), st.sampled_from(list(SAMPLES)))
    def test_damaged_files_raise_nothing_but_image_faults_and_the_same_each_time(self, data, name):
        damaged = bytearray(SAMPLES[name])
        reach = data.draw(st.sampled_from([64, 300, len(damaged)]))
        for _ in range(data.draw(st.integers(1, 6))):
            damaged[data.draw(st.integers(0, min(reach, len(damaged)) - 1))] = data.draw(st.integers(0, 255))
        del damaged[data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged)))) :]
        outcomes = [outcome(bytes(damaged)) for _ in range(2)]
        assert outcomes[0] == outcomes[1]
        assert " at 0x" not in str(outcomes[0])


def outcome(data):
    try:
        image = prepare_image(data, 8, 8, ImageLimits(max_pixels=1_000_000))
    except ImageFault as fault:
        return fault.code, fault.message
    return image.pixels.tobytes(), image.width_px, image.height_px


def test_same_bytes_give_the_same_array_in_every_thread():
    alone = {name: prepare_image(data, 24, 20).pixels.tobytes() for name, data in SAMPLES.items()}
    names = list(SAMPLES) * 40
    with ThreadPoolExecutor(16) as pool:
        together = pool.map(lambda name: prepare_image(SAMPLES[name], 24, 20).pixels.tobytes(), names)
        assert all(pixels == alone[name] for name, pixels in zip(names, together, strict=True))


def test_no_limit_of_pillow_s_own_gets_in_the_way():
    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.data
def test_reduced_scale_decoding_changes_no_label_of_real_photographs(data_folder):
    files = sorted(path for path in (data_folder / "large").rglob("*") if path.is_file())
    model = load_model("builtin", RuntimeSpec())
    spec, decision = model.manifest.input, model.manifest.decision
    probabilities = []
    for jpeg_draft in (True, False):
        blocks = [
            prepare_image(
                path.read_bytes(), spec.height, spec.width, resize_filter=spec.resize_filter, jpeg_draft=jpeg_draft
            ).pixels
            for path in files
        ]
        by_class = class_columns(model.predict(np.stack(blocks)), model.manifest.class_names)
        probabilities.append(worn_probability(by_class["mask"], by_class.get("incorrect")))
    with_draft, without = ((p >= decision.mask_from).astype(int) - (p < decision.no_mask_below) for p in probabilities)
    assert len(files) == 30
    assert np.array_equal(with_draft, without)
    changes = np.sort(np.abs(probabilities[0] - probabilities[1]).ravel())
    assert np.mean(changes) < 0.01
    assert changes[-2] < 0.02
    assert changes[-1] < 0.2  # one whole photograph, of which the model is not sure: .27 and .39
