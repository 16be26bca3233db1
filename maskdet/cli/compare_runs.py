"""Compare two outputs over the same photographs, face by face: two models, two detectors, two thresholds.

    maskdet compare-runs tables-old/ tables-new/ [--output compared.html] [--faces 40]
                         [Beam options, for stores that need them]

Prints how many faces got the same label, which label became which, and how the rates differ, with intervals that take
into account that both saw the same faces. --output writes a page; --faces adds the faces on which the two differ most,
read from their images at that moment. Needs the extra "explore".
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems

from maskdet import storage
from maskdet.beam.options import parse_beam_options
from maskdet.cli import console
from maskdet.errors import ConfigError
from maskdet.report.agreement import compare, describe
from maskdet.report.agreement_page import read_tiles, render
from maskdet.report.database import Tables
from maskdet.tables.disclosure import refuse_small_groups


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("compare-runs", lambda: _compare(sys.argv[1:] if argv is None else argv))


def _compare(argv: Sequence[str]) -> int:
    parser = console.Parser("compare-runs", __doc__)
    parser.add_argument("old", help="an output of scoring runs")
    parser.add_argument("new", help="another one over the same photographs")
    parser.add_argument("--output", metavar="FILE", help="also write a page there")
    parser.add_argument("--faces", type=int, default=0, metavar="N", help="show so many faces on it (default: none)")
    parser.add_argument("--confidence", type=float, default=0.95, help="of intervals (default: %(default)s)")
    console.add_small_groups(parser)
    arguments, rest = parser.parse_known_args(argv)
    if not 0 < arguments.confidence < 1:
        raise ConfigError("--confidence", "between 0 and 1", arguments.confidence, "Usual is 0.95.")
    if arguments.faces and not arguments.output:
        raise ConfigError("--faces", "a page to show them on", "no --output", "Name one, such as compared.html.")
    FileSystems.set_options(parse_beam_options(rest, own_flags=parser.flags))
    with Tables(arguments.old) as old, Tables(arguments.new) as new:
        refuse_small_groups((old.run, new.run), allowed=arguments.small_groups)
        found = compare(old, new, arguments.confidence)
        print("\n".join(describe(found)))
        if arguments.output:
            tiles = read_tiles(old, arguments.faces) if arguments.faces else []
            storage.write_bytes(storage.normalize(arguments.output), render(old, new, found, tiles).encode())
            print(f"page      {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
