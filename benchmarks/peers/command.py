"""The command line that peers share, and a writer for those whose framework has none."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Job:
    """What a peer has to do.

    Attributes:
        folder: folder of images, without subfolders.
        bundle: folder with ``model.keras``, ``model.onnx`` and ``manifest.json``.
        output: Parquet file or folder to write.
        height: height of the model's input.
        width: width of the model's input.
    """

    folder: Path
    bundle: Path
    output: Path
    height: int
    width: int

    @property
    def keras(self) -> str:
        """The Keras file."""
        return str(self.bundle / "model.keras")

    @property
    def files(self) -> list[str]:
        """Every image, sorted."""
        return sorted(str(path) for path in self.folder.iterdir())


def parse_job(description: str | None) -> Job:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("--input", "--model", "--output"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    size = json.loads((given.model / "manifest.json").read_text())["input"]
    return Job(given.input.absolute(), given.model.absolute(), given.output.absolute(), size["height"], size["width"])


def write(output: Path, files: list[str], probabilities: Any) -> None:
    """Write the table."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"uri": files, "probability": worn(np.asarray(probabilities, np.float32))}), output)


def worn(outputs: Any) -> Any:
    """Probability that there is a mask, ``(images,)``, from a network's outputs.

    Args:
        outputs: with two classes p(mask), ``(images,)`` or ``(images, 1)``; with three, p(mask), p(incorrect) and
            p(no_mask), ``(images, 3)``.
    """
    return outputs[:, :2].sum(axis=1) if outputs.ndim == 2 and outputs.shape[1] == 3 else outputs.reshape(-1)
