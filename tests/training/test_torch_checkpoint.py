import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskdet.errors import ConfigError
from maskdet.training.torch_checkpoint import read_checkpoint

arrays_of_floats = hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, max_side=4), elements=st.floats(-9, 9, width=32))


@settings(max_examples=40, deadline=None)
@given(
    arrays=st.dictionaries(st.text("abc.", min_size=1, max_size=5), arrays_of_floats, max_size=4),
    shift=st.integers(0, 3),
)
def test_tensors_come_back_whatever_their_strides(torch_file, tmp_path_factory, arrays, shift):
    path = torch_file.write(tmp_path_factory.mktemp("checkpoint") / "file.pth", arrays, shift)
    found = read_checkpoint(path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_scalars_and_integers(torch_file, tmp_path):
    path = torch_file.write(
        tmp_path / "file.pth", {"steps": np.array(12345, np.int64), "w": np.ones((2, 3), np.float32)}
    )
    found = read_checkpoint(path)
    assert (found["steps"].shape, int(found["steps"]), found["steps"].dtype) == ((), 12345, np.int64)


def test_code_in_a_file_is_not_run(torch_file, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    path = tmp_path / "evil.pth"
    with path.open("wb") as file:
        for value in (torch_file.MAGIC, 1001, {"little_endian": True}, {"w": Evil()}, []):
            pickle.dump(value, file, 2)
    with pytest.raises(ConfigError, match=r"print is no part of a tensor"):
        read_checkpoint(path)


def test_files_that_are_no_checkpoints_are_refused(torch_file, tmp_path):
    whole = torch_file.write(tmp_path / "whole.pth", {"w": np.arange(6, dtype=np.float32)}).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:-4])
    (tmp_path / "zip.pth").write_bytes(b"PK\x03\x04" + b"0" * 50)
    torch_file.write(tmp_path / "magic.pth", {}, magic=1)
    torch_file.write(tmp_path / "big.pth", {}, little_endian=False)
    storage = torch_file.Storage("FloatStorage", "0", 2)
    beyond = OrderedDict(w=torch_file.Tensor(storage, 1, (2,), (1,), False, OrderedDict()))
    with (tmp_path / "beyond.pth").open("wb") as file:
        for value in (torch_file.MAGIC, 1001, {"little_endian": True}, beyond, ["0"]):
            torch_file.Writer(file, 2).dump(value)
        file.write(struct.pack("<q", 2) + np.zeros(2, np.float32).tobytes())
    for name in ("cut", "zip", "magic", "big", "beyond", "absent"):
        with pytest.raises(ConfigError, match=r"expected a PyTorch file of tensors"):
            read_checkpoint(tmp_path / f"{name}.pth")
