"""From an image file to the faces that the model sees.

One way treats the image as one face; the other is in :mod:`maskdet.faces.detection`. A view depends on the image and
the settings alone.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from maskdet.images.codecs import PILLOW, Codecs, Pixels
from maskdet.images.preprocessing import ImageLimits, check_size, prepare_image
from maskdet.model.backends import Images
from maskdet.model.manifest import InputSpec
from maskdet.tables.results import StageSeconds


class FaceBox(NamedTuple):
    """Where a face is in the upright image, in pixels."""

    left: float
    top: float
    width: float
    height: float


class FaceView(NamedTuple):
    """What the model sees of a face."""

    pixels: Images
    """uint8 RGB ``(height, width, 3)`` in the model's size."""
    box: FaceBox | None = None
    """``None`` where the whole image is the face."""
    score: float | None = None
    """The detector's score; ``None`` where it was not used or found nothing."""


class View(NamedTuple):
    """What the model sees of an image."""

    width_px: int
    """Width of the upright original."""
    height_px: int
    faces: tuple[FaceView, ...]
    damaged: bool = False
    """Whether it is the rest of a damaged file."""


class StageClock:
    """Adds up what one thread spends in each stage."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._since = 0.0

    @property
    def seconds(self) -> StageSeconds:
        """What was counted so far."""
        return StageSeconds(**self._spent)

    def start(self) -> None:
        """Begin to count."""
        self._since = time.perf_counter()

    def stop(self, stage: str) -> None:
        """Attribute the time since the last start or stop to a stage."""
        now = time.perf_counter()
        self._spent[stage] = self._spent.get(stage, 0.0) + now - self._since
        self._since = now


class Viewer(Protocol):
    """Finds the faces in an image file; may be called from several threads."""

    def __call__(self, data: bytes, clock: StageClock) -> View:
        """View an image.

        Args:
            data: the file's bytes.
            clock: counts the stages; running.

        Raises:
            ImageFault: the image cannot be decoded.
        """
        ...

    def of_picture(self, picture: Pixels, clock: StageClock) -> View:
        """View a picture that is already decoded, such as a frame of a video.

        Args:
            picture: uint8 RGB ``(height, width, 3)``, upright.
            clock: counts the stages; running.

        Raises:
            ImageFault: the picture is too large or too small.
        """
        ...


class WholeImage:
    """Treats an image as one face, resized without keeping its aspect ratio.

    Args:
        spec: the model's input.
        limits: byte and pixel limits.
        jpeg_draft: decode JPEGs at reduced scale where allowed.
        codecs: who decodes and resizes.
    """

    def __init__(self, spec: InputSpec, limits: ImageLimits, *, jpeg_draft: bool, codecs: Codecs = PILLOW) -> None:
        self._spec, self._limits, self._jpeg_draft, self._codecs = spec, limits, jpeg_draft, codecs

    def __call__(self, data: bytes, clock: StageClock) -> View:
        """View an image as one face."""
        image = prepare_image(
            data,
            self._spec.height,
            self._spec.width,
            self._limits,
            resize_filter=self._spec.resize_filter,
            jpeg_draft=self._jpeg_draft,
            codecs=self._codecs,
        )
        clock.stop("decode")
        return View(image.width_px, image.height_px, (FaceView(image.pixels),), image.damaged)

    def of_picture(self, picture: Pixels, clock: StageClock) -> View:
        """View a picture as one face."""
        height, width = picture.shape[:2]
        check_size((width, height), self._limits)
        spec = self._spec
        pixels = self._codecs.resize(picture, spec.width, spec.height, spec.resize_filter)
        clock.stop("decode")
        return View(width, height, (FaceView(pixels),))
