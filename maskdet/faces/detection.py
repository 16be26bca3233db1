"""From an image file to crops of the faces in it; the alternative to :class:`maskdet.faces.extraction.WholeImage`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from maskdet.config import FacesSettings
from maskdet.errors import FailureCode, ImageFault
from maskdet.faces.boxes import Floats
from maskdet.faces.bundle import BUILTIN_FOLDER, DetectorManifest, open_detector
from maskdet.faces.crops import CropOptions, crop_face
from maskdet.faces.decoding import Detections
from maskdet.faces.detector import FINER_LOOKS, RULES, Detector, load_detector
from maskdet.faces.extraction import FaceBox, FaceView, StageClock, View, Viewer, WholeImage
from maskdet.faces.looks import LOOKS, finest_scale
from maskdet.faces.network import runtime_version
from maskdet.images.codecs import PILLOW, Codecs, Pixels
from maskdet.images.preprocessing import ImageLimits, UprightImage, check_size, decode_upright
from maskdet.model.manifest import InputSpec
from maskdet.resolved import ResolvedFaces

# A face that is smaller than this in a reduced JPEG is cut out of the full one.
_REDUCED_CROP_PX = 64
_REDUCTIONS = (8, 4, 2)


def make_viewer(
    settings: ResolvedFaces,
    spec: InputSpec,
    limits: ImageLimits,
    *,
    jpeg_draft: bool,
    threads: int,
    codecs: Codecs = PILLOW,
) -> Viewer:
    """What finds the faces in a run's images.

    Args:
        settings: the run's.
        spec: the model's input.
        limits: byte and pixel limits.
        jpeg_draft: decode JPEGs at reduced scale where allowed.
        threads: how many images are searched concurrently.
        codecs: who decodes and resizes.

    Raises:
        ModelError: the detector's bundle is missing or damaged, or does not reproduce its golden outputs.
    """
    if settings.mode == "whole":
        return WholeImage(spec, limits, jpeg_draft=jpeg_draft, codecs=codecs)
    detector = load_detector(settings, folder=detector_folder(settings), threads=threads, codecs=codecs)
    return DetectedFaces(detector, spec, settings, limits, jpeg_draft=jpeg_draft, codecs=codecs)


def view_identity(settings: ResolvedFaces) -> dict[str, Any]:
    """Everything on which the faces found in an image depend, as JSON; part of a run's fingerprint.

    Raises:
        ModelError: the detector's bundle is missing or damaged.
    """
    if settings.mode == "whole":
        return {"mode": settings.mode}
    manifest = _manifest(settings)
    return {
        **settings.model_dump(mode="json"),
        "detector": manifest.fingerprint,
        "runtime": runtime_version(manifest),
        "crop": dataclasses.asdict(CropOptions()),
        "looks": LOOKS,
        "reduced_crop_px": _REDUCED_CROP_PX,
        **RULES,
    }


def describe_view(settings: ResolvedFaces) -> str:
    """Where the faces come from, in words.

    Raises:
        ModelError: the detector's bundle is missing or damaged.
    """
    if settings.mode == "whole":
        return "whole: each image is one face"
    without = "no_face" if settings.if_none == "no_face" else "one face that fills them"
    manifest = _manifest(settings)
    return (
        f"detect, {settings.detail}: faces of {settings.min_face_px} px up, by {manifest.model_id} from score "
        f"{settings.min_score or manifest.score_rule.min_score:g}; images without one count as {without}"
    )


def detector_folder(settings: FacesSettings) -> Path:
    """Where the detector's bundle is on this machine."""
    return BUILTIN_FOLDER if settings.detector == "builtin" else Path(settings.detector)


def _manifest(settings: FacesSettings) -> DetectorManifest:
    return open_detector(detector_folder(settings)).manifest


class DetectedFaces:
    """Finds the faces of an image and crops each, from the decoded image, to the model's size.

    Args:
        detector: finds faces.
        spec: the model's input.
        settings: what an image without a face counts as; the detector has the rest.
        limits: byte and pixel limits.
        jpeg_draft: decode JPEGs at reduced scale where no look needs more.
        codecs: who decodes and resizes.
    """

    def __init__(
        self,
        detector: Detector,
        spec: InputSpec,
        settings: FacesSettings,
        limits: ImageLimits,
        *,
        jpeg_draft: bool,
        codecs: Codecs = PILLOW,
    ) -> None:
        self._detector, self._spec, self._settings = detector, spec, settings
        self._limits, self._jpeg_draft, self._codecs = limits, jpeg_draft, codecs

    def __call__(self, data: bytes, clock: StageClock) -> View:
        """View an image as the faces in it, the surest first."""
        upright = decode_upright(data, self._limits, reduce=self._reduction, codecs=self._codecs).in_pillow()
        clock.stop("decode")
        found = self._find(upright)
        clock.stop("detect")
        if _reduced(upright) and _longer_sides(found).min(initial=np.inf) < _REDUCED_CROP_PX:
            whole = decode_upright(data, self._limits, codecs=self._codecs).in_pillow()
            found, upright = _scaled(found, whole.image.width / upright.image.width), whole
            clock.stop("decode")
        return self._view(upright, found, clock)

    def of_picture(self, picture: Pixels, clock: StageClock) -> View:
        """View a picture as the faces in it, the surest first."""
        height, width = picture.shape[:2]
        check_size((width, height), self._limits)
        upright = UprightImage(picture, width, height).in_pillow()
        return self._view(upright, self._find(upright), clock)

    def _view(self, upright: UprightImage, found: Detections, clock: StageClock) -> View:
        faces = self._faces(upright, found)
        if not faces and self._settings.if_none == "whole":
            spec = self._spec
            faces = (FaceView(self._codecs.resize(upright.image, spec.width, spec.height, spec.resize_filter)),)
        clock.stop("detect")
        return View(upright.width_px, upright.height_px, faces, upright.damaged)

    def _reduction(self, width: int, height: int) -> int:
        """How far a JPEG of some size may be reduced in decoding: as far as the finest look allows."""
        if not self._jpeg_draft:
            return 1
        finest = finest_scale(width, height, self._settings.min_face_px, FINER_LOOKS[self._settings.detail])
        return next((factor for factor in _REDUCTIONS if factor * finest <= 1), 1)

    def _find(self, upright: UprightImage) -> Detections:
        """Faces in pixels of the decoded image, which may be smaller than the original."""
        image = upright.image
        reduced_by = max(upright.width_px / image.width, upright.height_px / image.height)
        try:
            return self._detector.detect(image, reduced_by=reduced_by)
        except Exception as error:  # the runtime may raise any error for an image
            fault = ImageFault(FailureCode.INFERENCE_ERROR, f"the face detector raised {type(error).__name__}")
            raise fault from error

    def _faces(self, upright: UprightImage, found: Detections) -> tuple[FaceView, ...]:
        """Crops of an image's faces, with boxes in pixels of the upright original."""
        image = upright.image
        across, down = upright.width_px / image.width, upright.height_px / image.height
        views = []
        for box, score, landmarks in zip(found.boxes, found.scores, found.landmarks, strict=True):
            pixels = crop_face(image, box, landmarks, self._spec.height, self._spec.width)
            left, top, right, bottom = (float(edge) for edge in box)
            place = FaceBox(left * across, top * down, (right - left) * across, (bottom - top) * down)
            views.append(FaceView(pixels, place, float(score)))
        return tuple(views)


def _reduced(upright: UprightImage) -> bool:
    return upright.image.width < upright.width_px


def _longer_sides(found: Detections) -> Floats:
    sides: Floats = (found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1, initial=0)
    return sides


def _scaled(found: Detections, factor: float) -> Detections:
    """Faces of a reduced image in pixels of the whole one."""
    scale = np.float32(factor)
    return found._replace(boxes=found.boxes * scale, landmarks=found.landmarks * scale)
