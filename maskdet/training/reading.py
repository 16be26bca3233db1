"""Read image files, or draw faces, and make views of them on all cores."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet import storage
from maskdet.cores import available_cores
from maskdet.demo.drawing import draw_face
from maskdet.errors import ImageFault, StorageError
from maskdet.images.preprocessing import prepare_image

ViewMaker = Callable[[bytes, int], NDArray[np.uint8]]
"""From file bytes and the image's position in the list to views, uint8 (copies, height, width, 3)."""

_DRAWN = "drawn:"
_DRAWN_SIDES_PX = (64, 224)
_FACE_STREAM = 2  # of a recipe's seed; batches use the others
_CHUNK_IMAGES = 16
# Threads make fewer views than this before a second process has started. Random views are half Python code, which
# threads run in turn: two processes make 1.25 times as many a second as two threads (measured), and more cores gain
# more.
_MIN_VIEWS_FOR_PROCESSES = 4000


class ReadViews(NamedTuple):
    """What became of a file."""

    content_sha256: str
    views: NDArray[np.uint8] | None
    """uint8 ``(copies, height, width, 3)``; ``None`` for an unreadable file."""
    problem: str
    """Why it is unreadable; empty if it is not."""


def drawn_face_uri(seed: int, index: int, *, masked: bool) -> str:
    """A URI for which :func:`read_views` draws a face, always the same one, instead of reading a file."""
    return f"{_DRAWN}{seed}/{index}/{int(masked)}"


def is_drawn(uri: str) -> bool:
    """Whether a URI stands for a drawn face."""
    return uri.startswith(_DRAWN)


def read_views(
    uris: Sequence[str], height: int, width: int, copies: int, make_views: ViewMaker | None
) -> Iterator[ReadViews]:
    """Read files and make views of them, in order.

    Args:
        uris: of the files.
        height: rows of each view.
        width: columns of each view.
        copies: views that ``make_views`` gives of each file.
        make_views: replaces plain decoding; must be picklable if there are many views to make.
    """
    many = make_views is not None and len(uris) * copies >= _MIN_VIEWS_FOR_PROCESSES
    reader = _Reader(height, width, make_views)
    with _pool(processes=many) as pool:
        yield from pool.map(reader, uris, range(len(uris)), chunksize=_CHUNK_IMAGES)


def _pool(*, processes: bool) -> Executor:
    cores = available_cores()
    # Not forked: threads of a numerical library might hold locks at that moment.
    return (
        ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn"))
        if processes
        else ThreadPoolExecutor(cores)
    )


@dataclass(frozen=True)
class _Reader:
    height: int
    width: int
    make_views: ViewMaker | None

    def __call__(self, uri: str, index: int) -> ReadViews:
        try:
            data = _draw(uri) if is_drawn(uri) else storage.read_bytes(uri)
            if self.make_views is not None:
                views = self.make_views(data, index)
            else:
                views = prepare_image(data, self.height, self.width).pixels[np.newaxis]
        except (ImageFault, StorageError) as error:
            return ReadViews("", None, str(error))
        return ReadViews(hashlib.sha256(data).hexdigest(), views, "")


def _draw(uri: str) -> bytes:
    seed, index, masked = (int(part) for part in uri.removeprefix(_DRAWN).split("/"))
    rng = np.random.default_rng([seed, _FACE_STREAM, index])
    encoded = io.BytesIO()
    draw_face(rng, int(rng.integers(*_DRAWN_SIDES_PX)), masked=bool(masked)).save(encoded, "BMP")
    return encoded.getvalue()
