"""What a process that decodes images does; its modules are imported before its limits are set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskdet.children import Talk
from maskdet.images.preprocessing import ImageLimits, decode_here


def decode_task(argument: Mapping[str, Any], data: memoryview, talk: Talk) -> None:
    """The task of :func:`maskdet.images.isolated.decode_isolated`."""
    upright = decode_here(bytes(data), ImageLimits(**argument), talk.exclusive())
    pixels = np.ascontiguousarray(upright.picture)
    rows, columns, _ = pixels.shape
    size = {"rows": rows, "columns": columns, "width": upright.width_px, "height": upright.height_px}
    talk.send({**size, "damaged": upright.damaged}, pixels.data)
