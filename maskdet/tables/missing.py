"""The error for an output without tables to read: why it has none, and which name may have been meant."""

from __future__ import annotations

import contextlib

from maskdet import storage
from maskdet.errors import SourceError, StorageError
from maskdet.tables.layout import RUNS, Layout


def missing_tables(layout: Layout, expected: str, remedy: str = "Run maskdet score first.") -> SourceError:
    """The error for an output that lacks what a command reads: it does not exist, is a file, or no run has written it.

    Args:
        layout: the output.
        expected: what is missing where the output exists.
        remedy: what to do then.

    Raises:
        StorageError: the location cannot be listed.
    """
    if (above := _output_above(layout.root)) is not None:
        expected, remedy = "the folder of a whole output", f"It lies in the output {above}: name that."
        return SourceError("output", expected, layout.root, remedy)
    what, folder, root = "output", "a folder that maskdet score wrote", layout.root
    if storage.is_local(root) and storage.local_path(root).is_file():
        return SourceError(what, folder, root, "It is a file; name the folder.")
    if storage.is_local_folder(root) or next(storage.list_folder(root), None) is not None:
        return SourceError(f"{what} {root}", expected, "none", remedy)
    return SourceError(what, folder, root, f"It does not exist; {storage.did_you_mean(root)}")


def _output_above(uri: str) -> str | None:
    """The output that a location lies in, if there is one."""
    above = storage.parent(uri)
    while above and not above.endswith("/"):  # as "/" and "gs:/" do
        with contextlib.suppress(StorageError):  # it may be closed to us
            if any(file.uri.endswith(".json") for file in storage.list_folder(storage.join(above, RUNS))):
                return above
        above = storage.parent(above)
    return None
