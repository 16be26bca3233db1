"""Settings of an evaluation: those of a scoring run, and how to evaluate its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from maskdet import storage
from maskdet.config import (
    Count,
    CountOrZero,
    FacesSettings,
    KeyName,
    OpenRatio,
    Ratio,
    ScoreSettings,
    Section,
)
from maskdet.errors import ConfigError
from maskdet.evaluation.annotations import IGNORED, plain_name
from maskdet.labels import MASK, NO_MASK, THREE_CLASSES
from maskdet.sections import VideoSettings

SCORES = "scores"


class TruthSettings(Section):
    """Where to find the true class of an image, or the true faces.

    Names are compared without regard to case, ``-``, ``_`` and spaces.
    """

    mask: tuple[str, ...] = ("with_mask", "mask", "masked")
    """Folders, or values of the column, that mean "mask"."""
    incorrect: tuple[str, ...] = (
        *("incorrect", "incorrect_mask", "mask_incorrect", "with_incorrect_mask"),
        *("mask_weared_incorrect", "mask_worn_incorrectly"),
    )
    """Folders or values that mean a mask with nose or mouth bare."""
    no_mask: tuple[str, ...] = ("without_mask", "no_mask", "unmasked")
    """Folders or values that mean "no mask"."""
    column: str | None = None
    """A column of an image list, or a key of the template; default: the nearest folder that names a class."""
    boxes: str | None = None
    """Annotated faces: COCO JSON, a Parquet table, or VOC XML or YOLO text, as a file or a folder.

    Needs ``faces.mode: detect``."""
    face: tuple[str, ...] = ("face", "head", "person")
    """Classes of boxes that only say that there is a face."""
    ignore: tuple[str, ...] = ("ignore",)
    """Classes of boxes that are neither expected nor, if found, counted as false; difficult boxes and crowds never are.
    """
    unannotated: Literal["ignore", "faceless"] = "ignore"
    """What images mean that the annotations do not name."""

    @field_validator("mask", "incorrect", "no_mask", "face", "ignore", mode="before")
    @classmethod
    def _texts(cls, names: object) -> object:
        # YAML reads 0 and 1 as numbers.
        return tuple(str(name) for name in names) if isinstance(names, list | tuple) else names

    @model_validator(mode="after")
    def _disjoint(self) -> TruthSettings:
        named = {label: {plain_name(name) for name in getattr(self, label)} for label in THREE_CLASSES}
        twice = [one for one, other in combinations(named, 2) if named[one] & named[other]]
        if not named[MASK] or not named[NO_MASK] or twice:
            raise ValueError(
                f"mask, incorrect and no_mask: expected names for the first and the last, none in two, received "
                f"{self.model_dump()!r}"
            )
        if self.boxes is not None and self.column is not None:
            raise ValueError(f"boxes and column: expected one of them, received {self.boxes!r} and {self.column!r}")
        if both := {plain_name(name) for name in self.ignore} & set().union(*named.values()):
            raise ValueError(f"ignore: expected none of the names of the classes, received {sorted(both)}")
        return self

    @property
    def classes(self) -> Mapping[str, str | None]:
        """Class names of boxes and what they mean, in the form of :data:`maskdet.evaluation.annotations.LABELS`."""
        return {
            **dict.fromkeys(self.face, None),
            **dict.fromkeys(self.ignore, IGNORED),
            **{name: label for label in THREE_CLASSES for name in getattr(self, label)},
        }


class IntervalSettings(Section):
    """How confidence intervals are computed."""

    confidence: OpenRatio = 0.95
    """Nominal coverage of the intervals."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Number of bootstrap resamples."""
    seed: CountOrZero = 20260101
    """Seed of the bootstrap."""
    group_column: str | None = None
    """Column whose equal values (a person, a source photo) mark images that are not independent, which widens
    intervals."""


class SliceSettings(Section):
    """Parts of the data that get metrics of their own."""

    columns: tuple[str, ...] = ()
    """Columns of the image list or keys of the template, with a slice for each value."""
    size_px: tuple[Count, ...] = (32, 64, 128, 256, 512)
    """Bounds of the slices by the image's shorter side."""
    pixels: bool = False
    """Whether to make slices by brightness and sharpness, a quarter of the images each; reads every image again."""
    max_values: Count = 50
    """Most slices of a column; its less frequent values share one slice, "others"."""

    @field_validator("size_px")
    @classmethod
    def _ascending(cls, bounds: tuple[int, ...]) -> tuple[int, ...]:
        if list(bounds) != sorted(set(bounds)):
            raise ValueError(f"expected ascending bounds, received {list(bounds)}")
        return bounds


class CalibrationSettings(Section):
    """What is fitted on one half of the data, by hash of its groups, and measured on the other."""

    max_error: OpenRatio = 0.01
    """Error rate of each class for which the decision band is chosen."""


class EvaluateSettings(ScoreSettings):
    """All settings of an evaluation."""

    faces: FacesSettings = FacesSettings(mode="whole")
    """With ``detect``, an image's largest face represents it, unless ``truth.boxes`` has the truth about every face."""
    video: VideoSettings = VideoSettings(mode="skip")
    """The truth is about images; videos are skipped."""
    truth: TruthSettings = TruthSettings()
    intervals: IntervalSettings = IntervalSettings()
    slices: SliceSettings = SliceSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    baselines: bool = False
    """Whether to measure how far image width alone and a thumbnail's border alone get; reads every image again.

    Needs scikit-learn: the extra ``evaluate``.
    """
    thresholds: tuple[Ratio, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    """Rows of the threshold table."""
    mistakes_shown: Count = 40
    """How many of the worst mistakes the page shows; the table has all."""
    mistakes_pictures: bool = False
    """Whether the page shows their faces, read again from the images."""
    history: str | None = None
    """The training's history for the page; default: ``<model>.history.csv`` beside the bundle, if it exists."""

    @model_validator(mode="after")
    def _names_are_known(self) -> EvaluateSettings:
        if self.privacy.uri != "plain":
            raise ValueError("privacy.uri: expected plain, since truth is told of images by their names, received hmac")
        return self

    @model_validator(mode="after")
    def _faces_to_compare(self) -> EvaluateSettings:
        if self.truth.boxes is None:
            return self
        if self.faces.mode != "detect" or self.faces.if_none != "no_face":
            received = f"{self.faces.mode} and {self.faces.if_none}"
            raise ValueError(f"truth.boxes: expected faces.mode detect and faces.if_none no_face, received {received}")
        if self.baselines:
            raise ValueError(
                "baselines: expected false, since shortcuts are told of images with one face, received true"
            )
        return self

    @property
    def extra_columns(self) -> tuple[KeyName, ...]:
        """Columns that the evaluation needs in addition to the predictions' own, each once."""
        named = (self.truth.column, self.intervals.group_column, *self.slices.columns)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def score_settings(self) -> EvaluateSettings:
        """Settings of the underlying scoring run: its tables in their own folder, its keys as columns.

        Raises:
            ConfigError: there is no output, or keys would become folders.
        """
        if not self.output:
            raise ConfigError("--output", "a folder or prefix", "nothing", "Say where to write the results.")
        if self.tables.partition_by:
            remedy = "Leave it out: an evaluation keeps keys as columns."
            raise ConfigError("tables.partition_by", "nothing", list(self.tables.partition_by), remedy)
        # The evaluation is about what the input holds now.
        mirror = {"partition_by": (), "on_gone": "remove", "max_gone_ratio": 1.0}
        tables = self.tables.model_copy(update=mirror)
        return self.model_copy(update={"output": storage.join(self.output, SCORES), "tables": tables})
