"""From an image file to crops of the faces in it: the other way beside :class:`maskdet.faces.extraction.WholeImage`."""

from __future__ import annotations

import dataclasses
from typing import Any

from PIL import Image

from maskdet.config import FacesSettings, ResolvedFaces
from maskdet.errors import FailureCode, ImageFault
from maskdet.faces.bundle import open_detector
from maskdet.faces.crops import CropOptions, crop_face
from maskdet.faces.detector import RULES, Detector, load_detector
from maskdet.faces.extraction import FaceBox, FaceView, StageClock, View, Viewer, WholeImage
from maskdet.faces.network import runtime_version
from maskdet.images.codecs import PILLOW, Codecs
from maskdet.images.preprocessing import ImageLimits, decode_upright
from maskdet.model.manifest import InputSpec

# The classifier is as sure of a face of this size as of a larger one, and the detector finds smaller ones.
_SMALLEST_CROP_PX = 32


def make_viewer(
    settings: ResolvedFaces,
    spec: InputSpec,
    limits: ImageLimits,
    *,
    jpeg_draft: bool,
    threads: int,
    codecs: Codecs = PILLOW,
) -> Viewer:
    """What finds the faces of a run's images.

    Args:
        settings: the run's.
        spec: the model's input.
        limits: byte and pixel limits.
        jpeg_draft: decode JPEGs at reduced scale where allowed.
        threads: images that are searched concurrently.
        codecs: who decodes, and resizes whole images.

    Raises:
        ModelError: the detector's bundle is missing or damaged, or does not reproduce its golden outputs.
    """
    if settings.mode == "whole":
        return WholeImage(spec, limits, jpeg_draft=jpeg_draft, codecs=codecs)
    detector = load_detector(settings, threads=threads)
    return DetectedFaces(detector, spec, settings, limits, jpeg_draft=jpeg_draft, codecs=codecs)


def view_identity(settings: ResolvedFaces) -> dict[str, Any]:
    """Everything that the faces found in an image depend on, as JSON; part of a run's fingerprint.

    Raises:
        ModelError: the detector's bundle is missing or damaged.
    """
    if settings.mode == "whole":
        return {"mode": settings.mode}
    return {
        **settings.model_dump(mode="json"),
        "detector": open_detector().manifest.fingerprint,
        "runtime": runtime_version(),
        "crop": dataclasses.asdict(CropOptions()),
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
    return (
        f"detect: faces of {settings.min_face_px} px up, by {open_detector().manifest.model_id} from score "
        f"{settings.min_score:g}; images without one count as {without}"
    )


class DetectedFaces:
    """Finds the faces of an image and crops each, from the decoded image, to the model's size.

    Args:
        detector: finds faces.
        spec: the model's input.
        settings: what an image without a face counts as; the rest the detector knows.
        limits: byte and pixel limits.
        jpeg_draft: decode JPEGs at reduced scale where the smallest face asked for stays large enough to be found.
        codecs: who decodes, and resizes images without a face.
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
        upright = decode_upright(data, self._limits, reduce=self._reduction(), codecs=self._codecs)
        image, width_px, height_px = upright.image, upright.width_px, upright.height_px
        clock.stop("decode")
        faces = self._faces(image, width_px / image.width, height_px / image.height)
        if not faces and self._settings.if_none == "whole":
            spec = self._spec
            faces = (FaceView(self._codecs.resize(image, spec.width, spec.height, spec.resize_filter)),)
        clock.stop("detect")
        return View(width_px, height_px, faces, upright.damaged)

    def _reduction(self) -> int:
        """How far a JPEG may be reduced in decoding."""
        return max(1, self._settings.min_face_px // _SMALLEST_CROP_PX) if self._jpeg_draft else 1

    def _faces(self, image: Image.Image, across: float, down: float) -> tuple[FaceView, ...]:
        """Faces, with boxes in pixels of the upright original, which is so many times as wide and high."""
        try:
            found = self._detector.detect(image, reduced_by=max(across, down))
        except Exception as error:  # the runtime raises whatever it likes for one image
            fault = ImageFault(FailureCode.INFERENCE_ERROR, f"the face detector raised {type(error).__name__}")
            raise fault from error
        views = []
        for box, score, landmarks in zip(found.boxes, found.scores, found.landmarks, strict=True):
            pixels = crop_face(image, box, landmarks, self._spec.height, self._spec.width)
            left, top, right, bottom = (float(edge) for edge in box)
            place = FaceBox(left * across, top * down, (right - left) * across, (bottom - top) * down)
            views.append(FaceView(pixels, place, float(score)))
        return tuple(views)
