"""Show the tables of an output.

    maskdet inspect tables/ [--run RUN_ID] [--rows 20] [Beam options, for stores that need them]

Prints the latest run's summary, the sizes of the tables, and the head of every compliance table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems

from maskdet import console, storage, summary
from maskdet.beam_options import parse_beam_options
from maskdet.layout import COMPLIANCE, Layout
from maskdet.runs import read_run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("inspect", lambda: _inspect(sys.argv[1:] if argv is None else argv))


def _inspect(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="maskdet inspect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", help="the output of a scoring run")
    parser.add_argument("--run", help="a run's id (default: the latest)")
    parser.add_argument("--rows", type=int, default=20, help="rows of each compliance table (default: 20)")
    arguments, rest = parser.parse_known_args(argv)
    FileSystems.set_options(parse_beam_options(rest))
    layout = Layout(storage.normalize(arguments.output))
    run = storage.within_deadline(lambda: read_run(layout, arguments.run), layout.root)
    print(summary.describe_run(run, layout))
    print()
    print(summary.describe_tables(layout, _levels(layout), arguments.rows))
    return 0


def _levels(layout: Layout) -> list[str]:
    """Levels of which there is a table, in order."""
    files = storage.list_folder(layout.folder(COMPLIANCE))
    return sorted(storage.parent(file.uri).rpartition("level=")[2] for file in files if file.uri.endswith(".parquet"))
