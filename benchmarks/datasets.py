"""Folders of images to score: real images, repeated by links, or drawn faces where there are none."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png")
DEFAULT_IMAGES = {"png": 10_000, "jpeg": 10_000, "wild": 2_897, "large": 300, "drawn": 10_000}
DESCRIPTIONS = {
    "png": "face crops, PNG, about 100 to 224 pixels wide",
    "jpeg": "face crops, JPEG of quality 93, about 100 to 224 pixels wide",
    "wild": "crops and photographs from the web, JPEG and PNG, some with palette or alpha",
    "large": "photographs enlarged to 12 megapixels, JPEG of quality 90",
    "drawn": "drawn faces, JPEG, 64 to 320 pixels wide",
}
_SOURCES = {"png": ("k12/Test", "k12/Validation"), "jpeg": ("k12/Train",), "wild": ("wild",), "large": ("large",)}
_LARGE_PIXELS = 12_000_000
_DRAWN = 1_000


def data_folder() -> Path:
    """The folder of real images, which may not exist."""
    return Path(os.environ.get("MASKDET_DATA", "../shared/data"))


def resolve(name: str, data: Path) -> str:
    """The name itself, or ``drawn`` where the data set's photographs are missing."""
    return name if name in _SOURCES and all((data / source).is_dir() for source in _SOURCES[name]) else "drawn"


def build(name: str, images: int, data: Path, work: Path) -> Path:
    """Make a flat folder of images, unless it exists.

    Args:
        name: one of :data:`DESCRIPTIONS`.
        images: number of images; source images are repeated or left out to match it.
        data: folder of real images.
        work: folder in which such folders are made.

    Returns:
        The folder.
    """
    folder = work / "data" / f"{name}-{images}"
    if folder.is_dir():
        return folder
    if name == "drawn":
        sources = _drawn(work / "data" / "drawn-originals")
    else:
        sources = images_below(data / source for source in _SOURCES[name])
        if name == "large":
            sources = enlarged(sources, work / "data" / "large-originals", _LARGE_PIXELS)
    unfinished = folder.with_name(f"{folder.name}.part")
    unfinished.mkdir(parents=True, exist_ok=True)
    for index, source in enumerate(spread_over(sources, images)):
        link(source, unfinished / f"{index:07d}{source.suffix.lower()}")
    unfinished.rename(folder)
    return folder


def spread_over(sources: Sequence[Path], images: int) -> list[Path]:
    """The sources, repeated or thinned out evenly to a number of images; each equally often, give or take one."""
    whole, rest = divmod(images, len(sources))
    part = [sources[index * len(sources) // rest] for index in range(rest)] if rest else []
    return [*itertools.chain.from_iterable(itertools.repeat(list(sources), whole)), *part]


def images_below(folders: Iterable[Path]) -> list[Path]:
    """Every image in and below some folders, sorted within each."""
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]


def few(folder: Path, images: int, target: Path) -> Path:
    """A folder of the first few images of another."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir())[:images]:
        link(path, target / path.name)
    return target


def warm(folder: Path) -> int:
    """Read every file once, so that the file cache is the same for all; returns the total size in bytes."""
    return sum(len(path.read_bytes()) for path in folder.iterdir())


def link(source: Path, target: Path) -> None:
    """Make a file appear under another name, replacing what may be there."""
    if target.is_symlink() or target.exists():
        target.unlink()
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        target.symlink_to(source.resolve())


def enlarged(sources: Sequence[Path], folder: Path, pixels: float) -> list[Path]:
    """Photographs enlarged to about a number of pixels, as JPEG of quality 90, in the order of the sources.

    Files that exist already are kept.
    """
    from PIL import Image, ImageOps

    folder.mkdir(parents=True, exist_ok=True)

    def enlarge(source: Path) -> Path:
        target = folder / f"{source.stem}.jpg"
        if not target.is_file():
            with Image.open(source) as file:
                image = ImageOps.exif_transpose(file).convert("RGB")
            scale = (pixels / (image.width * image.height)) ** 0.5
            size = (round(image.width * scale), round(image.height * scale))
            image.resize(size, Image.Resampling.BICUBIC).save(target.with_suffix(".part"), "JPEG", quality=90)
            target.with_suffix(".part").rename(target)
        return target

    with ThreadPoolExecutor() as pool:
        return list(pool.map(enlarge, sources))


def _drawn(folder: Path) -> list[Path]:
    import numpy as np

    from maskdet.demo.drawing import draw_face

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:04d}.jpg" for index in range(_DRAWN)]
    for index, path in enumerate(paths):
        if not path.is_file():
            size = (64, 96, 128, 160, 224, 320)[index % 6]
            draw_face(np.random.default_rng(index), size, masked=index % 2 == 0).save(path, quality=93)
    return paths
