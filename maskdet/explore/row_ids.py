"""Names by which the page asks for rows: their place in the tables, never a path."""

from __future__ import annotations

import re
from typing import NamedTuple

from maskdet.report.database import Tables

_ID = re.compile(r"(faces|faceless|tracks)-([0-9]{1,9})-([0-9]{1,12})")


class RowId(NamedTuple):
    """The place of a row in the tables."""

    view: str
    """As of :data:`maskdet.report.database.VIEWS`."""
    file: int
    row: int

    @classmethod
    def of(cls, tables: Tables, view: str, file: str, row: int) -> RowId:
        """A row's place.

        Args:
            tables: that have it.
            view: ``faces``, ``faceless`` or ``tracks``.
            file: the name of its file.
            row: its number there.
        """
        return cls(view, tables.file_number(view, file), row)

    @classmethod
    def read(cls, text: str, *views: str) -> RowId | None:
        """The place that a name stands for; ``None`` if it is not a place in one of these views."""
        match = _ID.fullmatch(text)
        return None if match is None or match[1] not in views else cls(match[1], int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{self.view}-{self.file}-{self.row}"
