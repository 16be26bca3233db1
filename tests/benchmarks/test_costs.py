"""The cost model against hand algebra."""

import pytest

from benchmarks.costs import Prices, Worker, cost

PRICES = Prices(vcpu_hour=0.05, memory_gb_hour=0.005, disk_gb_hour=0.0001)
WORKER = Worker(vcpus=4, memory_gb=10, disk_gb=100)  # 0.2 + 0.05 + 0.01 = 0.26 dollars an hour


def test_work_and_starts_add_up():
    # 3.6 million images at 4 x 250 a second are one machine's hour; two workers' starts of 180 s a tenth of one.
    found = cost(3_600_000, 250, 180, 2, WORKER, PRICES)
    assert found.machine_hours == pytest.approx(1.1)
    assert found.vcpu_hours == pytest.approx(4.4)
    assert found.dollars == pytest.approx(1.1 * 0.26)


def test_without_starts_the_cost_is_linear_in_images():
    one, ten = (cost(images, 300, 0, 5, WORKER, PRICES).dollars for images in (1_000_000, 10_000_000))
    assert ten == pytest.approx(10 * one)
