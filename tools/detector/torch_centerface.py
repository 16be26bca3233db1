"""CenterFace as a PyTorch module, for fitting; :mod:`tools.detector.centerface` builds the graph that ships.

It takes that module's weights, but upright canvases, so the kernels are rotated back. Needs ``torch``; nothing that
ships imports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tools.detector.centerface import HEADS, STAGES, TAPPED_CHANNELS, Layer


class TorchCenterFace(torch.nn.Module):  # type: ignore[misc]
    """The network with its weights as parameters.

    Args:
        layers: weights, as from :func:`tools.detector.centerface.read_weights`, or with fewer channels.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        kernels = [torch.tensor(_upright(layer.kernel)) for layer in layers]
        self.kernels = torch.nn.ParameterList([torch.nn.Parameter(kernel) for kernel in kernels])
        self.biases = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(layer.bias)) for layer in layers])
        self.to(memory_format=torch.channels_last)

    def layers(self) -> list[Layer]:
        """The weights as they are now."""
        pairs = zip(self.kernels, self.biases, strict=True)
        return [Layer(_turned(kernel.detach().numpy()), bias.detach().numpy().copy()) for kernel, bias in pairs]

    def forward(self, canvases: Any, seen: dict[int, Any] | None = None) -> dict[str, Any]:
        """The network's maps.

        Args:
            canvases: a float32 tensor ``(count, 3, height, width)``, RGB 0 to 255; sides are multiples of 32.
            seen: receives the outputs of the filtering and summing layer of each block, after the ReLU if there is one,
                by the layer's index.

        Returns:
            ``score`` as logits, ``size``, ``offset`` and ``landmarks``, all ``(count, channels, rows, columns)``, and
            ``features``: a list of the outputs of the trunk and of each level of the pyramid.
        """
        seen = {} if seen is None else seen
        rest = iter(range(len(self.kernels)))
        tensor = functional.relu(self._convolve(canvases, next(rest), 2))
        tensor = self._summed(tensor, rest, 1, seen)
        taps = []
        for channels, blocks, stride in STAGES:
            for block in range(blocks):
                wide = functional.relu(self._convolve(tensor, next(rest)))
                change = self._summed(wide, rest, stride if block == 0 else 1, seen)
                tensor = tensor + change if block > 0 else change
            if channels in TAPPED_CHANNELS:
                taps.append(tensor)
        features = [tensor]
        tensor = functional.relu(self._convolve(tensor, next(rest)))
        features.append(tensor)
        for tap in reversed(taps):
            enlarged = functional.relu(self._enlarge(tensor, next(rest)))
            tensor = enlarged + functional.relu(self._convolve(tap, next(rest)))
            features.append(tensor)
        tensor = functional.relu(self._convolve(tensor, next(rest)))
        features.append(tensor)
        return {**{name: self._convolve(tensor, next(rest)) for name in HEADS}, "features": features}

    def _summed(self, wide: Any, rest: Iterator[int], stride: int, seen: dict[int, Any]) -> Any:
        """Apply the filtering and the summing convolution of a block."""
        filtering, summing = next(rest), next(rest)
        seen[filtering] = functional.relu(self._convolve(wide, filtering, stride))
        seen[summing] = self._convolve(seen[filtering], summing)
        return seen[summing]

    def _convolve(self, tensor: Any, index: int, stride: int = 1) -> Any:
        kernel = self.kernels[index]
        groups = tensor.shape[1] // kernel.shape[1]  # in a depthwise convolution, as many as there are channels
        return functional.conv2d(tensor, kernel, self.biases[index], stride, kernel.shape[2] // 2, 1, groups)

    def _enlarge(self, tensor: Any, index: int) -> Any:
        return functional.conv_transpose2d(tensor, self.kernels[index], self.biases[index], 2)


def to_tensor(canvases: NDArray[np.uint8]) -> Any:
    """Canvases uint8 RGB ``(count, height, width, 3)`` as :meth:`TorchCenterFace.forward` takes them."""
    return torch.from_numpy(canvases.astype(np.float32)).permute(0, 3, 1, 2)


def _upright(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """An unrotated kernel in PyTorch's order: outputs first (inputs first if transposed), rows and columns last."""
    order = (2, 3, 0, 1) if kernel.shape[3] == 1 and kernel.shape[0] == 3 else (3, 2, 0, 1)
    return kernel[::-1, ::-1].transpose(order).copy()  # a copy, because PyTorch takes no negative strides


def _turned(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of :func:`_upright`."""
    order = (2, 3, 0, 1) if kernel.shape[1] == 1 and kernel.shape[2] == 3 else (2, 3, 1, 0)
    return kernel.transpose(order)[::-1, ::-1].copy()
