"""Prunes channels of CenterFace, and lets those that stay do the work of those that go.

A block of MobileNetV2 widens its input by a 1 x 1 convolution, filters each channel by a 3 x 3 convolution, and sums
the channels up by another 1 x 1 convolution. Removing a filtered channel affects nothing outside the block: its row of
the first convolution, its kernel of the second and its column of the third go with it. A linear regression of the
block's original outputs on the channels that stay, over places in real photographs, decides which ones go, and gives
the new third convolution (He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", 2017; Luo,
Wu and Lin, "ThiNet", 2017). Channels go one by one, always the one whose removal increases the squared error least.
That increase has a closed form (Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain
Surgeon", 1993): the channel's squared coefficients over its diagonal entry of the inverse second moments.

Blocks are pruned in order, so that each compensates for what the ones before it lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tools.detector.centerface import STAGES, Layer

if TYPE_CHECKING:
    from tools.detector.torch_centerface import TorchCenterFace

Doubles = NDArray[np.float64]

KEPT_CHANNELS = (24, 48, 80, 96, 96, 96, 128, 256, 256, 256, 256, 384, 384, 384, 480, 480, 480)
"""How many channels each block keeps, of 32, 96, 144, 144, 192, 192, 192, 384 (four times), 576 (three times) and 960
(three times): fewer where resolution is high, because there LiteRT waits for memory; multiples of 16, because its
kernels process 16 at once. Of 6,027 multiply-adds per pixel of canvas, 3,799 are left."""

_RIDGE = 1e-4
_PLACES = 260
_AT_ONCE = 8
_NEAR_SCORE = 0.2
_NEAR_CELLS = 9


class Narrowed(NamedTuple):
    """A regression on the channels that stay."""

    kept: NDArray[np.intp]
    """Indices of those channels, ascending, ``(kept,)``."""
    coefficients: Doubles
    """``(kept, outputs)``."""
    intercept: Doubles
    """``(outputs,)``."""
    error: float
    """Squared error as a share of the variance."""


def eliminate(channels: Doubles, outputs: Doubles, keep: int) -> Narrowed:
    """Regress outputs on channels, and remove channels one by one until ``keep`` are left.

    Args:
        channels: ``(places, channels)``.
        outputs: ``(places, outputs)``: to be predicted from the channels.
        keep: how many channels stay; all of them if there are no more.
    """
    places, count = channels.shape
    regressors = np.concatenate([channels, np.ones((places, 1))], axis=1)
    moments = regressors.T @ regressors / places
    ridge = np.full(count + 1, _RIDGE * float(np.mean(np.diag(moments)[:count])))
    ridge[-1] = 1e-9
    inverse = np.linalg.inv(moments + np.diag(ridge))
    coefficients = inverse @ (regressors.T @ outputs / places)
    left = np.arange(count + 1)
    while len(left) - 1 > keep:
        costs = (coefficients[:-1] ** 2).sum(axis=1) / np.diag(inverse)[:-1]
        goes = int(np.argmin(costs))
        column = inverse[:, goes : goes + 1] / inverse[goes, goes]
        coefficients = np.delete(coefficients - column * coefficients[goes], goes, axis=0)
        inverse = np.delete(np.delete(inverse - column * inverse[goes], goes, axis=0), goes, axis=1)
        left = np.delete(left, goes)
    rest = outputs - regressors[:, left] @ coefficients
    error = float((rest**2).sum() / ((outputs - outputs.mean(axis=0)) ** 2).sum())
    return Narrowed(left[:-1], coefficients[:-1], coefficients[-1], error)


def blocks() -> list[tuple[int, int, int]]:
    """Indices of the widening, filtering and summing layer of each block.

    The network's first convolution counts as the widening layer of the first block.
    """
    count = 1 + sum(number for _, number, _ in STAGES)
    return [(3 * block, 3 * block + 1, 3 * block + 2) for block in range(count)]


def without_channels(layers: Sequence[Layer], block: tuple[int, int, int], result: Narrowed) -> list[Layer]:
    """The layers, with a block reduced to the channels that stay."""
    changed, (widening, filtering, summing) = list(layers), block
    wide, each = layers[widening], layers[filtering]
    changed[widening] = Layer(wide.kernel[..., result.kept], wide.bias[result.kept])
    changed[filtering] = Layer(each.kernel[:, :, result.kept], each.bias[result.kept])
    kernel = result.coefficients.astype(np.float32)[np.newaxis, np.newaxis]
    changed[summing] = Layer(kernel, result.intercept.astype(np.float32))
    return changed


def narrow(layers: Sequence[Layer], canvases: NDArray[np.uint8], kept: Sequence[int] = KEPT_CHANNELS) -> list[Layer]:
    """Prune every block.

    Args:
        layers: layers of the published network.
        canvases: photographs that the regressions use, uint8 RGB ``(count, height, width, 3)``.
        kept: how many channels each block keeps.
    """
    from tools.detector.torch_centerface import TorchCenterFace

    published, narrowed = TorchCenterFace(layers), list(layers)
    places = _places(published, canvases)
    for block, keep in zip(blocks(), kept, strict=True):
        wanted = _seen(published, canvases, places, block[2])
        channels = _seen(TorchCenterFace(narrowed), canvases, places, block[1])
        result = eliminate(channels, wanted, keep)
        narrowed = without_channels(narrowed, block, result)
        print(f"layer {block[2]}: {channels.shape[1]} -> {keep} channels, error {result.error:.3f}", flush=True)
    return narrowed


def _places(network: TorchCenterFace, canvases: NDArray[np.uint8]) -> Doubles:
    """Places that the regressions use, ``(canvases, places, 2)``, as shares of height and width.

    Half of them are near faces, where a canvas has any.
    """
    import torch

    from tools.detector.torch_centerface import to_tensor

    rng = np.random.default_rng(0)
    places = rng.random((len(canvases), _PLACES, 2))
    for start in range(0, len(canvases), _AT_ONCE):
        with torch.no_grad():
            scores = torch.sigmoid(network(to_tensor(canvases[start : start + _AT_ONCE]))["score"])
            around = torch.nn.functional.max_pool2d(scores, _NEAR_CELLS, 1, _NEAR_CELLS // 2)[:, 0].numpy()
        for index, score in enumerate(around, start):
            near = np.argwhere(score > _NEAR_SCORE)
            if len(near):
                chosen = near[rng.integers(len(near), size=_PLACES // 2)]
                places[index, : _PLACES // 2] = (chosen + rng.random(chosen.shape)) / score.shape
    return places


def _seen(network: TorchCenterFace, canvases: NDArray[np.uint8], places: Doubles, layer: int) -> Doubles:
    """The outputs of one layer (after its ReLU, if it has one) at the places, ``(places, channels)``."""
    import torch

    from tools.detector.torch_centerface import to_tensor

    rows = []
    for start in range(0, len(canvases), _AT_ONCE):
        given: dict[int, Any] = {}
        with torch.no_grad():
            network(to_tensor(canvases[start : start + _AT_ONCE]), given)
        values = given[layer].permute(0, 2, 3, 1).numpy()
        for index, value in enumerate(values, start):
            cells = (places[index] * value.shape[:2]).astype(int)
            rows.append(value[cells[:, 0], cells[:, 1]])
    return np.concatenate(rows).astype(np.float64)
