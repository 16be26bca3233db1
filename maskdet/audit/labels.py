"""Labels that people gave to a sample: one CSV file per person, which any program can write and read."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from maskdet import storage
from maskdet.answer_schemas import audit_schema
from maskdet.audit.estimates import Agreement, agreement
from maskdet.compliance.corrections import CORRECTED_CODES, Correction, Corrections
from maskdet.errors import ConfigError, NotFoundError, SourceError
from maskdet.tables.layout import read_table

UNSURE = "unsure"
"""What people say when they cannot tell; such a face counts as not labelled."""
CHOICES = (*CORRECTED_CODES, UNSURE)
_COLUMNS = ("image_uri", "content_sha256", "face_index", "label")

FaceKey = tuple[str, str, int]
"""URI and SHA-256 of an image, and number of the face in it."""
Labels = dict[FaceKey, str]


class Agreed(NamedTuple):
    """What all people say, taken together.

    Attributes:
        labels: of the faces on which nobody differs.
        disputed: faces on which people differ.
        agreement: of each pair of files, by name.
    """

    labels: Labels
    disputed: tuple[FaceKey, ...]
    agreement: Mapping[tuple[str, str], Agreement]


def read_sample(uri: str) -> pa.Table:
    """A sample that :func:`maskdet.audit.sampling.draw_sample` drew.

    Raises:
        SourceError: it is not such a file.
        StorageError: it cannot be read.
    """
    try:
        table = read_table(uri)
    except pa.ArrowException as error:
        raise SourceError(uri, "a sample that maskdet audit sample drew", str(error), "Draw one.") from error
    missing = sorted(set(audit_schema().names) - set(table.column_names))
    if missing:
        raise SourceError(uri, "a sample that maskdet audit sample drew", f"no column {missing[0]!r}", "Draw one.")
    return table


def keys_of(sample: pa.Table) -> list[FaceKey]:
    """The faces of a sample, in its order."""
    columns = (sample[name].to_pylist() for name in _COLUMNS[:3])
    return list(zip(*columns, strict=True))


def read_labels(uri: str, *, missing_ok: bool = False) -> Labels:
    """One person's labels; where a face has two, the later row wins.

    Raises:
        SourceError: a column is missing, or a label is not one of :data:`CHOICES`.
        StorageError: the file cannot be read.
    """
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except NotFoundError:
        if missing_ok:
            return {}
        raise
    rows = csv.DictReader(io.StringIO(text))
    if not set(_COLUMNS) <= set(rows.fieldnames or ()):
        raise SourceError(uri, f"columns {list(_COLUMNS)}", list(rows.fieldnames or ()), "See docs/guides/audit.md.")
    found: Labels = {}
    for number, row in enumerate(rows, start=2):
        label, index = row["label"], row["face_index"]
        if label not in CHOICES or not index.isdigit():
            raise SourceError(
                f"{uri}, line {number}", f"a face's number and one of {list(CHOICES)}", [index, label], ""
            )
        found[row["image_uri"], row["content_sha256"], int(index)] = label
    return found


def write_labels(uri: str, labels: Labels) -> None:
    """Write one person's labels.

    Raises:
        StorageError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    writer.writerows((*face, label) for face, label in labels.items())
    storage.write_bytes(uri, text.getvalue().encode())


def agree(given: Mapping[str, Labels], confidence: float) -> Agreed:
    """Combine the labels of several people: where two differ, the face counts as not labelled.

    Args:
        given: name of each person's file → labels.
        confidence: nominal coverage of the intervals of kappa.

    Raises:
        ConfigError: nobody labelled anything.
    """
    votes: dict[FaceKey, Counter[str]] = {}
    for labels in given.values():
        for face, label in labels.items():
            if label != UNSURE:
                votes.setdefault(face, Counter())[label] += 1
    if not votes:
        raise ConfigError("--labels", "files with labelled faces", list(given), "Run maskdet audit label first.")
    names = list(given)
    pairs = {}
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            both = [face for face in given[first] if face in given[second]]
            found = agreement([given[first][f] for f in both], [given[second][f] for f in both], confidence)
            if found is not None:
                pairs[first, second] = found
    return Agreed(
        labels={face: next(iter(said)) for face, said in votes.items() if len(said) == 1},
        disputed=tuple(sorted(face for face, said in votes.items() if len(said) > 1)),
        agreement=pairs,
    )


def as_corrections(labels: Mapping[FaceKey, str], sample: Sequence[FaceKey]) -> Corrections:
    """The labels of a sample's faces, as corrections."""
    return Corrections.of(Correction(*face, labels[face]) for face in sample if face in labels)
