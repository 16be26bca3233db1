"""A preparation's files: it begins without the mark of success and ends with it.

images.parquet       one row per image: the training manifest
failures.parquet     one row per image left out; absent if there is none
duplicates.parquet   one row per pair; absent if there is none
report.json          counts, and whether the preparation succeeded
summary.txt          the report in words
_SUCCESS             SHA-256 of images.parquet, written last
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
from pydantic import ValidationError

from maskdet import storage
from maskdet.errors import NotFoundError, OutputError
from maskdet.preparation.assembling import assemble
from maskdet.preparation.records import DUPLICATES, FAILURES, IMAGES, REPORT, SUCCESS, SUMMARY, MeasuredBatch
from maskdet.preparation.report import PrepareReport, describe_report, make_report
from maskdet.preparation.settings import PrepareSettings
from maskdet.tables.layout import RUNS, write_table

_ROW_GROUP_ROWS = 100_000


def begin(settings: PrepareSettings) -> None:
    """Claim the output, and remove the mark of an earlier success.

    Raises:
        OutputError: the output is a file, or holds a scoring run's tables.
        StorageError: the output cannot be written.
    """
    root = settings.output
    if storage.is_local(root) and storage.local_path(root).is_file():
        raise OutputError("--output", "a folder", root, "It is a file; choose another location.")
    if next(iter(storage.list_folder(storage.join(root, RUNS))), None) is not None:
        raise OutputError(
            "--output", "an empty folder or an earlier preparation", root, "It holds scores; choose another."
        )
    # Results of an earlier run must not pass for those of this one if it stops halfway.
    storage.delete(storage.join(root, name) for name in (SUCCESS, REPORT, SUMMARY))


def finish(settings: PrepareSettings, measured: Iterable[MeasuredBatch], listing: Mapping[str, int]) -> PrepareReport:
    """Assemble and write the tables, the report and, if it succeeded, the mark of success.

    Args:
        settings: with absolute locations.
        measured: every batch, in any order.
        listing: files ``listed``, and skipped by reason.

    Returns:
        The report as written.

    Raises:
        SourceError: one file is listed with both labels.
        StorageError: the output cannot be written.
    """
    batches = list(measured)
    skipped = {reason: count for reason, count in listing.items() if reason != "listed"}
    prepared = assemble(
        [batch.images for batch in batches],
        [batch.failures for batch in batches],
        listing.get("listed", 0),
        skipped,
        settings,
    )
    digest = _write(storage.join(settings.output, IMAGES), prepared.images)
    _write(storage.join(settings.output, FAILURES), prepared.failures)
    _write(storage.join(settings.output, DUPLICATES), prepared.duplicates)
    report = make_report(prepared, settings)
    storage.write_bytes(storage.join(settings.output, SUMMARY), f"{describe_report(report)}\n".encode())
    storage.write_bytes(storage.join(settings.output, REPORT), f"{report.model_dump_json(indent=2)}\n".encode())
    if report.status == "succeeded":
        storage.write_bytes(storage.join(settings.output, SUCCESS), f"{digest}\n".encode())
    return report


def read_report(output: str) -> PrepareReport:
    """The report of a preparation.

    Raises:
        OutputError: there is none, or it is damaged.
        StorageError: the output cannot be read.
    """
    uri = storage.join(output, REPORT)
    try:
        return PrepareReport.model_validate_json(storage.read_bytes(uri))
    except NotFoundError as error:
        raise OutputError(output, f"a {REPORT}", "none", "The preparation did not end; run it again.") from error
    except ValidationError as error:
        raise OutputError(uri, "the report of a preparation", "something else", "Run the preparation again.") from error


def _write(uri: str, table: pa.Table) -> str:
    """Write a table, or remove an earlier one where there are no rows; returns the file's SHA-256."""
    if table.num_rows:
        return write_table(uri, table, _ROW_GROUP_ROWS)
    storage.delete([uri])
    return ""
