"""Whether the probabilities are well calibrated, and what would make them so: a temperature, and a decision band.

Both are advice for the model's maker: they are fitted on one half of the data, measured on the other, and not applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.evaluation import metrics
from maskdet.evaluation.metrics import Floats, Sample, Tally

# Half a step of an int8 output, so that a probability of exactly 0 does not mean certainty.
CLIP = 1 / 512
_LOG_TEMPERATURES = (-3.0, 3.0)


class TemperatureFit(NamedTuple):
    """Temperature scaling, fitted on one half and measured on the other."""

    temperature: float
    log_loss_before: float
    log_loss_after: float
    ece_before: float
    ece_after: float
    fitted_on: int
    measured_on: int


class Band(NamedTuple):
    """Decision thresholds and their results on the half on which they were not chosen."""

    no_mask_below: float
    mask_from: float
    max_error: float
    masked_as_no_mask: float
    """Share of masked faces labelled ``no_mask``."""
    unmasked_as_mask: float
    """Share of unmasked faces labelled ``mask``."""
    uncertain: float
    measured_on: int


def scale(probabilities: Floats, temperature: float) -> Floats:
    """Probabilities with their log odds divided by a temperature; above 1 it moves them towards 0.5.

    Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    clipped = np.clip(probabilities, CLIP, 1 - CLIP)
    logits = np.log(clipped) - np.log1p(-clipped)
    return np.asarray(1 / (1 + np.exp(-logits / temperature)), np.float64)


def fit_temperature(sample: Sample) -> float:
    """The temperature with the least log loss, between e⁻³ and e³, by Brent's search on its logarithm.

    The loss is convex in 1/temperature, so it has one minimum there and in any monotone function of it.

    Args:
        sample: faces of both classes.
    """
    tally = Tally.of(sample)

    def loss(temperature: float) -> float:
        scaled = metrics.Tally(scale(tally.values, temperature), tally.masked, tally.unmasked, tally.labels)
        return float(metrics.log_loss(scaled, clip=1e-12))

    return _least(loss)


def fit_class_temperature(probabilities: Floats, truth: NDArray[np.intp]) -> float:
    """The same for several classes: logits are log probabilities, up to a constant that does not affect a softmax.

    Args:
        probabilities: of each class, float64 ``(faces, classes)``.
        truth: index of each face's class, ``(faces,)``.
    """
    logits = np.log(np.clip(probabilities, CLIP, 1.0))
    rows = np.arange(len(truth))

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[rows, truth]))

    return _least(loss)


def _least(loss: Callable[[float], float]) -> float:
    """The temperature with the least loss."""
    from scipy.optimize import minimize_scalar  # takes 0.3 s, which only a fit needs

    found = minimize_scalar(
        lambda log_temperature: loss(float(np.exp(log_temperature))),
        bounds=_LOG_TEMPERATURES,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def choose_band(sample: Sample, max_error: float) -> tuple[float, float]:
    """The narrowest uncertain band that keeps a stated error rate in each class of the sample.

    Args:
        sample: faces of both classes.
        max_error: largest share of masked faces that may be labelled ``no_mask``, and of unmasked ones ``mask``.

    Returns:
        ``no_mask_below`` and ``mask_from``; where no band is needed, both are the middle of all thresholds that serve.
    """
    masked = np.sort(sample.probabilities[sample.truth])
    unmasked = np.sort(sample.probabilities[~sample.truth])
    values = np.unique(np.concatenate([[0.0, 1.0], sample.probabilities]))
    # Between two probabilities, so that rounding does not move a face across.
    candidates = np.concatenate([[0.0], (values[:-1] + values[1:]) / 2, [1.0]])
    missed = np.searchsorted(masked, candidates) / len(masked)
    alarms = (len(unmasked) - np.searchsorted(unmasked, candidates)) / len(unmasked)
    below = float(candidates[missed <= max_error].max(initial=0.0))
    quiet = candidates[alarms <= max_error]
    above = float(quiet.min()) if len(quiet) else 1.0
    if above <= below:
        below = above = (above + below) / 2
    return round(below, 4), round(above, 4)


def measure_temperature(fitted: Sample, held_out: Sample) -> TemperatureFit | None:
    """Fit on one half, measure on the other; ``None`` if a half lacks a class."""
    if not (_both_classes(fitted) and _both_classes(held_out)):
        return None
    temperature = fit_temperature(fitted)
    before = Tally.of(held_out)
    after = Tally(scale(before.values, temperature), before.masked, before.unmasked, before.labels)
    (loss_before, ece_before), (loss_after, ece_after) = map(_losses, (before, after))
    return TemperatureFit(
        temperature, loss_before, loss_after, ece_before, ece_after, fitted_on=len(fitted), measured_on=len(held_out)
    )


def measure_band(fitted: Sample, held_out: Sample, max_error: float) -> Band | None:
    """Choose on one half, measure on the other; ``None`` if a half lacks a class."""
    if not (_both_classes(fitted) and _both_classes(held_out)):
        return None
    below, above = choose_band(fitted, max_error)
    probabilities, truth = held_out.probabilities, held_out.truth
    return Band(
        below,
        above,
        max_error,
        masked_as_no_mask=float(np.mean(probabilities[truth] < below)),
        unmasked_as_mask=float(np.mean(probabilities[~truth] >= above)),
        uncertain=float(np.mean((probabilities >= below) & (probabilities < above))),
        measured_on=len(held_out),
    )


def _both_classes(sample: Sample) -> bool:
    return bool(sample.truth.any()) and not bool(sample.truth.all())


def _losses(tally: Tally) -> tuple[float, float]:
    """Log loss and ECE."""
    error = metrics.calibration_error(tally, metrics.equal_mass_bins(tally))
    return float(metrics.log_loss(tally)), float(error)
