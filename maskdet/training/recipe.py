"""What a training run does, as validated settings: the content of ``configs/train/*.yaml``."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSource(_Settings):
    """Labelled images: one folder or glob for each class, relative to the data folder unless absolute or a URI."""

    mask: str
    no_mask: str
    group_pattern: str = r"^(.*)$"
    """Regular expression on the file name; its one group names what must not be split: a person, a source photo."""
    hash_band: tuple[Share, Share] = (0.0, 1.0)
    """Keep a group if SHA-256 of its name, read as a fraction of 1, lies in ``[from, to)``."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """How often each image is shown per pass; more than 1 gives a small source more weight."""

    @field_validator("group_pattern")
    @classmethod
    def _one_group(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"expected a regular expression, received {value!r}: {error}") from error
        if groups != 1:
            raise ValueError(f"expected a regular expression with one group, received {value!r}")
        return value

    @model_validator(mode="after")
    def _band_ordered(self) -> DataSource:
        if self.hash_band[0] >= self.hash_band[1]:
            raise ValueError(f"hash_band: expected from < to, received {self.hash_band!r}")
        return self


class Augmentation(_Settings):
    """Random views of each image, alike for both classes, so that resolution, compression and framing tell nothing."""

    copies: Annotated[int, Field(ge=1)] = 4
    """Views made of each image, once, before training; each pass draws one of them."""
    min_side_px: Annotated[int, Field(ge=8)] = 24
    """Every view is shrunk to a longer side between this and ``max_side_px`` (log-uniform)."""
    max_side_px: Annotated[int, Field(ge=8)] = 224
    jpeg_quality: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(le=95)]] = (20, 95)
    max_blur: Annotated[float, Field(ge=0.0)] = 0.02
    """Largest Gaussian blur radius as a share of the view's longer side; half of the views are not blurred."""
    max_zoom_in: Annotated[float, Field(ge=1.0)] = 1.3
    max_zoom_out: Annotated[float, Field(ge=1.0)] = 1.6
    """How much smaller the image may get in a frame filled with stretched, blurred content of itself or one colour."""
    max_rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 15.0
    color_jitter: Share = 0.35
    """Largest relative change of brightness, contrast and saturation."""
    gray_share: Share = 0.05
    """Share of views without colour."""

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        if self.min_side_px > self.max_side_px:
            raise ValueError(f"min_side_px = {self.min_side_px} exceeds max_side_px = {self.max_side_px}")
        if self.jpeg_quality[0] > self.jpeg_quality[1]:
            raise ValueError(f"jpeg_quality: expected lowest ≤ highest, received {self.jpeg_quality!r}")
        return self


class OperatingPoint(_Settings):
    """Where the decision threshold comes from, and where the reported error rates come from."""

    threshold_data: tuple[DataSource, ...] = ()
    """Images that the threshold is chosen on, by least balanced error; none: 0.5."""
    test_data: tuple[DataSource, ...] = ()
    """Images that sensitivity and specificity are measured on."""
    test_description: str = ""
    test_shares_groups_with_training: bool = False


class Recipe(_Settings):
    """One training run."""

    name: str
    """The bundle's name, which prediction rows carry."""
    description: str = ""
    architecture: str
    height: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]
    data: Annotated[tuple[DataSource, ...], Field(min_length=1)]
    data_description: str
    max_images_per_class: Annotated[int, Field(ge=1)] | None = None
    """Use only the first so many images of each class, by path."""
    synthetic_faces: Annotated[int, Field(ge=0)] = 0
    """Drawn faces added to the training images, half of them masked."""
    validation_data: tuple[DataSource, ...] = ()
    """Images whose loss and accuracy each epoch's history row holds."""
    batch_size: Annotated[int, Field(gt=0)]
    optimizer: Literal["rmsprop", "adam"]
    learning_rate: Annotated[float, Field(gt=0.0)]
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """``cosine``: falls to zero over all steps along half a cosine."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    steps_per_epoch: Annotated[int, Field(gt=0)]
    epochs: Annotated[int, Field(gt=0)]
    seed: int = 0
    flip: bool = False
    """Mirror every other image, drawn anew each time it is shown."""
    augmentation: Augmentation | None = None
    representative_images: Annotated[int, Field(ge=1)] = 300
    """Training images that the int8 ranges are measured on."""
    operating_point: OperatingPoint = OperatingPoint()

    def smoke(self) -> Recipe:
        """The same recipe cut down to seconds: two steps of one epoch, one view of each image, few images a class."""
        augmentation = self.augmentation and self.augmentation.model_copy(update={"copies": 1})
        changes = {"epochs": 1, "steps_per_epoch": 2, "augmentation": augmentation, "max_images_per_class": 16}
        return self.model_copy(update=changes | {"synthetic_faces": min(self.synthetic_faces, 8)})
