"""What is known of sites or cameras beside the images: a table that is joined to a key when groups are counted."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from maskdet import storage
from maskdet.compliance.state import GroupKey, Merger, State
from maskdet.errors import SourceError


@dataclass(frozen=True)
class Metadata:
    """More keys, each of which follows from one that the images have.

    Attributes:
        on: the key that the images have.
        columns: name of a further key → value of that key → its value. A value that is not there has none.
    """

    on: str = ""
    columns: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)

    @property
    def values(self) -> list[str]:
        """Values of that key that there is a row of."""
        return sorted({value for column in self.columns.values() for value in column})

    def counted(self, by: Sequence[str]) -> tuple[str, ...]:
        """The keys to count by, so that :meth:`regroup` can group by those asked for."""
        return tuple(dict.fromkeys(self.on if name in self.columns else name for name in by))

    def regroup(self, groups: Mapping[GroupKey, State], level: str, by: Sequence[str]) -> dict[GroupKey, State]:
        """The groups of one level, by the keys asked for; those of other levels as they are.

        Args:
            groups: of all levels; those of the level by :meth:`counted`.
            level: which.
            by: the keys asked for.
        """
        names = self.counted(by)
        merged: dict[GroupKey, Merger] = {}
        for key, state in groups.items():
            values = dict(zip(names, key.values, strict=True)) if key.level == level else {}
            new = GroupKey(level, tuple(self.value_of(name, values) for name in by)) if key.level == level else key
            merged.setdefault(new, Merger()).add(state)
        return {key: merger.state() for key, merger in merged.items()}

    def value_of(self, name: str, values: Mapping[str, str | None]) -> str | None:
        """A key of an image, given or joined; ``None`` where the table knows nothing of it."""
        if name not in self.columns:
            return values[name]
        known = values[self.on]
        return None if known is None else self.columns[name].get(known)


NO_METADATA = Metadata()
"""No key but those of the images."""


def read_metadata(uri: str, on: str) -> Metadata:
    """Read a table of metadata: CSV, or Parquet where the name ends so. All values are text.

    Args:
        uri: the file.
        on: its column that is a key of the images; each value once.

    Raises:
        SourceError: the file is no table, lacks the column, or has a value of it twice.
        StorageError: it cannot be read.
    """
    data = storage.read_bytes(uri)
    try:
        table = pq.read_table(io.BytesIO(data)) if uri.endswith(".parquet") else _read_csv(data)
    except pa.ArrowException as error:
        raise SourceError(f"--metadata {uri}", "a table in CSV or Parquet", str(error), "Check the file.") from error
    if on not in table.column_names:
        raise SourceError(f"--metadata {uri}", f"a column {on!r}, as --on says", table.column_names, "Check --on.")
    texts = {name: [None if v is None else str(v) for v in table[name].to_pylist()] for name in table.column_names}
    keys = texts.pop(on)
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise SourceError(f"--metadata {uri}", f"each {on} once", f"{twice[0]!r} twice", "Leave one row of it.")
    rows = {name: {key: v for key, v in zip(keys, column, strict=True) if key} for name, column in texts.items()}
    return Metadata(on, rows)


def _read_csv(data: bytes) -> pa.Table:
    # As text: a site 007 stays 007.
    header = pyarrow.csv.read_csv(pa.BufferReader(data))
    kinds = dict.fromkeys(header.column_names, pa.string())
    options = pyarrow.csv.ConvertOptions(column_types=kinds, strings_can_be_null=True, null_values=[""])
    return pyarrow.csv.read_csv(pa.BufferReader(data), convert_options=options)
