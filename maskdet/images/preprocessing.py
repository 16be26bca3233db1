"""Bytes to pixels: THE preprocessing, shared by training, evaluation and scoring.

Every image becomes upright 8-bit RGB by these rules, and the same bytes give the same array everywhere:

- Formats: JPEG, PNG, WebP, BMP, GIF and TIFF, recognised by content, never by file name; AVIF where Pillow is built
  with it, and HEIC with the extra ``maskdet[heif]``.
- A file with a missing or broken part is refused, even where its decoder would only warn, or not even that;
  :attr:`ImageLimits.keep_damaged` keeps what is left of a JPEG or a PNG.
- EXIF orientation is applied; an unreadable EXIF block counts as upright.
- Palette images are expanded; grey and bilevel are repeated over the three channels.
- Alpha, a transparent palette entry or a transparent colour is composited over white, as viewers show it (except PNG's
  transparent colours of 2, 4 and 3 x 16 bits, which the decoder does not find).
- CMYK and YCbCr are converted arithmetically; embedded colour profiles are not applied.
- 16-bit samples keep their high byte, as decoders do with 16-bit RGB; grey of 12 or 32 bits, signed and float samples
  are refused, since the decoder does not say what range they have.
- Animations and multi-page files give their first frame.
- Byte, pixel and side limits are checked with the header, before memory for pixels is allocated. Headers that would
  keep a decoder busy for longer than any picture are refused, too. Pictures of 16 million pixels or more wait in turn.
- Where :attr:`ImageLimits.isolated_s` is set, formats other than JPEG and PNG are decoded in a process of their own,
  with the same result; a decoder that crashes or hangs there costs only the image.
- A JPEG is decoded at 1/2, 1/4 or 1/8 scale where that leaves at least :data:`DRAFT_MARGIN` times the size asked for.

:mod:`maskdet.images.codecs` chooses the libraries that decode and resize; the rules are the same for all.
"""

from __future__ import annotations

import contextlib
import functools
import io
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

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
    features,
)

from maskdet.errors import FailureCode, ImageFault, MaskdetError
from maskdet.images import containers, jpeg, png, tiff
from maskdet.images.codecs import PILLOW, Codecs, Pixels, decode_jpeg
from maskdet.images.isolated import IN_PROCESS, decode_isolated

if TYPE_CHECKING:
    from maskdet.config import ImagingSettings  # heavy, and processes that only decode do not need it

# Only these decoders run: a scoring worker has no use for others, such as EPS, which starts Ghostscript. Importing the
# modules registers them, so that no thread has to while others decode.
_PLUGINS = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# What to install where other formats are not read.
_HEIF_EXTRA = "maskdet[heif]"
_AVIF_EXTRA = "pillow>=11.3"

# Reduced-scale decoding averages DCT blocks, which is a different filter from the final resize. Where it leaves twice
# the target size to the final resize, the built-in model's probabilities moved by at most .006 on 30 photographs of
# 150 kB to 1.5 MB (tests/images/test_preprocessing.py) and on 2,897 smaller web images, and no label changed.
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

# A picture of 64 million pixels takes 200 MB, and twice that while it is decoded: too much if each thread held one.
_LARGE_PIXELS = 16_000_000
_LARGE = threading.Lock()
_STRIP_PIXELS = 4_000_000

# Our own limit, checked on every header, replaces Pillow's: its warning would be printed by every worker, and its error
# does not say which limit to raise.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of damaged metadata, which the rules above ignore, once for each worker and place.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True)
class ImageLimits:
    """What is refused before it costs memory, and how damaged files and other formats are treated."""

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 64_000_000
    min_side_px: int = 8
    max_side_px: int = 65_535
    keep_damaged: bool = False
    """Decode what is left of a damaged JPEG or PNG, rather than refuse it."""
    isolated_s: float | None = None
    """Limit in seconds for decoding other formats in a process of their own; ``None``: decode them in this process."""

    @classmethod
    def of(cls, settings: ImagingSettings, decoder_seconds: float | None = None) -> ImageLimits:
        """The limits of settings, and the limit in seconds for a decoder in a process of its own."""
        return cls(
            settings.max_bytes,
            settings.max_pixels,
            settings.min_side_px,
            settings.max_side_px,
            keep_damaged=settings.damaged == "keep",
            isolated_s=decoder_seconds,
        )


class PreparedImage(NamedTuple):
    """An image ready for the model, and the size it came in."""

    pixels: NDArray[np.uint8]
    """uint8 RGB ``(height, width, 3)`` of the size asked for."""
    width_px: int
    """Width of the upright original."""
    height_px: int
    """Height of the upright original."""
    damaged: bool = False
    """Whether it is what was left of a damaged file."""


Reduction = Callable[[int, int], int]
"""From the width and height of an image, the factor by which decoding may reduce it: 1, 2, 4 or 8."""


class UprightImage(NamedTuple):
    """A decoded image, and the size it came in."""

    picture: Image.Image | Pixels
    """RGB, upright, in the form that its decoder returns; smaller than the original if decoded at reduced scale."""
    width_px: int
    """Width of the upright original."""
    height_px: int
    """Height of the upright original."""
    damaged: bool = False
    """Whether it is what was left of a damaged file."""

    @property
    def image(self) -> Image.Image:
        """The picture as a Pillow image; converted anew at every access."""
        return self.picture if isinstance(self.picture, Image.Image) else Image.fromarray(self.picture)

    def in_pillow(self) -> UprightImage:
        """The same with its picture converted to Pillow once, for callers that use :attr:`image` several times."""
        return self._replace(picture=self.image)


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
        resize_filter: ``"bilinear"``, ``"box"`` or ``"bicubic"``, antialiased when shrinking, or ``"nearest"``.
        jpeg_draft: decode JPEGs at reduced scale where allowed (see the module's rules); never before ``"nearest"``,
            which takes pixels as they are.
        codecs: what decodes and resizes.

    Raises:
        ImageFault: the image is empty, too large, too small, damaged or of an unsupported format.
    """
    reducible = jpeg_draft and resize_filter != "nearest"
    upright = decode_upright(data, limits, (width, height) if reducible else None, codecs=codecs)
    pixels = codecs.resize(upright.picture, width, height, resize_filter)
    return PreparedImage(pixels, upright.width_px, upright.height_px, upright.damaged)


def open_upright(
    data: bytes,
    limits: ImageLimits,
    at_least: tuple[int, int] | None = None,
    *,
    reduce: Reduction = lambda width, height: 1,
    codecs: Codecs = PILLOW,
) -> tuple[Image.Image, tuple[int, int]]:
    """As :func:`decode_upright`: the image, and the ``(width, height)`` of the upright original."""
    upright = decode_upright(data, limits, at_least, reduce=reduce, codecs=codecs)
    return upright.image, (upright.width_px, upright.height_px)


def decode_upright(
    data: bytes,
    limits: ImageLimits,
    at_least: tuple[int, int] | None = None,
    *,
    reduce: Reduction = lambda width, height: 1,
    codecs: Codecs = PILLOW,
) -> UprightImage:
    """Decode an image file to an upright 8-bit RGB image.

    Args:
        data: the file's bytes.
        limits: byte and pixel limits.
        at_least: ``(width, height)`` that the result will be resized to; lets JPEGs be decoded at reduced scale.
        reduce: the factor by which JPEGs of some width and height may be reduced, where ``at_least`` is ``None``.
        codecs: what decodes.

    Raises:
        ImageFault: as :func:`prepare_image`.
    """
    _check_bytes(len(data), limits)
    try:
        return _plain(data, limits, codecs) or _decoded(data, limits, at_least, reduce)
    except (ImageFault, MaskdetError):
        raise
    except MemoryError:
        raise ImageFault(FailureCode.OUT_OF_MEMORY, "not enough memory to decode the image") from None
    except Exception as error:  # the one boundary: whatever a decoder raises costs only this image
        raise ImageFault(FailureCode.CORRUPT_IMAGE, f"decoding raised {type(error).__name__}") from error


def decode_here(data: bytes, limits: ImageLimits, large: contextlib.AbstractContextManager[object]) -> UprightImage:
    """As :func:`decode_upright`, but always in this process; isolated decoder processes call it.

    Args:
        data: the file's bytes; not a JPEG's.
        limits: byte and pixel limits.
        large: held while a large picture is decoded.

    Raises:
        ImageFault: the image is too large, too small, damaged or of an unsupported format.
    """
    return _read(data, _readable_kind(data), limits, large=large)


def _plain(data: bytes, limits: ImageLimits, codecs: Codecs) -> UprightImage | None:
    """An image that can be decoded without Pillow reading its header; ``None`` for all others."""
    size = codecs.plain_size(data)
    if size is None or _pixels_fault(size, limits) is not None:
        return None
    with _one_if_large(size):
        pixels = codecs.decode_plain(data)
    return None if pixels is None else UprightImage(pixels, *size)


def _decoded(data: bytes, limits: ImageLimits, at_least: tuple[int, int] | None, reduce: Reduction) -> UprightImage:
    kind = _readable_kind(data)
    if limits.isolated_s is None or kind in IN_PROCESS:
        return _read(data, kind, limits, at_least, reduce)
    picture, size, damaged = decode_isolated(data, kind, limits, _LARGE)
    return UprightImage(picture, *size, damaged)


def _read(
    data: bytes,
    kind: str,
    limits: ImageLimits,
    at_least: tuple[int, int] | None = None,
    reduce: Reduction = lambda width, height: 1,
    large: contextlib.AbstractContextManager[object] = _LARGE,
) -> UprightImage:
    containers.check_header(data, kind)
    if kind == "WEBP" and (size := containers.webp_size(data)) is not None and (fault := _pixels_fault(size, limits)):
        raise fault
    jpeg_file = jpeg.inspect(data) if kind == "JPEG" else None
    png_file = png.inspect(data) if kind == "PNG" else None
    image = _open(data if jpeg_file is None else jpeg_file.data, kind)
    if (fault := _pixels_fault(image.size, limits)) is not None:
        raise fault
    stored_size = image.size
    with _one_if_large(stored_size, large):
        if jpeg_file is not None:
            _draft(image, at_least, reduce)
            picture, damaged = _load_jpeg(image, jpeg_file, limits)
        elif png_file is not None:
            picture, damaged = _load_png(image, data, png_file, limits)
        else:
            if kind == "TIFF":
                tiff.check_strips(image, data)
            picture, damaged = _to_rgb(_load(image)), False
    # Read last: for a PNG whose pixels are not decoded yet, this would decode them and swallow their damage.
    orientation = _orientation(image)
    if orientation in _TRANSPOSES:
        upright = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        picture = upright.transpose(_TRANSPOSES[orientation])
    size = stored_size[::-1] if orientation in _SWAPS_AXES else stored_size
    return UprightImage(picture, *size, damaged)


def _one_if_large(
    size: tuple[int, int], large: contextlib.AbstractContextManager[object] = _LARGE
) -> contextlib.AbstractContextManager[object]:
    return large if size[0] * size[1] >= _LARGE_PIXELS else contextlib.nullcontext()


def _draft(image: Image.Image, at_least: tuple[int, int] | None, reduce: Reduction) -> None:
    """Let a JPEG be decoded at reduced scale."""
    if at_least is not None:
        target = at_least[::-1] if _orientation(image) in _SWAPS_AXES else at_least
        image.draft(None, (DRAFT_MARGIN * target[0], DRAFT_MARGIN * target[1]))
    elif (factor := reduce(image.width, image.height)) > 1:
        image.draft(None, (-(-image.width // factor), -(-image.height // factor)))


def _load_jpeg(image: Image.Image, file: jpeg.JpegFile, limits: ImageLimits) -> tuple[Image.Image | Pixels, bool]:
    """The pixels of a JPEG, and whether it is damaged."""
    pixels = decode_jpeg(image, file.data) if file.problem is None else None
    if pixels is not None:
        return pixels, False
    damage = file.problem or jpeg.damage(file.data, "CMYK" if image.mode == "CMYK" else "GRAY")
    if damage is not None and not limits.keep_damaged:
        raise ImageFault(FailureCode.CORRUPT_IMAGE, f"damaged JPEG: {damage}")
    pixels = decode_jpeg(image, file.data, strict=False)
    return _to_rgb(_load(image)) if pixels is None else pixels, damage is not None


def _load_png(image: Image.Image, data: bytes, file: png.PngFile, limits: ImageLimits) -> tuple[Image.Image, bool]:
    """The pixels of a PNG, and whether it is damaged."""
    try:
        return _to_rgb(_load_whole_png(image, data, file)), False
    except ImageFault as fault:
        rest = png.repaired(data, file) if limits.keep_damaged and fault.code is FailureCode.CORRUPT_IMAGE else None
        if rest is None:
            raise
    return _to_rgb(_load(_open(rest, "PNG"))), True


def _load_whole_png(image: Image.Image, data: bytes, file: png.PngFile) -> Image.Image:
    if file.problem is not None:
        raise ImageFault(FailureCode.CORRUPT_IMAGE, f"damaged PNG: {file.problem}")
    _load(image)
    # Missing rows are decoded as black, so a black last row may be missing or real; a second look tells which.
    last = image.crop((0, image.height - 1, image.width, image.height))
    if (file.interlaced or last.getbbox() is None) and not png.has_all_pixels(data, file):
        raise ImageFault(FailureCode.CORRUPT_IMAGE, "damaged PNG: its pixels end early")
    if image.mode == "P" and (highest := int(np.asarray(image).max())) >= file.palette:
        message = f"damaged PNG: a pixel has colour {highest} of a palette of {file.palette}"
        raise ImageFault(FailureCode.CORRUPT_IMAGE, message)
    return image


def _check_bytes(size_bytes: int, limits: ImageLimits) -> None:
    if size_bytes == 0:
        raise ImageFault(FailureCode.EMPTY_FILE, "the file has no bytes")
    if size_bytes > limits.max_bytes:
        raise ImageFault(
            FailureCode.TOO_MANY_BYTES, f"{size_bytes} bytes, more than imaging.max_bytes = {limits.max_bytes}"
        )


def check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Refuse a picture whose ``(width, height)`` the limits do not allow.

    Raises:
        ImageFault: it has too many or too few pixels.
    """
    if (fault := _pixels_fault(size, limits)) is not None:
        raise fault


def _pixels_fault(size: tuple[int, int], limits: ImageLimits) -> ImageFault | None:
    width, height = size
    if width * height > limits.max_pixels:
        return ImageFault(
            FailureCode.TOO_MANY_PIXELS,
            f"{width} x {height} = {width * height} pixels, more than imaging.max_pixels = {limits.max_pixels}",
        )
    if max(width, height) > limits.max_side_px:
        return ImageFault(
            FailureCode.TOO_MANY_PIXELS,
            f"{width} x {height} pixels, a side over imaging.max_side_px = {limits.max_side_px}",
        )
    if min(width, height) < limits.min_side_px:
        return ImageFault(
            FailureCode.TOO_FEW_PIXELS,
            f"{width} x {height} pixels, a side under imaging.min_side_px = {limits.min_side_px}",
        )
    return None


def _readable_kind(data: bytes) -> str:
    """The format of a file that this machine can read.

    Raises:
        ImageFault: it is not an image, or its format cannot be read, in general or on this machine.
    """
    kind = containers.kind_of(data)
    if kind in FORMATS or (kind == "AVIF" and _reads_avif()) or (kind == "HEIF" and _reads_heif()):
        return str(kind)
    if kind is not None:
        extra = _HEIF_EXTRA if kind == "HEIF" else _AVIF_EXTRA
        message = f"{kind}, which is read where {extra} is installed"
        raise ImageFault(FailureCode.UNSUPPORTED_FORMAT, message)
    other = containers.name_of_other(data)
    seems = f"; it seems to be {other}" if other else ""
    raise ImageFault(FailureCode.NOT_AN_IMAGE, f"no {', '.join(FORMATS)} header{seems}")


@functools.cache
def _reads_avif() -> bool:
    if not features.check("avif"):
        return False
    from PIL import AvifImagePlugin

    return "AVIF" in Image.OPEN and bool(AvifImagePlugin.SUPPORTED)


@functools.cache
def _reads_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _open(data: bytes, kind: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=(kind,))
    except UnidentifiedImageError:
        # Pillow's own message holds a memory address, which would differ from run to run.
        raise ImageFault(FailureCode.CORRUPT_IMAGE, f"begins as {kind}, but its header is incomplete") from None
    except MemoryError:
        raise
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
        if not containers.is_bounded_exif(image.info.get("exif", b"")):
            return 1
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
        return _over_white(image)
    if mode in ("1", "L", "P", "CMYK", "YCbCr", "RGBX", "RGB", "HSV"):
        return image.convert("RGB")
    raise ImageFault(FailureCode.UNSUPPORTED_MODE, f"pixel mode {mode!r} has no defined conversion to 8-bit RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """A transparent picture over white, done in strips: for the whole picture, each step would need a full copy."""
    opaque = Image.new("RGB", image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        rgba = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        opaque.paste(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"), (0, top))
    return opaque


def _high_bytes(image: Image.Image) -> Image.Image:
    """8-bit grey from 16-bit grey."""
    tags: Mapping[int, object] = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_BITS, (16,)) != (16,) or tags.get(_TIFF_PHOTOMETRIC, _BLACK_IS_ZERO) != _BLACK_IS_ZERO:
        # The decoder neither widens 12 bits nor inverts, so the image would come out black or as its negative.
        raise ImageFault(FailureCode.UNSUPPORTED_MODE, "grey TIFF with more than 8 bits but not 16, or with white as 0")
    samples = np.asarray(image)
    grey = (samples >> 8).astype(np.uint8)
    if "transparency" in image.info:
        grey[samples == image.info["transparency"]] = 255
    return Image.fromarray(grey)
