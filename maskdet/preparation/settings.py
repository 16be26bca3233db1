"""Settings of a preparation: the content of ``configs/prepare.yaml``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from maskdet import storage
from maskdet.config import ImagingSettings, InputKind, KeyName, Ratio, Section, SourceSettings
from maskdet.labels import THREE_CLASSES
from maskdet.sections import FailureBudget

Label = Literal["mask", "incorrect", "no_mask"]
Split = Literal["train", "validation", "test"]
LABELS: tuple[Label, ...] = THREE_CLASSES
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

DATA_VARIABLE = "MASKDET_DATA"
DEFAULT_DATA_FOLDER = "data"


def _one_group(value: str) -> str:
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"expected a regular expression, received {value!r}: {error}") from error
    if groups != 1:
        raise ValueError(f"expected a regular expression with one group, received {value!r}")
    return value


GroupPattern = Annotated[str, AfterValidator(_one_group)]
"""A regular expression whose one group names what must not be split: a person, a source photo."""


class LabelledSource(Section):
    """One collection of labelled images."""

    input: tuple[str, ...]
    """Folders, globs, list files or image lists; relative ones are relative to ``root``."""
    kind: InputKind = "auto"
    """What each input is; ``auto`` goes by its name."""
    uri_column: str = "uri"
    """Column of an image list with the URIs."""
    label: Label | None = None
    """The label of every image; default: by ``labels`` or ``label_column``."""
    labels: dict[str, Label] = Field(default_factory=dict)
    """Name of a folder below the input, or value of ``label_column`` → label."""
    label_column: KeyName | None = None
    """Column of an image list with ``mask``, ``incorrect``, ``no_mask`` or a key of ``labels``."""
    split: Split | None = None
    """The official split of every image, if the source has one."""
    splits: dict[str, Split] = Field(default_factory=dict)
    """Name of a folder below the input, or value of ``split_column`` → official split."""
    split_column: KeyName | None = None
    """Column with ``train``, ``validation``, ``test`` or a key of ``splits``."""
    group_manifest: str | None = None
    """CSV or Parquet that names the group of images: those made from one photo, or of one person. Sources that name the
    same manifest share its groups."""
    group_root: str | None = None
    """What the group manifest's paths are relative to; default: the first input."""
    group_path_column: str = "path"
    """Column of the group manifest with paths."""
    group_column: str = "source_group"
    """Column of the group manifest with the groups' names."""
    group_pattern: GroupPattern | None = None
    """Regular expression on the file name; images of the source for which its one group is equal belong together."""

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _told_once(self) -> LabelledSource:
        by_image = bool(self.labels or self.label_column)
        if (self.label is not None) == by_image:
            raise ValueError("expected either label, for every image, or labels or label_column")
        if self.split is not None and (self.splits or self.split_column):
            raise ValueError("expected either split, for every image, or splits or split_column")
        return self

    @property
    def listing(self) -> SourceSettings:
        """How the images are listed; the keys are the columns of label and split."""
        keys = tuple(dict.fromkeys(name for name in (self.label_column, self.split_column) if name))
        # Whoever prepares a training set wrote its lists.
        return SourceSettings(kind=self.kind, uri_column=self.uri_column, keys=keys, allowed=("*",))


class DuplicateSettings(Section):
    """What counts as a near duplicate."""

    max_bits: Annotated[int, Field(ge=0, le=12)] = 8
    """Largest Hamming distance between two perceptual hashes of 64 bits."""
    min_correlation: Ratio = 0.95
    """Least Pearson correlation of two grey 16 × 16 thumbnails. Among 14,689 images, pairs from .95 on were the same
    picture, except for a few of 5,909 aligned portraits; from .93 to .95 most pairs of portraits were two people."""


class SplitSettings(Section):
    """How the group-disjoint splits are cut."""

    train: Ratio = 0.8
    """Share of the images for training."""
    validation: Ratio = 0.1
    """Share of the images for choices during training."""
    test: Ratio = 0.1
    """Share of the images for the reported figures."""
    seed: int = 0
    """Another seed puts other groups into each split."""

    @model_validator(mode="after")
    def _whole(self) -> SplitSettings:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"expected shares that add up to 1, received {total:g}")
        return self

    @property
    def shares(self) -> dict[Split, float]:
        """Share of images by split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


class PrepareSettings(Section):
    """All settings of a preparation."""

    root: str | None = None
    """What relative locations are relative to; default: the environment variable ``MASKDET_DATA``, or ``data``."""
    output: str = ""
    """Folder or prefix for the tables."""
    sources: dict[KeyName, LabelledSource] = Field(default_factory=dict)
    """The collections of labelled images, each with a name."""
    imaging: ImagingSettings = ImagingSettings()
    duplicates: DuplicateSettings = DuplicateSettings()
    splits: SplitSettings = SplitSettings()
    failure_budget: FailureBudget = FailureBudget()

    @property
    def data_root(self) -> str:
        """The location to which others are relative."""
        return storage.normalize(self.root or os.environ.get(DATA_VARIABLE) or str(Path(DEFAULT_DATA_FOLDER)))

    def resolved(self) -> PrepareSettings:
        """The same settings with absolute locations, as workers need them."""
        sources = {name: _absolute(source, self.data_root) for name, source in self.sources.items()}
        return self.model_copy(update={"root": self.data_root, "sources": sources})


def _absolute(source: LabelledSource, root: str) -> LabelledSource:
    inputs = tuple(_join(root, uri) for uri in source.input)
    group_root = _join(root, source.group_root) if source.group_root is not None else next(iter(inputs), root)
    manifest = source.group_manifest and _join(root, source.group_manifest)
    return source.model_copy(update={"input": inputs, "group_root": group_root, "group_manifest": manifest})


def _join(root: str, uri: str) -> str:
    relative = storage.is_local(uri) and not uri.startswith(("/", "~/")) and "://" not in uri and uri.strip()
    return storage.join(root, uri) if relative else uri
