"""List the files of a table as of the last run that finished.

    maskdet files tables/ [--table predictions] [--level all] [Beam options, for stores that need them]

Prints one URI per line. The files never change, so a reader who follows this list sees the table of one run even while
another is at work; they stay until the run after the next ends. Between runs, the tables' folders hold the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems

from maskdet import storage
from maskdet.beam.options import RUNNER_CONFIG_HELP, parse_beam_options
from maskdet.cli import console
from maskdet.errors import ConfigError
from maskdet.tables.layout import COMPLIANCE, PREDICTIONS, SHARD_TABLES, VIDEO_TABLES, Layout
from maskdet.tables.snapshot import current_snapshot


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("files", lambda: _files(sys.argv[1:] if argv is None else argv))


def _files(argv: Sequence[str]) -> int:
    parser = console.Parser("files", __doc__)
    parser.add_argument("output", help="the output of scoring runs")
    parser.add_argument("--table", default=PREDICTIONS, choices=(*SHARD_TABLES, COMPLIANCE, *VIDEO_TABLES))
    parser.add_argument("--level", help="of the compliance tables, one level (default: all of them)")
    parser.add_argument("--runner-config", help=RUNNER_CONFIG_HELP)
    arguments, rest = parser.parse_known_args(argv)
    FileSystems.set_options(parse_beam_options(rest, arguments.runner_config, parser.flags))
    layout = Layout(storage.normalize(arguments.output))
    snapshot = storage.within_deadline(lambda: current_snapshot(layout), layout.root)
    if arguments.level is not None and arguments.level not in snapshot.compliance:
        raise ConfigError("--level", f"one of {sorted(snapshot.compliance)}", arguments.level, "See maskdet inspect.")
    print(*snapshot.files(layout, arguments.table, arguments.level), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
