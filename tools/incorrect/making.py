"""Make training images from photographs: masks worn in every way, faces made bare again, things in front of faces.

All steps (pasting, restoring, blending, JPEG) occur in every class, so that no trace of them gives a class away.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskdet.labels import INCORRECT, MASK, NO_MASK
from tools.incorrect.bystanders import hide_part
from tools.incorrect.frame import Floats, canonical, length, turn
from tools.incorrect.mattes import Matte, cut_mask
from tools.incorrect.placing import draw_place, face_area, put_mask
from tools.incorrect.restoring import BareFaces, restored
from tools.incorrect.sources import Face, Item, Photographs, encoded, large

SHARES = {"nose": 0.40, "chin": 0.22, "ear": 0.04, "right": 0.29, "none": 0.05}
"""Where masks are put, and the share of each place."""
_LABELS = {"right": MASK, "none": NO_MASK}

_RESTORED_SHARE = 0.5
_OWN_MASK_SHARE = 0.65
_HIDDEN_SHARE = 0.15
_MASKED_HIDDEN_SHARE = 0.25
_TWICE_HIDDEN_SHARE = 0.2
_LEAST_VISIBLE = 0.05
_LIKE_TURNED = 30
_DONOR_LENGTH_PX, _SOURCE_LENGTH_PX, _HEAD_LENGTH_PX = 13, 17, 15
_MASKS, _SOURCES, _HEADS, _CLOTHS = 700, 900, 400, 200


class Donor(NamedTuple):
    """A mask that can be put on a face, and the face that wore it."""

    face: Face
    mask: Matte


class Workshop:
    """Makes pictures of faces.

    Args:
        photographs: opens the faces' photographs.
        bare: faces without a mask, to put masks on.
        masked: faces with a mask, to cut it out or to move it.
        sources: bare faces whose lower halves replace masks.
        seed: decides which masks, sources, heads and cloths are taken.
    """

    def __init__(
        self,
        photographs: Photographs,
        bare: Sequence[Face],
        masked: Sequence[Face],
        sources: Sequence[Face],
        *,
        seed: int,
    ) -> None:
        self._photographs, self._bare, self._masked = photographs, bare, masked
        rng = np.random.default_rng([seed, 0])
        self._donors = self._cut_masks(_shuffled(masked, rng))
        self._turns = np.array([turn(donor.face.landmarks) for donor in self._donors])
        self._lengths = np.log([length(donor.face.landmarks) for donor in self._donors])
        self._sources = BareFaces(
            [
                (face.landmarks, self._framed(face))
                for face in _first(_shuffled(sources, rng), _SOURCES, _SOURCE_LENGTH_PX)
            ]
        )
        self._heads = [self._framed(face) for face in _first(_shuffled([*bare, *masked], rng), _HEADS, _HEAD_LENGTH_PX)]
        self._cloths = list(self._find_cloths(_shuffled([*bare, *masked], rng)))

    def worn(self, number: int, seed: int) -> Item:
        """A face with a mask put on it or taken off, of a kind drawn by :data:`SHARES`."""
        rng, made = np.random.default_rng([seed, 1, number]), None
        while made is None:  # a mask may land outside the picture
            made = self._worn(rng)
        return made

    def hidden(self, number: int, seed: int) -> Item:
        """A bare face, or one with a mask worn correctly, with something in front of its edge."""
        rng = np.random.default_rng([seed, 2, number])
        masked = rng.random() < _MASKED_HIDDEN_SHARE
        faces = self._masked if masked else self._bare
        face = faces[int(rng.integers(len(faces)))]
        picture, landmarks, box = self._photographs.about(face)
        pixels = hide_part(np.asarray(picture, np.float32), landmarks, self._heads, self._cloths, rng)
        if rng.random() < _TWICE_HIDDEN_SHARE:
            pixels = hide_part(pixels, landmarks, self._heads, self._cloths, rng)
        return Item(_file(pixels), box, MASK if masked else NO_MASK, "hidden", face.group, face.path)

    def _worn(self, rng: np.random.Generator) -> Item | None:
        kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        bare_again = kind == "none" or rng.random() < _RESTORED_SHARE
        own = self._donors[int(rng.integers(len(self._donors)))] if bare_again else None
        face = own.face if own else self._bare[int(rng.integers(len(self._bare)))]
        picture, landmarks, box = self._photographs.about(face)
        pixels: Floats = np.asarray(picture, np.float32)
        if own:
            source = self._sources.like(landmarks, own.mask.face, rng)
            pixels = restored(pixels, landmarks, own.mask.alpha, source)
        if kind != "none":
            mask = own.mask if own and rng.random() < _OWN_MASK_SHARE else self._like_turned(face, rng)
            pixels, alpha = put_mask(pixels, landmarks, mask, draw_place(kind, rng), rng)  # type: ignore[arg-type]
            if (alpha > 0.5).sum() < _LEAST_VISIBLE * face_area(landmarks):
                return None
        if rng.random() < _HIDDEN_SHARE:
            pixels = hide_part(pixels, landmarks, self._heads, self._cloths, rng)
        name = f"worn_{kind}_restored" if own else f"worn_{kind}"
        return Item(_file(pixels), box, _LABELS.get(kind, INCORRECT), name, face.group, face.path)

    def _like_turned(self, face: Face, rng: np.random.Generator) -> Matte:
        """A mask from a face that is turned like this one and of similar size."""
        apart = np.abs(self._lengths - np.log(max(20.0, length(face.landmarks)))).clip(0, 2)
        nearest = np.argsort(np.abs(self._turns - turn(face.landmarks)) + 0.25 * apart)
        return self._donors[int(nearest[rng.integers(min(_LIKE_TURNED, len(nearest)))])].mask

    def _cut_masks(self, faces: list[Face]) -> list[Donor]:
        donors: list[Donor] = []
        for face in large(faces, _DONOR_LENGTH_PX):
            mask = cut_mask(self._photographs.open(face.path), face.landmarks)
            if mask is not None:
                donors.append(Donor(face, mask))
            if len(donors) == _MASKS:
                break
        return donors

    def _framed(self, face: Face) -> Floats:
        picture, landmarks, _ = self._photographs.about(face)
        return canonical(picture, landmarks).astype(np.float32)

    def _find_cloths(self, faces: list[Face]) -> Iterator[Floats]:
        """Patches of what is below faces, from photographs that continue for another face's height."""
        found = 0
        for face in faces:
            left, _, right, bottom = face.box
            picture = self._photographs.open(face.path)
            height, wider = bottom - face.box[1], 0.3 * (right - left)
            if picture.height - bottom <= height:
                continue
            part = picture.crop(
                (
                    max(0, int(left - wider)),
                    int(bottom + 0.4 * height),
                    min(picture.width, int(right + wider)),
                    min(picture.height, int(bottom + 1.4 * height)),
                )
            )
            if min(part.size) > 30:
                found += 1
                yield np.asarray(part.resize((96, 96), Image.Resampling.BOX), np.float32)
            if found == _CLOTHS:
                return


def _shuffled(faces: Sequence[Face], rng: np.random.Generator) -> list[Face]:
    """Faces in a random order that does not depend on the order in which they came."""
    ordered = sorted(faces, key=lambda face: (zlib.crc32(face.path.encode()), face.path))
    return [ordered[index] for index in rng.permutation(len(ordered))]


def _first(faces: list[Face], count: int, least_px: float) -> list[Face]:
    return list(large(faces, least_px))[:count]


def _file(pixels: Floats) -> bytes:
    return encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
