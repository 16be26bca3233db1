"""The flags of commands that join more keys from a table: --metadata FILE --on KEY."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from maskdet import storage
from maskdet.errors import ConfigError
from maskdet.tables.metadata import NO_METADATA, Metadata, read_metadata


def add_metadata(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--metadata", metavar="FILE", help="a CSV or Parquet file with more keys for --by and --where")
    parser.add_argument("--on", metavar="KEY", help="the key that its rows are about, such as site")


def metadata_of(arguments: argparse.Namespace, asked: Iterable[str] = ()) -> Metadata:
    """The metadata that the flags name; none without them.

    Args:
        arguments: as parsed.
        asked: keys that the command's other flags ask for.

    Raises:
        ConfigError: one flag is given without the other.
        SourceError: the file is not such a table, lacks the column, or has a value of it twice.
        StorageError: it cannot be read.
    """
    if (arguments.metadata is None) != (arguments.on is None):
        received = "--metadata" if arguments.on is None else "--on"
        raise ConfigError("flags", "--metadata and --on, or neither", received, "Example: --on site.")
    if arguments.metadata is None:
        return NO_METADATA
    return read_metadata(storage.normalize(arguments.metadata), arguments.on, tuple(dict.fromkeys(asked)))
