"""Settings of a comparison: which models, on which images, and what each model was trained on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from maskdet.config import Count, CountOrZero, KeyName, ModelSettings, OpenRatio, Section
from maskdet.evaluation.settings import IntervalSettings, TruthSettings
from maskdet.preparation.settings import Split


class Selection(Section):
    """A part of a source in a training manifest; a field that is ``None`` does not narrow it."""

    official_split: tuple[Split, ...] | None = None
    """The source's own splits."""
    split: tuple[Split, ...] | None = None
    """The group-disjoint splits."""

    @field_validator("official_split", "split")
    @classmethod
    def _some(cls, splits: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if splits == ():
            raise ValueError("expected at least one split, received []; leave it out to mean all")
        return splits


class ComparedModel(ModelSettings):
    """A model, how it runs, and what it was trained on."""

    trained_on: dict[KeyName, Selection] = Field(default_factory=dict)
    """Source → the part of it that was used for training or to choose a threshold; the whole if in doubt."""
    optional: bool = False
    """Whether a missing bundle gives a note instead of an error."""
    command: str = ""
    """The command that makes the bundle."""

    @property
    def runs_as(self) -> ModelSettings:
        """The model's settings in a scoring run."""
        return ModelSettings(**self.model_dump(include=set(ModelSettings.model_fields)))


class ComparedData(Section):
    """Labelled images: a part of a training manifest, or other folders or image lists."""

    title: str
    """What tables call it."""
    source: KeyName
    """The source of its images: a model that was not trained on it has seen nothing like them."""
    manifest: str | None = None
    """A training manifest, ``DIR/images.parquet`` as ``maskdet prepare`` writes it."""
    part: Selection = Selection()
    """Which part of the source in the training manifest."""
    input: tuple[str, ...] = ()
    """Instead of a training manifest: inputs, as ``maskdet evaluate`` takes them."""
    truth: TruthSettings = TruthSettings()
    """Where the labels of an input come from; a training manifest has its own."""
    uri_column: str = "uri"
    """The column of URIs, where an input is an image list."""
    group_column: str | None = None
    """A column of the input; images with the same value in it are not independent."""
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
    """Data sets, which are pooled; each has to be a part of a training manifest."""
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
    """Take only this many of each class, the first by SHA-256; default: all."""


class CompareSettings(Section):
    """All settings of a comparison."""

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
        """How intervals are made for images grouped by a column."""
        return IntervalSettings(
            confidence=self.confidence, resamples=self.resamples, seed=self.seed, group_column=group_column
        )
