"""What a model bundle says of itself: the typed form of its ``manifest.json``."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from maskdet.config import Count
from maskdet.labels import Decision

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
KERAS_FILE = "model.keras"
SAVED_MODEL_FOLDER = "saved_model"
LITERT_INT8_FILE = "model.tflite"
LITERT_FLOAT_FILE = "model_float.tflite"
ONNX_FILE = "model.onnx"
GOLDEN_FILE = "golden.npz"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Part):
    """The tensor a model takes: uint8 RGB ``(batch, height, width, 3)``; every scaling is in the graph."""

    height: Count
    width: Count
    channel_order: Literal["RGB"] = "RGB"
    dtype: Literal["uint8"] = "uint8"
    resize_filter: Literal["bilinear", "box", "bicubic"] = "bilinear"


class Calibration(_Part):
    """How the graph's probability was calibrated; the calibration itself lives in the graph."""

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

    @property
    def sensitivity(self) -> float:
        """Share of masked faces labelled ``mask``."""
        return self.masked_right / self.masked_total

    @property
    def specificity(self) -> float:
        """Share of unmasked faces labelled ``no_mask``."""
        return self.unmasked_right / self.unmasked_total


class TrainingData(_Part):
    """What a model was trained on."""

    description: str
    images: int
    fingerprint: str
    """SHA-256 over the sorted (path, content SHA-256, label) of every training image."""


class BundleFile(_Part):
    """One file of a bundle."""

    size_bytes: int
    sha256: str


class Manifest(_Part):
    """The content of ``manifest.json``."""

    schema_version: Literal[1] = 1
    name: str
    architecture: str
    description: str = ""
    input: InputSpec
    class_names: tuple[Literal["no_mask"], Literal["mask"]] = ("no_mask", "mask")
    decision: Decision = Decision()
    calibration: Calibration = Calibration()
    operating_characteristics: OperatingCharacteristics | None = None
    training_data: TrainingData
    versions: dict[str, str] = {}
    files: dict[str, BundleFile] = {}
    fingerprint: str = ""

    @property
    def model_id(self) -> str:
        """What prediction rows name: the bundle's name and the head of its fingerprint."""
        return f"{self.name}@{self.fingerprint[:12]}"

    def computed_fingerprint(self) -> str:
        """SHA-256 of the manifest's canonical JSON without the fingerprint itself; covers every file by its hash."""
        content = self.model_dump(mode="json", exclude={"fingerprint"})
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def sealed(self) -> Manifest:
        """The same manifest with its fingerprint filled in."""
        return self.model_copy(update={"fingerprint": self.computed_fingerprint()})

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
