"""Measure the most int8 multiply-adds per second that this machine does: a dense product in ONNX Runtime.

    .venv/bin/python -m benchmarks.int8_peak

An unsigned matrix is multiplied by a signed one, both of 8 bits; ONNX Runtime's kernels use VNNI or AMX where the
processor has them. Matrices fit in the second-level cache, so that arithmetic is measured, not memory. The best of
several repeats counts, because anything else that the machine does can only make a repeat slower.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

SIDES = (384, 512, 768)
"""Sides of the square matrices that are tried; the best counts."""
_PRODUCTS = 8


class Peak(NamedTuple):
    """Multiply-adds per second."""

    one_core: float
    all_cores: float


def main() -> None:
    peak = measure_peak()
    print(f"{peak.one_core / 1e9:,.0f} G int8 multiply-adds a second on one core, {peak.all_cores / 1e9:,.0f} on all")


def measure_peak(seconds: float = 2.0) -> Peak:
    """The machine's peak; on one core and on all, each measured for ``seconds``."""
    cores = len(os.sched_getaffinity(0))
    return Peak(_best(1, seconds), _best(cores, seconds))


def _best(threads: int, seconds: float) -> float:
    """The best rate over all sides, with a product of its own for each thread."""
    rates = []
    for side in SIDES:
        runs = [_product(side) for _ in range(threads)]
        adds = threads * _PRODUCTS * side**3
        with ThreadPoolExecutor(threads) as pool:
            until, shortest = time.perf_counter() + seconds / len(SIDES), float("inf")
            while time.perf_counter() < until:
                started = time.perf_counter()
                list(pool.map(lambda run: run(), runs))
                shortest = min(shortest, time.perf_counter() - started)
        rates.append(adds / shortest)
    return max(rates)


def _product(side: int) -> Any:
    """A function that multiplies a series of matrices on one thread."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    generator = np.random.default_rng(side)
    left = generator.integers(0, 256, (side, side)).astype(np.uint8)
    nodes, outputs, weights = [], [], []
    for number in range(_PRODUCTS):
        right = generator.integers(-128, 128, (side, side)).astype(np.int8)
        weights.append(onnx.numpy_helper.from_array(right, f"w{number}"))
        nodes.append(helper.make_node("MatMulInteger", ["x", f"w{number}"], [f"y{number}"]))
        outputs.append(helper.make_tensor_value_info(f"y{number}", TensorProto.INT32, [side, side]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, [side, side])]
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": left})


if __name__ == "__main__":
    main()
