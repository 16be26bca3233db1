"""Measure how often each interval of a rate covers the truth, in simulated worlds whose truth is known.

    python -m benchmarks.coverage [--repetitions 5000] [--seed 1]

Prints, for every world and interval, the share of repetitions in which the interval covered the true rate (nominal:
95 %), and the interval's mean width. The naive interval is Wilson's for all faces, as if they were independent and the
model made no errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from maskdet.compliance.intervals import (
    ClusterSums,
    ErrorRates,
    Interval,
    LabelledSums,
    cluster_interval,
    corrected_interval,
    labelled_interval,
    melded_interval,
    wilson_interval,
)
from maskdet.errors import ConfigError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class World:
    """A population that faces are drawn from.

    Attributes:
        rate: true share of masked faces.
        clusters: number of clusters.
        faces: number of faces in each cluster.
        design_effect: variance of the share, relative to that of the same number of independent faces.
        sensitivity: sensitivity of the model.
        specificity: specificity of the model.
        validated: number of faces of each class on which the model was measured.
        labelled: share of faces that get a label, at random.
    """

    rate: float
    clusters: int
    faces: int
    design_effect: float = 1.0
    sensitivity: float = 1.0
    specificity: float = 1.0
    validated: int = 300
    labelled: float = 0.0


WORLDS = {
    "independent": World(0.7, 400, 1),
    "independent, rate .02": World(0.02, 400, 1),
    "independent, rate .98": World(0.98, 400, 1),
    "tiny cells (8 faces)": World(0.7, 8, 1),
    "10 clusters, design effect 5": World(0.7, 10, 50, design_effect=5),
    "40 clusters, design effect 5": World(0.7, 40, 50, design_effect=5),
    "misclassified": World(0.7, 400, 1, sensitivity=0.9, specificity=0.95),
    "misclassified, rate .02": World(0.02, 400, 1, sensitivity=0.9, specificity=0.95),
    "misclassified, rate .98": World(0.98, 400, 1, sensitivity=0.9, specificity=0.95),
    "all at once: 10 clusters, design effect 5, misclassified": World(0.7, 10, 50, 5, 0.9, 0.95),
    "all at once, rate .98": World(0.98, 10, 50, 5, 0.9, 0.95),
    "misclassified, a tenth labelled": World(0.7, 2000, 1, 1, 0.9, 0.95, labelled=0.1),
}


@dataclass(frozen=True)
class Sample:
    """One draw from a world."""

    sums: ClusterSums
    errors: ErrorRates
    labels: LabelledSums


def draw(world: World, generator: np.random.Generator) -> Sample:
    """Draw faces, the model's answers for them, and a measurement of the model."""
    truths = generator.binomial(1, _cluster_rates(world, generator)[:, np.newaxis], (world.clusters, world.faces))
    called = _call(truths, world, generator)
    right = generator.binomial(world.validated, [world.sensitivity, world.specificity])
    labelled = generator.random(truths.shape) < world.labelled
    return Sample(
        ClusterSums.of([world.faces] * world.clusters, called.sum(axis=1).tolist()),
        ErrorRates(int(right[0]), world.validated, int(right[1]), world.validated),
        _label(truths, called, labelled),
    )


def _cluster_rates(world: World, generator: np.random.Generator) -> np.ndarray:
    """Rates of the clusters, from a beta distribution whose correlation gives the design effect.

    The design effect is 1 + (faces - 1) correlation.
    """
    if world.design_effect == 1:
        return np.full(world.clusters, world.rate)
    correlation = (world.design_effect - 1) / (world.faces - 1)
    total = 1 / correlation - 1
    return generator.beta(world.rate * total, (1 - world.rate) * total, world.clusters)


def _call(truths: np.ndarray, world: World, generator: np.random.Generator) -> np.ndarray:
    return generator.binomial(1, np.where(truths == 1, world.sensitivity, 1 - world.specificity))


def _label(truths: np.ndarray, called: np.ndarray, labelled: np.ndarray) -> LabelledSums:
    with_label, others = called[labelled], called[~labelled]
    return LabelledSums(
        int(labelled.sum()),
        int(truths[labelled].sum()),
        float(with_label.sum()),
        float((with_label**2).sum()),
        float((with_label * truths[labelled]).sum()),
        int((~labelled).sum()),
        float(others.sum()),
        float((others**2).sum()),
    )


def naive(sample: Sample) -> Interval | None:
    """Wilson's interval for all faces."""
    return wilson_interval(sample.sums.successes, sample.sums.trials, CONFIDENCE)


def clustered(sample: Sample) -> Interval | None:
    """The interval for clustered faces."""
    return cluster_interval(sample.sums, CONFIDENCE)


def corrected(sample: Sample) -> Interval | None:
    """The interval of Lang and Reiczigel."""
    found = corrected_interval(sample.sums.successes, sample.sums.trials, sample.errors, CONFIDENCE)
    return found.interval if found else None


def melded(sample: Sample) -> Interval | None:
    """The melded interval."""
    found = melded_interval(sample.sums, sample.errors, CONFIDENCE)
    return found.interval if found else None


def labelled(sample: Sample) -> Interval | None:
    """The prediction-powered interval."""
    found = labelled_interval(sample.labels, CONFIDENCE)
    return found.interval if found else None


METHODS: dict[str, Callable[[Sample], Interval | None]] = {
    "naive": naive,
    "clustered": clustered,
    "corrected": corrected,
    "melded": melded,
    "labelled": labelled,
}


def recommended(world: World) -> str:
    """Which interval fits a world."""
    if world.labelled:
        return "labelled"
    if world.sensitivity == world.specificity == 1:
        return "naive" if world.design_effect == 1 else "clustered"
    return "corrected" if world.design_effect == 1 else "melded"


def measure(world: World, method: str, repetitions: int, seed: int) -> tuple[float, float]:
    """Coverage and mean width of a method; where it gives no interval, 0 to 1 is taken."""
    generator, held, width = np.random.default_rng(seed), 0, 0.0
    for _ in range(repetitions):
        try:
            interval = METHODS[method](draw(world, generator)) or Interval(0, 1)
        except ConfigError:
            interval = Interval(0, 1)
        held += interval.low <= world.rate <= interval.high
        width += interval.high - interval.low
    return held / repetitions, width / repetitions


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print("| world | recommended | covers | width | naive covers | width |\n|---|---|---|---|---|---|")
    for name, world in WORLDS.items():
        method = recommended(world)
        covers, width = measure(world, method, arguments.repetitions, arguments.seed)
        plain, plain_width = measure(world, "naive", arguments.repetitions, arguments.seed)
        print(f"| {name} | {method} | {covers:.3f} | {width:.3f} | {plain:.3f} | {plain_width:.3f} |", flush=True)


if __name__ == "__main__":
    main()
