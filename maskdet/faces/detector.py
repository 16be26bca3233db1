"""An image to its faces.

An image is looked at alone, on canvases whose sizes follow from its own, so that its faces are the same, bit for bit,
whatever else a run holds and however many threads it has.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdet.config import FacesSettings
from maskdet.faces.boxes import suppress
from maskdet.faces.bundle import BUILTIN_FOLDER, DetectorManifest, open_detector
from maskdet.faces.decoding import Detections, decode, join
from maskdet.faces.network import Network
from maskdet.faces.tiling import Level, Tile, plan_levels

MAX_IOU = 0.3
"""Boxes that overlap more count as one face; the value that CenterFace was published with."""

MAX_INSIDE = 0.8
"""A box that lies inside a surer one by this part is a detail of it: eyes and valves of faces in large photographs."""

SMALLEST_BOX = 0.9
"""Smallest box, as a part of ``min_face_px``; smaller ones are patches of texture."""

LARGE_PX = 64.0
"""Longer side of a large box, in pixels of the canvas."""

LARGE_SCORE = 1.12
"""What a large box's score has to reach, as a multiple of ``min_score``: faces of this size are surer by far."""

FILLING = 0.5
"""Part of an image's longer side from which a box fills it."""

FILLING_SCORE = 0.88
"""The same multiple for boxes that fill an image: close portraits have unsure faces, and little else to mistake."""

RULES = {
    "max_iou": MAX_IOU,
    "max_inside": MAX_INSIDE,
    "smallest_box": SMALLEST_BOX,
    "large": [LARGE_PX, LARGE_SCORE],
    "filling": [FILLING, FILLING_SCORE],
}
"""All of the above; part of a run's fingerprint."""

DEFAULT_SETTINGS = FacesSettings()

# Suppression compares every box that stays with all others; beyond so many, an image is noise.
_MAX_CANDIDATES = 5000
_GREY = 110
# A box this close to a tile's inner edge is one that the edge cuts.
_EDGE_PX = 1.0


class Detector:
    """Finds faces; safe to call from several threads.

    Args:
        network: what looks at canvases.
        settings: smallest face, threshold and most faces.
    """

    def __init__(self, network: Network, settings: FacesSettings = DEFAULT_SETTINGS) -> None:
        self._network = network
        self.settings = settings

    @property
    def manifest(self) -> DetectorManifest:
        """What the bundle says of itself."""
        return self._network.manifest

    def detect(self, image: NDArray[np.uint8] | Image.Image, *, reduced_by: float = 1.0) -> Detections:
        """Find the faces of an image.

        Args:
            image: upright RGB, uint8 ``(height, width, 3)`` or a Pillow image.
            reduced_by: how much larger the original is, whose pixels the smallest face is given in.

        Returns:
            Faces in pixels of the image, boxes clipped to it, by falling score (equal scores: from the top left).
        """
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        min_face_px = self.settings.min_face_px / reduced_by
        levels = plan_levels(picture.width, picture.height, min_face_px)
        found = join([part for level in levels for part in self._look(picture, level)])
        return _finish(found, picture.size, min_face_px, self.settings.max_faces)

    def _look(self, picture: Image.Image, level: Level) -> list[Detections]:
        """Faces at one scale, in pixels of the image."""
        size = (level.width, level.height)
        pixels = np.asarray(picture.resize(size, Image.Resampling.BILINEAR) if picture.size != size else picture)
        scale = np.array([picture.width / level.width, picture.height / level.height], np.float32)
        found = []
        for tile in level.tiles:
            faces = decode(self._network.run(_canvas(pixels, tile, level)), FILLING_SCORE * self.settings.min_score)
            faces = faces.take(
                _uncut(faces, tile, level) & _of_level(faces, level) & _sure(faces, level, self.settings.min_score)
            )
            corner = np.array([tile.left, tile.top], np.float32)
            boxes = (faces.boxes + np.tile(corner, 2)) * np.tile(scale, 2)
            found.append(Detections(boxes, faces.scores, (faces.landmarks + corner) * scale))
        return found


def load_detector(
    settings: FacesSettings = DEFAULT_SETTINGS, *, folder: Path = BUILTIN_FOLDER, threads: int = 1
) -> Detector:
    """Open, verify and warm up a detector.

    Args:
        settings: smallest face, threshold and most faces.
        folder: the bundle; by default the one that ships with the package.
        threads: canvases that run concurrently, one thread each.

    Raises:
        ModelError: the bundle is missing, damaged, or does not reproduce its golden outputs.
    """
    return Detector(Network(open_detector(folder), threads), settings)


def _canvas(pixels: NDArray[np.uint8], tile: Tile, level: Level) -> NDArray[np.uint8]:
    """A tile's pixels, uint8 ``(height, width, 3)``, with the level's border."""
    if level.border == 0:
        return pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
    canvas = np.full((tile.height, tile.width, 3), _GREY, np.uint8)
    canvas[level.border : -level.border, level.border : -level.border] = pixels
    return canvas


def _uncut(faces: Detections, tile: Tile, level: Level) -> NDArray[np.bool_]:
    """Which faces no inner edge of the tile cuts."""
    left, top, right, bottom = faces.boxes.T
    keep = np.ones(len(faces.scores), bool)
    if tile.left > 0:
        keep &= left > _EDGE_PX
    if tile.top > 0:
        keep &= top > _EDGE_PX
    if tile.left + tile.width < level.width:
        keep &= right < tile.width - _EDGE_PX
    if tile.top + tile.height < level.height:
        keep &= bottom < tile.height - _EDGE_PX
    return keep


def _of_level(faces: Detections, level: Level) -> NDArray[np.bool_]:
    """Which faces are of a size that this scale is to find."""
    sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1, initial=0)
    within: NDArray[np.bool_] = (sides >= level.faces_px[0]) & (sides <= level.faces_px[1])
    return within


def _sure(faces: Detections, level: Level, min_score: float) -> NDArray[np.bool_]:
    """Which faces' scores reach what their size asks for."""
    sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1, initial=0)
    filling = sides >= FILLING * max(level.width, level.height)
    least = min_score * np.where(filling, FILLING_SCORE, np.where(sides >= LARGE_PX, LARGE_SCORE, 1.0))
    sure: NDArray[np.bool_] = faces.scores >= least
    return sure


def _finish(found: Detections, size: tuple[int, int], min_face_px: float, max_faces: int) -> Detections:
    """Clip, drop what is too small, suppress, order, and keep the best."""
    boxes = np.clip(found.boxes, 0, np.array([*size, *size], np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    # min_face_px is what users want to see counted; a face of just that size must not fall to a box drawn too tight.
    large = (sides.max(axis=1) >= SMALLEST_BOX * min_face_px) & (sides.min(axis=1) > 0)
    order = np.lexsort((boxes[:, 0], boxes[:, 1], -found.scores))
    order = order[large[order]][:_MAX_CANDIDATES]
    clipped = Detections(boxes, found.scores, found.landmarks).take(order)
    kept = suppress(clipped.boxes, clipped.scores, MAX_IOU, MAX_INSIDE)
    return clipped.take(kept[:max_faces])
