"""Pictures of what rows describe: a face or its whole image, read from the source on request, and kept in memory.

Requests name a row's place in the tables, never a path: there is no way to ask for a file that no run has scored.
"""

from __future__ import annotations

import functools
import hashlib
import io
import threading
from typing import Any

from PIL import Image

from maskdet.config import ImagingSettings, ScoringSettings
from maskdet.errors import ImageFault
from maskdet.explore.row_ids import RowId
from maskdet.images.preprocessing import ImageLimits, open_upright
from maskdet.inputs.references import HIDDEN, ImageRef
from maskdet.report.database import Tables
from maskdet.report.face_crops import read_crops
from maskdet.report.marks import CHANGED, NAMELESS, why_missing
from maskdet.report.video_frames import frames_of, is_frame, read_frames
from maskdet.scoring.fetching import Fetcher

CROP_PX = 144
WHOLE_PX = 1600

_QUALITY = 85
_MOST_READ_AT_ONCE = 4
_MOST_KEPT = 600


Picture = bytes | str
"""A JPEG, or why there is none."""


class Pictures:
    """Reads pictures of rows.

    Args:
        tables: whose rows they are.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        settings = ScoringSettings.model_validate(tables.run.settings.get("scoring", {}))
        imaging = ImagingSettings.model_validate(tables.run.settings.get("imaging", {}))
        self._limits = ImageLimits.of(imaging, settings.decoder_seconds)
        self._attempts = settings.fetch_attempts
        self._frames = frames_of(tables.run)
        # A decoded image may have 64 megapixels, and a page asks for dozens at once.
        self._reading = threading.Semaphore(_MOST_READ_AT_ONCE)
        self.crop = functools.lru_cache(_MOST_KEPT)(self._crop)

    def _crop(self, place: RowId) -> Picture | None:
        """A face and a little around it; ``None``: there is no such row."""
        row = self._tables.row(*place)
        if row is None:
            return None
        with self._reading:
            (crop,) = read_crops([row], self._limits, CROP_PX, self._attempts, self._frames)
        return crop if isinstance(crop, str) else _jpeg(crop)

    def whole(self, place: RowId) -> Picture | None:
        """The image of a row, at most :data:`WHOLE_PX` wide and high; ``None``: there is no such row."""
        row = self._tables.row(*place)
        if row is None:
            return None
        with self._reading:
            return self._whole(row)

    def _whole(self, row: dict[str, Any]) -> Picture:
        if row["image_uri"].startswith(HIDDEN):
            return NAMELESS
        if is_frame(row):
            wanted = {row["frame_time_us"]: row["content_sha256"]}
            [(_, frame)] = read_frames(row["image_uri"], wanted, self._frames, self._limits.isolated_s)
            return frame if isinstance(frame, str) else self._shown(frame)
        try:
            data = Fetcher(self._limits.max_bytes, self._attempts).fetch(ImageRef(row["image_uri"], -1, ""))
            if hashlib.sha256(data).hexdigest() != row["content_sha256"]:
                return CHANGED
            image, _ = open_upright(data, self._limits, at_least=(WHOLE_PX, WHOLE_PX))
        except ImageFault as fault:
            return why_missing(fault.code)
        return self._shown(image)

    @staticmethod
    def _shown(image: Image.Image) -> bytes:
        image.thumbnail((WHOLE_PX, WHOLE_PX), Image.Resampling.BICUBIC)
        return _jpeg(image)


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
