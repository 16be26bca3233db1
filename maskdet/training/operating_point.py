"""When a probability counts as "mask", and how often that is right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskdet.model.manifest import Decision, OperatingCharacteristics
from maskdet.training.data import MASK, NO_MASK


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
    masked, unmasked = probabilities[labels == MASK], probabilities[labels == NO_MASK]
    return OperatingCharacteristics(
        dataset=dataset,
        masked_right=int(np.sum(masked >= decision.mask_from)),
        masked_total=len(masked),
        unmasked_right=int(np.sum(unmasked < decision.no_mask_below)),
        unmasked_total=len(unmasked),
        shares_groups_with_training=shares_groups_with_training,
    )
