"""Labels that people gave to faces, which count in place of the model's.

They are stored in ``corrections.parquet`` beside the tables, written by ``maskdet audit apply`` and by programs. The
predictions stay as the model made them. Faces in videos cannot be corrected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskdet.labels import CODES, UNCERTAIN, Codes
from maskdet.schemas import NOT_A_FACE, corrections_schema

REJECTED = -2
"""Code of a box that people say holds no face; an addition to :data:`maskdet.labels.CODES`."""
CORRECTED_CODES: Mapping[str, int] = {
    **{name: code for name, code in CODES.items() if name != UNCERTAIN},
    NOT_A_FACE: REJECTED,
}
"""Label that a person may give → its code."""


class Correction(NamedTuple):
    """The label that people gave to one face."""

    image_uri: str
    content_sha256: str
    """Hash of the image that people looked at; once the image changes, the correction no longer applies."""
    face_index: int
    label: str
    """``mask``, ``incorrect``, ``no_mask`` or ``not_a_face``."""


@dataclass(frozen=True)
class Corrections:
    """The corrections of an output.

    Attributes:
        labels: image URI → face index → SHA-256 of the image, and label.
    """

    labels: Mapping[str, Mapping[int, tuple[str, str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, corrections: Iterable[Correction]) -> Corrections:
        """Where a face has two corrections, the later one wins."""
        found: dict[str, dict[int, tuple[str, str]]] = {}
        for uri, sha256, index, label in corrections:
            found.setdefault(uri, {})[index] = (sha256, label)
        return cls(found)

    @classmethod
    def from_table(cls, table: pa.Table) -> Corrections:
        """The corrections in a table."""
        columns = (table[name].to_pylist() for name in Correction._fields)
        return cls.of(Correction(*row) for row in zip(*columns, strict=True))

    def to_table(self) -> pa.Table:
        """One row per face, in the order of URIs and faces."""
        rows = [
            (uri, sha256, index, label)
            for uri, faces in sorted(self.labels.items())
            for index, (sha256, label) in sorted(faces.items())
        ]
        columns = zip(*rows, strict=True) if rows else [()] * len(Correction._fields)
        schema = corrections_schema()
        arrays = [pa.array(list(column), item.type) for column, item in zip(columns, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema)

    def __len__(self) -> int:
        return sum(len(faces) for faces in self.labels.values())

    def __or__(self, later: Corrections) -> Corrections:
        uris = dict.fromkeys([*self.labels, *later.labels])
        return Corrections({uri: {**self.labels.get(uri, {}), **later.labels.get(uri, {})} for uri in uris})

    def within(self, uris: Iterable[str]) -> Corrections:
        """The corrections of some images."""
        return Corrections({uri: self.labels[uri] for uri in uris if uri in self.labels})

    def apply(self, predictions: pa.Table, said: Codes) -> tuple[Codes, NDArray[np.bool_]]:
        """Replace the model's labels by people's where there are any.

        Args:
            predictions: with ``image_uri``, ``content_sha256`` and ``face_index``.
            said: codes of the model's labels, ``(faces,)``.

        Returns:
            The codes, ``(faces,)``, and which of them came from people.
        """
        codes, corrected = said.copy(), np.zeros(len(said), bool)
        known = pc.is_in(predictions["image_uri"], value_set=pa.array(list(self.labels), pa.string()))
        # faces of different frames share a number, and people cannot see which is meant
        if "frame_time_us" in predictions.column_names:
            known = pc.and_(known, pc.is_null(predictions["frame_time_us"]))
        rows = np.flatnonzero(np.asarray(known))
        some = predictions.select(["image_uri", "content_sha256", "face_index"]).take(rows)
        columns = (column.to_pylist() for column in some.columns)
        for row, uri, sha256, index in zip(rows.tolist(), *columns, strict=True):
            seen, label = self.labels[uri].get(index, ("", ""))
            if seen == sha256:
                codes[row], corrected[row] = CORRECTED_CODES[label], True
        return codes, corrected


NO_CORRECTIONS = Corrections()
