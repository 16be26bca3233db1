"""Labels that people give to faces on the page: kept in ``corrections.parquet`` beside the tables."""

from __future__ import annotations

import threading
from typing import Any

from maskdet.compliance.corrections import CORRECTED_CODES, Correction, Corrections
from maskdet.errors import ConfigError, OutputError
from maskdet.explore.questions import Asked
from maskdet.explore.row_ids import RowId
from maskdet.report.database import Tables
from maskdet.tables.corrections import read_corrections, write_corrections
from maskdet.tables.snapshot import current_snapshot


class Relabelling:
    """Writes down the labels that people give to faces, and counts them from then on.

    Args:
        tables: whose faces they are.
        asked: whose counts follow.
    """

    def __init__(self, tables: Tables, asked: Asked) -> None:
        self._tables, self._asked = tables, asked
        self._lock = threading.Lock()

    def relabel(self, place: RowId, label: object) -> dict[str, Any] | None:
        """Give a face the label that people say.

        Args:
            place: of its row.
            label: of :data:`maskdet.compliance.corrections.CORRECTED_CODES`; ``None``: go back to the model's.

        Returns:
            The face's label as it counts now, the model's, and whether people gave it; ``None``: there is no such row.

        Raises:
            ConfigError: the label is not one that people may give.
            OutputError: another run has replaced the tables since they were opened; the face may be gone.
            StorageError: the corrections cannot be read or written.
        """
        if label is not None and label not in list(CORRECTED_CODES):
            raise ConfigError("label", f"one of {list(CORRECTED_CODES)} or null", label)
        row = self._tables.row(*place)
        if row is None:
            return None
        if row.get("frame_time_us") is not None:
            # Corrections name a face by its image, which all frames of a video share.
            raise ConfigError("relabel", "a face of an image", "a face of a video", "Correct faces of images.")
        with self._lock:
            self._refuse_other_tables()
            # Read anew: another page, or an audit, may have written meanwhile.
            known = read_corrections(self._tables.layout)
            before = self._counted(place, row)
            write_corrections(self._tables.layout, _with(known, row, label))
            self._tables.correct(place.file, place.row, None if label is None else str(label))
            after = row["label"] if label is None else str(label)
            self._asked.move(row, before, after)
        return {"label": after, "model_label": row["label"], "corrected": label is not None}

    def _refuse_other_tables(self) -> None:
        shown, current = self._tables.snapshot.run_id, current_snapshot(self._tables.layout).run_id
        if shown != current:
            remedy = "Start maskdet explore again."
            raise OutputError("relabel", f"the tables that the page shows, of run {shown}", f"run {current}", remedy)

    def _counted(self, place: RowId, row: dict[str, Any]) -> str:
        """The label that the face has been counted under."""
        given = self._tables.given(place.file, place.row)
        return row["label"] if given is None else given


def _with(known: Corrections, row: dict[str, Any], label: object) -> Corrections:
    uri, index = row["image_uri"], row["face_index"]
    if label is not None:
        return known | Corrections.of([Correction(uri, row["content_sha256"], index, str(label))])
    left = {face: said for face, said in known.labels.get(uri, {}).items() if face != index}
    others = {image: faces for image, faces in known.labels.items() if image != uri}
    return Corrections({**others, uri: left} if left else others)
