"""The error for an output without tables to read: why it has none, and which name may have been meant."""

from __future__ import annotations

from maskdet import storage
from maskdet.errors import SourceError
from maskdet.tables.layout import Layout


def missing_tables(layout: Layout, expected: str, remedy: str = "Run maskdet score first.") -> SourceError:
    """The error for an output that lacks what a command reads: it does not exist, is a file, or no run has written it.

    Args:
        layout: the output.
        expected: what is missing where the output exists.
        remedy: what to do then.

    Raises:
        StorageError: the location cannot be listed.
    """
    what, folder, root = "output", "a folder that maskdet score wrote", layout.root
    if storage.is_local(root) and storage.local_path(root).is_file():
        return SourceError(what, folder, root, "It is a file; name the folder.")
    if storage.is_local_folder(root) or next(storage.list_folder(root), None) is not None:
        return SourceError(f"{what} {root}", expected, "none", remedy)
    return SourceError(what, folder, root, f"It does not exist; {storage.did_you_mean(root)}")
