"""What is known of sites or cameras apart from their images: a table joined to a key when groups are counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from maskdet import storage
from maskdet.compliance.state import GroupKey, Merger, State
from maskdet.errors import ConfigError, SourceError
from maskdet.inputs.cells import columns_like, text_of, without_fraction
from maskdet.inputs.delimited import header, lines
from maskdet.inputs.image_lists import is_parquet

_FLAG = "--metadata"


@dataclass(frozen=True)
class Metadata:
    """Further keys, each of which follows from a key that the images have.

    Attributes:
        on: the key that the images have.
        columns: name of a further key → value of the images' key → its own value. A missing value has none.
        asked: names of keys that somebody has asked for.
        left_out: columns that :meth:`beside` has left out.
    """

    on: str = ""
    columns: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()

    @property
    def values(self) -> list[str]:
        """The values of that key for which there is a row."""
        return sorted({value for column in self.columns.values() for value in column})

    def beside(self, taken: Iterable[str]) -> Metadata:
        """The columns that can be added to a table's own; names are compared without regard to case.

        Args:
            taken: names of the table's columns.

        Raises:
            ConfigError: a column that is asked for has the name of one of the table's.
        """
        known = {name.casefold() for name in taken}
        clashes = tuple(name for name in self.columns if name.casefold() in known)
        for name in clashes:
            if name in self.asked:
                raise ConfigError(_FLAG, "columns that the tables do not have", name, "Rename it in the file.")
        free = {name: values for name, values in self.columns.items() if name not in clashes}
        return dataclasses.replace(self, columns=free, left_out=clashes)

    def counted(self, by: Sequence[str]) -> tuple[str, ...]:
        """The keys to count by so that :meth:`regroup` can group by those asked for."""
        return tuple(dict.fromkeys(self.on if name in self.columns else name for name in by))

    def regroup(self, groups: Mapping[GroupKey, State], level: str, by: Sequence[str]) -> dict[GroupKey, State]:
        """Regroup one level by the keys asked for, and leave other levels as they are.

        Args:
            groups: of all levels; the level's are grouped by :meth:`counted`.
            level: the level to regroup.
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
        """An image's value of a key, its own or joined; ``None`` where the table has none."""
        if name not in self.columns:
            return values[name]
        known = values[self.on]
        return None if known is None else self.columns[name].get(known)


NO_METADATA = Metadata()
"""No keys except those of the images."""


def read_metadata(uri: str, on: str, asked: Sequence[str] = ()) -> Metadata:
    """Read a table of metadata, as image lists are read: CSV however spreadsheets write it, or Parquet.

    Names of columns are compared without regard to case where none is exactly alike. All values are text.

    Args:
        uri: the file.
        on: its column that is a key of the images; each value once.
        asked: names that its columns are asked for by. A column is called as it is asked for, else as in the file.

    Raises:
        SourceError: the file is not such a table, a row is broken, a column is missing or there twice, or a value of
            the key stands twice.
        StorageError: it cannot be read.
    """
    what = f"{_FLAG} {uri}"
    names, rows = _parquet_texts(uri, what) if is_parquet(uri) else _delimited_texts(uri, on, what)
    places = _places(names, on, asked, what)
    at = places.pop(on)
    keys = [row[at] for row in rows]
    twice = [key for key, count in Counter(filter(None, keys)).items() if count > 1]
    if twice:
        raise SourceError(what, f"each {on} once", f"{twice[0]} twice", "Leave one row of it.")
    columns = {name: {key: row[place] for key, row in zip(keys, rows, strict=True) if key}
               for name, place in places.items()}  # fmt: skip
    return Metadata(on, columns, frozenset(asked))


def _places(names: Sequence[str], on: str, asked: Sequence[str], what: str) -> dict[str, int]:
    """Each column's position, by the name that it is asked for by, the key's first."""
    places: dict[str, int] = {}
    for name in (on, *asked):
        alike = columns_like(names, name)
        if not alike and name == on:
            raise SourceError(what, f"a column {on!r}, as --on says", list(names), "Check --on.")
        if len(alike) > 1:
            raise SourceError(what, f"one column {name!r}", list(names), "Rename or remove the others.")
        if alike and names.index(alike[0]) not in places.values():
            places[name] = names.index(alike[0])
    taken = {name.casefold() for name in places}
    times = Counter(name.casefold() for name in names)
    # Columns that nobody asked for are left out if their name is ambiguous.
    rest = {name: place for place, name in enumerate(names) if name and times[name.casefold()] == 1}
    return places | {name: place for name, place in rest.items() if name.casefold() not in taken}


def _delimited_texts(uri: str, on: str, what: str) -> tuple[list[str], list[list[str | None]]]:
    names, rows = header(uri, on, what), []
    for fields, problem in lines(uri, on, what):
        if problem:
            raise SourceError(what, "rows with a value for each column", problem, "Mend or remove the row.")
        rows.append([without_fraction(field) or None for field in fields])
    return names, rows


def _parquet_texts(uri: str, what: str) -> tuple[list[str], list[list[str | None]]]:
    with storage.open_binary(uri) as stream:
        try:
            table = pq.ParquetFile(stream).read()
        except (pa.ArrowException, OSError) as error:
            raise SourceError(what, "a table in CSV or Parquet", str(error), "Check the file.") from error
    columns = [[text_of(value) for value in column.to_pylist()] for column in table.columns]
    return table.column_names, [list(row) for row in zip(*columns, strict=True)]
