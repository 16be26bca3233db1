"""Scenes with known faces: crops of faces placed on drawn backgrounds, and images without any face.

The same arguments give the same scenes with the same versions of Pillow and NumPy; with the same seed, scene ``i`` is
the same in a set of any size. The caller chooses which faces may appear, so that sets made from group-disjoint lists
have no person in common.

The position of the face within a crop was measured with CenterFace in float32 on crops of the "Face Mask ~12K Images"
set (300 masked, without its augmented copies, and 300 unmasked), enlarged to 224 pixels. The median box runs from .12
to .88 across and .05 to .95 down (masked), .09 to .90 and .01 to 1.00 (unmasked); :data:`FACE_IN_CROP` lies between the
two. In 95 of 100 crops, the single box has an IoU with the median box of .58 or more (masked) or .68 or more
(unmasked). So the annotation is good enough for matching at IoU .5, but not for judging how exact a box is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from maskdet.errors import ConfigError, OutputError
from maskdet.images.preprocessing import ImageLimits, open_upright
from tools.scenes.backgrounds import draw_background

Label = Literal["mask", "no_mask"]
CATEGORIES: dict[int, Label] = {1: "mask", 2: "no_mask"}
"""COCO category ids of the labels."""

FACE_IN_CROP = (0.10, 0.03, 0.90, 0.97)
"""Left, top, right and bottom of the face, as shares of a crop's width and height."""

_PLACES_TRIED = 60
_JPEG_QUALITY = (75, 96)


class FaceSource(NamedTuple):
    """A crop of one face."""

    path: Path
    label: Label


class PlacedFace(NamedTuple):
    """A face in a scene; edges in pixels."""

    left: float
    top: float
    right: float
    bottom: float
    label: Label
    source: str
    """Name of the crop's file."""

    @property
    def size_px(self) -> float:
        """Longer side of the box."""
        return max(self.right - self.left, self.bottom - self.top)


class Scene(NamedTuple):
    """An image and every face in it."""

    image: Image.Image
    faces: tuple[PlacedFace, ...]
    jpeg_quality: int

    def to_jpeg(self) -> bytes:
        """The image as a file."""
        stream = io.BytesIO()
        self.image.save(stream, "JPEG", quality=self.jpeg_quality)
        return stream.getvalue()


@dataclass(frozen=True)
class SceneOptions:
    """What scenes look like.

    Attributes:
        sides_px: least and greatest width and height.
        sizes_px: least and greatest longer side of a face, drawn on a logarithmic scale.
        faces: least and greatest number of faces in a scene that has any; fewer where there is no room for more.
        faceless: share of scenes without a face.
        rotation_deg: faces are rotated by up to this angle either way.
        blur: greatest standard deviation of a face's blur, as a share of its size.
        overlap: greatest share of the smaller box that two faces may have in common.
        decoys: greatest number of patches of shuffled face parts, cut out as faces are.
        shoulders: share of faces that get a neck and shoulders, where these would cover no other face.
    """

    sides_px: tuple[int, int] = (320, 640)
    sizes_px: tuple[float, float] = (16.0, 160.0)
    faces: tuple[int, int] = (1, 8)
    faceless: float = 0.2
    rotation_deg: float = 20.0
    blur: float = 0.02
    overlap: float = 0.1
    decoys: int = 3
    shoulders: float = 0.5

    def __post_init__(self) -> None:
        for name in ("sides_px", "sizes_px", "faces"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(name, "0 < least <= greatest", (low, high), "Give the two in order.")
        if self.sizes_px[1] > self.sides_px[0]:
            raise ConfigError("sizes_px", f"faces that fit {self.sides_px[0]} pixels", self.sizes_px, "Lower it.")


def make_scene(
    seed: int,
    index: int,
    crops: Sequence[FaceSource],
    photographs: Sequence[Path] = (),
    options: SceneOptions = SceneOptions(),
) -> Scene:
    """Make one scene.

    Args:
        seed: seed of the set.
        index: number of the scene in its set.
        crops: faces to choose from; masked and unmasked ones are equally likely, however many there are of each.
        photographs: files whose blurred colours may serve as background.
        options: what scenes look like.

    Raises:
        ConfigError: there are no crops.
        ImageFault: a file cannot be decoded.
    """
    if not crops:
        raise ConfigError("crops", "at least one face", 0, "Give the files of some.")
    rng = np.random.default_rng((seed, index))
    width, height = (int(side) for side in rng.integers(options.sides_px[0], options.sides_px[1] + 1, 2))
    image = draw_background(rng, width, height, photographs)
    for _ in range(int(rng.integers(0, options.decoys + 1))):
        _add_decoy(rng, image, _choose(rng, crops), options)
    faces: list[PlacedFace] = []
    if rng.random() >= options.faceless:
        for _ in range(int(rng.integers(options.faces[0], options.faces[1] + 1))):
            face = _add_face(rng, image, faces, _choose(rng, crops), options)
            faces += [face] if face is not None else []
    noise = rng.normal(0, rng.uniform(0, 5), (height, width, 1))
    finished = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    return Scene(finished, tuple(faces), int(rng.integers(*_JPEG_QUALITY)))


def write_scenes(folder: Path, scenes: Iterator[Scene] | Sequence[Scene]) -> Path:
    """Write scenes as JPEG files with one COCO file, ``annotations.json``, beside them.

    Returns:
        The COCO file.

    Raises:
        OutputError: the folder holds something already.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(str(folder), "an absent or empty folder", "something else", "Name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    ids = {label: number for number, label in CATEGORIES.items()}
    for index, scene in enumerate(scenes):
        name = f"scene-{index:05d}.jpg"
        (folder / name).write_bytes(scene.to_jpeg())
        images.append({"id": index, "file_name": name, "width": scene.image.width, "height": scene.image.height})
        for face in scene.faces:
            box = [face.left, face.top, face.right - face.left, face.bottom - face.top]
            annotations.append(
                {"id": len(annotations), "image_id": index, "category_id": ids[face.label], "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0, "source": face.source}
            )  # fmt: skip
    categories = [{"id": number, "name": label} for number, label in CATEGORIES.items()]
    path = folder / "annotations.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def rotated_face(width: float, height: float, angle_deg: float) -> tuple[float, float, float, float]:
    """Box of the face in a crop that is rotated about its centre.

    The face is taken as the oval that fills :data:`FACE_IN_CROP`; the box is the smallest that holds the rotated oval.

    Args:
        width: width of the crop, in pixels.
        height: height of the crop, in pixels.
        angle_deg: angle, counter-clockwise as seen.

    Returns:
        Left, top, right and bottom in pixels, relative to the crop's centre, y downwards.
    """
    left, top, right, bottom = FACE_IN_CROP
    x, y = ((left + right) / 2 - 0.5) * width, ((top + bottom) / 2 - 0.5) * height
    a, b = (right - left) / 2 * width, (bottom - top) / 2 * height
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    turned_x, turned_y = x * cosine + y * sine, y * cosine - x * sine
    half_width = float(np.hypot(a * cosine, b * sine))
    half_height = float(np.hypot(a * sine, b * cosine))
    return turned_x - half_width, turned_y - half_height, turned_x + half_width, turned_y + half_height


def _choose(rng: np.random.Generator, crops: Sequence[FaceSource]) -> FaceSource:
    labels = sorted({crop.label for crop in crops})
    label = labels[int(rng.integers(len(labels)))]
    of_label = [crop for crop in crops if crop.label == label]
    return of_label[int(rng.integers(len(of_label)))]


def _add_face(
    rng: np.random.Generator,
    image: Image.Image,
    others: Sequence[PlacedFace],
    source: FaceSource,
    options: SceneOptions,
) -> PlacedFace | None:
    """Paste one face where it covers little of the others; ``None`` if no place was found."""
    crop, _ = open_upright(source.path.read_bytes(), ImageLimits())
    low, high = options.sizes_px
    size = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    angle = rng.uniform(-options.rotation_deg, options.rotation_deg)
    blur_px = rng.uniform(0, options.blur) * size
    unit = rotated_face(crop.width, crop.height, angle)
    scale = size / max(unit[2] - unit[0], unit[3] - unit[1])
    shape = (max(2, round(crop.width * scale)), max(2, round(crop.height * scale)))
    box = rotated_face(*shape, angle)
    for _ in range(_PLACES_TRIED):
        room_x, room_y = image.width - (box[2] - box[0]), image.height - (box[3] - box[1])
        x, y = (round(rng.uniform(0, max(0, room)) - start) for room, start in ((room_x, box[0]), (room_y, box[1])))
        face = PlacedFace(x + box[0], y + box[1], x + box[2], y + box[3], source.label, source.path.name)
        if _fits(face, image.size) and all(_common_share(face, other) <= options.overlap for other in others):
            resized = crop.resize(shape, Image.Resampling.BICUBIC, reducing_gap=2.0)
            if rng.random() < options.shoulders:
                _add_shoulders(rng, image, resized, face, others)
            _paste(rng, image, resized, (x, y), angle, blur_px)
            return face
    return None


def _paste(
    rng: np.random.Generator,
    image: Image.Image,
    crop: Image.Image,
    centre: tuple[int, int],
    angle: float,
    blur_px: float,
) -> None:
    """Blend a crop in, with any outline from a rectangle to an oval and any edge from hard to soft."""
    width, height = crop.size
    side = min(width, height)
    # Drawn four times as large, because Pillow's ovals have hard edges.
    mask = Image.new("L", (4 * width, 4 * height), 0)
    inset, radius = max(1, round(0.12 * side)), 2.0 * side * rng.choice([0.0, rng.uniform(0.2, 0.8), 0.8])
    ImageDraw.Draw(mask).rounded_rectangle((inset, inset, 4 * width - inset, 4 * height - inset), radius, 255)
    edge = ImageFilter.GaussianBlur(rng.uniform(0, 0.03) * side)
    soft = mask.resize(crop.size, Image.Resampling.BOX).filter(edge)
    blurred = crop.filter(ImageFilter.GaussianBlur(blur_px))
    turned, alpha = (part.rotate(angle, Image.Resampling.BICUBIC, expand=True) for part in (blurred, soft))
    image.paste(turned, (centre[0] - turned.width // 2, centre[1] - turned.height // 2), alpha)


def _add_shoulders(
    rng: np.random.Generator, image: Image.Image, crop: Image.Image, face: PlacedFace, others: Sequence[PlacedFace]
) -> None:
    """Draw a neck of the face's mean colour and shoulders of any colour, unless another face would be covered."""
    width, height = face.right - face.left, face.bottom - face.top
    middle = (face.left + face.right) / 2
    body = face._replace(
        left=middle - 1.2 * width, top=face.top + 0.9 * height, right=middle + 1.2 * width, bottom=float(image.height)
    )
    if any(_common_share(body, other) > 0 for other in others):
        return
    pen = ImageDraw.Draw(image)
    red, green, blue = (int(value) for value in np.asarray(crop.resize((1, 1), Image.Resampling.BOX))[0, 0])
    pen.rectangle(
        (middle - 0.25 * width, body.top - 0.3 * height, middle + 0.25 * width, body.top + 0.6 * height),
        (red, green, blue),
    )
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    shoulder = body.top + rng.uniform(0.05, 0.3) * height
    pen.ellipse((body.left, shoulder, body.right, shoulder + 1.2 * height), (red, green, blue))
    pen.rectangle((body.left, shoulder + 0.6 * height, body.right, shoulder + 3 * height), (red, green, blue))


def _add_decoy(rng: np.random.Generator, image: Image.Image, source: FaceSource, options: SceneOptions) -> None:
    """Paste a crop whose parts are shuffled: it has the colours, edges and outline of a face, but is not one."""
    crop, _ = open_upright(source.path.read_bytes(), ImageLimits())
    size = round(float(np.exp(rng.uniform(*np.log(options.sizes_px)))))
    parts = int(rng.integers(3, 6))
    cell = max(1, size // parts)
    pixels = np.asarray(crop.resize((cell * parts, cell * parts), Image.Resampling.BICUBIC, reducing_gap=2.0))
    cells = pixels.reshape(parts, cell, parts, cell, 3).swapaxes(1, 2).reshape(parts * parts, cell, cell, 3)
    shuffled = cells[rng.permutation(parts * parts)].reshape(parts, parts, cell, cell, 3).swapaxes(1, 2)
    patch = Image.fromarray(np.ascontiguousarray(shuffled.reshape(pixels.shape)))
    place = (int(rng.integers(image.width)), int(rng.integers(image.height)))
    _paste(rng, image, patch, place, rng.uniform(-1, 1) * options.rotation_deg, rng.uniform(0, options.blur) * size)


def _fits(face: PlacedFace, size: tuple[int, int]) -> bool:
    # Half a pixel of tolerance, since places are whole pixels and boxes are not.
    return face.left >= -0.5 and face.top >= -0.5 and face.right <= size[0] + 0.5 and face.bottom <= size[1] + 0.5


def _common_share(one: PlacedFace, other: PlacedFace) -> float:
    """The area that two boxes have in common, as a share of the smaller one."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    smaller = min((face.right - face.left) * (face.bottom - face.top) for face in (one, other))
    return max(0.0, width) * max(0.0, height) / smaller
