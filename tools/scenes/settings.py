"""Validated settings of scenes (``tools/configs/scenes.yaml``), and finding crops in folders named by class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from maskdet.config import Count, CountOrZero, Ratio, Section, SourceSettings
from maskdet.errors import SourceError
from maskdet.evaluation.annotations import LABELS, plain_name
from tools.scenes.scenes import FaceSource, SceneOptions


class LookSettings(Section):
    """What scenes look like: the fields of :class:`tools.scenes.scenes.SceneOptions`."""

    sides_px: tuple[Count, Count] = SceneOptions.sides_px
    sizes_px: tuple[float, float] = SceneOptions.sizes_px
    faces: tuple[Count, Count] = SceneOptions.faces
    faceless: Ratio = SceneOptions.faceless
    rotation_deg: Annotated[float, Field(ge=0.0, le=180.0)] = SceneOptions.rotation_deg
    blur: Ratio = SceneOptions.blur
    overlap: Ratio = SceneOptions.overlap
    decoys: CountOrZero = SceneOptions.decoys
    shoulders: Ratio = SceneOptions.shoulders

    def options(self) -> SceneOptions:
        """The same as options of :func:`tools.scenes.scenes.make_scene`.

        Raises:
            ConfigError: bounds are out of order, or faces do not fit.
        """
        return SceneOptions(**self.model_dump())


class SceneSettings(Section):
    """One set of scenes."""

    output: str = ""
    count: Count = 300
    seed: CountOrZero = 2027
    crops: str | None = None
    """A folder of face crops in folders named by class (with_mask, WithoutMask, …)."""
    skip: tuple[str, ...] = ()
    """Crops whose file names contain one of these are left out, such as copies that are distorted as by no camera."""
    manifest: str | None = None
    """A training manifest instead of ``crops``; suspicious and flat images are left out."""
    split: Literal["train", "validation", "test"] = "test"
    """Which of the manifest's group-disjoint parts."""
    sources: tuple[str, ...] = ()
    """Which of the manifest's sources; empty: all, though only face crops make good scenes."""
    backgrounds: str | None = None
    """A folder of photographs whose blurred colours sometimes serve as background; default: all are drawn."""
    look: LookSettings = LookSettings()

    @field_validator("output", "crops", "manifest", "backgrounds", mode="before")
    @classmethod
    def _texts(cls, path: object) -> object:
        return str(path) if isinstance(path, Path) else path

    @model_validator(mode="after")
    def _one_kind_of_crops(self) -> SceneSettings:
        if (self.crops is None) == (self.manifest is None):
            received = f"{self.crops!r} and {self.manifest!r}"
            raise ValueError(f"crops and manifest: expected one of them, received {received}")
        return self


def find_crops(folder: Path, skip: tuple[str, ...] = ()) -> list[FaceSource]:
    """Face crops below folders that name a class, sorted; the nearest such folder decides.

    Args:
        folder: searched at any depth; its own name may be that of a class.
        skip: crops whose file names contain one of these are left out.

    Raises:
        SourceError: a class has no crop.
    """
    meanings = {plain_name(name): label for name, label in LABELS.items()}
    crops = []
    for path in find_images(folder):
        named = [meanings.get(plain_name(part)) for part in path.relative_to(folder.parent).parent.parts]
        labels = [label for label in named if label is not None]
        if labels and not any(part in path.name for part in skip):
            crops.append(FaceSource(path, "mask" if labels[-1] == "mask" else "no_mask"))
    return check_classes(str(folder), crops)


def find_images(folder: Path) -> list[Path]:
    """Image files at any depth, sorted.

    Raises:
        SourceError: there is no such folder.
    """
    if not folder.is_dir():
        raise SourceError(str(folder), "a local folder", "none", "Check the path.")
    endings = {f".{name}" for name in SourceSettings().extensions}
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())


def check_classes(place: str, crops: list[FaceSource]) -> list[FaceSource]:
    """The crops, if there are some of each class: scenes show as many masked as unmasked faces.

    Raises:
        SourceError: a class has no crop.
    """
    found = {name: sum(crop.label == name for crop in crops) for name in ("mask", "no_mask")}
    if not all(found.values()):
        remedy = "Sort crops into folders such as with_mask and without_mask."
        raise SourceError(f"crops of {place}", "some of each class", found, remedy)
    return crops
