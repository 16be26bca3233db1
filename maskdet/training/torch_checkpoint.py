"""Read the tensors of a PyTorch checkpoint without PyTorch, whose wheel takes gigabytes.

The format is the one that ``torch.save`` wrote before version 1.6: five pickles (a magic number, the protocol, the
machine, the tensors by name, the keys of their storages), then the storages one after another, each preceded by its
number of values. Only tensors of 32-bit floats and 64-bit integers in ordered dictionaries are unpickled; any other
name in the file is refused, as ``torch.load(weights_only=True)`` does.
"""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ConfigError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C


class _Tensor(NamedTuple):
    """A view of a storage."""

    storage: tuple[Any, ...]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(
    storage: tuple[Any, ...], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a tensor")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """Read a checkpoint that holds tensors by name.

    Args:
        path: the file.

    Returns:
        Arrays float32 or int64, in the shapes that PyTorch gives them.

    Raises:
        ConfigError: the file is missing, is not such a checkpoint, or has something other than tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except (OSError, pickle.UnpicklingError, struct.error, ValueError, TypeError, KeyError, EOFError) as error:
        raise ConfigError(
            "checkpoint", "a PyTorch file of tensors, in the form before version 1.6", f"{path}: {error}"
        ) from error


def _read(file: BinaryIO) -> dict[str, NDArray[Any]]:
    if _Unpickler(file).load() != _MAGIC_NUMBER:
        raise ValueError("does not begin with the magic number")
    _protocol, machine = _Unpickler(file).load(), _Unpickler(file).load()
    if not machine["little_endian"]:
        raise ValueError("written on a big-endian machine")
    tensors, keys = _Unpickler(file).load(), _Unpickler(file).load()
    dtypes = {tensor.storage[2]: tensor.storage[1] for tensor in tensors.values()}
    storages = {key: _storage(file, dtypes[key]) for key in keys}
    return {name: _window(tensor, storages[tensor.storage[2]]) for name, tensor in tensors.items()}


def _storage(file: BinaryIO, dtype: np.dtype[Any]) -> NDArray[Any]:
    (count,) = struct.unpack("<q", file.read(8))
    values = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    if len(values) != count:
        raise EOFError("ends within a tensor")
    return values


def _window(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    # Every index that shape and strides lead to, so that a file cannot point beyond its storage.
    index = np.full(tensor.shape, tensor.offset, np.int64)
    for axis, (length, stride) in enumerate(zip(tensor.shape, tensor.strides, strict=True)):
        index += (np.arange(length) * stride).reshape([-1 if axis == i else 1 for i in range(len(tensor.shape))])
    if index.size and not 0 <= int(index.min()) <= int(index.max()) < len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    return storage[index]
