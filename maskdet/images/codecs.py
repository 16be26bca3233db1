"""Decoders and resizers: Pillow and libjpeg-turbo, or faster libraries for the most common files.

Grey and RGB JPEGs are always decoded by libjpeg-turbo (simplejpeg): Pillow decodes them with the same library to the
same pixels, but does not pass on its warnings, which are the only sign of a damaged file.

The faster libraries are the extra ``maskdet[fast]``: Wuffs (pywuffs, where Python has a wheel of it) for PNGs, and a
vectorised resize (cykooz-resizer). They are only used for plain files: intact PNGs of 8-bit RGB with nothing but pixels
and colour metadata, for which they give Pillow's pixels, bit for bit. Whatever they refuse is left to Pillow, which
also words the failure, so a damaged file ends the same way with any decoder. Bilinear resizing differs from Pillow's by
at most :data:`RESIZE_TOLERANCE` of 255 in a sample, by rounding; other filters are Pillow's own, since the two
libraries define them differently.
"""

from __future__ import annotations

import importlib
import struct
import threading
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from maskdet.errors import ConfigError
from maskdet.images.png import MOST_CHUNKS

if TYPE_CHECKING:
    from maskdet.config import CodecsName  # heavy, and not needed by processes that decode

Pixels = NDArray[np.uint8]

RESIZE_TOLERANCE = 2

_PILLOW_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}
_PACKAGES = ("pillow", "simplejpeg")
_FAST_PACKAGES = ("cykooz-resizer",)
_PNG_PACKAGE = "pywuffs"  # not every Python has a wheel; without it, Pillow decodes PNGs
_OPTIONAL_PACKAGE = "pillow-heif"  # read where it is installed

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_RGB8 = b"\x08\x02"  # bit depth and colour type
_PNG_CHUNK = struct.Struct(">I4s")
_PNG_SIZE, _PNG_SIZE_PLACE = struct.Struct(">II"), 16
# Neither transparency, nor text or EXIF that may hold an orientation, nor animation.
_PNG_PLAIN = frozenset(
    (b"IHDR", b"IDAT", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"hIST", b"pHYs", b"tIME")
)


class Codecs(Protocol):
    """Decodes and resizes; may be called from several threads."""

    def plain_size(self, data: bytes) -> tuple[int, int] | None:
        """Width and height of a file that :meth:`decode_plain` may take; ``None`` for all others."""

    def decode_plain(self, data: bytes) -> Pixels | None:
        """Decode a file whose header needs no other reader.

        Args:
            data: the bytes of a file with a :meth:`plain_size`.

        Returns:
            uint8 RGB ``(height, width, 3)``, upright; ``None`` if Pillow is to decode it, or to say why it cannot.
        """

    def resize(self, picture: Image.Image | Pixels, width: int, height: int, resize_filter: str) -> Pixels:
        """Resize an RGB picture, antialiased when shrinking.

        Args:
            picture: an RGB image, or uint8 RGB ``(height, width, 3)``.
            width: columns to return.
            height: rows to return.
            resize_filter: ``"bilinear"``, ``"box"``, ``"bicubic"`` or ``"nearest"``.

        Returns:
            uint8 RGB ``(height, width, 3)``.
        """


class PillowCodecs:
    """Pillow alone."""

    def plain_size(self, data: bytes) -> tuple[int, int] | None:
        """As :meth:`Codecs.plain_size`."""
        return None

    def decode_plain(self, data: bytes) -> Pixels | None:
        """As :meth:`Codecs.decode_plain`."""
        return None

    def resize(self, picture: Image.Image | Pixels, width: int, height: int, resize_filter: str) -> Pixels:
        """As :meth:`Codecs.resize`."""
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        return np.asarray(image.resize((width, height), _PILLOW_FILTERS[resize_filter]))


class FastCodecs:
    """The libraries of ``maskdet[fast]``, with Pillow for everything else."""

    def __init__(self) -> None:
        import cykooz_resizer

        self._resizing = cykooz_resizer
        self._png: Any = importlib.import_module(_PNG_PACKAGE) if _is_installed(_PNG_PACKAGE) else None
        self._bilinear = cykooz_resizer.ResizeOptions(
            cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.bilinear)
        )
        self._of_thread = threading.local()  # a resizer and a decoder of PNGs keep buffers of their own

    def plain_size(self, data: bytes) -> tuple[int, int] | None:
        """As :meth:`Codecs.plain_size`, for plain PNGs."""
        return _PNG_SIZE.unpack_from(data, _PNG_SIZE_PLACE) if self._png is not None and is_plain_png(data) else None

    def decode_plain(self, data: bytes) -> Pixels | None:
        """As :meth:`Codecs.decode_plain`."""
        decoded = self._png_decoder().decode(data)
        if decoded.error_message:  # mostly damage, which Pillow finds too, and describes
            return None
        width, height = _PNG_SIZE.unpack_from(data, _PNG_SIZE_PLACE)
        return _checked(decoded.pixbuf, height, width)

    def resize(self, picture: Image.Image | Pixels, width: int, height: int, resize_filter: str) -> Pixels:
        """As :meth:`Codecs.resize`."""
        if resize_filter != "bilinear":
            return PILLOW.resize(picture, width, height, resize_filter)
        if isinstance(picture, Image.Image):
            return self._resize_pillow(picture, width, height)
        kind, library, pixels = self._resizing.PixelType.U8x3, self._resizing, picture
        if pixels.shape[:2] == (height, width):
            return pixels
        source = library.ImageData(pixels.shape[1], pixels.shape[0], kind, pixels.tobytes())
        target = library.ImageData(width, height, kind)
        self._resizer().resize(source, target, self._bilinear)
        return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)

    def _resize_pillow(self, picture: Image.Image, width: int, height: int) -> Pixels:
        """Resize straight from Pillow's memory: by way of an array, pixels would be copied twice."""
        if picture.size == (width, height):
            return np.asarray(picture)
        target = Image.new("RGB", (width, height))
        self._resizer().resize_pil(picture, target, self._bilinear)
        return np.asarray(target)

    def _png_decoder(self) -> Any:
        if not hasattr(self._of_thread, "png"):
            config = self._png.aux.ImageDecoderConfig()
            config.pixel_format = self._png.PixelFormat.RGB
            config.enabled_decoders = [self._png.ImageDecoderType.PNG]
            config.quirks = {self._png.ImageDecoderQuirks.IGNORE_CHECKSUM: 0}  # the bindings ignore them unless told
            self._of_thread.png = self._png.aux.ImageDecoder(config)
        return self._of_thread.png

    def _resizer(self) -> Any:
        if not hasattr(self._of_thread, "resizer"):
            self._of_thread.resizer = self._resizing.Resizer()
        return self._of_thread.resizer


PILLOW: Codecs = PillowCodecs()


def decode_jpeg(header: Image.Image, data: bytes, *, strict: bool = True) -> Pixels | None:
    """Decode a JPEG to the size that Pillow has read from its header, including drafts.

    Args:
        header: the opened image; not loaded.
        data: the file's bytes.
        strict: refuse a file of which libjpeg-turbo warns.

    Returns:
        uint8 RGB ``(height, width, 3)``, not upright yet; ``None`` for other files, and for what is refused.
    """
    if header.mode not in ("RGB", "L"):
        return None
    size = {"min_height": header.height, "min_width": header.width}
    try:
        if strict:
            return _checked(simplejpeg.decode_jpeg(data, **size), header.height, header.width)
        # After some errors it returns its input as if it were the picture.
        black, white = (np.full(header.height * header.width * 3, fill, np.uint8) for fill in (0, 255))
        first, second = (simplejpeg.decode_jpeg(data, **size, buffer=one, strict=False) for one in (black, white))
    except ValueError:
        return None
    return _checked(first, header.height, header.width) if np.array_equal(first, second) else None


def resolve_codecs(name: Literal["auto", CodecsName]) -> CodecsName:
    """The codecs that a setting means on this machine: ``auto`` is ``fast`` where the extra is installed."""
    if name != "auto":
        return name
    return "pillow" if _missing_packages() else "fast"


def codecs_identity(codecs: CodecsName) -> str:
    """Names and versions of everything on which pixels depend; part of a run's fingerprint.

    Raises:
        ConfigError: the packages of the codecs are not installed on this machine.
    """
    _refuse_missing(codecs)
    fast = [_PNG_PACKAGE] if _is_installed(_PNG_PACKAGE) else []
    packages = [*_PACKAGES, *([*fast, *_FAST_PACKAGES] if codecs == "fast" else ())]
    if _is_installed(_OPTIONAL_PACKAGE):
        packages.append(_OPTIONAL_PACKAGE)
    return ", ".join(f"{package} {metadata.version(package)}" for package in packages)


def load_codecs(name: CodecsName) -> Codecs:
    """The codecs with a name.

    Raises:
        ConfigError: their packages are not installed on this machine.
    """
    _refuse_missing(name)
    return FastCodecs() if name == "fast" else PILLOW


def _refuse_missing(name: CodecsName) -> None:
    if name == "fast" and (missing := _missing_packages()):
        raise ConfigError(
            "imaging.codecs 'fast'",
            f"the packages {', '.join(_FAST_PACKAGES)} where images are scored",
            f"no {', '.join(missing)}",
            "Run there: pip install 'maskdet[fast]'; or set imaging.codecs to pillow.",
        )


def is_plain_png(data: bytes) -> bool:
    """Whether a file is an intact PNG of 8-bit RGB with nothing that could change how it is shown.

    It only looks at the names and lengths of chunks; the decoder checks the checksums.
    """
    if data[:8] != _PNG_SIGNATURE or data[24:26] != _PNG_RGB8:
        return False
    place, end = 8, len(data)
    for _ in range(MOST_CHUNKS):
        if place + 12 > end:
            break
        length, name = _PNG_CHUNK.unpack_from(data, place)
        place += 12 + length
        if name == b"IEND":
            return bool(place == end)
        if name not in _PNG_PLAIN:
            return False
    return False


def _checked(pixels: Any, height: int, width: int) -> Pixels | None:
    """The pixels, if they are as expected."""
    return pixels if pixels.dtype == np.uint8 and pixels.shape == (height, width, 3) else None


def _missing_packages() -> list[str]:
    return [package for package in _FAST_PACKAGES if not _is_installed(package)]


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
