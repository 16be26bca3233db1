"""A model in a user's program: from single images to typed predictions, by the same steps as a scoring run."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdet import storage
from maskdet.config import FacesSettings, ScoreSettings
from maskdet.errors import ConfigError, FailureCode, ImageFault
from maskdet.faces.detection import make_viewer
from maskdet.faces.extraction import FaceBox, StageClock, Viewer
from maskdet.images.codecs import load_codecs, resolve_codecs
from maskdet.images.preprocessing import ImageLimits
from maskdet.inputs.references import ImageRef, Shard
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import INCORRECT, MASK, NO_MASK, Decision
from maskdet.model.backends import Model, load_model
from maskdet.model.bundle import read_manifest
from maskdet.model.manifest import InputSpec, Manifest
from maskdet.resolved import ResolvedFaces
from maskdet.scoring.scorer import ScoreOptions, Scorer, load_viewer
from maskdet.scoring.setup import resolve_decision, resolve_settings, runtime_spec, score_options

ImageLike = NDArray[np.uint8] | Image.Image | str | os.PathLike[str] | bytes
"""An image: pixels uint8 ``(height, width, 3)`` or grey ``(height, width)``, upright; a Pillow image; a path or URI of
any storage; or the bytes of an image file."""

# Images that are scored, and in memory, together.
_CHUNK_IMAGES = 64
_MEMORY = "memory:"
_EXIF_ORIENTATION = 0x0112
# Any size will do: only the faces' positions are wanted.
_ANY_INPUT = InputSpec(height=8, width=8)


class Face(NamedTuple):
    """A face that was found."""

    box: FaceBox
    """In pixels of the upright image."""
    score: float
    """The detector's score, 0 to 1."""


class FacePrediction(NamedTuple):
    """A model's prediction for a face."""

    label: str
    """``mask``, ``incorrect``, ``no_mask`` or ``uncertain``, by the model's decision thresholds."""
    probabilities: dict[str, float]
    """Class → probability; they add up to 1."""
    box: FaceBox | None
    """In pixels of the upright image; ``None`` where the whole image is the face."""
    score: float | None
    """The detector's score; ``None`` where it was not used."""


class ImagePrediction(NamedTuple):
    """A model's prediction for an image."""

    faces: tuple[FacePrediction, ...]
    """Surest first; empty for an image without a face, or that cannot be decoded."""
    width_px: int | None
    """Of the upright image; ``None`` where it cannot be decoded."""
    height_px: int | None
    fault: ImageFault | None
    """Why the image could not be scored."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the faces, in order."""
        return tuple(face.label for face in self.faces)


class FaceModel:
    """A loaded model; may be used from several threads.

    Args:
        model: gives faces' probabilities.
        options: limits, thresholds, threads.
        viewer: finds the faces of an image; default: the options'.
    """

    def __init__(self, model: Model, options: ScoreOptions, viewer: Viewer | None = None) -> None:
        self._model = model
        self._source = _Source()
        self._scorer = Scorer(model, options, viewer, read=self._source)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._model.manifest

    @property
    def decision(self) -> Decision:
        """The thresholds of the labels."""
        return self._scorer.options.decision

    def predict(self, images: Iterable[ImageLike]) -> list[ImagePrediction]:
        """Predict the faces in images.

        Args:
            images: see :data:`ImageLike`; kinds may be mixed. They are decoded, limited and turned upright as in a run.

        Returns:
            One prediction per image, in order. An image that cannot be read or decoded gets a ``fault``, and does not
            affect the others.

        Raises:
            ConfigError: an image is given in an unknown form, such as an array of floats.
        """
        if isinstance(images, str | bytes | os.PathLike | Image.Image):
            remedy = "Put a single image into a list: predict([image])."
            raise ConfigError("images", "a sequence of images", type(images).__name__, remedy)
        iterator = iter(images)
        predictions: list[ImagePrediction] = []
        while chunk := list(itertools.islice(iterator, _CHUNK_IMAGES)):
            predictions += self._predict(chunk)
        return predictions

    def _predict(self, images: Sequence[ImageLike]) -> Iterator[ImagePrediction]:
        uris = [self._source.add(image) for image in images]
        refs = tuple(ImageRef(uri, -1, "") for uri in dict.fromkeys(uris))
        try:
            result = self._scorer.score_shard(Shard("predict", "", (), refs))
        finally:
            self._source.drop(uris)
        found = {uri: ImagePrediction((), None, None, None) for uri in uris}
        for row in result.no_face.to_pylist():
            found[row["image_uri"]] = ImagePrediction((), row["width_px"], row["height_px"], None)
        for row in result.failures.to_pylist():
            fault = ImageFault(FailureCode(row["code"]), row["message"], row["attempts"])
            found[row["image_uri"]] = ImagePrediction((), None, None, fault)
        for row in result.predictions.to_pylist():
            faces = (*found[row["image_uri"]].faces, prediction_of(row))
            found[row["image_uri"]] = ImagePrediction(faces, row["width_px"], row["height_px"], None)
        return (found[uri] for uri in uris)


def load_parts(given: ScoreSettings) -> tuple[Model, ScoreOptions, Viewer]:
    """Load what a scorer with some settings needs, as a run's worker does: model, options, and what finds the faces.

    Raises:
        ModelError: a bundle is missing, damaged, or does not reproduce its golden outputs.
        ConfigError: the thresholds contradict each other.
    """
    spec = runtime_spec(given, read_manifest(given.model.uri))
    model = load_model(given.model.uri, spec)
    settings = resolve_settings(given, model.manifest, spec)
    options = score_options(settings, KeyRule.of(settings), resolve_decision(settings, model.manifest))
    return model, options, load_viewer(model, options, spec.threads)


def load_face_model(given: ScoreSettings) -> FaceModel:
    """Load the model of some settings, with what finds faces for it.

    Raises:
        ModelError: a bundle is missing, damaged, or does not reproduce its golden outputs.
        ConfigError: the thresholds contradict each other.
    """
    return FaceModel(*load_parts(given))


class FaceFinder:
    """Finds faces as a scoring run does; may be used from several threads.

    Args:
        settings: smallest face, threshold and most faces.
        threads: how many images are searched concurrently.

    Raises:
        ModelError: the detector's bundle is missing or damaged, or does not reproduce its golden outputs.
    """

    def __init__(self, settings: FacesSettings, threads: int) -> None:
        faces = ResolvedFaces(**dict(settings) | {"mode": "detect", "if_none": "no_face"})
        codecs = load_codecs(resolve_codecs("auto"))
        self._viewer = make_viewer(faces, _ANY_INPUT, ImageLimits(), jpeg_draft=True, threads=threads, codecs=codecs)

    def find(self, image: ImageLike) -> list[Face]:
        """The faces in an image, surest first.

        Raises:
            ImageFault: the image cannot be decoded.
            StorageError: it cannot be read.
            ConfigError: it is given in an unknown form.
        """
        data = image_bytes(image) if not isinstance(image, str | os.PathLike) else _read(image)
        clock = StageClock()
        clock.start()
        faces = self._viewer(data, clock).faces
        return [Face(face.box, face.score) for face in faces if face.box is not None and face.score is not None]


def prediction_of(row: Mapping[str, Any]) -> FacePrediction:
    """A row of the predictions table as a prediction."""
    columns = {name: row[f"probability_{name}"] for name in (MASK, INCORRECT, NO_MASK)}
    probabilities: dict[str, float] = {name: value for name, value in columns.items() if value is not None}
    sides = [row[f"face_{name}_px"] for name in FaceBox._fields]
    box = None if sides[0] is None else FaceBox(*sides)
    return FacePrediction(row["label"], probabilities, box, row["face_score"])


def image_bytes(image: object) -> bytes:
    """An image in memory as the bytes of a file that decodes to the very same pixels.

    Args:
        image: pixels, a Pillow image, or bytes.

    Raises:
        ConfigError: it is something else, or pixels of another type or shape.
        ImageFault: Pillow cannot write the image.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        return _encoded(image)
    expected = "pixels, a Pillow image, a path, a URI, or the bytes of a file"
    if not isinstance(image, np.ndarray):
        raise ConfigError("image", expected, type(image).__name__, "Convert it with numpy.asarray, for example.")
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
        received = f"{image.dtype} {image.shape}"
        raise ConfigError("image", "uint8 pixels (height, width, 3), RGB, or (height, width)", received, "Convert it.")
    return _encoded(Image.fromarray(np.ascontiguousarray(image)))


def _encoded(image: Image.Image) -> bytes:
    """A file of an image with what decoding respects: transparency and orientation."""
    stream = io.BytesIO()
    try:
        plain = image.copy()  # loading it turns the pixels of a TIFF upright and drops the tag that says so
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        exif = Image.Exif()
        exif[_EXIF_ORIENTATION] = orientation
        if image.mode in ("CMYK", "YCbCr"):
            plain.save(stream, "TIFF", exif=exif)
        elif image.mode == "RGB" and "transparency" not in image.info and orientation == 1:
            plain.save(stream, "BMP")  # not compressed, so that it only costs a copy of the pixels
        else:
            plain.save(stream, "PNG", compress_level=1, exif=exif)
    except Exception as error:  # a file that Pillow has only begun to read, or a mode without a format
        message = f"Pillow cannot write the image of mode {image.mode!r}: {' '.join(str(error).split())}"
        raise ImageFault(FailureCode.CORRUPT_IMAGE, message) from error
    return stream.getvalue()


def _read(image: str | os.PathLike[str]) -> bytes:
    return storage.read_bytes(storage.normalize(os.fspath(image)))


class _Source:
    """Reads images for the scorer: those in memory by made-up names, all others from their storage."""

    def __init__(self) -> None:
        self._at_hand: dict[str, bytes | ImageFault] = {}
        self._numbers = itertools.count()

    def __call__(self, uri: str) -> bytes:
        """An image file's bytes."""
        data = self._at_hand.get(uri)
        if isinstance(data, ImageFault):
            raise data
        return storage.read_bytes(uri) if data is None else data

    def add(self, image: ImageLike) -> str:
        """The name by which an image is read."""
        if isinstance(image, str | os.PathLike):
            return storage.normalize(os.fspath(image))
        name = f"{_MEMORY}{next(self._numbers)}"
        try:
            self._at_hand[name] = image_bytes(image)
        except ImageFault as fault:
            self._at_hand[name] = fault
        return name

    def drop(self, names: Iterable[str]) -> None:
        """Forget images."""
        for name in names:
            self._at_hand.pop(name, None)
