"""Writes files as ``torch.save`` did before version 1.6, without PyTorch."""

import pickle
import struct
from collections import OrderedDict

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C


class Storage:
    """Pickled by reference, as torch does for data that follows the pickles."""

    def __init__(self, kind, key, count):
        self.reference = ("storage", Global("torch", kind), key, "cpu", count, None)


class Global:
    def __init__(self, module, name):
        self.module, self.name = module, name


class Tensor:
    def __init__(self, *arguments):
        self.arguments = arguments


class Writer(pickle._Pickler):
    """Writes names of modules that are not installed; the pure-Python pickler lets a subclass do so."""

    def persistent_id(self, value):
        return value.reference if isinstance(value, Storage) else None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Tensor):
            self.save(Global("torch._utils", "_rebuild_tensor_v2"))
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def write(path, arrays, shift=0, magic=MAGIC, little_endian=True):
    """A file as torch.save made it before 1.6; tensors are column-major windows ``shift`` values into their storage."""
    tensors, storages = OrderedDict(), OrderedDict()
    for number, (name, array) in enumerate(arrays.items()):
        kind = {"f": "FloatStorage", "i": "LongStorage"}[array.dtype.kind]
        storages[str(number)] = np.concatenate([np.zeros(shift, array.dtype), array.ravel(order="F")])
        strides = tuple(int(np.prod(array.shape[:axis])) for axis in range(array.ndim))
        storage = Storage(kind, str(number), array.size + shift)
        tensors[name] = Tensor(storage, shift, array.shape, strides, False, OrderedDict())
    with path.open("wb") as file:
        for value in (magic, 1001, {"little_endian": little_endian}, tensors, list(storages)):
            Writer(file, 2).dump(value)
        for values in storages.values():
            file.write(struct.pack("<q", len(values)) + values.tobytes())
    return path
