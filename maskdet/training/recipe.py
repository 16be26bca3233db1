"""What a training run does, as validated settings: the content of ``configs/train/*.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from maskdet.config import Count, CountOrZero, Ratio
from maskdet.labels import TWO_CLASSES, ClassNames
from maskdet.model.bundle import BUILTIN
from maskdet.preparation.settings import GroupPattern


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSource(_Settings):
    """Labelled images: one folder or glob for each class, or a split of a training manifest.

    Locations are relative to the data folder unless absolute or a URI; a manifest's, to the working folder.
    """

    mask: str = ""
    """Folder of images with a mask."""
    incorrect: str = ""
    """Masks worn incorrectly; may be the only folder of a source."""
    no_mask: str = ""
    """Folder of images without a mask."""
    manifest: str = ""
    """The ``images.parquet`` of ``maskdet prepare``; images that it finds suspicious or flat are left out."""
    split: Literal["train", "validation", "test"] = "train"
    """Which of the manifest's group-disjoint splits."""
    sources: tuple[str, ...] = ()
    """Which of the manifest's sources; default: all."""
    official_splits: tuple[Literal["train", "validation", "test"], ...] = ()
    """Leave out images of any other official split, but keep sources without official splits; default: leave out none.
    """
    group_pattern: GroupPattern = r"^(.*)$"
    """Regular expression on the file name; its one group names what must not be split: a person, a source photo."""
    hash_band: tuple[Ratio, Ratio] = (0.0, 1.0)
    """Keep a group if SHA-256 of its name, read as a fraction of 1, lies in ``[from, to)``."""
    repeats: Count = 1
    """How often each image is shown per pass; more than 1 gives a small source more weight."""

    @model_validator(mode="after")
    def _one_kind(self) -> DataSource:
        folders = bool(self.mask or self.incorrect or self.no_mask)
        if bool(self.manifest) == folders or bool(self.mask) != bool(self.no_mask):
            raise ValueError("expected both mask and no_mask, or incorrect alone or beside them, or else manifest")
        return self

    @model_validator(mode="after")
    def _band_ordered(self) -> DataSource:
        if self.hash_band[0] >= self.hash_band[1]:
            raise ValueError(f"hash_band: expected from < to, received {self.hash_band!r}")
        return self


class Augmentation(_Settings):
    """Random views of each image, the same for all classes, so that resolution, compression and framing reveal none."""

    copies: Count = 4
    """Views of each image, made once before training; each pass draws one of them."""
    min_side_px: Annotated[int, Field(ge=8)] = 24
    """Every view is shrunk to a longer side between this and ``max_side_px`` (log-uniform)."""
    max_side_px: Annotated[int, Field(ge=8)] = 224
    """The largest longer side of a view."""
    jpeg_quality: tuple[Count, Annotated[int, Field(le=95)]] = (20, 95)
    """Lowest and highest quality of the JPEG that each view is stored as."""
    max_blur: Annotated[float, Field(ge=0.0)] = 0.02
    """Largest Gaussian blur radius as a share of the view's longer side; half of the views are not blurred."""
    max_motion_blur: Ratio = 0.0
    """Longest streak of motion blur as a share of the view's longer side; a quarter of the views have one."""
    max_zoom_in: Annotated[float, Field(ge=1.0)] = 1.3
    """How far a view may zoom into the image."""
    max_zoom_out: Annotated[float, Field(ge=1.0)] = 1.6
    """How much smaller the image may get in a frame filled with stretched, blurred content of itself or one colour."""
    max_rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 15.0
    """Largest rotation to either side."""
    color_jitter: Ratio = 0.35
    """Largest relative change of brightness, contrast and saturation."""
    gray_share: Ratio = 0.05
    """Share of views in grey."""

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        if self.min_side_px > self.max_side_px:
            raise ValueError(f"min_side_px = {self.min_side_px} exceeds max_side_px = {self.max_side_px}")
        if self.jpeg_quality[0] > self.jpeg_quality[1]:
            raise ValueError(f"jpeg_quality: expected lowest ≤ highest, received {self.jpeg_quality!r}")
        return self


class OnlineAugmentation(_Settings):
    """Random geometry, drawn anew each time an image is shown; the ranges have the meaning of ImageDataGenerator's."""

    rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Largest rotation about the centre to either side; uniformly distributed."""
    width_shift: Ratio = 0.0
    """Largest shift to either side, as a share of the width."""
    height_shift: Ratio = 0.0
    """The same for the vertical shift, as a share of the height."""
    shear_degrees: Annotated[float, Field(ge=0.0, lt=90.0)] = 0.0
    """Largest angle by which columns are slanted. ImageDataGenerator's ``shear_range`` was also in degrees."""
    zoom: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Each side is scaled separately, by a factor from 1 minus this to 1 plus this."""
    horizontal_flip: bool = False
    """Mirror every other image."""


class ClassWeights(_Settings):
    """Weight of an image of each class in the loss."""

    mask: Annotated[float, Field(gt=0.0)]
    """Weight of an image with a mask."""
    no_mask: Annotated[float, Field(gt=0.0)]
    """Weight of an image without a mask."""
    incorrect: Annotated[float, Field(gt=0.0)] = 1.0
    """Weight of an image with a mask worn incorrectly."""


class EarlyStopping(_Settings):
    """End training when a figure has stopped getting better."""

    monitor: Literal["loss", "accuracy", "val_loss", "val_accuracy"] = "val_loss"
    """A column of the history; losses should fall and accuracies rise."""
    patience: Count = 3
    """Stop after this many epochs in a row without a new best."""
    min_delta: Annotated[float, Field(ge=0.0)] = 0.0
    """A new best must be better than the last by more than this."""
    restore_best: bool = True
    """Export the best epoch's weights, not the last's."""


class OperatingPoint(_Settings):
    """Where the decision threshold comes from, and where the reported error rates come from."""

    threshold_data: tuple[DataSource, ...] = ()
    """Images on which the thresholds are chosen, each by least balanced error; without any, 0.5."""
    threshold_description: str = ""
    """What those images are, in words."""
    on_views: bool = False
    """Choose on random views of those images, as training sees them, rather than on the images as they are."""
    calibrate: bool = False
    """Fit a temperature on the same images, and put it into the network."""
    max_error: Annotated[float, Field(gt=0.0, lt=0.5)] | None = None
    """Largest share of faces with a mask that may be called ``no_mask``, and of bare faces that may be called masked;
    faces in between are *uncertain*."""
    max_masked_as_incorrect: Ratio = 1.0
    """Largest share of masks worn correctly that may be called ``incorrect``."""
    test_data: tuple[DataSource, ...] = ()
    """Images on which sensitivity and specificity are measured."""
    test_description: str = ""
    """What those images are, in words."""
    leave_out_near_duplicates: bool = True
    """Leave out near duplicates of training images, by thumbnail. Splits of a training manifest have none; in them this
    would only remove look-alikes."""
    test_shares_groups_with_training: bool = False
    """Whether the test images share groups with training images. The bundle manifest says so."""


class Recipe(_Settings):
    """One training run."""

    name: str
    """The bundle's name, which prediction rows carry."""
    description: str = ""
    """What the model is, in words; part of the bundle manifest."""
    architecture: str
    """The network: its name in ``maskdet/model/architectures.py``."""
    classes: ClassNames = TWO_CLASSES
    """The network's classes, in the order of its outputs: ``[no_mask, mask]`` or
    ``[mask, incorrect, no_mask]``. A manifest's images of any other class are left out."""
    height: Count
    """Height of the network's input, in pixels."""
    width: Count
    """Width of the network's input, in pixels."""
    data: Annotated[tuple[DataSource, ...], Field(min_length=1)]
    """The training images."""
    data_description: str
    """What the training images are, in words; part of the bundle manifest."""
    max_images_per_class: Count | None = None
    """Use only this many images of each class, the first by path."""
    synthetic_faces: CountOrZero = 0
    """How many drawn faces to add to the training images, half of them masked."""
    photographs: tuple[str, ...] = ()
    """Folders or globs of photographs from which training images were cut or made. The bundle lists them among the
    images that it was trained on."""
    validation_data: tuple[DataSource, ...] = ()
    """Images whose loss and accuracy are in each epoch's row of the history."""
    batch_size: Count
    """Images per batch."""
    optimizer: Literal["rmsprop", "adam"]
    """The optimizer."""
    learning_rate: Annotated[float, Field(gt=0.0)]
    """The optimizer's step size at the start."""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """``cosine``: falls to zero over all steps along half a cosine."""
    teachers: tuple[str, ...] = ()
    """Outputs of other trainings with the same classes, bundles or .keras files, whose networks give the target for
    each view."""
    teacher_weight: Ratio = 0.9
    """Weight of the teachers' mean probability in the target; the label has the rest."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    """How much of each target is spread over all classes (label smoothing)."""
    steps_per_epoch: Count
    """Batches per epoch."""
    epochs: Count
    """Most epochs to train."""
    seed: CountOrZero = 0
    """Seed of everything random."""
    flip: bool = False
    """Mirror images with a chance of one half, drawn anew each time one is shown."""
    augmentation: Augmentation | None = None
    """Views made of each image before training."""
    online_augmentation: OnlineAugmentation | None = None
    """Changes made to each batch in the input pipeline."""
    weights: Annotated[str, Field(min_length=1)] = "none"
    """What the base starts from: ``none`` (random), ``imagenet``, or a file of its weights; with ``builtin`` or a
    bundle, all layers start from it."""
    frozen_base: bool = False
    """Train only the head, on features of the base that are computed once."""
    class_weights: Literal["none", "balanced"] | ClassWeights = "none"
    """``balanced``: all classes have the same weight in a pass, however many images each has."""
    early_stopping: EarlyStopping | None = None
    """Stop when a figure no longer improves. Default: train all epochs."""
    mixed_precision: bool = False
    """Use 16-bit arithmetic on CPUs and GPUs with units for it, where it is faster. No effect elsewhere."""
    deterministic: bool = False
    """Use only operations that give the same bits on every run on one machine."""
    checkpoints_kept: Count = 2
    """How many of the latest epochs' checkpoints are kept; the best epoch's is kept too where it is to be restored."""
    tensorboard: bool = False
    """Write TensorBoard events to ``<output>.tensorboard``."""
    on_unreadable: Literal["skip", "stop"] = "skip"
    """What happens if a training image is unreadable; its path is reported either way."""
    representative_images: Count = 300
    """How many training images to measure the int8 ranges on."""
    operating_point: OperatingPoint = OperatingPoint()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.frozen_base and (self.flip or self.online_augmentation):
            raise ValueError("frozen_base: expected neither flip nor online_augmentation, which change cached features")
        stopping = self.early_stopping
        if stopping and stopping.monitor.startswith("val_") and not self.validation_data:
            raise ValueError(f"early_stopping.monitor = {stopping.monitor!r} needs validation_data")
        every = (*self.data, *self.validation_data, *self.operating_point.threshold_data)
        if self.classes == TWO_CLASSES and any(s.incorrect for s in (*every, *self.operating_point.test_data)):
            raise ValueError(f"data: expected no folder of incorrect masks with classes {list(self.classes)}")
        if self.weights == BUILTIN and not self.operating_point.threshold_data:
            raise ValueError(
                "operating_point.threshold_data: expected held-out images with weights: builtin, received none; what "
                "was fitted further has other thresholds, which have to be chosen"
            )
        if self.teachers and (self.class_weights != "none" or self.frozen_base):
            raise ValueError("teachers: expected neither class_weights nor frozen_base")
        return self

    def smoke(self) -> Recipe:
        """The same recipe cut down to seconds: one epoch of two steps, one view of each image, few images per class.

        The base starts from random weights or the built-in bundle; other weights might not be available.
        """
        changes = {
            "epochs": 1,
            "steps_per_epoch": 2,
            "batch_size": min(self.batch_size, 8),
            "augmentation": self.augmentation and self.augmentation.model_copy(update={"copies": 1}),
            "max_images_per_class": 16,
            "representative_images": 8,
            "weights": self.weights if self.weights == BUILTIN else "none",
            "teachers": (),
            "synthetic_faces": min(self.synthetic_faces, 8),
        }
        return self.model_copy(update=changes)
