"""Settings of a comparison: which models, on which images, and what each model was trained on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from maskdet.config import Count, CountOrZero, KeyName, ModelSettings, OpenRatio, Section
from maskdet.evaluation.settings import IntervalSettings, TruthSettings
from maskdet.preparation.settings import Split


class Selection(Section):
    """A part of a source of a training manifest; what is not given does not narrow it."""

    official_split: tuple[Split, ...] | None = None
    """The source's own splits."""
    split: tuple[Split, ...] | None = None
    """The group-disjoint ones."""

    @field_validator("official_split", "split")
    @classmethod
    def _some(cls, splits: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if splits == ():
            raise ValueError("expected at least one split, received []; leave it out to mean all")
        return splits


class ComparedModel(ModelSettings):
    """A model, how it runs, and where it comes from."""

    trained_on: dict[KeyName, Selection] = Field(default_factory=dict)
    """Source → the part of it whose images were trained on, or used to choose a threshold: the whole if in doubt."""
    optional: bool = False
    """Whether a missing bundle gives a note instead of an error."""
    command: str = ""
    """What makes the bundle."""

    @property
    def runs_as(self) -> ModelSettings:
        """The settings of a scoring run."""
        return ModelSettings(**self.model_dump(include=set(ModelSettings.model_fields)))


class ComparedData(Section):
    """Labelled images: a part of a training manifest, or folders or a manifest of one's own."""

    title: str
    """What tables call it."""
    source: KeyName
    """The source of its images: a model that was not trained on it has never seen the like."""
    manifest: str | None = None
    """A training manifest, ``DIR/images.parquet`` as ``maskdet prepare`` writes it."""
    part: Selection = Selection()
    """Of the manifest's source."""
    input: tuple[str, ...] = ()
    """In place of a manifest: as ``maskdet evaluate`` takes it."""
    truth: TruthSettings = TruthSettings()
    """Of the input; a training manifest has its own."""
    uri_column: str = "uri"
    """Of an input that is a manifest."""
    group_column: str | None = None
    """Of the input: images that share its value are not independent."""
    external_only: bool = False
    """Only for models that were not trained on this source."""
    drop_trained_groups: bool = False
    """For each model, leave out images of the groups that it was trained on; needs a training manifest."""

    @model_validator(mode="after")
    def _one_place(self) -> ComparedData:
        if (self.manifest is None) == (not self.input):
            raise ValueError(f"expected either a manifest or an input, received {self.manifest!r} and {self.input!r}")
        if self.manifest is None and (self.drop_trained_groups or self.part != Selection()):
            raise ValueError("part and drop_trained_groups need a training manifest, not an input")
        if self.manifest is not None and (self.group_column is not None or self.truth != TruthSettings()):
            raise ValueError("a training manifest has truth and groups of its own; leave out truth and group_column")
        return self


class RobustnessSettings(Section):
    """Which views of faces to measure models on."""

    data: Annotated[tuple[KeyName, ...], Field(min_length=1)]
    """Data sets, pooled; each a part of a training manifest."""
    models: tuple[KeyName, ...] | None = None
    """Default: all."""
    sides_px: tuple[Count, ...] = (24, 32, 48, 64, 112, 224, 500, 1000)
    """Longer sides that each face is scaled to, sharp and blurred."""
    widths_px: tuple[Count, ...] = (112, 224)
    """Widths that all faces are scaled to."""
    blur: Annotated[float, Field(gt=0.0, le=0.2)] = 0.02
    """Radius of the Gaussian blur, as a share of the longer side."""
    jpeg_quality: Annotated[int, Field(ge=1, le=95)] = 90
    max_images_per_class: Count | None = None
    """Take the first so many of each class by SHA-256; default: all."""


class CompareSettings(Section):
    """Everything a comparison is told."""

    output: str = ""
    models: Annotated[dict[KeyName, ComparedModel], Field(min_length=1)]
    data: Annotated[dict[KeyName, ComparedData], Field(min_length=1)]
    confidence: OpenRatio = 0.95
    resamples: Annotated[int, Field(ge=100)] = 1000
    seed: CountOrZero = 20260101
    robustness: RobustnessSettings | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> CompareSettings:
        if self.robustness is None:
            return self
        for place, names, known in (
            ("robustness.data", self.robustness.data, [n for n, data in self.data.items() if data.manifest]),
            ("robustness.models", self.robustness.models or (), list(self.models)),
        ):
            if unknown := sorted(set(names) - set(known)):
                raise ValueError(f"{place}: expected names among {known}, received {unknown}")
        return self

    def intervals(self, group_column: str | None) -> IntervalSettings:
        """How intervals are made, of images grouped by a column."""
        return IntervalSettings(
            confidence=self.confidence, resamples=self.resamples, seed=self.seed, group_column=group_column
        )
