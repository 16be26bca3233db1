"""Decode an image in a process of its own: every format except JPEG and PNG, whose decoders run with the scorer.

Most images are JPEGs and PNGs, and copying their pixels between processes would often cost more than decoding them.
Their files are checked before they are decoded (:mod:`maskdet.images.jpeg`, :mod:`maskdet.images.png`), so that
anything that could keep a decoder busy is refused; libjpeg-turbo, libpng and Wuffs are the
most thoroughly fuzzed of all. The others' decoders are younger or older, larger, or compiled in by whoever built the
wheel.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from maskdet.children import CHILDREN, DiedError, Limits, TaskError
from maskdet.errors import FailureCode, ImageFault
from maskdet.process_limits import MIB

if TYPE_CHECKING:
    from maskdet.images.preprocessing import ImageLimits

IN_PROCESS = ("JPEG", "PNG")

# Address space for a decoder's planes of 10 bits, its RGBA, Pillow's copy, and its rotated copy, besides the file.
_BYTES_A_PIXEL, _COPIES_OF_FILE = 32, 4
_BESIDE_BYTES = 512 * MIB
_TASK = "maskdet.images.decoding_task:decode_task"


def decode_isolated(
    data: bytes, kind: str, limits: ImageLimits, exclusive: contextlib.AbstractContextManager[object]
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], tuple[int, int], bool]:
    """Decode an image in a process of its own.

    Args:
        data: the file's bytes.
        kind: its format.
        limits: byte and pixel limits, and of time.
        exclusive: held while a large picture is decoded.

    Returns:
        Upright RGB uint8 ``(height, width, 3)``; width and height of the upright original; whether it is the rest of a
        damaged file.

    Raises:
        ImageFault: as :func:`maskdet.images.preprocessing.decode_upright`, or the process crashed or reached a limit.
        ConfigError: no process can be started.
    """
    assert limits.isolated_s is not None, "the limit of time is what asks for a process of its own"
    most = Limits(
        limits.isolated_s,
        _BYTES_A_PIXEL * limits.max_pixels + _COPIES_OF_FILE * limits.max_bytes + _BESIDE_BYTES,
        3 * limits.max_pixels,
    )
    argument = dataclasses.asdict(limits)
    try:
        (answer,) = CHILDREN.ask(_TASK, argument, data, most, exclusive=exclusive)
        rows, columns, width, height = (int(answer.header[name]) for name in ("rows", "columns", "width", "height"))
        picture = np.frombuffer(answer.data, np.uint8).reshape(rows, columns, 3)
    except DiedError as error:
        raise died(error, f"decoder of {kind}", limits.isolated_s) from None
    except TaskError as error:
        raise ImageFault(FailureCode.CORRUPT_IMAGE, f"decoding raised {error}") from None
    except (ValueError, KeyError, TypeError):
        raise ImageFault(FailureCode.DECODER_CRASHED, f"the decoder of {kind} gave no picture") from None
    return picture, (width, height), answer.header.get("damaged") is True


def died(error: DiedError, what: str, seconds: float) -> ImageFault:
    """The fault of the image on which a process was working when it died."""
    if error.timed_out:
        limit = f"scoring.decoder_seconds = {seconds:g}"
        return ImageFault(FailureCode.DECODE_TIMEOUT, f"the {what} was ended after {limit}")
    return ImageFault(FailureCode.DECODER_CRASHED, f"the {what} crashed: {error.how}")
