"""Bytes to pixels: THE preprocessing, shared by training, evaluation and scoring.

Every image becomes upright 8-bit RGB by these rules, and the same bytes give the same array everywhere:

- Formats: JPEG, PNG, WebP, BMP, GIF and TIFF, told by content, never by file name.
- EXIF orientation is applied; an unreadable EXIF block counts as upright.
- Palette images are expanded; grey and bilevel are repeated over the three channels.
- Alpha, a transparent palette entry or a transparent colour is composited over white, as viewers show it (save PNG's
  transparent colours of 2, 4 and 3 x 16 bits, which the decoder does not find).
- CMYK and YCbCr are converted arithmetically; embedded colour profiles are not applied.
- 16-bit samples keep their high byte (what decoders do with 16-bit RGB); grey of 12 or 32 bits, signed and float
  samples have no range that the decoder tells, and are refused.
- Animations and multi-page files give their first frame.
- Byte and pixel limits are checked from the header, before any pixel is allocated.
- A JPEG is decoded at 1/2, 1/4 or 1/8 scale where that leaves at least :data:`DRAFT_MARGIN` times the size asked for.

Who decodes and resizes is told by :mod:`maskdet.images.codecs`; the rules are the same for all.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from maskdet.config import ImagingSettings
from maskdet.errors import FailureCode, ImageFault
from maskdet.images.codecs import PILLOW, Codecs, Pixels

# Only these decoders run: others (EPS starts Ghostscript) are no business of a scoring worker. Importing the modules
# registers them, so that no thread does so first while others decode.
_PLUGINS = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

# Reduced-scale decoding averages DCT blocks, a different filter than the final resize. With twice the target left to
# the final resize, the built-in model's probabilities moved by at most .006 on 30 photographs of 150 kB to 1.5 MB
# (tests/images/test_preprocessing.py) and on 2,897 smaller web images, and no label changed.
DRAFT_MARGIN = 2

_EXIF_ORIENTATION = 0x0112
_TIFF_BITS = 258
_TIFF_PHOTOMETRIC = 262
_BLACK_IS_ZERO = 1
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_AXES = (5, 6, 7, 8)

# Our own limit, checked on every header, replaces Pillow's: its warning would be printed by every worker, and its error
# does not say which limit to raise.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of damaged metadata, which the rules above ignore, once for each worker and place.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True)
class ImageLimits:
    """What is refused before it costs memory."""

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 64_000_000
    min_side_px: int = 8

    @classmethod
    def of(cls, settings: ImagingSettings) -> ImageLimits:
        """The limits that settings name."""
        return cls(settings.max_bytes, settings.max_pixels, settings.min_side_px)


class PreparedImage(NamedTuple):
    """An image ready for the model, and the size it came in."""

    pixels: NDArray[np.uint8]
    """uint8 RGB ``(height, width, 3)`` of the size asked for."""
    width_px: int
    """Width of the upright original."""
    height_px: int
    """Height of the upright original."""


def prepare_image(
    data: bytes,
    height: int,
    width: int,
    limits: ImageLimits = ImageLimits(),
    *,
    resize_filter: str = "bilinear",
    jpeg_draft: bool = True,
    codecs: Codecs = PILLOW,
) -> PreparedImage:
    """Decode an image file and resize it to the model's input, without keeping its aspect ratio.

    Args:
        data: the file's bytes.
        height: rows to return.
        width: columns to return.
        limits: byte and pixel limits.
        resize_filter: ``"bilinear"``, ``"box"`` or ``"bicubic"``, antialiased when shrinking.
        jpeg_draft: decode JPEGs at reduced scale where allowed (see the module's rules).
        codecs: who decodes and resizes.

    Raises:
        ImageFault: the image is empty, too large, too small, damaged or of an unsupported kind.
    """
    picture, upright_size = _decode(data, limits, (width, height) if jpeg_draft else None, 1, codecs)
    return PreparedImage(codecs.resize(picture, width, height, resize_filter), *upright_size)


def open_upright(
    data: bytes,
    limits: ImageLimits,
    at_least: tuple[int, int] | None = None,
    *,
    reduce: int = 1,
    codecs: Codecs = PILLOW,
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode an image file to an upright 8-bit RGB image.

    Args:
        data: the file's bytes.
        limits: byte and pixel limits.
        at_least: ``(width, height)`` that the result will be resized to; lets JPEGs be decoded at reduced scale.
        reduce: lets JPEGs be decoded at 1/2, 1/4 or 1/8 of their size, down to 1 / ``reduce``.
        codecs: who decodes.

    Returns:
        The image, and the ``(width, height)`` in pixels of the upright original (larger than the image's own if it was
        decoded at reduced scale).

    Raises:
        ImageFault: as :func:`prepare_image`.
    """
    picture, upright_size = _decode(data, limits, at_least, reduce, codecs)
    return picture if isinstance(picture, Image.Image) else Image.fromarray(picture), upright_size


def _decode(
    data: bytes, limits: ImageLimits, at_least: tuple[int, int] | None, reduce: int, codecs: Codecs
) -> tuple[Image.Image | Pixels, tuple[int, int]]:
    """As :func:`open_upright`; the picture as whoever decoded it left it."""
    _check_bytes(len(data), limits)
    plain_size = codecs.plain_size(data)
    if plain_size is not None and _pixels_fault(plain_size, limits) is None:
        plain = codecs.decode_plain(data)
        if plain is not None:
            return plain, plain_size
    image = _open(data)
    if (fault := _pixels_fault(image.size, limits)) is not None:
        raise fault
    stored_size = image.size
    if at_least is not None and image.format in ("JPEG", "MPO"):
        target = at_least[::-1] if _orientation(image) in _SWAPS_AXES else at_least
        image.draft(None, (DRAFT_MARGIN * target[0], DRAFT_MARGIN * target[1]))
    elif reduce > 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (-(-image.width // reduce), -(-image.height // reduce)))
    pixels = codecs.decode(image, data)
    picture: Image.Image | Pixels = _to_rgb(_load(image)) if pixels is None else pixels
    # Read last: of a PNG it decodes the pixels, and would swallow their damage, if they were not decoded yet.
    orientation = _orientation(image)
    if orientation in _TRANSPOSES:
        upright = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        picture = upright.transpose(_TRANSPOSES[orientation])
    return picture, stored_size[::-1] if orientation in _SWAPS_AXES else stored_size


def _check_bytes(size_bytes: int, limits: ImageLimits) -> None:
    if size_bytes == 0:
        raise ImageFault(FailureCode.EMPTY_FILE, "the file has no bytes")
    if size_bytes > limits.max_bytes:
        raise ImageFault(
            FailureCode.TOO_MANY_BYTES, f"{size_bytes} bytes, more than imaging.max_bytes = {limits.max_bytes}"
        )


def _pixels_fault(size: tuple[int, int], limits: ImageLimits) -> ImageFault | None:
    width, height = size
    if width * height > limits.max_pixels:
        return ImageFault(
            FailureCode.TOO_MANY_PIXELS,
            f"{width} x {height} = {width * height} pixels, more than imaging.max_pixels = {limits.max_pixels}",
        )
    if min(width, height) < limits.min_side_px:
        return ImageFault(
            FailureCode.TOO_FEW_PIXELS,
            f"{width} x {height} pixels, a side under imaging.min_side_px = {limits.min_side_px}",
        )
    return None


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        # Pillow's own message holds a memory address, which would differ from run to run.
        for name in FORMATS:
            accepts = Image.OPEN[name][1]
            if accepts is not None and accepts(data[:16]):
                raise ImageFault(FailureCode.CORRUPT_IMAGE, f"begins as {name}, but has no whole header") from None
        raise ImageFault(FailureCode.NOT_AN_IMAGE, f"no {', '.join(FORMATS)} header") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise ImageFault(FailureCode.CORRUPT_IMAGE, f"unreadable header: {type(error).__name__}") from error


def _load(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise ImageFault(FailureCode.CORRUPT_IMAGE, f"unreadable {image.format} data: {error}") from error
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged metadata is no reason to lose the picture
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode.startswith("I;16"):
        return _high_bytes(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if mode in ("1", "L", "P", "CMYK", "YCbCr", "RGBX", "RGB", "HSV"):
        return image.convert("RGB")
    raise ImageFault(FailureCode.UNSUPPORTED_MODE, f"pixel mode {mode!r} has no defined conversion to 8-bit RGB")


def _high_bytes(image: Image.Image) -> Image.Image:
    """8-bit grey of 16-bit grey."""
    tags: Mapping[int, object] = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_BITS, (16,)) != (16,) or tags.get(_TIFF_PHOTOMETRIC, _BLACK_IS_ZERO) != _BLACK_IS_ZERO:
        # The decoder neither widens 12 bits nor inverts: such an image would come out black, or as its negative.
        raise ImageFault(FailureCode.UNSUPPORTED_MODE, "grey TIFF of more than 8 bits, but not 16, or with white as 0")
    samples = np.asarray(image)
    grey = (samples >> 8).astype(np.uint8)
    if "transparency" in image.info:
        grey[samples == image.info["transparency"]] = 255
    return Image.fromarray(grey)
