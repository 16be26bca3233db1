"""The file of corrections of an output."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq

from maskdet import storage
from maskdet.compliance.corrections import CORRECTED_CODES, Corrections
from maskdet.errors import NotFoundError, OutputError
from maskdet.schemas import corrections_schema
from maskdet.tables.layout import Layout, encode_table

CORRECTIONS = "corrections.parquet"
_ROW_GROUP_ROWS = 100_000


def corrections_uri(layout: Layout) -> str:
    """Where an output's corrections are stored."""
    return storage.join(layout.root, CORRECTIONS)


def read_corrections(layout: Layout) -> Corrections:
    """The labels that people gave to faces of an output; none where there is no file.

    Raises:
        OutputError: the file is not a table of corrections.
        StorageError: it cannot be read.
    """
    uri = corrections_uri(layout)
    try:
        data = storage.read_bytes(uri)
    except NotFoundError:
        return Corrections()
    schema = corrections_schema()
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(schema.names).cast(schema)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise OutputError(uri, f"columns {schema.names}", str(error), "Restore the file, or move it away.") from error
    unknown = sorted(set(table["label"].to_pylist()) - set(CORRECTED_CODES))
    if unknown:
        raise OutputError(uri, f"labels of {list(CORRECTED_CODES)}", unknown[0], "Correct the file, or move it away.")
    return Corrections.from_table(table)


def write_corrections(layout: Layout, corrections: Corrections) -> str:
    """Replace an output's corrections; they count from the next run, prune or recount on.

    Returns:
        SHA-256 of the file, in hexadecimal; empty where there are no corrections, and so no file.

    Raises:
        StorageError: the file cannot be written.
    """
    if not corrections:
        storage.delete([corrections_uri(layout)])
        return ""
    data = encode_table(corrections.to_table(), _ROW_GROUP_ROWS)
    storage.write_bytes(corrections_uri(layout), data)
    return hashlib.sha256(data).hexdigest()
