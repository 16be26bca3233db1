"""How robust a model's labels are when faces are made smaller, larger, blurred, or all of one width.

A view is made from the upright image at its full size: scaled (Pillow's bicubic filter, antialiased when shrinking),
blurred (Gaussian) and stored as JPEG; these bytes are then decoded as scoring decodes any file. ``plain`` is the file
itself. The model runs on blocks, as in scoring; there is no randomness.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from maskdet import storage
from maskdet.cores import available_cores
from maskdet.errors import ImageFault, SourceError
from maskdet.evaluation import metrics
from maskdet.evaluation.intervals import Estimate, mean_of, wilson_estimate
from maskdet.evaluation.metrics import MASK, NO_MASK, Bools, Sample, Tally
from maskdet.images.preprocessing import ImageLimits, open_upright, prepare_image
from maskdet.labels import CODES, INCORRECT, ClassNames, Decision, class_columns, label_codes, worn_probability
from maskdet.model.backends import Model
from maskdet.model.manifest import InputSpec
from tools.comparison.settings import RobustnessSettings

PLAIN = "plain"
_BLOCK_IMAGES = 8
# A view's shorter side may be shorter than an original's may be.
_VIEW_LIMITS = ImageLimits(min_side_px=1)

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """How a face is shown.

    Attributes:
        name: what tables call it.
        side_px: length of the longer side; ``None``: the view is not scaled by it.
        width_px: width; ``None``: the view is not scaled by it.
        blur: radius of the Gaussian blur, as a share of the view's longer side; 0 for none.
        jpeg_quality: 1 to 95.
    """

    name: str
    side_px: int | None = None
    width_px: int | None = None
    blur: float = 0.0
    jpeg_quality: int = 90

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height, in pixels, of the view of an image of this size; the aspect ratio is kept."""
        if self.width_px is not None:
            scale = self.width_px / width
        else:
            scale = 1.0 if self.side_px is None else self.side_px / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def encode(self, image: Image.Image) -> bytes:
        """A JPEG file of the view.

        Args:
            image: upright, RGB.
        """
        size = self.size_of(*image.size)
        shown = image.resize(size, Image.Resampling.BICUBIC) if size != image.size else image
        if self.blur:
            shown = shown.filter(ImageFilter.GaussianBlur(self.blur * max(size)))
        stream = io.BytesIO()
        shown.save(stream, "JPEG", quality=self.jpeg_quality)
        return stream.getvalue()


class ViewRow(NamedTuple):
    """A model on one view of the faces; the label *uncertain* counts as wrong.

    ``incorrect`` counts as a mask; how often it was given has fields of its own, ``None`` for a model of two classes.
    """

    view: str
    masked_right: int
    masked: int
    masked_as_incorrect: int | None
    unmasked_right: int
    unmasked: int
    unmasked_as_mask: int
    unmasked_as_incorrect: int | None
    accuracy: Estimate
    balanced_accuracy: Estimate
    accuracy_change: float
    """Against the plain images, in points (hundredths)."""
    balanced_change: float
    """Likewise."""


def views_of(settings: RobustnessSettings) -> list[View]:
    """The views of the settings: ``plain``, then each size sharp, each size blurred, and each common width."""
    views = [View(PLAIN)]
    for blur in (0.0, settings.blur):
        note = ", blurred" if blur else ""
        for side in settings.sides_px:
            views.append(View(f"longer side {side} px{note}", side, None, blur, settings.jpeg_quality))
    for width in settings.widths_px:
        views.append(View(f"every width {width} px", None, width, 0.0, settings.jpeg_quality))
    return views


def first_of_each_class(labels: Sequence[str], content_sha256: Sequence[str], limit: int | None) -> list[int]:
    """Indices of the images to measure: the first of each class by SHA-256, whatever their order and location.

    Args:
        labels: ``mask`` or ``no_mask`` of each image.
        content_sha256: SHA-256 of each image, in hexadecimal.
        limit: images per class; ``None``: all.
    """
    chosen: list[int] = []
    for label in ("mask", "no_mask"):
        members = [place for place, one in enumerate(labels) if one == label]
        chosen += sorted(members, key=lambda place: (content_sha256[place], place))[:limit]
    return sorted(chosen)


def measure(
    models: Sequence[Model], uris: Sequence[str], views: Sequence[View], threads: int | None = None
) -> list[Probabilities]:
    """Probabilities of every model for every view of every image; each view is made once for all models.

    Args:
        models: loaded for that many threads.
        uris: where the images are.
        views: the views to make.
        threads: blocks of images processed concurrently; default: one per core. No result depends on it.

    Returns:
        For each model, float32 ``(views, images, classes)``.

    Raises:
        SourceError: an image cannot be decoded.
        StorageError: it cannot be read.
    """
    found = [np.empty((len(views), len(uris), len(model.manifest.class_names)), np.float32) for model in models]
    inputs = list(dict.fromkeys(model.manifest.input for model in models))

    def run(start: int) -> None:
        pixels = [_shown(uri, views, inputs) for uri in uris[start : start + _BLOCK_IMAGES]]
        for model, probabilities in zip(models, found, strict=True):
            place = inputs.index(model.manifest.input)
            for row in range(len(views)):
                block = np.stack([image[place][row] for image in pixels])
                probabilities[row, start : start + len(pixels)] = model.predict(block)

    with ThreadPoolExecutor(threads or available_cores(), thread_name_prefix="views") as pool:
        list(pool.map(run, range(0, len(uris), _BLOCK_IMAGES)))
    return found


def _shown(uri: str, views: Sequence[View], inputs: Sequence[InputSpec]) -> list[list[NDArray[np.uint8]]]:
    """For each model input, the pixels of each view, uint8 RGB ``(height, width, 3)``."""
    data = storage.read_bytes(uri)
    try:
        image, _ = open_upright(data, ImageLimits())
    except ImageFault as error:
        remedy = "Prepare the data again: maskdet prepare leaves out what cannot be decoded."
        raise SourceError(f"image {uri}", "one that can be decoded", str(error), remedy) from error
    files = [data if view.name == PLAIN else view.encode(image) for view in views]
    return [
        [
            prepare_image(file, spec.height, spec.width, _VIEW_LIMITS, resize_filter=spec.resize_filter).pixels
            for file in files
        ]
        for spec in inputs
    ]


def sample_of(probabilities: Probabilities, truth: Bools, class_names: ClassNames, decision: Decision) -> Sample:
    """Faces with the labels that a model's thresholds give them; ``incorrect`` becomes ``mask``.

    Args:
        probabilities: ``(images, classes)``.
        truth: whether a mask is worn, ``(images,)``.
        class_names: the model's classes.
        decision: its thresholds; between them the label is *uncertain*.
    """
    by_class = class_columns(probabilities, class_names)
    worn = by_class["mask"], by_class.get("incorrect")
    labels = label_codes(*worn, decision)
    return Sample(worn_probability(*worn), truth, np.where(labels == CODES["incorrect"], MASK, labels).astype(np.int8))


def rows_of(
    probabilities: Probabilities,
    views: Sequence[View],
    truth: Bools,
    class_names: ClassNames,
    decision: Decision,
    confidence: float,
) -> list[ViewRow]:
    """A model's figures, view by view.

    Args:
        probabilities: ``(views, images, classes)``.
        views: the others are compared with the first.
        truth: whether a mask is worn, ``(images,)``; both have to occur.
        class_names: the model's classes.
        decision: the model's thresholds.
        confidence: of Wilson's intervals, which assume independent images.
    """
    rows: list[ViewRow] = []
    for view, values in zip(views, probabilities, strict=True):
        tally = Tally.of(sample_of(values, truth, class_names, decision))
        called = _called_incorrect(values, truth, class_names, decision)
        rows.append(_row(view.name, tally, called, confidence, rows[0] if rows else None))
    return rows


def _called_incorrect(
    probabilities: Probabilities, truth: Bools, class_names: ClassNames, decision: Decision
) -> tuple[int, int] | None:
    """How many faces with a mask and without are labelled ``incorrect``; ``None`` for a model of two classes."""
    by_class = class_columns(probabilities, class_names)
    if INCORRECT not in by_class:
        return None
    called = label_codes(by_class["mask"], by_class[INCORRECT], decision) == CODES[INCORRECT]
    return int(np.sum(called & truth)), int(np.sum(called & ~truth))


def _row(name: str, tally: Tally, called: tuple[int, int] | None, confidence: float, plain: ViewRow | None) -> ViewRow:
    found, unfound = (int(count) for count in tally.counted(MASK))
    right = int(tally.counted(NO_MASK)[1])
    masked, unmasked = int(tally.masked_total), int(tally.unmasked_total)
    sensitivity = wilson_estimate("sensitivity", found, masked, confidence)
    specificity = wilson_estimate("specificity", right, unmasked, confidence)
    interval = mean_of((sensitivity, specificity))
    assert interval is not None, "some images of each class"
    value = float(metrics.balanced_accuracy(tally))
    balanced = Estimate("balanced_accuracy", value, *interval, "wilson, square-and-add", masked + unmasked)
    accuracy = wilson_estimate("accuracy", found + right, masked + unmasked, confidence)
    changes = (
        0.0 if plain is None else 100 * (_value(now) - _value(then))
        for now, then in zip(
            (accuracy, balanced), (plain.accuracy, plain.balanced_accuracy) if plain else (accuracy,) * 2, strict=True
        )
    )
    masks, bare = called or (None, None)
    return ViewRow(name, found, masked, masks, right, unmasked, unfound, bare, accuracy, balanced, *changes)


def _value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value
