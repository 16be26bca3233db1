"""Show the tables of an output, or its faces.

    maskdet inspect tables/ [--run RUN_ID] [--rows 20] [Beam options, for stores that need them]
    maskdet inspect tables/ --sheet 20 [--where site=north …] [--sheet-output sheet.png] [--sheet-seed 0]

Prints the latest run's summary, the sizes of the tables, and the first rows of every compliance table and of the
rates of tracks. With --sheet, writes one picture with the faces whose labels are least sure, the surest of each label,
some random ones, and images without a face, and lists them. Faces are read from their images at that moment. If an
image is gone, or has changed since it was scored, a grey tile says so. The sheet shows faces: delete it when you have
looked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems

from maskdet import storage
from maskdet.beam.options import parse_beam_options
from maskdet.cli import console, summary
from maskdet.errors import ConfigError
from maskdet.report.contact_sheet import check_sheet_name, make_sheet, write_sheet
from maskdet.tables.layout import Layout
from maskdet.tables.runs import RunRecord, read_run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("inspect", lambda: _inspect(sys.argv[1:] if argv is None else argv))


def _inspect(argv: Sequence[str]) -> int:
    parser = console.Parser("inspect", __doc__)
    parser.add_argument("output", help="the output of a scoring run")
    parser.add_argument("--run", help="id of the run (default: the latest)")
    parser.add_argument("--rows", type=int, metavar="N", default=20, help="rows to show of each table (default: 20)")
    parser.add_argument("--sheet", type=int, metavar="N", help="make a sheet of faces, with N tiles per section")
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="only such images on the sheet; repeatable"
    )
    parser.add_argument(
        "--sheet-output", metavar="FILE", default="sheet.png", help="the PNG file to write (default: sheet.png)"
    )
    parser.add_argument("--sheet-seed", type=int, metavar="N", default=0, help="decides the random choice (default: 0)")
    arguments, rest = parser.parse_known_args(argv)
    FileSystems.set_options(parse_beam_options(rest, own_flags=parser.flags))
    layout = Layout(storage.normalize(arguments.output))
    if arguments.sheet is not None:
        check_sheet_name(arguments.sheet_output)
    if arguments.rows < 0:
        raise ConfigError("--rows", "0 or more", arguments.rows, "Say how many rows to show of each table.")
    run = storage.within_deadline(lambda: read_run(layout, arguments.run), layout.root)
    # Before anything is printed: a mistake gets its message and nothing else.
    shown = (
        [summary.describe_tables(layout, arguments.rows)]
        if arguments.sheet is None
        else _make_sheet(layout, run, arguments)
    )
    print(summary.describe_output(run, layout), "", *shown, sep="\n")
    return 0


def _make_sheet(layout: Layout, run: RunRecord, arguments: argparse.Namespace) -> list[str]:
    """Write the sheet; what to print about it."""
    sheet = make_sheet(layout, run, arguments.sheet, arguments.sheet_seed, console.keys_of(arguments.where))
    uri = storage.normalize(arguments.sheet_output)
    write_sheet(uri, sheet)
    told = f"sheet: {uri}; {sheet.missing:,} tiles are grey because their images are gone, changed or unreadable"
    return [*sheet.lines, told]
