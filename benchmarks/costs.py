"""Compute what a million images cost on Dataflow from the rate of one vCPU.

    .venv/bin/python -m benchmarks.costs --rate 500
    .venv/bin/python -m benchmarks.costs --rate 500 --vcpus 4 --memory-gb 16 --vcpu-hour 0.056

Nothing is measured here: take the rate from `benchmarks.limit` or from the run record of a real run (images per second
divided by cores), and prices from the region's price list. docs/costs.md explains the formula.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

MILLION = 1_000_000


class Prices(NamedTuple):
    """Prices of a worker's parts, in dollars per hour."""

    vcpu_hour: float
    memory_gb_hour: float
    disk_gb_hour: float


class Worker(NamedTuple):
    """A worker machine."""

    vcpus: int
    memory_gb: float
    disk_gb: float


class Cost(NamedTuple):
    """The cost of a number of images."""

    vcpu_hours: float
    machine_hours: float
    dollars: float


def cost(images: int, rate_per_vcpu: float, start_s: float, workers: int, worker: Worker, prices: Prices) -> Cost:
    """The cost of a run: the work on its images, and the start of each worker.

    Args:
        images: number of images to score.
        rate_per_vcpu: images per second and vCPU, once a worker runs.
        start_s: seconds from a worker's boot to its first image; paid for every worker.
        workers: number of machines.
        worker: one machine.
        prices: prices of its parts.
    """
    machine_hours = images / (rate_per_vcpu * worker.vcpus) / 3600 + workers * start_s / 3600
    hourly = (
        worker.vcpus * prices.vcpu_hour
        + worker.memory_gb * prices.memory_gb_hour
        + worker.disk_gb * prices.disk_gb_hour
    )
    return Cost(machine_hours * worker.vcpus, machine_hours, machine_hours * hourly)


def main() -> None:
    given = _parser().parse_args()
    worker = Worker(given.vcpus, given.memory_gb, given.disk_gb)
    prices = Prices(given.vcpu_hour, given.memory_gb_hour, given.disk_gb_hour)
    found = cost(MILLION, given.rate, given.start_s, given.workers, worker, prices)
    print(
        f"a million images: {found.vcpu_hours:.2f} vCPU-hours, {found.machine_hours:.2f} machine-hours, "
        f"{found.dollars:.3f} dollars"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, required=True, help="images per second and vCPU")
    parser.add_argument("--start-s", type=float, default=180.0, help="seconds from a worker's boot to its first image")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--vcpus", type=int, default=4)
    parser.add_argument("--memory-gb", type=float, default=16.0)
    parser.add_argument("--disk-gb", type=float, default=25.0)
    parser.add_argument("--vcpu-hour", type=float, default=0.056)
    parser.add_argument("--memory-gb-hour", type=float, default=0.003557)
    parser.add_argument("--disk-gb-hour", type=float, default=0.000054)
    return parser


if __name__ == "__main__":
    main()
