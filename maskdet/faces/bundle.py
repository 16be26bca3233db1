"""The detector's bundle: ``manifest.json`` and the files that it lists with their SHA-256, verified when it is opened.

It is of the same kind as a classifier's bundle (:mod:`maskdet.model.bundle`): nothing in it is executed as Python,
nothing is unpickled, and golden outputs show that this machine computes what the exporting one did. One ships with the
package, so that no run has to download its detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maskdet.config import Count, OpenRatio
from maskdet.errors import ModelError
from maskdet.model.bundle import file_sha256
from maskdet.model.manifest import MANIFEST_FILE, BundleFile, Sealed

BUILTIN_FOLDER = Path(__file__).parent / "builtin" / "centerface"
NETWORK_FILES = {"litert": "detector.tflite", "onnx": "detector.onnx"}
"""The network's file, by what runs it."""
GOLDEN_FILE = "golden.npz"
GOLDEN_CANVAS = "canvas"
LICENCE_FILE = "LICENSE"


Architecture = Literal["centerface", "yunet"]


class ScoreRule(BaseModel):
    """How sure a detector has to be, by the size of the face.

    Powers leave 0 and 1 unchanged and lower everything in between: .35 to the power of 1.34 is .245.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_score: OpenRatio
    """Least score of a small face, unless ``faces.min_score`` is set: int8 and float32 weights differ in it."""
    suggested: OpenRatio
    """Score from which a small face is worth a finer look; boxes with lower scores are not read."""
    large_power: Annotated[float, Field(ge=1)] = 1.0
    """A large face's score has to reach the least score to this power."""
    filling_power: Annotated[float, Field(ge=1)] = 1.0
    """The same for faces that fill an image: scores of close portraits are low, and there is little else to mistake."""


class DetectorManifest(Sealed):
    """The content of a detector's ``manifest.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[2] = 2
    name: str
    architecture: Architecture = "centerface"
    """What the network's outputs mean: :mod:`maskdet.faces.decoding`."""
    runtime: Literal["litert", "onnx"] = "litert"
    """What runs it: LiteRT, or ONNX Runtime (the extra ``onnx``)."""
    description: str = ""
    licence: str
    """SPDX name of the weights' licence, whose text is the bundle's :data:`LICENCE_FILE`."""
    channel_order: Literal["RGB", "BGR"] = "RGB"
    """The order of channels that the network takes; canvases are RGB."""
    dtype: Literal["uint8"] = "uint8"
    side_multiple_px: Count = 32
    """Height and width of a canvas are multiples of this."""
    turned: bool = False
    """Whether the network takes canvases rotated by 180 degrees and gives such maps: :mod:`tools.detector.centerface`.
    """
    score_rule: ScoreRule
    training_data: str
    source_sha256: str
    """SHA-256 of the file from which the weights were read."""
    versions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, BundleFile] = Field(default_factory=dict)
    fingerprint: str = ""


@dataclass(frozen=True)
class DetectorBundle:
    """A verified detector on this machine."""

    manifest: DetectorManifest
    folder: Path

    @property
    def network(self) -> Path:
        """The network's file."""
        return self.folder / NETWORK_FILES[self.manifest.runtime]

    def golden(self) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
        """A canvas, uint8 RGB ``(height, width, 3)``, and the network's maps for it when it was exported."""
        with np.load(self.folder / GOLDEN_FILE, allow_pickle=False) as arrays:
            return arrays[GOLDEN_CANVAS], {name: arrays[name] for name in arrays.files if name != GOLDEN_CANVAS}


def open_detector(folder: Path = BUILTIN_FOLDER) -> DetectorBundle:
    """Read and verify a detector's bundle.

    Args:
        folder: on this machine; by default the one that ships with the package.

    Raises:
        ModelError: there is no bundle, a file is missing or changed, or the manifest is damaged.
    """
    manifest = _read_manifest(folder)
    for name in (NETWORK_FILES[manifest.runtime], GOLDEN_FILE, LICENCE_FILE):
        path, listed = folder / name, manifest.files.get(name)
        digest = file_sha256(path) if path.is_file() else "no file"
        if listed is None or digest != listed.sha256:
            expected = f"{name} with SHA-256 {listed.sha256}" if listed else f"{name} in {MANIFEST_FILE}"
            raise ModelError(f"detector {folder}", expected, digest, "Copy the bundle again, in whole.")
    return DetectorBundle(manifest, folder)


def _read_manifest(folder: Path) -> DetectorManifest:
    path = folder / MANIFEST_FILE
    try:
        manifest = DetectorManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        remedy = "Check the path, or install the package again."
        raise ModelError("detector", f"a bundle (a folder with {MANIFEST_FILE})", str(folder), remedy) from error
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ModelError(f"{path}: {place}: {problem['msg']}. Export the bundle again.") from error
    if manifest.fingerprint != manifest.computed_fingerprint():
        expected = f"content with fingerprint {manifest.fingerprint}"
        remedy = "The manifest was changed after export; restore it or export the bundle again."
        raise ModelError(str(path), expected, manifest.computed_fingerprint(), remedy)
    return manifest
