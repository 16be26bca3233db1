"""What a model bundle says about itself: its ``manifest.json``, typed."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from maskdet.config import Count
from maskdet.labels import THREE_CLASSES, TWO_CLASSES, ClassNames, Decision

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
KERAS_FILE = "model.keras"
SAVED_MODEL_FOLDER = "saved_model"
LITERT_INT8_FILE = "model.tflite"
LITERT_FLOAT_FILE = "model_float.tflite"
ONNX_FILE = "model.onnx"
GOLDEN_FILE = "golden.npz"
TRAINING_IMAGES_FILE = "training_images.npy"


ResizeFilter = Literal["bilinear", "box", "bicubic", "nearest"]

_LATER_FIELDS = ("faces", "imported")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sealed(_Part):
    """What all bundles' manifests have in common; the fields are in their own classes, in the order of the file."""

    if TYPE_CHECKING:
        name: str
        fingerprint: str

    @property
    def model_id(self) -> str:
        """The id in prediction rows: the bundle's name and the beginning of its fingerprint."""
        return f"{self.name}@{self.fingerprint[:12]}"

    def computed_fingerprint(self) -> str:
        """SHA-256 of the manifest's canonical JSON without the fingerprint; it covers every file through its hash."""
        content = self.model_dump(mode="json", exclude={"fingerprint"})
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def sealed(self) -> Self:
        """The same manifest with its fingerprint filled in."""
        return self.model_copy(update={"fingerprint": self.computed_fingerprint()})

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def is_manifest(text: bytes) -> bool:
    """Whether a ``manifest.json`` is that of a bundle, of a classifier or a face detector and of any version.

    Web applications, browser extensions and data sets have files of that name, too.
    """
    try:
        found = json.loads(text)
    except ValueError:  # also where it is not UTF-8
        return False
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        return False
    hashes = [entry.get("sha256") if isinstance(entry, dict) else entry for entry in found["files"].values()]
    hashes.append(found.get("fingerprint"))
    return type(found.get("schema_version")) is int and all(
        isinstance(one, str) and _SHA256.fullmatch(one) for one in hashes
    )


class InputSpec(_Part):
    """The tensor a model takes: uint8 RGB ``(batch, height, width, 3)``; every scaling is in the graph."""

    height: Count
    width: Count
    channel_order: Literal["RGB"] = "RGB"
    dtype: Literal["uint8"] = "uint8"
    resize_filter: ResizeFilter = "bilinear"


class Calibration(_Part):
    """How the graph's probability was calibrated; the calibration itself is part of the graph."""

    method: Literal["none", "temperature"] = "none"
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    fitted_on: str = ""


class OperatingCharacteristics(_Part):
    """Measured error rates at the decision thresholds, with the counts behind them."""

    dataset: str
    masked_right: int
    masked_total: int
    unmasked_right: int
    unmasked_total: int
    shares_groups_with_training: bool
    incorrect_right: int | None = None
    """Masks worn incorrectly that were labelled so; ``None``, like the next three, for a model of two classes."""
    incorrect_total: int | None = None
    masked_as_incorrect: int | None = None
    unmasked_as_incorrect: int | None = None
    incorrect_as_mask: int | None = None
    """Masks worn incorrectly that were labelled ``mask``; ``None``, like the next three, in older bundles."""
    masked_uncertain: int | None = None
    unmasked_uncertain: int | None = None
    incorrect_uncertain: int | None = None

    @model_serializer(mode="wrap")
    def _of_what_there_is(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A bundle of two classes has the same content as before there were three, so that its fingerprint stays.
        return {name: value for name, value in write(self).items() if value is not None}

    @property
    def sensitivity(self) -> float:
        """Share of masked faces labelled ``mask``."""
        return self.masked_right / self.masked_total

    @property
    def specificity(self) -> float:
        """Share of unmasked faces labelled ``no_mask``."""
        return self.unmasked_right / self.unmasked_total

    @property
    def incorrect_recall(self) -> float | None:
        """Share of masks worn incorrectly that were labelled so; ``None`` if there were none."""
        return (self.incorrect_right or 0) / self.incorrect_total if self.incorrect_total else None


class TrainingData(_Part):
    """What a model was trained on."""

    description: str
    images: int
    fingerprint: str
    """SHA-256 over the sorted (path, content SHA-256, label) of every training image."""


class ImportedFrom(_Part):
    """The file from which a bundle was imported, and what was declared about it."""

    source: str
    """The name of the file or folder."""
    sha256: str
    """SHA-256 of its content or, for a folder, of its files' names and hashes."""
    made_with: str
    classes: tuple[str, ...]
    """In the order of the network's outputs; for a single output, what 0 and 1 mean."""
    scale: str
    factor: tuple[float, float, float]
    offset: tuple[float, float, float]
    channels: Literal["RGB", "BGR"]
    layout: Literal["NHWC", "NCHW"]
    activation: Literal["sigmoid", "softmax", "logits"]


class BundleFile(_Part):
    """One file of a bundle."""

    size_bytes: int
    sha256: str


class Manifest(Sealed):
    """The content of ``manifest.json``."""

    schema_version: Literal[1] = 1
    name: str
    architecture: str
    description: str = ""
    input: InputSpec
    class_names: ClassNames = TWO_CLASSES
    """What the model predicts, in this order: see :mod:`maskdet.labels`."""
    decision: Decision = Decision()
    calibration: Calibration = Calibration()
    operating_characteristics: OperatingCharacteristics | None = None
    training_data: TrainingData
    faces: Literal["detect", "whole"] | None = None
    """What the network was trained on, cut-out faces or whole images, and so what a run shows it by default; ``None``:
    as its architecture says."""
    imported: ImportedFrom | None = None
    """``None`` for a network that was trained here."""
    versions: dict[str, str] = {}
    files: dict[str, BundleFile] = {}
    fingerprint: str = ""

    @model_serializer(mode="wrap")
    def _of_what_there_is(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Bundles older than these fields keep their fingerprints.
        content: dict[str, Any] = write(self)
        return {name: value for name, value in content.items() if value is not None or name not in _LATER_FIELDS}

    @model_validator(mode="after")
    def _every_class_decided(self) -> Manifest:
        if (self.class_names == THREE_CLASSES) != (self.decision.incorrect_from is not None):
            expected = "a number" if self.class_names == THREE_CLASSES else "nothing"
            raise ValueError(
                f"decision.incorrect_from: expected {expected} for the classes {list(self.class_names)}, "
                f"received {self.decision.incorrect_from}"
            )
        return self

    @property
    def outputs(self) -> int:
        """How many numbers the network gives for an image: the probability of ``mask`` alone, or of each class."""
        return 1 if self.class_names == TWO_CLASSES else len(self.class_names)

    def output_shape(self, images: int) -> tuple[int, ...]:
        """Shape of the network's output for some images: ``(images,)`` or ``(images, classes)``."""
        return (images,) if self.outputs == 1 else (images, self.outputs)
