"""Which probabilities give which label, how far they can be trusted, and how often the labels are right."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import SourceError
from maskdet.evaluation.calibration import choose_band, fit_class_temperature, fit_temperature
from maskdet.evaluation.metrics import Sample
from maskdet.labels import CODES, TWO_CLASSES, ClassNames, Decision, label_codes, label_names, worn_probability
from maskdet.model.manifest import Calibration, OperatingCharacteristics
from maskdet.preparation.hashing import THUMBNAIL_SIDE_PX
from maskdet.preparation.similarity import near_duplicates
from maskdet.training.data import INCORRECT, MASK, NO_MASK, LabelledArrays, LabelledImage, decode
from maskdet.training.reading import is_drawn
from maskdet.training.recipe import Recipe
from maskdet.training.sets import load_plain, load_views

_UNCERTAIN = CODES["uncertain"]

PREDICT_BATCH = 64
_NEUTRAL = 0.5

_log = logging.getLogger(__name__)


class Point(NamedTuple):
    """What a bundle says about its network's decisions."""

    decision: Decision
    calibration: Calibration
    characteristics: OperatingCharacteristics | None
    tested_on: tuple[LabelledImage, ...] = ()
    """The images of the characteristics."""


def set_operating_point(model: Any, recipe: Recipe, training: LabelledArrays, root: str) -> Point:
    """Calibrate a network, choose its decision thresholds, and measure the error rates there.

    Near duplicates of training images are left out of all sets, unless the recipe says otherwise; they are kept in test
    data that shares groups with the training data according to the recipe.

    Args:
        model: a fitted ``keras.Model``; a calibration changes the weights of its layer ``logit``.
        recipe: names the images to choose on and to measure on.
        training: what the model was fitted on.
        root: folder that relative data sources start from.

    Raises:
        SourceError: images or a class are missing, or all images of a class were trained on.
    """
    point, calibration = recipe.operating_point, Calibration()
    decision = Decision(incorrect_from=None if recipe.classes == TWO_CLASSES else _NEUTRAL)
    seen = _thumbnails(training) if point.leave_out_near_duplicates else None
    chosen_on = (load_views if point.on_views else load_plain)(recipe, point.threshold_data, root)
    if chosen_on is not None:
        chosen_on = _without_duplicates(chosen_on, seen)
        if point.calibrate:
            calibration = _calibrate(model, chosen_on, recipe)
        decision = decide(predict_views(model, chosen_on), chosen_on.labels, recipe)
    tested_on = load_plain(recipe, point.test_data, root)
    if tested_on is None:
        return Point(decision, calibration, None)
    shares_groups = point.test_shares_groups_with_training
    tested_on = tested_on if shares_groups else _without_duplicates(tested_on, seen)
    characteristics = measure(
        predict_views(model, tested_on)[:, 0],
        tested_on.labels,
        decision,
        recipe.classes,
        point.test_description,
        shares_groups_with_training=shares_groups,
    )
    return Point(decision, calibration, characteristics, tuple(tested_on.images))


def predict_views(model: Any, arrays: LabelledArrays) -> NDArray[np.float32]:
    """What a network says of each view: float32 ``(images, copies, outputs)``."""
    flat = arrays.pixels.reshape(-1, *arrays.pixels.shape[2:])
    given: NDArray[np.float32] = model.predict(flat, batch_size=PREDICT_BATCH, verbose=0)
    return given.reshape(*arrays.pixels.shape[:2], -1)


def split_outputs(
    outputs: NDArray[np.float32], class_names: ClassNames
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Probabilities of ``mask`` and, where the network has that class, of ``incorrect``.

    Args:
        outputs: ``(…, outputs)``.
        class_names: what the network tells apart.

    Returns:
        ``(…)`` each.
    """
    if class_names == TWO_CLASSES:
        return outputs[..., 0], None
    return outputs[..., class_names.index("mask")], outputs[..., class_names.index("incorrect")]


def _calibrate(model: Any, arrays: LabelledArrays, recipe: Recipe) -> Calibration:
    """Divide the network's log odds, or logits, by the temperature with the least log loss, in the graph itself."""
    outputs, point = predict_views(model, arrays), recipe.operating_point
    if recipe.classes == TWO_CLASSES:
        temperature = fit_temperature(_sample(outputs[..., 0], arrays.labels))
    else:
        truth = np.array([recipe.classes.index(name) for name in label_names(arrays.labels.astype(np.int8))], np.intp)
        flat = outputs.reshape(-1, outputs.shape[2]).astype(np.float64)
        temperature = fit_class_temperature(flat, np.repeat(truth, outputs.shape[1]))
    temperature = round(temperature, 4)
    layer = model.get_layer("logit")
    layer.set_weights([weights / temperature for weights in layer.get_weights()])
    return Calibration(method="temperature", temperature=temperature, fitted_on=point.threshold_description)


def decide(outputs: NDArray[np.float32], labels: NDArray[np.uint8], recipe: Recipe) -> Decision:
    """Choose the thresholds for the rule of :mod:`maskdet.labels` on held-out images.

    First come the thresholds for whether there is a mask, worn correctly or not; then, on faces that wear one and are
    said to, the threshold for whether it is worn incorrectly.

    Args:
        outputs: what the network says, ``(images, copies, outputs)``.
        labels: codes of the images' classes, ``(images,)``; both ``mask`` and ``no_mask`` among them.
        recipe: its classes and limits.
    """
    point, copies = recipe.operating_point, outputs.shape[1]
    mask, incorrect = split_outputs(outputs, recipe.classes)
    worn = mask if incorrect is None else worn_probability(mask, incorrect)
    below = above = choose_threshold(worn.ravel(), np.repeat(labels, copies))
    if point.max_error is not None:
        chosen = choose_band(_sample(worn, labels), point.max_error)
        if chosen[0] < chosen[1]:  # otherwise the threshold with the least error needs no band
            below, above = min(chosen[0], below), max(chosen[1], above)
    if incorrect is None:
        return Decision(no_mask_below=below, mask_from=above)
    truth = np.repeat(labels, copies)
    asked = (worn.ravel() >= above) & (truth != NO_MASK) & (worn.ravel() > 0)
    share = incorrect.astype(np.float64).ravel()[asked] / worn.ravel()[asked]
    wrong, right = share[truth[asked] == INCORRECT], share[truth[asked] == MASK]
    chosen_from = _NEUTRAL
    if len(wrong) and len(right):
        chosen_from = _least_error(wrong, right, point.max_masked_as_incorrect)
    return Decision(no_mask_below=below, mask_from=above, incorrect_from=chosen_from)


def _sample(probabilities: NDArray[Any], labels: NDArray[np.uint8]) -> Sample:
    truth = np.repeat(labels != NO_MASK, probabilities.shape[1])
    return Sample(probabilities.astype(np.float64).ravel(), truth, np.zeros(len(truth), np.int8))


def _thumbnails(arrays: LabelledArrays) -> NDArray[np.uint8]:
    """The images as in their files, whatever views were made of them; drawn ones have no files."""
    from_files = [image for image in arrays.images if not is_drawn(image.uri)]
    return decode(from_files, THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX).pixels[:, 0]


def _without_duplicates(arrays: LabelledArrays, seen: NDArray[np.uint8] | None) -> LabelledArrays:
    if seen is None:
        return arrays
    duplicates = near_duplicates(_thumbnails(arrays), seen)
    _log.info("left out %d of %d images: near duplicates of training images", duplicates.sum(), len(duplicates))
    kept = arrays.selected(~duplicates)
    if not {NO_MASK, MASK} <= set(kept.labels.tolist()):
        raise SourceError(
            "held-out images",
            "some of each class that were not trained on",
            f"{len(kept.labels)} of {len(duplicates)} images without a near duplicate in the training data",
            "Name other folders or hash bands in the recipe's operating_point.",
        )
    return kept


def choose_threshold(probabilities: NDArray[Any], labels: NDArray[np.uint8]) -> float:
    """The threshold with the least balanced error; among several, the one nearest 0.5, in the middle of its gap.

    Args:
        probabilities: that there is a mask, ``(images,)``.
        labels: codes of the images' classes, ``(images,)``, some of them ``no_mask`` and some not.

    Returns:
        A threshold in (0, 1), rounded to 4 decimals: a mask from there on.
    """
    return _least_error(probabilities[labels != NO_MASK], probabilities[labels == NO_MASK])


def _least_error(hits: NDArray[Any], others: NDArray[Any], max_alarms: float = 1.0) -> float:
    """Like :func:`choose_threshold`, for what should be above and below, with at most a share of the latter above."""
    hits, others = np.sort(hits), np.sort(others)
    values = np.unique(np.concatenate([[0.0], hits.astype(np.float64), others.astype(np.float64), [1.0]]))
    candidates = np.append((values[:-1] + values[1:]) / 2, _NEUTRAL)
    missed = np.searchsorted(hits, candidates) / len(hits)
    false_alarms = 1.0 - np.searchsorted(others, candidates) / len(others)
    allowed = false_alarms <= max_alarms
    if not allowed.any():  # faces for which every answer is sure
        return 1.0
    error, candidates = (missed + false_alarms)[allowed], candidates[allowed]
    best = candidates[error <= error.min() + 1e-12]
    return round(float(best[np.argmin(np.abs(best - _NEUTRAL))]), 4)


def measure(
    outputs: NDArray[np.float32],
    labels: NDArray[np.uint8],
    decision: Decision,
    class_names: ClassNames,
    dataset: str,
    *,
    shares_groups_with_training: bool,
) -> OperatingCharacteristics:
    """Count correct labels at the decision's thresholds; *uncertain* counts as wrong.

    Args:
        outputs: what the network says, ``(images, outputs)``.
        labels: codes of the images' classes, ``(images,)``.
        decision: the thresholds.
        class_names: what the network tells apart.
        dataset: what the images are, in words.
        shares_groups_with_training: whether persons or source photos of these images were trained on.
    """
    said = label_codes(*split_outputs(outputs, class_names), decision)
    masked, unmasked, incorrect = (said[labels == code] for code in (MASK, NO_MASK, INCORRECT))
    of_three = {
        "incorrect_right": int(np.sum(incorrect == INCORRECT)),
        "incorrect_total": len(incorrect),
        "masked_as_incorrect": int(np.sum(masked == INCORRECT)),
        "unmasked_as_incorrect": int(np.sum(unmasked == INCORRECT)),
        "incorrect_as_mask": int(np.sum(incorrect == MASK)),
        "incorrect_uncertain": int(np.sum(incorrect == _UNCERTAIN)),
    }
    return OperatingCharacteristics(
        dataset=dataset,
        masked_right=int(np.sum(masked == MASK)),
        masked_total=len(masked),
        unmasked_right=int(np.sum(unmasked == NO_MASK)),
        unmasked_total=len(unmasked),
        masked_uncertain=int(np.sum(masked == _UNCERTAIN)),
        unmasked_uncertain=int(np.sum(unmasked == _UNCERTAIN)),
        **({} if class_names == TWO_CLASSES else of_three),
        shares_groups_with_training=shares_groups_with_training,
    )
