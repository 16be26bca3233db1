"""Everything that can go wrong, in two kinds.

A *caller's mistake* (a wrong setting, a missing model, an unreachable bucket) raises a :class:`MaskdetError` at launch
and ends the command with that class's exit code. A *data fault* (one broken image) raises an :class:`ImageFault`, which
scoring turns into one row of the failures table; it never ends a run by itself.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, ClassVar

_MOST_SHOWN = 300


def shown(value: object) -> str:
    """A value as messages show it: on one line, and shortened if it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


class MaskdetError(Exception):
    """A caller's mistake, stated as expected, received and remedy.

    All four parts are positional so that the exception survives pickling between worker processes.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, expected: str = "", received: object = None, remedy: str = "") -> None:
        super().__init__(what, expected, received, remedy)
        self.what = what
        self.expected = expected
        self.received = received
        self.remedy = remedy

    def __str__(self) -> str:
        if not self.expected:
            return self.what
        text = f"{self.what}: expected {self.expected}, received {shown(self.received)}"
        return f"{text}. {self.remedy}" if self.remedy else text


class ConfigError(MaskdetError):
    """A setting, flag or path template is wrong."""

    exit_code = 2


class SourceError(MaskdetError):
    """The input is missing, empty or not of the form that the settings promise."""

    exit_code = 3


class ModelError(MaskdetError):
    """A model bundle is missing, damaged or does not do what its manifest says."""

    exit_code = 4


class StorageError(MaskdetError):
    """A storage location cannot be reached, read or written."""

    exit_code = 5


class NotFoundError(StorageError):
    """Nothing exists at a storage location."""


class AccessDeniedError(StorageError):
    """A storage location refuses access."""


class NotAFileError(StorageError):
    """What is at a location cannot be read as a file: a folder, a FIFO, a socket or a device."""


class TooLargeError(StorageError):
    """A file has more bytes than may be read."""


class BudgetError(MaskdetError):
    """More images failed than the failure budget allows."""

    exit_code = 6


class ReconciliationError(MaskdetError):
    """The images listed are not the images accounted for."""

    exit_code = 7


class OutputError(MaskdetError):
    """The output location holds something that this run must not overwrite."""

    exit_code = 8


class HeldError(MaskdetError):
    """Another run writes the output."""

    exit_code = 10


class DiedError(MaskdetError):
    """A run no longer gives signs of life and did not end properly."""

    exit_code = 11


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM); treated like Ctrl-C, with an exit code of its own."""

    exit_code: ClassVar[int] = 143


class UnfinishedError(MaskdetError):
    """A run that was asked about has not ended."""

    exit_code = 9


# Shown by `maskdet score --help` and in the site's reference.
EXIT_CODES: dict[int, str] = {
    0: "success: every image is accounted for and the failure budget holds",
    1: "internal error: a defect of maskdet or its runner; the traceback is printed",
    2: "wrong setting, flag or path template",
    3: "input missing, empty or not as promised; for commands that read an output: no tables there",
    4: "model missing, damaged, refused as unsafe, or not what its manifest or its importer says",
    5: "storage cannot be reached, read or written",
    6: "failure budget exceeded: the tables are written, _SUCCESS is not",
    7: "reconciliation failed: images listed differ from images accounted for",
    8: "output location holds something this run must not overwrite",
    9: "not finished: the run goes on (maskdet status)",
    10: "another run writes this output; the message says which, --wait waits for it",
    11: "died: a run that gives no sign of life any more; the same command goes on (maskdet status)",
    130: "interrupted (Ctrl-C)",
    143: "terminated (SIGTERM)",
}


def error_of_code(exit_code: int | None) -> type[MaskdetError]:
    """The error that ends a command with an exit code; :class:`MaskdetError` itself where none has that code."""
    kinds = (kind for kind in MaskdetError.__subclasses__() if kind.exit_code == exit_code)
    return next(kinds, MaskdetError)


def recover_error(error: BaseException) -> MaskdetError | None:
    """Find the caller's mistake in what a runner raised.

    Some runners pass on a worker's exception, with the step's name added to its first argument; others raise an error
    of their own with the worker's traceback in its text.

    Returns:
        The mistake as it was raised, or ``None`` if the error is something else.
    """
    if isinstance(error, MaskdetError):
        what = _STEP_NOTE.sub("", error.what)
        return type(error)(what, error.expected, error.received, error.remedy)
    classes = {cls.__name__: cls for cls in _subclasses(MaskdetError)}
    found = [(name, what) for name, what in _RAISED.findall(str(error)) if name in classes]
    if not found:
        return None
    name, what = found[-1]
    recovered: MaskdetError = classes[name](_STEP_NOTE.sub("", what).strip())
    return recovered


_STEP_NOTE = re.compile(r" \[while running '[^']*'\]")
_RAISED = re.compile(r"maskdet\.errors\.(\w+): (.+?)(?=\\n|\n|$)")


def _subclasses(cls: type[Any]) -> list[type[Any]]:
    return [cls, *(deeper for child in cls.__subclasses__() for deeper in _subclasses(child))]


class Stage(StrEnum):
    """Where an image failed."""

    LIST = "list"
    FETCH = "fetch"
    DECODE = "decode"
    INFER = "infer"


class FailureCode(StrEnum):
    """Why an image failed: stable names that users may filter and alert on."""

    PATH_MISMATCH = "path_mismatch"
    """The path does not fit the template, or its folders name two classes."""
    BAD_MANIFEST_ROW = "bad_manifest_row"
    """A row of an image list lacks its URI, or has a value that cannot be read."""
    NOT_ALLOWED = "not_allowed"
    """An image list names an image outside its own folder and ``source.allowed``."""
    NOT_FOUND = "not_found"
    """The image was listed, but nothing is there now."""
    ACCESS_DENIED = "access_denied"
    """The store refuses to hand out the image."""
    NOT_A_FILE = "not_a_file"
    """A folder, a FIFO, a socket or a device is where the image should be; it is never opened."""
    READ_ERROR = "read_error"
    """The store did not answer, or not fully, in any of ``scoring.fetch_attempts`` tries."""
    EMPTY_FILE = "empty_file"
    """The file has no bytes."""
    TOO_MANY_BYTES = "too_many_bytes"
    """The file is larger than ``imaging.max_bytes``."""
    NOT_AN_IMAGE = "not_an_image"
    """The file is not in one of the supported image formats, whatever its name says."""
    CORRUPT_IMAGE = "corrupt_image"
    """The file begins like an image, but a part of it is missing or broken."""
    TOO_MANY_PIXELS = "too_many_pixels"
    """The image has more pixels than ``imaging.max_pixels``, or a side longer than ``imaging.max_side_px``."""
    TOO_FEW_PIXELS = "too_few_pixels"
    """A side of the image is shorter than ``imaging.min_side_px``."""
    UNSUPPORTED_MODE = "unsupported_mode"
    """There is no rule to turn the image's pixels into 8-bit RGB."""
    UNSUPPORTED_FORMAT = "unsupported_format"
    """The image is in a format that needs an extra which is not installed (``heif``), or that is never read."""
    NOT_A_VIDEO = "not_a_video"
    """The file has a video's extension, but is not a container that can be read."""
    TRUNCATED_VIDEO = "truncated_video"
    """The video is cut short, or still being written: its index, which comes last, is missing. Nothing can be read."""
    NO_PICTURES = "no_pictures"
    """The file is a video container without moving pictures, for example with sound alone."""
    CORRUPT_VIDEO = "corrupt_video"
    """A stretch of the video is missing or broken; the row says from when to when. The rest of it is scored."""
    OUT_OF_MEMORY = "out_of_memory"
    """Decoding the image takes more memory than there is."""
    DECODE_TIMEOUT = "decode_timeout"
    """The image's decoder was ended after ``scoring.decoder_seconds``."""
    DECODER_CRASHED = "decoder_crashed"
    """The process that decoded the image crashed."""
    INFERENCE_ERROR = "inference_error"
    """The model or the face detector raised an error."""
    NOT_FINITE = "not_finite"
    """The model's answer is not a finite number."""

    @property
    def stage(self) -> Stage:
        """The stage that finds this fault."""
        return _STAGES[self]

    @property
    def transient(self) -> bool:
        """Whether trying again may succeed without anyone changing the image."""
        return self in _TRANSIENT


_STAGES = {
    FailureCode.PATH_MISMATCH: Stage.LIST,
    FailureCode.BAD_MANIFEST_ROW: Stage.LIST,
    FailureCode.NOT_ALLOWED: Stage.LIST,
    FailureCode.NOT_FOUND: Stage.FETCH,
    FailureCode.NOT_A_FILE: Stage.FETCH,
    FailureCode.ACCESS_DENIED: Stage.FETCH,
    FailureCode.READ_ERROR: Stage.FETCH,
    FailureCode.EMPTY_FILE: Stage.FETCH,
    FailureCode.TOO_MANY_BYTES: Stage.FETCH,
    FailureCode.NOT_AN_IMAGE: Stage.DECODE,
    FailureCode.CORRUPT_IMAGE: Stage.DECODE,
    FailureCode.TOO_MANY_PIXELS: Stage.DECODE,
    FailureCode.TOO_FEW_PIXELS: Stage.DECODE,
    FailureCode.UNSUPPORTED_MODE: Stage.DECODE,
    FailureCode.UNSUPPORTED_FORMAT: Stage.DECODE,
    FailureCode.NOT_A_VIDEO: Stage.DECODE,
    FailureCode.TRUNCATED_VIDEO: Stage.DECODE,
    FailureCode.NO_PICTURES: Stage.DECODE,
    FailureCode.CORRUPT_VIDEO: Stage.DECODE,
    FailureCode.OUT_OF_MEMORY: Stage.DECODE,
    FailureCode.DECODE_TIMEOUT: Stage.DECODE,
    FailureCode.DECODER_CRASHED: Stage.DECODE,
    FailureCode.INFERENCE_ERROR: Stage.INFER,
    FailureCode.NOT_FINITE: Stage.INFER,
}
# A busy machine is slower, and another version of a decoder may not crash.
# A file that was listed and then missing may come back: a disk mounted again, content fetched by git-annex.
_TRANSIENT = frozenset(
    (
        FailureCode.NOT_FOUND,
        FailureCode.READ_ERROR,
        FailureCode.ACCESS_DENIED,
        FailureCode.OUT_OF_MEMORY,
        FailureCode.DECODE_TIMEOUT,
        FailureCode.DECODER_CRASHED,
        FailureCode.INFERENCE_ERROR,
    )
)


class ImageFault(Exception):
    """One image cannot be scored; becomes one failure row.

    The message must be a function of the image's bytes and the settings alone (no addresses, no clocks), because
    failure rows are compared byte for byte between runs.
    """

    def __init__(self, code: FailureCode, message: str, attempts: int = 1) -> None:
        super().__init__(code, message, attempts)
        self.code = code
        self.message = message
        self.attempts = attempts

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def missing_package(setting: str, package: str, extra: str) -> ConfigError:
    """The error where a package of an extra is not installed.

    Args:
        setting: what takes it.
        package: its name.
        extra: of maskdet, which brings it.
    """
    return ConfigError(setting, f"the package {package}", "none", f"Install it: pip install 'maskdet[{extra}]'.")


def lasting_fault(error: StorageError, attempts: int = 1) -> ImageFault | None:
    """The image's fault if another try will not help either; ``None`` where one might.

    Args:
        error: of reading the image.
        attempts: how often it was tried.
    """
    if isinstance(error, NotFoundError):
        return ImageFault(FailureCode.NOT_FOUND, "nothing exists at the URI", attempts)
    if isinstance(error, AccessDeniedError):
        return ImageFault(FailureCode.ACCESS_DENIED, "the store refuses access", attempts)
    if isinstance(error, NotAFileError):
        return ImageFault(FailureCode.NOT_A_FILE, f"{error.received}, no file", attempts)
    return None
