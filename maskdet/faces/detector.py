"""From an image to its faces.

Each image is searched on its own, on canvases that follow from its size and from what was seen in it, so that its faces
are the same, bit for bit, whatever else a run contains and however many threads it has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdet.config import FacesSettings
from maskdet.faces.boxes import suppress
from maskdet.faces.bundle import BUILTIN_FOLDER, DetectorManifest, open_detector
from maskdet.faces.decoding import Detections, join
from maskdet.faces.looks import (
    SMALL_PX,
    Look,
    finer_looks,
    finer_scale,
    first_scale,
    mirrored_overview,
    overview,
    whole_look,
)
from maskdet.faces.network import open_network
from maskdet.images.codecs import PILLOW, Codecs

MAX_IOU = 0.3
"""Boxes that overlap more count as one face; the value with which CenterFace was published."""

MAX_INSIDE = 0.8
"""A box with this share inside a surer one is a detail of it: eyes and valves of faces in large photographs."""

SMALLEST_BOX = 0.9
"""Smallest box, as a share of ``min_face_px``; smaller ones are patches of texture."""

LARGE_PX = 40.0
"""Longer side of a large box, in pixels of the canvas."""

FILLING = 0.4
"""Share of an image's longer side from which a box fills it; the overview only looks for such boxes."""

SURE = 0.7
"""Score of a face from which an image needs no overview: besides such a face, the overview found no other
(docs/decisions/046-middle-detector.md)."""

RULES = {
    "max_iou": MAX_IOU,
    "max_inside": MAX_INSIDE,
    "smallest_box": SMALLEST_BOX,
    "large_px": LARGE_PX,
    "filling": FILLING,
    "sure": SURE,
}
"""All of the above; part of a run's fingerprint. The detector's bundle says which scores are needed."""

FINER_LOOKS = {"fast": 0, "balanced": 1, "fine": 8}
"""Finer looks for each ``detail``; the last is as many as any image can use."""

DEFAULT_SETTINGS = FacesSettings()

# Suppression compares every box that stays with all others; with more boxes, an image is noise.
_MAX_CANDIDATES = 5000
_MAX_SUGGESTED = 500
_GREY = 110
# Eyes, nose, corners of the mouth: of each pair, the one on the left of the image comes first.
_MIRRORED_LANDMARKS = (1, 0, 2, 4, 3)
# A box this close to a look's inner edge is cut by that edge.
_EDGE_PX = 2.0
# A finer look is asked for faces somewhat larger than those that it was made for.
_FINER_UP_TO = 1.5
# Centres this close to a finer look's inner edge, in pixels of the look before, are left to the look before.
_MARGIN_PX = 8.0


class CanvasNetwork(Protocol):
    """A network that looks at canvases; may be called from several threads."""

    @property
    def manifest(self) -> DetectorManifest:
        """Its bundle's manifest."""
        ...

    def detect(self, canvas: NDArray[np.uint8], min_score: float) -> Detections:
        """Boxes in pixels of a canvas, uint8 RGB ``(height, width, 3)``, before suppression."""
        ...


class Detector:
    """Finds faces; may be called from several threads.

    Args:
        network: what looks at canvases.
        settings: smallest face, detail, threshold and most faces.
        codecs: who resizes.
    """

    def __init__(
        self, network: CanvasNetwork, settings: FacesSettings = DEFAULT_SETTINGS, codecs: Codecs = PILLOW
    ) -> None:
        self._network, self._codecs = network, codecs
        self.settings = settings
        self._rule = network.manifest.score_rule
        self.min_score = settings.min_score or self._rule.min_score

    @property
    def manifest(self) -> DetectorManifest:
        """The bundle's manifest."""
        return self._network.manifest

    def detect(self, image: NDArray[np.uint8] | Image.Image, *, reduced_by: float = 1.0) -> Detections:
        """Find the faces in an image.

        Args:
            image: upright RGB, uint8 ``(height, width, 3)`` or a Pillow image.
            reduced_by: how much larger the original is, to whose pixels the smallest face refers.

        Returns:
            Faces in pixels of the image, boxes clipped to it, by falling score (equal scores: from the top left).
        """
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        width, height = picture.size
        min_face_px = self.settings.min_face_px / reduced_by
        scale = first_scale(width, height)
        found = self._look(picture, whole_look(width, height, scale))
        for _ in range(FINER_LOOKS[self.settings.detail]):
            finer = finer_scale(scale, min_face_px)
            small = found.take(_sides(found) * scale < SMALL_PX)
            if finer is None or len(small.scores) == 0:
                break
            found, scale = self._finer(picture, found, small, scale, finer), finer
        found = found.take(found.scores >= self._least(found))
        if not np.any(found.scores >= SURE):
            found = join([found, self._filling(picture, overview(width, height))])
        if len(found.scores) == 0:
            found = self._filling(picture, mirrored_overview(width, height))
        return _finish(found, (width, height), min_face_px, self.settings.max_faces)

    def _filling(self, picture: Image.Image, look: Look) -> Detections:
        """Faces that fill an image, by an overview."""
        seen = self._look(picture, look)
        seen = seen.take(_sides(seen) >= FILLING * max(picture.size))
        return seen.take(seen.scores >= self.min_score**self._rule.filling_power)

    def _finer(
        self, picture: Image.Image, found: Detections, small: Detections, scale: float, finer: float
    ) -> Detections:
        """What was found, with small faces replaced by what finer looks found."""
        width, height = picture.size
        order = np.lexsort((small.boxes[:, 0], small.boxes[:, 1], -small.scores))[:_MAX_SUGGESTED]
        small = small.take(order)
        small = small.take(suppress(small.boxes, small.scores, MAX_IOU))
        keep, parts = np.ones(len(found.scores), bool), []
        for look in finer_looks(width, height, small.boxes, scale, finer):
            seen = self._look(picture, look)
            parts.append(seen.take(_sides(seen) * scale < _FINER_UP_TO * SMALL_PX))
            keep &= ~(_within(found, look, (width, height), _MARGIN_PX / scale) & (_sides(found) * scale < SMALL_PX))
        return join([found.take(keep), *parts])

    def _least(self, found: Detections) -> NDArray[np.float64]:
        """The least score for each."""
        powers: NDArray[np.float64] = np.where(found.canvas_px >= LARGE_PX, self._rule.large_power, 1.0)
        least: NDArray[np.float64] = np.power(self.min_score, powers)
        return least

    def _look(self, picture: Image.Image, look: Look) -> Detections:
        """Faces on one canvas, in pixels of the image."""
        canvas = self._canvas(picture, look)
        if look.mirrored:
            seen = _mirrored(self._network.detect(canvas[:, ::-1], self._rule.suggested), canvas.shape[1])
        else:
            seen = self._network.detect(canvas, self._rule.suggested)
        seen = seen.take(_uncut(seen, look, picture.size))
        scale = np.array(look.scale, np.float32)
        corner = np.array([look.left, look.top], np.float32) - look.border / scale
        boxes = (seen.boxes / np.tile(scale, 2) + np.tile(corner, 2)).astype(np.float32)
        landmarks = (seen.landmarks / scale + corner).astype(np.float32)
        return Detections(boxes, seen.scores, landmarks, _sides(seen))

    def _canvas(self, picture: Image.Image, look: Look) -> NDArray[np.uint8]:
        """A look's pixels, uint8 ``(height, width, 3)``, with its border."""
        part = picture
        if (look.width, look.height) != picture.size:
            part = picture.crop((look.left, look.top, look.left + look.width, look.top + look.height))
        resized = self._codecs.resize(part, look.across, look.down, "bilinear")
        if look.border == 0:
            return resized
        canvas = np.full((look.down + 2 * look.border, look.across + 2 * look.border, 3), _GREY, np.uint8)
        canvas[look.border : -look.border, look.border : -look.border] = resized
        return canvas


def load_detector(
    settings: FacesSettings = DEFAULT_SETTINGS,
    *,
    folder: Path = BUILTIN_FOLDER,
    threads: int = 1,
    codecs: Codecs = PILLOW,
) -> Detector:
    """Open, verify and warm up a detector.

    Args:
        settings: smallest face, detail, threshold and most faces.
        folder: the bundle; by default the one that ships with the package.
        threads: canvases that run concurrently, one thread each.
        codecs: who resizes.

    Raises:
        ModelError: the bundle is missing, damaged, or does not reproduce its golden outputs.
    """
    return Detector(open_network(open_detector(folder), threads), settings, codecs)


def _sides(faces: Detections) -> NDArray[np.float32]:
    """Longer side of each box."""
    sides: NDArray[np.float32] = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1, initial=0)
    return sides


def _mirrored(faces: Detections, across: int) -> Detections:
    """Faces of a mirrored canvas of some width, as they are on the canvas itself."""
    left, top, right, bottom = faces.boxes.T
    boxes = np.stack([across - right, top, across - left, bottom], axis=1)
    landmarks = (faces.landmarks * np.array([-1, 1]) + np.array([across, 0]))[:, _MIRRORED_LANDMARKS]
    return faces._replace(boxes=boxes, landmarks=landmarks.astype(np.float32))


def _uncut(faces: Detections, look: Look, whole: tuple[int, int]) -> NDArray[np.bool_]:
    """Which faces are not cut by an inner edge of the look."""
    left, top, right, bottom = faces.boxes.T
    keep = np.ones(len(faces.scores), bool)
    if look.left > 0:
        keep &= left > _EDGE_PX
    if look.top > 0:
        keep &= top > _EDGE_PX
    if look.left + look.width < whole[0]:
        keep &= right < look.across - _EDGE_PX
    if look.top + look.height < whole[1]:
        keep &= bottom < look.down - _EDGE_PX
    return keep


def _within(faces: Detections, look: Look, whole: tuple[int, int], margin: float) -> NDArray[np.bool_]:
    """Which faces' centres are in a look, at some distance from its inner edges."""
    x, y = ((faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2).T
    right, bottom = look.left + look.width, look.top + look.height
    inside: NDArray[np.bool_] = (
        (x >= look.left + margin * (look.left > 0))
        & (y >= look.top + margin * (look.top > 0))
        & (x <= right - margin * (right < whole[0]))
        & (y <= bottom - margin * (bottom < whole[1]))
    )
    return inside


def _finish(found: Detections, size: tuple[int, int], min_face_px: float, max_faces: int) -> Detections:
    """Clip, drop what is too small, suppress, order, and keep the best."""
    boxes = np.clip(found.boxes, 0, np.array([*size, *size], np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    # min_face_px is what users want to have counted; a face of just that size must not be lost to a box that is too
    # tight.
    large = (sides.max(axis=1, initial=0) >= SMALLEST_BOX * min_face_px) & (sides.min(axis=1, initial=1) > 0)
    order = np.lexsort((boxes[:, 0], boxes[:, 1], -found.scores))
    order = order[large[order]][:_MAX_CANDIDATES]
    clipped = found._replace(boxes=boxes).take(order)
    kept = suppress(clipped.boxes, clipped.scores, MAX_IOU, MAX_INSIDE)
    return clipped.take(kept[:max_faces])
