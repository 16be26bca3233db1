"""A demonstration data set: drawings of faces, of no real person, in folders as a set of cameras would leave them.

:func:`write_demo_tree` writes ``{site}/{camera}/{date}/{hour}/face-00017-mask.jpg`` and, under the first camera's first
day, one file for every rule and fault of :mod:`maskdet.images.preprocessing`. The truth is in the file names and in the
:class:`DemoTree` returned. It says nothing about how well a model does on photographs.

Equal arguments give equal bytes under equal versions of Pillow and NumPy, and a larger tree of the same seed contains
the smaller one's files unchanged, so that incremental runs can be shown too.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from maskdet.demo.drawing import draw_face
from maskdet.errors import ConfigError, FailureCode, OutputError, StorageError

__all__ = ["DEMO_TEMPLATE", "DemoCell", "DemoCount", "DemoFile", "DemoTree", "draw_face", "redraw", "write_demo_tree"]

DEMO_TEMPLATE = "{site}/{camera}/{captured_at:%Y-%m-%d}/{captured_at:%H}/*"

_MASK_RATES = {"demo-north": 0.9, "demo-south": 0.6, "demo-east": 0.75, "demo-west": 0.5}
_SITES = tuple(_MASK_RATES)
_LABELS = {True: "mask", False: "no-mask"}
_EVENING_HOUR = 18
_EVENING_DROP = 0.3
_FIRST_DAY = date(2026, 3, 2)
_SIZES_PX = (64, 72, 80, 96, 96, 112, 128, 128, 160, 160, 192, 224, 256, 320)
_EXTRA_SIZE_PX = 128
_SPECIAL_SIZES_PX = {"large": 1024, "bilevel": 320}

_Encoder = Callable[[Image.Image], bytes]


class DemoCell(NamedTuple):
    """One camera's hour."""

    site: str
    camera: str
    date: str
    """ISO date in the camera's own clock."""
    hour: int


class DemoCount(NamedTuple):
    """How many images of each kind a cell has."""

    mask: int
    no_mask: int
    failed: int


@dataclass(frozen=True)
class DemoFile:
    """One file of the tree and what is true of it.

    Attributes:
        path: relative to the tree's folder, with forward slashes.
        cell: the camera's hour; ``None`` where the path does not fit :data:`DEMO_TEMPLATE`.
        masked: whether the face wears a mask; ``None`` where there is no face to score.
        failure: the failure that scoring has to report for it; ``None`` for files that are scored or skipped.
        size_px: side of the drawing in pixels; 0 for files that hold none.
    """

    path: str
    cell: DemoCell | None
    masked: bool | None
    failure: FailureCode | None
    size_px: int

    @property
    def skipped(self) -> bool:
        """Whether its extension is not an image's."""
        return Path(self.path).suffix not in _IMAGE_SUFFIXES


@dataclass(frozen=True)
class DemoTree:
    """What a demo tree holds.

    Attributes:
        seed: the seed it was drawn from.
        files: every file, sorted by path.
        written: how many of them did not exist yet with the same bytes; ignored when trees are compared.
    """

    seed: int
    files: tuple[DemoFile, ...]
    written: int = field(compare=False)

    @property
    def images(self) -> int:
        """Files with an image's extension, including broken ones: those that a run has to account for."""
        return sum(not file.skipped for file in self.files)

    @property
    def masked(self) -> int:
        """Valid images whose face wears a mask."""
        return sum(file.masked is True for file in self.files)

    @property
    def unmasked(self) -> int:
        """Valid images whose face wears no mask."""
        return sum(file.masked is False for file in self.files)

    @property
    def failures(self) -> dict[FailureCode, int]:
        """Number of broken or misplaced images by the code they fail with."""
        return dict(Counter(file.failure for file in self.files if file.failure is not None))

    @property
    def skipped(self) -> tuple[str, ...]:
        """Paths of the files that are not images by their extension."""
        return tuple(file.path for file in self.files if file.skipped)

    @property
    def truth(self) -> dict[DemoCell, DemoCount]:
        """Counts of every camera's hour, in order of site, camera, date and hour."""
        kinds: dict[DemoCell, Counter[bool | None]] = {}
        for file in self.files:
            if file.cell is not None and not file.skipped:
                kinds.setdefault(file.cell, Counter())[file.masked] += 1
        return {cell: DemoCount(kinds[cell][True], kinds[cell][False], kinds[cell][None]) for cell in sorted(kinds)}


def write_demo_tree(
    folder: str | PathLike[str],
    *,
    seed: int = 20260101,
    sites: int = 2,
    cameras_per_site: int = 2,
    days: int = 2,
    hours: Sequence[int] = (8, 12, 16, 20),
    images_per_hour: int = 14,
) -> DemoTree:
    """Write a demo tree; the default one has 473 images.

    Files that already exist with the same bytes are left untouched. Mask rates differ by site and drop in the
    evening.

    Args:
        folder: where to write; created if missing.
        seed: decides every drawing; not negative.
        sites: number of sites, ``demo-north`` first.
        cameras_per_site: number of cameras at each site.
        days: number of consecutive days.
        hours: hours of the day, 0 to 23.
        images_per_hour: images in each camera's hour, not counting the formats and faults of the first camera.

    Raises:
        ConfigError: a number is out of its range.
        OutputError: the folder has other images, such as those of a tree with another seed.
        StorageError: a file cannot be read or written.
    """
    folder = Path(folder)
    _check(seed, hours, sites=sites, cameras_per_site=cameras_per_site, days=days, images_per_hour=images_per_hour)
    cells = _list_cells(sites, cameras_per_site, days, hours)
    faces = (item for cell in cells for item in _plan_faces(cell, seed, images_per_hour))
    plan = sorted([*_plan_extras(cells[: len(hours)]), *faces], key=lambda item: item.file.path)
    files = tuple(item.file for item in plan)
    try:
        _refuse_other_images(folder, {file.path for file in files})
        written = sum(_write_if_changed(folder / item.file.path, _encode(item, seed)) for item in plan)
    except OSError as error:
        raise StorageError(f"demo tree {str(folder)!r} cannot be written: {error.strerror or error}") from error
    return DemoTree(seed, files, written)


def redraw(file: DemoFile, seed: int) -> Image.Image:
    """The drawing that a file holds, before it was encoded: RGB, ``file.size_px`` square.

    Raises:
        ConfigError: the file is not a drawing.
    """
    return draw_face(_rng(seed, file.path), file.size_px, bool(file.masked))


def _check(seed: int, hours: Sequence[int], **counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(name, "a number of at least 1", value)
    if seed < 0:
        raise ConfigError("seed", "a number of at least 0", seed)
    if not hours or len(set(hours)) < len(hours) or not set(hours) <= set(range(24)):
        raise ConfigError("hours", "different hours from 0 to 23, at least one", tuple(hours))


def _list_cells(sites: int, cameras_per_site: int, days: int, hours: Sequence[int]) -> list[DemoCell]:
    return [
        DemoCell(_site_name(site), f"cam-{camera + 1}", (_FIRST_DAY + timedelta(day)).isoformat(), hour)
        for site in range(sites)
        for camera in range(cameras_per_site)
        for day in range(days)
        for hour in hours
    ]


def _rng(seed: int, name: str) -> np.random.Generator:
    # By name, not by position, so that a larger tree contains the smaller one's files unchanged.
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _site_name(index: int) -> str:
    lap, position = divmod(index, len(_SITES))
    return _SITES[position] if lap == 0 else f"{_SITES[position]}-{lap + 1}"


def _cell_folder(cell: DemoCell) -> str:
    return f"{cell.site}/{cell.camera}/{cell.date}/{cell.hour:02d}"


class _Planned(NamedTuple):
    file: DemoFile
    encode: _Encoder


def _plan_faces(cell: DemoCell, seed: int, count: int) -> Iterator[_Planned]:
    rng = _rng(seed, _cell_folder(cell))
    rate = next(_MASK_RATES[name] for name in _MASK_RATES if cell.site.startswith(name))
    rate -= _EVENING_DROP if cell.hour >= _EVENING_HOUR else 0
    start = rng.random()
    for index in range(count):
        # Spread evenly rather than drawn, so that few images suffice for the tables to show the rates.
        masked = int((index + 1) * rate + start) > int(index * rate + start)
        suffix, encode = _COMMON[rng.integers(len(_COMMON))]
        path = f"{_cell_folder(cell)}/face-{index:05d}-{_LABELS[masked]}{suffix}"
        yield _Planned(DemoFile(path, cell, masked, None, int(rng.choice(_SIZES_PX))), encode)


def _plan_extras(cells: Sequence[DemoCell]) -> Iterator[_Planned]:
    for index, (name, suffix, encode) in enumerate(_SPECIAL):
        cell, masked = cells[index % len(cells)], index % 2 == 0
        path = f"{_cell_folder(cell)}/face-{name}-{_LABELS[masked]}{suffix}"
        yield _Planned(DemoFile(path, cell, masked, None, _SPECIAL_SIZES_PX.get(name, _EXTRA_SIZE_PX)), encode)
    for index, (filename, code, encode) in enumerate(_FAULTS):
        cell = cells[index % len(cells)]
        size_px = 0 if code in _WITHOUT_DRAWING else _EXTRA_SIZE_PX
        yield _Planned(DemoFile(f"{_cell_folder(cell)}/{filename}", cell, None, code, size_px), encode)
    stray = DemoFile(f"{cells[0].site}/stray.jpg", None, None, FailureCode.PATH_MISMATCH, _EXTRA_SIZE_PX)
    yield _Planned(stray, _saved("JPEG", quality=85))
    yield _Planned(DemoFile(f"{_cell_folder(cells[0])}/notes.txt", cells[0], None, None, 0), lambda _: _NOTES)


def _encode(item: _Planned, seed: int) -> bytes:
    drawing = redraw(item.file, seed) if item.file.size_px else Image.new("RGB", (1, 1))
    return item.encode(drawing)


def _refuse_other_images(folder: Path, expected: set[str]) -> None:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in _IMAGE_SUFFIXES}
    others = sorted(found - expected)
    if others:
        raise OutputError(
            f"demo folder {str(folder)!r}",
            "no images but those of the tree to write",
            others[0],
            f"{len(others)} such files; choose an empty folder, or the arguments of the tree that is there",
        )


def _write_if_changed(path: Path, data: bytes) -> bool:
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def _saved(format_name: str, mode: str = "RGB", **options: Any) -> _Encoder:
    def encode(image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, format_name, **options)
        return buffer.getvalue()

    return encode


def _save(image: Image.Image, format_name: str, **options: Any) -> bytes:
    return _saved(format_name, image.mode, **options)(image)


def _palette(image: Image.Image) -> bytes:
    return _save(image.quantize(96), "PNG")


def _palette_transparent(image: Image.Image) -> bytes:
    indices = image.quantize(32)
    return _save(indices, "PNG", transparency=indices.getpixel((0, 0)))


def _colour_transparent(image: Image.Image) -> bytes:
    few = image.quantize(32).convert("RGB")
    return _save(few, "PNG", transparency=few.getpixel((0, 0)))


def _vignette(image: Image.Image) -> bytes:
    rgba = image.copy()
    ramp = np.abs(np.linspace(-1, 1, image.width))
    alpha = np.clip((1.35 - np.hypot(ramp[:, None], ramp[None, :])) * 800, 0, 255)
    rgba.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return _save(rgba, "PNG")


def _grey_16_bit(image: Image.Image) -> bytes:
    return _save(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG")


def _exif_rotated(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated clockwise by 90 degrees
    return _save(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=exif)


def _frames(format_name: str) -> _Encoder:
    def encode(image: Image.Image) -> bytes:
        later = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), image.transpose(Image.Transpose.ROTATE_180)]
        return _save(image, format_name, save_all=True, append_images=later)

    return encode


def _truncated(image: Image.Image) -> bytes:
    data = _save(image, "JPEG", quality=85)
    return data[: len(data) * 6 // 10]


def _flipped_bytes(image: Image.Image) -> bytes:
    data = bytearray(_save(image, "PNG"))
    start = data.index(b"IDAT") + len(b"IDAT")
    data[start : start + 32] = bytes(byte ^ 0xFF for byte in data[start : start + 32])
    return bytes(data)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _oversized(_: Image.Image) -> bytes:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*chunk) for chunk in chunks)


def _float_samples(image: Image.Image) -> bytes:
    return _save(Image.fromarray(np.asarray(image.convert("L"), np.float32) / 255), "TIFF")


_NOTES = b"Synthetic drawings for demonstrations. No real person is shown.\n"
# A format listed twice is twice as frequent.
_COMMON: list[tuple[str, _Encoder]] = [
    *((".jpg", _saved("JPEG", quality=quality)) for quality in (35, 60, 75, 75, 85, 85, 92, 95)),
    (".jpg", _saved("JPEG", quality=80, progressive=True)),
    (".jpg", _saved("JPEG", "L", quality=85)),
    *[(".png", _saved("PNG"))] * 3,
    (".png", _palette),
    (".png", _vignette),
    (".png", _saved("PNG", "L")),
    *[(".webp", _saved("WEBP", quality=80))] * 2,
]
_SPECIAL: list[tuple[str, str, _Encoder]] = [
    ("cmyk", ".jpg", _saved("JPEG", "CMYK", quality=90)),
    ("exif-rotated", ".jpg", _exif_rotated),
    ("exif-damaged", ".jpg", _saved("JPEG", quality=90, exif=b"Exif\x00\x00damaged")),
    ("large", ".jpg", _saved("JPEG", quality=85)),
    ("png-named-jpg", ".jpg", _saved("PNG")),
    ("grey-16-bit", ".png", _grey_16_bit),
    ("bilevel", ".png", _saved("PNG", "1")),
    ("palette-transparent", ".png", _palette_transparent),
    ("colour-transparent", ".png", _colour_transparent),
    ("animated", ".gif", _frames("GIF")),
    ("two-more-pages", ".tif", _frames("TIFF")),
    ("bitmap", ".bmp", _saved("BMP")),
    ("lossless", ".webp", _saved("WEBP", lossless=True)),
    ("grey", ".jpg", _saved("JPEG", "L", quality=85)),
    ("grey", ".png", _saved("PNG", "L")),
    ("alpha", ".png", _vignette),
    ("palette", ".png", _palette),
]
_FAULTS: list[tuple[str, FailureCode, _Encoder]] = [
    ("fault-truncated.jpg", FailureCode.CORRUPT_IMAGE, _truncated),
    ("fault-empty.jpg", FailureCode.EMPTY_FILE, lambda _: b""),
    ("fault-text.jpg", FailureCode.NOT_AN_IMAGE, lambda _: _NOTES * 20),
    ("fault-flipped-bytes.png", FailureCode.CORRUPT_IMAGE, _flipped_bytes),
    ("fault-oversized.png", FailureCode.TOO_MANY_PIXELS, _oversized),
    ("fault-tiny.png", FailureCode.TOO_FEW_PIXELS, lambda image: _save(image.resize((3, 3)), "PNG")),
    ("fault-float-samples.tif", FailureCode.UNSUPPORTED_MODE, _float_samples),
]
_WITHOUT_DRAWING = (FailureCode.EMPTY_FILE, FailureCode.NOT_AN_IMAGE, FailureCode.TOO_MANY_PIXELS)
_IMAGE_SUFFIXES = (".jpg", ".png", ".webp", ".gif", ".tif", ".bmp")
