"""The formats in which a bundle may hold its network: how each is written and run, and how close to float32 it is."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ConfigError
from maskdet.model import litert_export, onnx_export, tensorflow_export
from maskdet.model.manifest import KERAS_FILE, LITERT_FLOAT_FILE, LITERT_INT8_FILE, ONNX_FILE, SAVED_MODEL_FOLDER

REFERENCE_OUTPUT = "tensorflow_float32"
"""The golden output with which the other formats are compared."""

# Float kernels differ in the last bits.
_FLOAT_TOLERANCE = 1e-4
# int8 ranges come from faces; the golden images are drawn, and differ by .017 (the reference CNN) to .13 (compact).
_INT8_TOLERANCE = 0.2


@dataclass(frozen=True)
class Format:
    """One format of a network."""

    name: str
    path: str
    """Its file or folder in a bundle."""
    golden_output: str
    """The golden output of the backend that runs it; empty if none does."""
    tolerance: float
    """How far a golden input's probability may differ from the network's in float32."""
    run: Callable[[Path, NDArray[np.uint8]], NDArray[np.float32]]
    """From a path and uint8 ``(batch, height, width, 3)`` to the outputs, float32 ``(batch,)`` or ``(batch, 3)``."""
    runtime: str
    """The module that runs it."""
    write: Callable[[Any, Path], None] | None
    """Writes a ``keras.Model`` to a path; ``None`` if that needs more than the network."""
    made_with: tuple[str, ...]
    """The packages whose versions determine what is written; their modules have the same names."""

    def holds(self, name: str) -> bool:
        """Whether a file of a bundle is part of this format, by its name."""
        return name == self.path or name.startswith(f"{self.path}/")

    def is_in(self, names: Iterable[str]) -> bool:
        """Whether a bundle with these files has this format."""
        return any(self.holds(name) for name in names)

    def check_installed(self, *, to_make: bool) -> None:
        """Make sure that the packages that run this format, and make it if necessary, are installed.

        Raises:
            ConfigError: a package is not installed.
        """
        modules = (self.runtime, "tensorflow", *self.made_with) if to_make else (self.runtime,)
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            extras = "tensorflow,onnx" if self.name == "onnx" else "tensorflow"
            install = "maskdet" if missing == ["ai_edge_litert"] else f"maskdet[{extras}]"
            raise ConfigError(
                f"format {self.name}", f"the module {missing[0]}", "none", f"Run: pip install '{install}'."
            )


def _write_litert_float(model: Any, file: Path) -> None:
    file.write_bytes(litert_export.convert_float(model))


def _write_onnx(model: Any, file: Path) -> None:
    file.write_bytes(onnx_export.convert(model))


FORMATS: dict[str, Format] = {
    made.name: made
    for made in (
        Format(
            name="keras",
            path=KERAS_FILE,
            golden_output="",
            tolerance=_FLOAT_TOLERANCE,
            run=tensorflow_export.run_keras,
            runtime="tensorflow",
            write=tensorflow_export.write_keras,
            made_with=("tensorflow", "keras"),
        ),
        Format(
            name="saved_model",
            path=SAVED_MODEL_FOLDER,
            golden_output=REFERENCE_OUTPUT,
            tolerance=_FLOAT_TOLERANCE,
            run=tensorflow_export.run_saved_model,
            runtime="tensorflow",
            write=tensorflow_export.write_saved_model,
            made_with=("tensorflow", "keras"),
        ),
        Format(
            name="litert_float",
            path=LITERT_FLOAT_FILE,
            golden_output="litert_float32",
            tolerance=_FLOAT_TOLERANCE,
            run=litert_export.run,
            runtime="ai_edge_litert",
            write=_write_litert_float,
            made_with=("tensorflow", "keras"),
        ),
        Format(
            name="litert_int8",
            path=LITERT_INT8_FILE,
            golden_output="litert_int8",
            tolerance=_INT8_TOLERANCE,
            run=litert_export.run,
            runtime="ai_edge_litert",
            write=None,  # ranges are measured on training images
            made_with=("tensorflow", "keras"),
        ),
        Format(
            name="onnx",
            path=ONNX_FILE,
            golden_output="onnx_float32",
            tolerance=_FLOAT_TOLERANCE,
            run=onnx_export.run,
            runtime="onnxruntime",
            write=_write_onnx,
            made_with=("onnx", "onnxruntime", "tf2onnx"),
        ),
    )
}


def select_formats(names: Iterable[str]) -> list[Format]:
    """The formats with some names, each once, in the order of :data:`FORMATS`.

    Raises:
        ConfigError: a name is unknown, or there is none.
    """
    given = list(names)
    wrong = [name for name in given if name not in FORMATS]
    if wrong or not given:
        received = wrong[0] if wrong else ""
        raise ConfigError("--formats", f"some of {','.join(FORMATS)}", received, "Separate them by commas.")
    return [made for name, made in FORMATS.items() if name in given]
