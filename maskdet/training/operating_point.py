"""When a probability counts as "mask", how far it can be trusted, and how often the label is right."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import SourceError
from maskdet.evaluation.calibration import choose_band, fit_temperature
from maskdet.evaluation.metrics import Sample
from maskdet.labels import CODES, Decision, label_codes
from maskdet.model.manifest import Calibration, OperatingCharacteristics
from maskdet.preparation.hashing import THUMBNAIL_SIDE_PX
from maskdet.preparation.similarity import near_duplicates
from maskdet.training.data import MASK, NO_MASK, LabelledArrays, decode
from maskdet.training.reading import is_drawn
from maskdet.training.recipe import OperatingPoint, Recipe
from maskdet.training.sets import load_plain, load_views

PREDICT_BATCH = 64

_log = logging.getLogger(__name__)


class Point(NamedTuple):
    """What a bundle says of its network's decisions."""

    decision: Decision
    calibration: Calibration
    characteristics: OperatingCharacteristics | None


def set_operating_point(model: Any, recipe: Recipe, training: LabelledArrays, root: str) -> Point:
    """Calibrate a network, choose its decision thresholds, and measure the error rates there.

    Near duplicates of training images are left out of all sets, unless the recipe says otherwise; if it says of its
    test data that it shares groups with the training data anyway, they are kept there.

    Args:
        model: a fitted ``keras.Model``; a calibration changes the weights of its layer ``logit``.
        recipe: names the images to choose on and to measure on.
        training: what the model was fitted on.
        root: folder that relative data sources start from.

    Raises:
        SourceError: images are missing, or a class is, or all of one were trained on.
    """
    point, decision, calibration = recipe.operating_point, Decision(), Calibration()
    seen = _thumbnails(training) if point.leave_out_near_duplicates else None
    chosen_on = (load_views if point.on_views else load_plain)(recipe, point.threshold_data, root)
    if chosen_on is not None:
        chosen_on = _without_duplicates(chosen_on, seen)
        if point.calibrate:
            calibration = _calibrate(model, chosen_on, point)
        decision = _decide(predict_views(model, chosen_on), chosen_on, point)
    tested_on = load_plain(recipe, point.test_data, root)
    if tested_on is None:
        return Point(decision, calibration, None)
    shares_groups = point.test_shares_groups_with_training
    tested_on = tested_on if shares_groups else _without_duplicates(tested_on, seen)
    characteristics = measure(
        predict_views(model, tested_on)[:, 0],
        tested_on.labels,
        decision,
        point.test_description,
        shares_groups_with_training=shares_groups,
    )
    return Point(decision, calibration, characteristics)


def predict_views(model: Any, arrays: LabelledArrays) -> NDArray[np.float32]:
    """Probabilities of "mask", ``(images, copies)``."""
    flat = arrays.pixels.reshape(-1, *arrays.pixels.shape[2:])
    probabilities: NDArray[np.float32] = model.predict(flat, batch_size=PREDICT_BATCH, verbose=0)
    return probabilities.reshape(arrays.pixels.shape[:2])


def _calibrate(model: Any, arrays: LabelledArrays, point: OperatingPoint) -> Calibration:
    """Divide the network's log odds by the temperature of least log loss, in the graph itself."""
    temperature = round(fit_temperature(_sample(predict_views(model, arrays), arrays.labels)), 4)
    layer = model.get_layer("logit")
    layer.set_weights([weights / temperature for weights in layer.get_weights()])
    return Calibration(method="temperature", temperature=temperature, fitted_on=point.threshold_description)


def _decide(probabilities: NDArray[np.float32], arrays: LabelledArrays, point: OperatingPoint) -> Decision:
    labels = np.repeat(arrays.labels, probabilities.shape[1])
    threshold = choose_threshold(probabilities.ravel(), labels)
    below = above = threshold
    if point.max_error is not None:
        chosen = choose_band(_sample(probabilities, arrays.labels), point.max_error)
        if chosen[0] < chosen[1]:  # or else the threshold of least error needs no band
            below, above = min(chosen[0], threshold), max(chosen[1], threshold)
    return Decision(no_mask_below=below, mask_from=above)


def _sample(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> Sample:
    truth = np.repeat(labels == MASK, probabilities.shape[1])
    return Sample(probabilities.astype(np.float64).ravel(), truth, np.zeros(len(truth), np.int8))


def _thumbnails(arrays: LabelledArrays) -> NDArray[np.uint8]:
    """The images as files show them, whatever views were made of them; drawn ones have no files."""
    from_files = [image for image in arrays.images if not is_drawn(image.uri)]
    return decode(from_files, THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX).pixels[:, 0]


def _without_duplicates(arrays: LabelledArrays, seen: NDArray[np.uint8] | None) -> LabelledArrays:
    if seen is None:
        return arrays
    duplicates = near_duplicates(_thumbnails(arrays), seen)
    _log.info("left out %d of %d images: near duplicates of training images", duplicates.sum(), len(duplicates))
    kept = arrays.selected(~duplicates)
    if len(set(kept.labels.tolist())) < len((NO_MASK, MASK)):
        raise SourceError(
            "held-out images",
            "some of each class that were not trained on",
            f"{len(kept.labels)} of {len(duplicates)} images without a near duplicate in the training data",
            "Name other folders or hash bands in the recipe's operating_point.",
        )
    return kept


def choose_threshold(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """The threshold of least balanced error; of several, the one nearest 0.5, in the middle of its gap.

    Args:
        probabilities: of "mask", ``(images,)``.
        labels: 0 and 1, ``(images,)``, some of each.

    Returns:
        A threshold in (0, 1), rounded to 4 decimals: "mask" from there on.
    """
    values = np.unique(np.concatenate([[0.0], probabilities.astype(np.float64), [1.0]]))
    candidates = np.append((values[:-1] + values[1:]) / 2, 0.5)
    masked, unmasked = np.sort(probabilities[labels == MASK]), np.sort(probabilities[labels == NO_MASK])
    missed = np.searchsorted(masked, candidates) / len(masked)
    false_alarms = 1.0 - np.searchsorted(unmasked, candidates) / len(unmasked)
    error = missed + false_alarms
    best = candidates[error <= error.min() + 1e-12]
    return round(float(best[np.argmin(np.abs(best - 0.5))]), 4)


def measure(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.uint8],
    decision: Decision,
    dataset: str,
    *,
    shares_groups_with_training: bool,
) -> OperatingCharacteristics:
    """Count right labels at the decision's thresholds; an *uncertain* one counts as wrong.

    Args:
        probabilities: of "mask", ``(images,)``.
        labels: 0 and 1, ``(images,)``.
        decision: the thresholds.
        dataset: what the images are, in words.
        shares_groups_with_training: whether persons or source photos of these images were trained on.
    """
    said = label_codes(probabilities, None, decision)
    masked, unmasked = said[labels == MASK], said[labels == NO_MASK]
    return OperatingCharacteristics(
        dataset=dataset,
        masked_right=int(np.sum(masked == CODES["mask"])),
        masked_total=len(masked),
        unmasked_right=int(np.sum(unmasked == CODES["no_mask"])),
        unmasked_total=len(unmasked),
        shares_groups_with_training=shares_groups_with_training,
    )
