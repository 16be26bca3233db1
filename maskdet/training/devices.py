"""What the machine offers: a Keras backend, 16-bit arithmetic, repeatable operations."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskdet.errors import ConfigError

_TENSORFLOW = "tensorflow"
_FLOAT32 = "float32"
_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
_BFLOAT16_CAPABILITY, _FLOAT16_CAPABILITY = (8, 0), (7, 0)


def prepare(seed: int, *, deterministic: bool) -> None:
    """Seed every generator and, if asked, make operations repeatable for the rest of the process.

    Raises:
        ConfigError: Keras or its backend is not installed, or the backend cannot do what is asked.
    """
    try:
        import keras

        backend = importlib.import_module(keras.backend.backend())
    except ImportError as error:
        raise ConfigError(
            "training", "Keras and its backend", str(error), "Install them: pip install 'maskdet[tensorflow]'."
        ) from error
    keras.utils.set_random_seed(seed)
    if not deterministic:
        return
    if not on_tensorflow():
        raise ConfigError(
            "deterministic: true", f"Keras on {_TENSORFLOW}", keras.backend.backend(), "Unset KERAS_BACKEND, or this."
        )
    backend.config.experimental.enable_op_determinism()


def on_tensorflow() -> bool:
    """Whether Keras runs on TensorFlow, which is needed to export bundles; networks may be fitted with any backend."""
    import keras

    return bool(keras.backend.backend() == _TENSORFLOW)


def check_tensorboard() -> None:
    """Make sure that Keras can write TensorBoard's events.

    Raises:
        ConfigError: the package is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "tensorboard: true", "the package tensorboard", "none", "Install it: pip install tensorboard."
        )


@contextmanager
def precision(*, mixed: bool) -> Iterator[str]:
    """Build networks with this machine's fastest precision policy while the body runs, or with float32.

    Yields:
        The policy's name.
    """
    import keras

    before = keras.config.dtype_policy()
    policy = _mixed_policy() if mixed else _FLOAT32
    keras.config.set_dtype_policy(policy)
    try:
        yield policy
    finally:
        keras.config.set_dtype_policy(before)


def _mixed_policy() -> str:
    import keras

    capability = {_TENSORFLOW: _tensorflow_gpu, "jax": _jax_gpu, "torch": _torch_gpu}[keras.backend.backend()]()
    if capability is None:
        return "mixed_bfloat16" if cpu_flags(_CPU_INFO) & _BFLOAT16_FLAGS else _FLOAT32
    if capability >= _BFLOAT16_CAPABILITY:
        return "mixed_bfloat16"
    return "mixed_float16" if capability >= _FLOAT16_CAPABILITY else _FLOAT32


def _tensorflow_gpu() -> tuple[int, int] | None:
    """The compute capability of the first GPU; ``None`` without one."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    found: tuple[int, int] = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
    return found


def _jax_gpu() -> tuple[int, int] | None:
    import jax

    device = jax.devices()[0]
    if device.platform != "gpu":
        return None
    major, minor = str(device.compute_capability).split(".")
    return int(major), int(minor)


def _torch_gpu() -> tuple[int, int] | None:
    import torch

    if not torch.cuda.is_available():
        return None
    found: tuple[int, int] = torch.cuda.get_device_capability()
    return found


def cpu_flags(cpu_info: Path) -> set[str]:
    """The features of the first core, by Linux's names; none where there is no such file."""
    if not cpu_info.is_file():
        return set()
    for line in cpu_info.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return set(value.split())
    return set()
