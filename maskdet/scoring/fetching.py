"""Read images that a worker is to decode: limits, retries, and how many to read side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from maskdet import storage
from maskdet.cores import available_cores
from maskdet.errors import FailureCode, ImageFault, StorageError, TooLargeError, lasting_fault
from maskdet.inputs.references import ImageRef

# A read over the network waits most of its time.
_REMOTE_THREADS_PER_CORE = 4
# Of reads alone: at 50 ms a read, a core that scores 1,000 images/s needs 50 under way.
_READS_PER_CORE = 64


@dataclass(frozen=True)
class Fetcher:
    """Reads images, trying again where the store answers with a transient error.

    Attributes:
        max_bytes: larger images are not read.
        attempts: tries per image.
        read: reads a URI; default: the storage's, which stops at the limit.
        sleep: waits before another try, in seconds.
    """

    max_bytes: int
    attempts: int = 4
    read: Callable[[str], bytes] | None = None
    sleep: Callable[[float], None] = time.sleep

    def fetch(self, ref: ImageRef) -> bytes:
        """An image file's bytes.

        Raises:
            ImageFault: the image is too large, no file, missing, forbidden, or could not be read in any try.
        """
        if not ref.is_claimed:
            self._refuse_large(ref.size_bytes, attempts=0)
        for attempt in range(1, self.attempts + 1):
            try:
                with storage.one_try():
                    return self._read(ref)
            except TooLargeError as error:
                self._refuse_large(int(str(error.received)), attempt)
            except StorageError as error:
                if (fault := lasting_fault(error, attempt)) is not None:
                    raise fault from None
                if attempt == self.attempts:
                    raise ImageFault(FailureCode.READ_ERROR, str(error), attempt) from error
                self.sleep(storage.backoff_s(attempt))
        raise AssertionError("the last attempt returns or raises")

    def _read(self, ref: ImageRef) -> bytes:
        if self.read is not None:
            return self.read(ref.place)
        if ref.is_claimed and not storage.is_local(ref.place):  # its true size is known to the store alone
            size_bytes = storage.stat(ref.place).size_bytes
            if size_bytes > self.max_bytes:
                raise TooLargeError(ref.place, f"at most {self.max_bytes} bytes", size_bytes)
        return storage.read_bytes(ref.place, self.max_bytes)

    def _refuse_large(self, size_bytes: int, attempts: int) -> None:
        if size_bytes > self.max_bytes:
            message = f"{size_bytes} bytes, more than imaging.max_bytes = {self.max_bytes}"
            raise ImageFault(FailureCode.TOO_MANY_BYTES, message, attempts)


def reading_threads(*, local: bool) -> int:
    """How many images to read and decode side by side: one per core, more where reading is mostly waiting."""
    return available_cores() * (1 if local else _REMOTE_THREADS_PER_CORE)


def fetching_threads() -> int:
    """How many images of a store to read side by side where others decode them."""
    return available_cores() * _READS_PER_CORE
