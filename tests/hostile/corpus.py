"""Generates a hostile corpus: image files of every format, damaged in every way in which a file can go wrong.

The same seed and number give the same file, so two numbers identify a finding.
"""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskdet.demo.drawing import draw_face


class Mutant(NamedTuple):
    """A mutated file."""

    number: int
    kind: str
    """The format and variant of the intact file."""
    mutation: str
    name: str
    data: bytes


def corpus(seed: int, count: int) -> Iterator[Mutant]:
    """The first mutated files of a seed."""
    return (mutant(seed, number) for number in range(count))


def mutant(seed: int, number: int) -> Mutant:
    """One mutated file of a seed."""
    chance = random.Random(f"{seed}-{number}")
    kinds = bases()
    kind = chance.choice(sorted(kinds))
    mutation = chance.choice(sorted(MUTATIONS))
    data = MUTATIONS[mutation](kinds[kind], chance)
    extension = chance.choice([kind.split()[0], kind.split()[0], "jpg", "png", "tif"])
    return Mutant(number, kind, mutation, f"{number:05d}.{extension}", data)


@functools.cache
def bases() -> dict[str, bytes]:
    """Intact files of every format and of the variants that decoders treat differently, by format and variant."""
    rgb = draw_face(np.random.default_rng(7), 160, masked=True).convert("RGB")
    grey, alpha, cmyk = rgb.convert("L"), rgb.convert("RGBA"), rgb.convert("CMYK")
    alpha.putalpha(grey)
    palette, bits = rgb.convert("P"), rgb.convert("1")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) << 8)
    turned = Image.Exif()
    turned[0x0112] = 6
    made: dict[str, bytes] = {
        "jpg baseline": encode(rgb, "JPEG", quality=90),
        "jpg 4:4:4": encode(rgb, "JPEG", quality=95, subsampling=0),
        "jpg progressive": encode(rgb, "JPEG", progressive=True),
        "jpg restarts": encode(rgb, "JPEG", restart_marker_blocks=8),
        "jpg optimized": encode(rgb, "JPEG", optimize=True),
        "jpg grey": encode(grey, "JPEG"),
        "jpg CMYK": encode(cmyk, "JPEG"),
        "jpg turned": encode(rgb, "JPEG", exif=turned),
        "png RGB": encode(rgb, "PNG"),
        "png RGBA": encode(alpha, "PNG", exif=turned),
        "png grey": encode(grey, "PNG"),
        "png palette": encode(palette, "PNG", transparency=3),
        "png bits": encode(bits, "PNG"),
        "png deep": encode(deep, "PNG"),
        "gif still": encode(palette, "GIF"),
        "gif moving": encode(palette, "GIF", save_all=True, append_images=[palette.rotate(90)], comment=b"x" * 300),
        "bmp RGB": encode(rgb, "BMP"),
        "bmp palette": encode(palette, "BMP"),
        "webp lossy": encode(rgb, "WEBP"),
        "webp lossless": encode(alpha, "WEBP", lossless=True),
        "webp moving": encode(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)]),
        "tif deep": encode(deep, "TIFF"),
        "tif palette": encode(palette, "TIFF", compression="tiff_lzw"),
        "tif jpeg": encode(rgb, "TIFF", compression="jpeg"),
        "tif grey jpeg": encode(grey, "TIFF", compression="jpeg"),
        "tif fax": encode(bits, "TIFF", compression="group4"),
    }
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        made[f"tif {compression}"] = encode(rgb, "TIFF", compression=compression)
    made["avif"] = encode(rgb, "AVIF")
    try:
        import pillow_heif
    except ImportError:
        return made
    pillow_heif.register_heif_opener()
    return {**made, "heic": encode(rgb, "HEIF")}


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    """An image as a file."""
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8, 64])):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _flip_header(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(min(len(changed), 400))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
    return bytes(changed)


def _flip_tail(data: bytes, chance: random.Random) -> bytes:
    """Flip bytes at the end, where TIFFs have their tags."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        changed[-chance.randint(1, min(len(changed), 250))] = chance.choice([0, 1, 255, chance.randrange(256)])
    return bytes(changed)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.choice([chance.randrange(len(data)), chance.randrange(min(len(data), 64)), len(data) - 1])]


def _cut_and_close(data: bytes, chance: random.Random) -> bytes:
    ends = {b"\xff": b"\xff\xd9", b"\x89": b"\0\0\0\0IEND\xaeB`\x82", b"G": b"\0;"}
    return data[: chance.randrange(len(data) // 4, len(data))] + ends.get(data[:1], b"")


def _zero_tail(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) // 4, len(data))
    return data[:place] + bytes(len(data) - place)


def _hole(data: bytes, chance: random.Random) -> bytes:
    place, size = chance.randrange(len(data)), chance.choice([1, 16, 512, 4096])
    return data[:place] + chance.choice([bytes(size), b""]) + data[place + size :]


def _insert(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + chance.randbytes(chance.choice([1, 4, 100, 5000])) + data[place:]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    piece = data[start : start + chance.choice([4, 64, 1024])]
    return data[:start] + piece * chance.choice([2, 50, 1000]) + data[start:]


def _splice(data: bytes, chance: random.Random) -> bytes:
    other = bases()[chance.choice(sorted(bases()))]
    return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]


def _claim_size(data: bytes, chance: random.Random) -> bytes:
    """Write another width and height wherever a file has them; PNG's checksum is corrected."""
    sides = [0, 1, 7, 8, 4000, 7999, 16_383, 65_535, 2**31 - 1]
    width, height = chance.choice(sides), chance.choice(sides)
    for form in (">HH", "<HH", ">II", "<II", "<ii"):
        limit = 65_535 if "H" in form else 2**31 - 1
        written = struct.pack(form, 160, 160)
        if written in data[:600]:
            data = data.replace(written, struct.pack(form, min(width, limit), min(height, limit)), 1)
            break
    if data[:4] == b"\x89PNG":
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    return data


def _noise(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.choice([3, 8, 16, 40])] + chance.randbytes(chance.choice([0, 100, 20_000]))


def _constant(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.choice([2, 8, 40, 200])] + bytes([chance.choice([0, 0x20, 0xFF])]) * chance.choice(
        [10, 300_000]
    )


def _no_image(data: bytes, chance: random.Random) -> bytes:
    return chance.choice(
        [b"", b"\0", b"<!DOCTYPE html><html>404</html>", b"%PDF-1.7", bytes(1000), data[::-1], b"\xff\xd8\xff"]
    )


def _bad_png_rules(data: bytes, chance: random.Random) -> bytes:
    """PNGs that break the format's rules, but with correct checksums."""
    colour, depth = chance.choice([0, 2, 3, 4, 6, 5]), chance.choice([1, 2, 4, 8, 16, 3])
    side, interlaced = chance.choice([8, 64, 300]), chance.choice([0, 1, 2])
    rows = chance.choice([bytes((side + 1) * side), chance.randbytes(side * side), b"", bytes((8 * side + 1) * side)])
    extra = [
        (b"PLTE", chance.randbytes(chance.choice([0, 3, 12, 768, 770, 900]))),
        (b"tRNS", chance.randbytes(chance.choice([0, 1, 2, 6, 256, 300]))),
        (b"iCCP", b"x\0\0" + zlib.compress(bytes(chance.choice([10, 2_000_000])))),
        (b"eXIf", chance.randbytes(60)),
        (b"acTL", chance.randbytes(8)),
    ]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, interlaced))]
    chunks += chance.sample(extra, chance.randint(0, 3))
    chunks += [(b"IDAT", zlib.compress(rows))] * chance.choice([1, 1, 1, 2, 0])
    chunks += [(b"IEND", b"")] * chance.choice([0, 1, 1])
    body = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "none": lambda data, chance: data,
    "bits": _flip,
    "header bytes": _flip_header,
    "tail bytes": _flip_tail,
    "cut": _cut,
    "cut and closed": _cut_and_close,
    "zeros to the end": _zero_tail,
    "hole": _hole,
    "insertion": _insert,
    "repetition": _repeat,
    "splice": _splice,
    "size claimed": _claim_size,
    "noise": _noise,
    "constant": _constant,
    "no image": _no_image,
    "rules of PNG": _bad_png_rules,
}
