"""Rows of what was watched, in a Parquet file for each minute, with the columns of the predictions."""

from __future__ import annotations

import hashlib
from datetime import datetime

import pyarrow as pa

from maskdet import storage
from maskdet.faces.extraction import FaceBox
from maskdet.live.watching import Observation
from maskdet.schemas import predictions_schema
from maskdet.tables.layout import PREDICTIONS, write_table

_ROW_GROUP_ROWS = 100_000


class Minutes:
    """Gathers faces, and writes those of each minute that has passed.

    Args:
        folder: where to; files are written below ``predictions``.
        source: the name of what is watched, as in the rows.
        model_id: of the model.
    """

    def __init__(self, folder: str, source: str, model_id: str) -> None:
        self._folder, self._source, self._model_id = folder, source, model_id
        self._minute: datetime | None = None
        self._rows: list[dict[str, object]] = []

    def add(self, seen: Observation) -> None:
        """Take the faces of a frame; write the minute before, if a new one has begun.

        Raises:
            StorageError: the folder cannot be written.
        """
        minute = seen.at.replace(second=0, microsecond=0)
        if self._minute != minute:
            self.flush()
            self._minute = minute
        digest = hashlib.sha256(seen.pixels.data).hexdigest()
        for index, face in enumerate(seen.prediction.faces):
            sides = dict(zip(FaceBox._fields, face.box or (None,) * len(FaceBox._fields), strict=True))
            self._rows.append(
                {
                    "image_uri": self._source,
                    "captured_at": seen.at,
                    "content_sha256": digest,
                    "width_px": seen.pixels.shape[1],
                    "height_px": seen.pixels.shape[0],
                    "damaged": False,
                    "face_index": index,
                    **{f"face_{name}_px": side for name, side in sides.items()},
                    "face_score": face.score,
                    **{f"probability_{name}": value for name, value in face.probabilities.items()},
                    "label": face.label,
                    "model_id": self._model_id,
                    "frame_time_us": seen.time_us,
                }
            )

    def flush(self) -> None:
        """Write what is left.

        Raises:
            StorageError: the folder cannot be written.
        """
        if self._rows and self._minute is not None:
            name = f"watch-{self._minute:%Y%m%dT%H%MZ}.parquet"
            table = pa.Table.from_pylist(self._rows, schema=predictions_schema())
            write_table(storage.join(self._folder, PREDICTIONS, name), table, _ROW_GROUP_ROWS)
        self._rows = []
