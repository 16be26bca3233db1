"""Fine-tune a bundle's network: how good it was before, measured on the same images as afterwards."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskdet.compliance.intervals import wilson_interval
from maskdet.labels import CODES, TWO_CLASSES, worn_probability
from maskdet.model.bundle import open_bundle
from maskdet.model.manifest import KERAS_FILE, OperatingCharacteristics
from maskdet.model.safety import refuse_unsafe
from maskdet.model.tensorflow_export import load_keras
from maskdet.training.data import decode
from maskdet.training.operating_point import Point, measure, predict_views, split_outputs
from maskdet.training.pretrained import starting_bundle
from maskdet.training.recipe import Recipe

FEW_IMAGES = 300
"""Fewest images of the rarest class. With fewer, the thresholds chosen vary by several hundredths from draw to draw."""

_CONFIDENCE = 0.95
_log = logging.getLogger(__name__)


def warn_if_few(recipe: Recipe, labels: NDArray[np.uint8]) -> None:
    """Warn if a fit starts from a bundle and has few images of a class.

    Args:
        recipe: the fit's.
        labels: codes of the training images' classes.
    """
    fewest = min(int(np.sum(labels == CODES[name])) for name in recipe.classes)
    if starting_bundle(recipe.weights) is not None and fewest < FEW_IMAGES:
        _log.warning(
            "%d training images of the rarest class: with fewer than %d a fit may lose more than it learns; "
            "compare before and after below, and collect more images before you use it",
            fewest,
            FEW_IMAGES,
        )


def measure_start(bundle: Path, recipe: Recipe, point: Point) -> OperatingCharacteristics:
    """The error rates of the bundle that a fit started from, with its own thresholds, on the fit's test images.

    Args:
        bundle: its folder.
        recipe: the fit's.
        point: the fit's, with the images that it was measured on.
    """
    opened = open_bundle(str(bundle), lambda name: name == KERAS_FILE)
    refuse_unsafe(opened, lambda name: name == KERAS_FILE)
    manifest = opened.manifest
    # At its own input size, with the images decoded as in scoring.
    arrays = decode(list(point.tested_on), manifest.input.height, manifest.input.width)
    outputs = predict_views(load_keras(bundle / KERAS_FILE), arrays)[:, 0]
    classes, decision = manifest.class_names, manifest.decision
    if recipe.classes == TWO_CLASSES != classes:  # when asked whether there is a mask, "incorrect" also means yes
        outputs = worn_probability(*split_outputs(outputs, classes)).astype(np.float32)[:, np.newaxis]
        classes, decision = TWO_CLASSES, decision.model_copy(update={"incorrect_from": None, "incorrect_odds": None})
    return measure(
        outputs,
        arrays.labels,
        decision,
        classes,
        recipe.operating_point.test_description,
        shares_groups_with_training=recipe.operating_point.test_shares_groups_with_training,
    )


def print_before_and_after(bundle: Path, recipe: Recipe, point: Point) -> None:
    """Print what share of each class is labelled right, before and after.

    Args:
        bundle: as of :func:`measure_start`.
        recipe: as of :func:`measure_start`.
        point: as of :func:`measure_start`.
    """
    assert point.characteristics is not None, "a fit that was measured"
    print(f"labelled right on {recipe.operating_point.test_description or 'the test images'}, with 95 % intervals:")
    for when, found in (("before", measure_start(bundle, recipe, point)), ("after", point.characteristics)):
        masked = _share(found.masked_right, found.masked_total)
        print(f"  {when:<6}  masked {masked}, bare {_share(found.unmasked_right, found.unmasked_total)}")


def _share(right: int, total: int) -> str:
    interval = wilson_interval(right, total, _CONFIDENCE)
    return "none" if interval is None else f"{right / total:.3f} ({interval.low:.3f} to {interval.high:.3f}) of {total}"
